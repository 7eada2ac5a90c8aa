"use strict";
// Theme: the reader's system decides until the button is pressed; the choice is remembered where the browser allows it.
(() => {
  const root = document.documentElement;
  const button = document.querySelector("button.theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const remembered = () => { try { return localStorage.getItem("phoropter-theme"); } catch { return null; } };
  const remember = (theme) => { try { localStorage.setItem("phoropter-theme", theme); } catch { /* a page from a file may not */ } };
  const dark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const say = () => { button.textContent = dark() ? "Light page" : "Dark page"; };
  const saved = remembered();
  if (saved === "dark" || saved === "light") root.dataset.theme = saved;
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; remember(root.dataset.theme); say(); });
  system.addEventListener("change", say);
  say();
})();

// Sorting: a button in each head; numbers by their unrounded value, names as people order them; what has no value stays last.
(() => {
  const status = document.getElementById("status");
  const order = new Intl.Collator(undefined, { numeric: true });
  const key = (row, column, numeric) => {
    const cell = row.cells[column];
    if (!numeric) return cell.textContent;
    return cell.dataset.key ? Number(cell.dataset.key) : null;
  };
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "number" ? a - b : order.compare(a, b));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      const numeric = head.classList.contains("num");
      button.addEventListener("click", () => {
        const was = head.getAttribute("aria-sort");
        const direction = was ? (was === "ascending" ? "descending" : "ascending") : numeric ? "descending" : "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", direction);
        const sign = direction === "ascending" ? 1 : -1;
        const rows = [...body.rows].map((row) => [key(row, column, numeric), row]);
        rows.sort((a, b) => compare(a[0], b[0], sign));
        body.append(...rows.map((pair) => pair[1]));
        status.textContent = `Sorted by ${head.textContent.trim()}, ${direction}.`;
      });
    });
  }
})();

// What is folded away is printed all the same.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
