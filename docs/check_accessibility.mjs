// Check pages with axe, in light and dark and in two widths, and print what it finds:
//
//   npm install --no-save axe-core puppeteer-core
//   mkdocs build && node docs/check_accessibility.mjs site outputs/*/report.html
//
// Takes HTML files and folders of them. CHROMIUM names the browser (default: chromium in the path).
// Ends with status 1 if a finding is serious or critical.

import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const modules = createRequire(join(process.cwd(), "page.js"));
const puppeteer = modules("puppeteer-core");
const axe = readFileSync(modules.resolve("axe-core/axe.min.js"), "utf8");

function pagesOf(path) {
  if (!statSync(path).isDirectory()) return [resolve(path)];
  return readdirSync(path, { recursive: true })
    .filter((name) => name.endsWith(".html") && name !== "404.html") // its script needs a server
    .map((name) => resolve(path, name));
}

const LOOKS = [
  { scheme: "light", width: 1200 },
  { scheme: "dark", width: 1200 },
  { scheme: "light", width: 400 },
];
const executablePath =
  process.env.CHROMIUM ?? execFileSync("which", ["chromium"], { encoding: "utf8" }).trim();
const browser = await puppeteer.launch({ executablePath, args: ["--no-sandbox"] });
let serious = 0;
for (const path of process.argv.slice(2).flatMap(pagesOf)) {
  for (const { scheme, width } of LOOKS) {
    const page = await browser.newPage();
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    await page.setViewport({ width, height: 900 });
    await page.goto(pathToFileURL(path).href);
    await new Promise((done) => setTimeout(done, 500)); // themes change pages after loading
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => axe.run());
    for (const { id, impact, help, nodes } of violations) {
      serious += ["serious", "critical"].includes(impact);
      console.log(`${path} (${scheme}, ${width} px): ${impact}: ${id}: ${help}`);
      for (const node of nodes.slice(0, 3)) console.log(`    ${node.html.slice(0, 120)}`);
    }
    await page.close();
  }
}
await browser.close();
process.exitCode = serious ? 1 : 0;
