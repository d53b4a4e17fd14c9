"use strict";
// Figures: drawn anew when the reader's light or dark preference changes, or the page gets narrow or wide.
const themes = {{ themes }};
const dark = matchMedia("(prefers-color-scheme: dark)"), narrow = matchMedia("(max-width: 640px)");
function draw() {
  if (typeof vegaEmbed === "undefined") return;
  const theme = themes[dark.matches ? "dark" : "light"];
  const below = {orient: "bottom", layout: {bottom: {direction: "vertical", anchor: "start", margin: 8}}};
  const config = narrow.matches ? {...theme, legend: {...theme.legend, ...below}} : theme;
  const options = {renderer: "svg", config, theme: "none", actions: {export: true, source: false, compiled: false, editor: false}};
  for (const source of document.querySelectorAll("script[data-figure]"))
    vegaEmbed("#figure-" + source.dataset.figure, JSON.parse(source.textContent), options);
}
for (const query of [dark, narrow]) query.addEventListener("change", draw);
draw();
// Tables: a click on a heading sorts by it, a second one turns the order; missing values stay last.
for (const button of document.querySelectorAll(".sortable th button")) button.addEventListener("click", () => {
  const heading = button.parentElement, table = heading.closest("table"), body = table.tBodies[0];
  const descending = heading.ariaSort === "ascending", column = heading.cellIndex;
  for (const other of table.tHead.rows[0].cells) other.ariaSort = "none";
  heading.ariaSort = descending ? "descending" : "ascending";
  const key = row => row.cells[column].dataset.value;
  const compare = (a, b) => heading.classList.contains("number") || !isNaN(a) && !isNaN(b) ? a - b : a.localeCompare(b);
  const order = (a, b) => key(a) === undefined || key(b) === undefined
    ? (key(a) === undefined) - (key(b) === undefined) : (descending ? -1 : 1) * compare(key(a), key(b));
  body.append(...[...body.rows].sort(order));
});
