"use strict";
// Tables sort by the column whose heading is pressed; numbers as numbers, what is empty stays last.
function valueOf(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = Number(text.replace(/,/g, ""));
  return text === "" || text === "\u2013" ? null : Number.isNaN(number) ? text : number;
}
function sortBy(head) {
  const body = head.closest("table").tBodies[0];
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const keyed = Array.from(body.rows, (row) => [valueOf(row, head.cellIndex), row]);
  keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    const both = typeof a === "number" && typeof b === "number";
    const order = both ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
    return up ? order : -order;
  });
  body.append(...keyed.map(([, row]) => row));
}
for (const button of document.querySelectorAll("th > button")) {
  button.addEventListener("click", () => sortBy(button.parentNode));
}
// On paper all is open.
let closed = [];
addEventListener("beforeprint", () => {
  closed = Array.from(document.querySelectorAll("details:not([open])"));
  for (const one of closed) one.open = true;
});
addEventListener("afterprint", () => { for (const one of closed) one.open = false; });
