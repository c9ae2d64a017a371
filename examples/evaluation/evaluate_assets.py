"""Make an asset for every prompt of a list, with and without the reward, and have them judged:

    python examples/evaluation/evaluate_assets.py --judge JUDGE/judge.safetensors --out runs

Runs that are finished are kept, so the command can be stopped and repeated. Writes table.md and one
contact sheet per arm into the folder.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
import torch.nn.functional as F
from judge import COLOR_NAMES, KINDS, SHAPES, Judge, load_judge, target_of_prompt
from torch import Tensor
from tqdm import tqdm

HERE = Path(__file__).parent
EXAMPLE = HERE.parent / "text_to_3d.py"
ARMS = {"with the reward": [], "without (--no-vlm)": ["--no-vlm"]}


def folder_of(out: Path, arm: str, prompt: str) -> Path:
    return out / ("vlm" if arm == "with the reward" else "no-vlm") / prompt.replace(" ", "-")


def make(out: Path, arm: str, prompt: str, options: argparse.Namespace) -> str | None:
    """Run the example; the error where it failed."""
    folder = folder_of(out, arm, prompt)
    state = folder / "state.json"
    if state.exists() and json.loads(state.read_text())["finished"]:
        return None
    command = [sys.executable, str(EXAMPLE), prompt, "--out", str(folder), *ARMS[arm]]
    command += ["--seed", str(options.seed), "--threads", str(options.threads)]
    if options.steps:
        command += ["--steps", str(options.steps)]
    if (folder / "checkpoint.safetensors").exists():
        command.append("--resume")
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stderr.strip().splitlines()[-1] if done.returncode else None


def views_of(folder: Path) -> Tensor:
    """The eight views (8, 3, 64, 64) in [0, 1] of the run's views.png."""
    sheet = torch.from_numpy(iio.imread(folder / "views.png")).permute(2, 0, 1).float() / 255
    side = sheet.shape[2] // 8
    views = torch.stack(sheet[:, :side].split(side, 2))
    return F.adaptive_avg_pool2d(views, 64)


def describe(reading: list[int]) -> str:
    kind, *rest = reading
    names = [
        f"{COLOR_NAMES[c]} {SHAPES[s]}" for c, s in zip(rest[::2], rest[1::2]) if c >= 0 and s >= 0
    ]
    return f" {KINDS[kind]} ".join(names) if KINDS[kind] else names[0]


def wilson(marks: Sequence[bool]) -> tuple[float, float]:
    """95 % interval of a share (Wilson, 1927); also where all are right, unlike a bootstrap."""
    n, p, z = len(marks), sum(marks) / len(marks), 1.96
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return center - half, center + half


def table(judge: Judge, out: Path, prompts: list[str]) -> str:
    lines = ["| prompt | " + " | ".join(ARMS) + " |", "|---|" + "---|" * len(ARMS)]
    marks: dict[str, list[bool]] = {arm: [] for arm in ARMS}
    for prompt in prompts:
        cells = []
        for arm in ARMS:
            folder = folder_of(out, arm, prompt)
            if not (folder / "views.png").exists():
                cells.append("not run")
                marks[arm].append(False)
                continue
            (reading,) = judge.read(views_of(folder)[None])
            right = reading == target_of_prompt(prompt)
            marks[arm].append(right)
            cells.append("right" if right else f"wrong: {describe(reading)}")
        lines.append(f"| {prompt} | " + " | ".join(cells) + " |")
    pair = [target_of_prompt(p)[0] != 0 for p in prompts]
    for name, chosen in (("singles", [not p for p in pair]), ("pairs", pair)):
        cells = []
        for arm in ARMS:
            hit = [m for m, c in zip(marks[arm], chosen) if c]
            low, high = wilson(hit)
            cells.append(f"**{sum(hit)}/{len(hit)}** ({low:.0%} to {high:.0%})")
        lines.append(f"| **{name} right** | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def contact_sheet(rows: Sequence[Sequence[Path]], views: int, path: Path) -> None:
    """The first views of every run's asset at half their size, white where there is none."""
    shape = len(rows), max(map(len, rows)), 128, 128 * views, 3
    cells = np.full(shape, 255, np.uint8)
    for i, folders in enumerate(rows):
        for j, folder in enumerate(folders):
            if (folder / "views.png").exists():
                cells[i, j] = iio.imread(folder / "views.png")[:256:2, : views * 256 : 2]
    iio.imwrite(path, np.concatenate(np.concatenate(cells, 1), 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judge", type=Path, required=True, help="weights made by judge.py")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--prompts", type=Path, default=HERE / "prompts.txt")
    parser.add_argument("--steps", type=int, help="default: the preset's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a run")
    options = parser.parse_args()
    prompts = options.prompts.read_text().splitlines()
    jobs = [(arm, prompt) for arm in ARMS for prompt in prompts]
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = pool.map(lambda job: make(options.out, *job, options), jobs)
        for (arm, prompt), error in tqdm(zip(jobs, runs), total=len(jobs), desc="assets"):
            if error:
                tqdm.write(f"{prompt} ({arm}): {error}")
    text = table(load_judge(options.judge), options.out, prompts)
    (options.out / "table.md").write_text(text)
    for arm in ARMS:
        name = "sheet-vlm.png" if arm == "with the reward" else "sheet-no-vlm.png"
        folders = [folder_of(options.out, arm, prompt) for prompt in prompts]
        rows = [folders[i : i + 4] for i in range(0, len(folders), 4)]
        contact_sheet(rows, 2, options.out / name)
    print(text)


if __name__ == "__main__":
    main()
