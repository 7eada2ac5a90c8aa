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

// Wide tables: the first column stays while the others scroll. At rest no column is cut: one that does not fit is covered by a
// button that says how many columns are hidden and shows the next ones.
(() => {
  const CUE = 36; // px that the button takes at least
  for (const frame of document.querySelectorAll(".frame")) {
    const scroll = frame.firstElementChild;
    const track = scroll.firstElementChild;
    const table = track.firstElementChild;
    const cue = document.createElement("button");
    cue.type = "button";
    cue.className = "cue";
    cue.hidden = true;
    frame.append(cue);
    let starts = [], ends = [], room = 0, last = 0;
    const show = () => {
      const at = scroll.scrollLeft;
      cue.hidden = !frame.classList.contains("wide") || at >= last - 1;
      if (cue.hidden) return;
      const edge = Math.max(at, ...ends.filter((end) => end <= at + room - CUE));
      const left = ends.filter((end) => end > edge).length;
      cue.style.width = `${room - (edge - at)}px`;
      cue.style.bottom = `${frame.clientHeight - scroll.clientHeight}px`;
      cue.textContent = `+${left}\u00a0\u203a`;
      cue.setAttribute("aria-label", `Show more columns: ${left} of ${ends.length} are hidden`);
    };
    const measure = () => {
      frame.classList.remove("wide");
      track.style.width = "";
      if (!scroll.clientWidth || table.offsetWidth <= scroll.clientWidth + 1) return show();
      frame.classList.add("wide");
      const [first, ...others] = table.tHead.rows[0].cells;
      const stays = first.offsetWidth;
      room = scroll.clientWidth - stays;
      starts = others.map((head) => head.offsetLeft - stays);
      ends = others.map((head) => head.offsetLeft + head.offsetWidth - stays);
      last = starts.find((start) => ends.at(-1) - start <= room) ?? starts.at(-1);
      scroll.style.scrollPaddingLeft = `${stays}px`;
      track.style.width = `${last + scroll.clientWidth}px`;
      show();
    };
    cue.addEventListener("click", () => {
      const edge = Math.max(scroll.scrollLeft, ...ends.filter((end) => end <= scroll.scrollLeft + room - CUE));
      scroll.scrollTo({ left: Math.min(last, Math.max(edge, starts.find((start) => start > scroll.scrollLeft + 1) ?? last)) });
      if (scroll.scrollLeft >= last - 1) scroll.focus();
    });
    scroll.addEventListener("scroll", show, { passive: true });
    new ResizeObserver(measure).observe(scroll);
  }
})();

// Sections: a link opens the section it leads to; one button opens or closes all; what is folded away is printed all the same.
(() => {
  const folds = [...document.querySelectorAll("section.fold > details")];
  const bar = document.querySelector(".unfold");
  const button = bar.firstElementChild;
  const reach = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const fold = target && target.closest("section.fold");
    if (!fold) return;
    fold.firstElementChild.open = true;
    target.scrollIntoView();
  };
  const say = () => { button.textContent = folds.every((d) => d.open) ? "Close all sections" : "Open all sections"; };
  bar.hidden = folds.length < 2;
  button.addEventListener("click", () => {
    const open = !folds.every((d) => d.open);
    folds.forEach((d) => { d.open = open; });
  });
  folds.forEach((d) => d.addEventListener("toggle", say));
  addEventListener("hashchange", reach);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']"); // the address does not change where it is followed a second time
    if (link && link.getAttribute("href") === location.hash) reach();
  });
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((d) => { d.open = true; });
  });
  addEventListener("afterprint", () => { closed.forEach((d) => { d.open = false; }); closed = []; });
  reach();
  say();
})();
