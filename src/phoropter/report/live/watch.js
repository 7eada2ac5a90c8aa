"use strict";
// Fetches the state every two seconds and reloads a report when runs were added to it. Everything is set as text, never as HTML.
(() => {
  const parts = document.getElementById("parts");
  const status = document.getElementById("say");
  const shown = new Map();
  const make = (tag, text, name) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (name) element.className = name;
    return element;
  };
  const table = (rows) => {
    const names = ["candidate", "done", "running", "failed", "missing"];
    const grid = make("table");
    const head = grid.createTHead().insertRow();
    for (const name of names) { const th = make("th", name); th.scope = "col"; head.append(th); }
    const body = grid.createTBody();
    for (const row of rows) {
      const line = body.insertRow();
      names.forEach((name, i) => {
        const cell = make(i ? "td" : "th", i && !row[name] ? "·" : String(row[name]));
        if (!i) cell.scope = "row";
        line.append(cell);
      });
    }
    return grid;
  };
  const place = (number) => {
    if (!shown.has(number)) {
      const box = make("section");
      const state = make("div");
      const frame = make("iframe");
      frame.hidden = true;
      box.append(state, frame);
      parts.append(box);
      shown.set(number, { state, frame, page: 0 });
    }
    return shown.get(number);
  };
  const show = (part, number) => {
    const { state, frame } = place(number);
    const bar = make("progress");
    bar.max = part.total; bar.value = part.done;
    bar.setAttribute("aria-label", `${part.done} of ${part.total} runs done`);
    const rows = make("div", undefined, "scroll");
    rows.tabIndex = 0; rows.setAttribute("role", "region"); rows.setAttribute("aria-label", `Runs of ${part.name}`);
    rows.append(table(part.rows));
    const summary = [`${part.done} of ${part.total} runs done`, part.left].filter(Boolean).join(", ");
    state.replaceChildren(make("h2", part.name), make("p", summary), bar, ...part.running.map((text) => make("p", text, "small")), rows);
    for (const failure of part.failures) state.append(make("p", `failed: ${failure}`, "warn"));
    if (part.error) state.append(make("p", `no report: ${part.error}`, "warn"));
    if (!part.page) {
      state.append(make("p", part.done ? "The report is being written." : "The report appears with the first finished run.", "small"));
      return;
    }
    const link = make("a", "open the report in its own tab");
    link.href = `/${number}/index.html`;
    const line = make("p", `Report after ${part.page} of ${part.total} runs: `, "small");
    line.append(link);
    state.append(line);
    if (part.page !== shown.get(number).page) {
      shown.get(number).page = part.page;
      frame.title = `Report of ${part.name}`;
      frame.src = `/${number}/index.html?runs=${part.page}`;
      frame.hidden = false;
    }
  };
  const refresh = async () => {
    try {
      const state = await (await fetch("/state.json")).json();
      document.getElementById("title").textContent = `phoropter · ${state.folder}`;
      const idle = state.parts.length ? "" : "The study has not started yet.";
      status.textContent = state.preparing.join(" · ") || idle;
      state.parts.forEach(show);
    } catch { status.textContent = "The server has stopped; this is its last state."; }
    setTimeout(refresh, 2000);
  };
  refresh();
})();
