"use strict";

/* Sorting: a button in every head; missing values stay last. */
function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const keys = (column) => [...body.rows].map((row) => row.cells[column].dataset.key ?? "");
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const numeric = keys(column).every((key) => key === "" || Number.isFinite(Number(key)));
    button.addEventListener("click", () => {
      const other = { ascending: "descending", descending: "ascending" };
      const order = other[head.ariaSort] ?? head.dataset.first;
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.ariaSort = order;
      sort(body, column, numeric, order === "ascending" ? 1 : -1);
    });
  });
}

function sort(body, column, numeric, sign) {
  const key = (row) => row.cells[column].dataset.key ?? "";
  const compare = (a, b) => (numeric ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  const rows = [...body.rows].sort((a, b) => {
    const [one, other] = [key(a), key(b)];
    if (one === "" || other === "") return (one === "") - (other === "");
    return sign * compare(one, other);
  });
  body.append(...rows);
}

/* Filtering: by words in name or loss, by loss, by dropout. */
function filterable(form, table) {
  const rows = [...table.tBodies[0].rows];
  const count = form.querySelector("output");
  const apply = () => {
    const { words, loss, dropout } = form.elements;
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = `${row.querySelector("th").dataset.key} ${row.dataset.loss}`.toLowerCase();
      const fits =
        wanted.every((word) => text.includes(word)) &&
        (!loss.value || row.dataset.loss === loss.value) &&
        (!dropout.value || row.dataset.dropout === dropout.value);
      row.hidden = !fits;
      shown += fits;
    }
    count.value = `${shown} of ${rows.length} strategies`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  apply();
}

/* The part that an address names is opened, and comes into view. */
function named(address) {
  try {
    return decodeURIComponent(address.slice(1));
  } catch {
    return ""; // not an address of this page
  }
}

function openTarget() {
  const target = document.getElementById(named(location.hash)); // :target is not set before the page is loaded
  if (!target) return;
  const details = target.querySelector(":scope > details");
  if (details) details.open = true;
  target.scrollIntoView();
}

/* Light or dark: as the system says, until the button says otherwise. */
function themed(button) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const label = () => {
    button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-label", dark() ? "Use light colours" : "Use dark colours");
  };
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    label();
  });
  system.addEventListener("change", label);
  button.hidden = false;
  label();
}

for (const table of document.querySelectorAll("table.board")) sortable(table);
for (const form of document.querySelectorAll("form.filters")) {
  filterable(form, form.nextElementSibling.querySelector("table"));
}
document.addEventListener("click", (event) => {
  const link = event.target.closest?.('a[href^="#"]');
  if (link && link.hash === location.hash) openTarget();
});
addEventListener("hashchange", openTarget);
themed(document.getElementById("theme"));
openTarget();
