"use strict";
// Sorting: a click on a header sorts by it, numbers from the largest, words from A; missing values stay last.
for (const table of document.querySelectorAll("table")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => header.firstElementChild.addEventListener("click", () => {
    const words = header.classList.contains("words");
    const before = header.getAttribute("aria-sort");
    const direction = before ? (before === "ascending" ? "descending" : "ascending") : words ? "ascending" : "descending";
    headers.forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const key = (row) => words ? row.cells[column].textContent : parseFloat(row.cells[column].dataset.value);
    const missing = (value) => value === "" || Number.isNaN(value);
    const compare = (a, b) => words ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
    const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => missing(a) - missing(b) || (missing(a) ? 0 : sign * compare(a, b)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }));
}

// Explanations: one tooltip for the whole page, shown by pointer, touch or keyboard; Escape hides it.
const tip = document.createElement("div");
tip.id = "tip";
tip.role = "tooltip";
tip.hidden = true;
document.body.append(tip);
// Points of figures too: without a script the browser shows their titles, to a pointer only.
for (const title of document.querySelectorAll("svg title")) {
  title.parentElement.dataset.tip = title.textContent;
  title.remove();
}
for (const element of document.querySelectorAll("[data-tip]")) element.removeAttribute("title");

function explanation(target) {
  const explained = target.closest("[data-tip]");
  if (explained) return [explained, explained.dataset.tip];
  const cell = target.closest("td");
  const header = cell && cell.closest("table").tHead.rows[0].cells[cell.cellIndex].firstElementChild;
  if (!header || !header.dataset.tip) return null;
  const exact = cell.dataset.value ? ` Exact value: ${cell.dataset.value}.` : "";
  return [cell, `${header.textContent}: ${header.dataset.tip}${exact}`];
}

function show(event) {
  const found = explanation(event.target);
  document.querySelectorAll("[aria-describedby=tip]").forEach((element) => element.removeAttribute("aria-describedby"));
  tip.hidden = !found;
  if (!found) return;
  const [element, words] = found;
  element.setAttribute("aria-describedby", "tip");
  tip.textContent = words;
  const box = element.getBoundingClientRect();
  const left = Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
  const above = box.top - tip.offsetHeight - 6;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${above > 8 ? above : box.bottom + 6}px`;
}
for (const name of ["mouseover", "focusin", "click"]) document.addEventListener(name, show);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
document.addEventListener("scroll", () => { tip.hidden = true; }, { capture: true, passive: true });

// On a phone the contents stay folded until they are asked for.
if (matchMedia("(max-width: 67.99rem)").matches) document.querySelector("nav details").open = false;
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
