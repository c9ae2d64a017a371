// What Material's pages lack for keyboards and screen readers: names of landmarks, and a way to
// scroll wide code and tables without a mouse.

const NAMES = { ".md-search": "Search", ".md-code__nav": "Code block" };
const SCROLLED =
  "pre > code, .md-typeset__scrollwrap, .highlight-ipynb, .jp-OutputArea-output, .formula";

function improve() {
  for (const [selector, name] of Object.entries(NAMES)) {
    document.querySelectorAll(selector).forEach((element, i) => {
      element.setAttribute("aria-label", i ? `${name} ${i + 1}` : name);
    });
  }
  document.querySelectorAll(SCROLLED).forEach((element) => {
    if (element.scrollWidth > element.clientWidth) element.tabIndex = 0;
  });
}

let waiting;
function improveSoon() {
  clearTimeout(waiting);
  waiting = setTimeout(improve, 100);
}

// the theme adds its buttons and scrolled tables after the page has loaded
new MutationObserver(improveSoon).observe(document.body, { childList: true, subtree: true });
addEventListener("resize", improveSoon);
improve();
