"use strict";
(function () {
  const form = document.getElementById("filter");
  const items = Array.from(document.querySelectorAll(".matches > li"));
  const said = document.getElementById("shown");
  const more = document.getElementById("more");
  const PART = 60;
  let most = PART;

  function fits(item) {
    const chosen = Object.fromEntries(new FormData(form));
    return (!chosen.criterion || item.dataset.criterion === chosen.criterion) &&
      (!chosen.prompt || item.dataset.prompt === chosen.prompt) &&
      (!chosen.method || item.dataset.first === chosen.method ||
        item.dataset.second === chosen.method) &&
      (!chosen.other || item.dataset.first === chosen.other ||
        item.dataset.second === chosen.other);
  }

  function show() {
    const found = items.filter(fits);
    const visible = new Set(found.slice(0, most));
    for (const item of items) { item.hidden = !visible.has(item); }
    said.textContent = visible.size + " of " + found.length + " comparisons are shown.";
    more.hidden = visible.size === found.length;
  }

  form.addEventListener("change", function () { most = PART; show(); });
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  more.addEventListener("click", function () { most += PART; show(); });
  form.hidden = false;
  show();
})();
