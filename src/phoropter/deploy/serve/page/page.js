"use strict";
// Sends files to /predict and /explain of this server and shows what comes back. Everything is set as text, never as HTML.
(() => {
  const $ = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const SHOWN_CLASSES = 6;
  let version = null;
  let token = "";
  let cards = 0;
  const told = new Set(); // notes on the page: each stands there once

  const make = (tag, text, name) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (name) element.className = name;
    return element;
  };
  const draw = (tag, attributes, text) => {
    const element = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const say = (text) => { $("say").textContent = text; };
  const percent = (value) => `${(100 * value).toFixed(1)}\u00a0%`;
  const unbroken = (text) => text.replace(/(\d) %/g, "$1\u00a0%");
  const rest = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
  const clock = (seconds) => {
    if (seconds < 120) return `${Number(seconds.toFixed(1))} s`;
    const minutes = Math.floor(seconds / 60);
    const left = Math.round(seconds - 60 * minutes);
    return left ? `${minutes} min ${left} s` : `${minutes} min`;
  };

  // --- requests ---------------------------------------------------------------------------------------------------------------

  class Refused extends Error {}

  const ask = async (path, options = {}) => {
    for (let tries = 0; ; tries += 1) {
      let answer;
      try {
        answer = await fetch(path, { ...options, headers: token ? { Authorization: `Bearer ${token}` } : {} });
      } catch { throw new Refused("The server does not answer; is it still running?"); }
      if (answer.status === 429 && tries < 60) {
        await rest(1000 * Number(answer.headers.get("Retry-After") || 1));
        continue;
      }
      if (answer.ok) return answer;
      if (answer.status === 401) $("token-form").hidden = false;
      let told = `The server answered with status ${answer.status}.`;
      try { told = (await answer.json()).error || told; } catch { /* no JSON */ }
      throw new Refused(told);
    }
  };
  const post = async (path, parameters, files) => {
    const body = new FormData();
    for (const file of files) body.append("files", file, file.name);
    const given = Object.entries(parameters).filter(([, value]) => value !== undefined);
    return (await ask(`${path}?${new URLSearchParams(given)}`, { method: "POST", body })).json();
  };

  // --- figures ----------------------------------------------------------------------------------------------------------------

  const picture = (data, alternative, caption) => {
    const figure = make("figure");
    const image = make("img");
    image.alt = alternative;
    image.src = `data:image/png;base64,${data}`;
    figure.append(image, make("figcaption", caption));
    return figure;
  };
  const bars = (probabilities) => {
    const sorted = Object.entries(probabilities).sort((a, b) => b[1] - a[1]);
    const list = make("ul", undefined, "bars");
    for (const [name, value] of sorted.slice(0, SHOWN_CLASSES)) {
      const row = make("li");
      const track = make("span", undefined, "track");
      const fill = make("span", undefined, "fill");
      fill.style.width = `${100 * value}%`;
      track.setAttribute("aria-hidden", "true");
      track.append(fill);
      row.append(make("span", name, "name"), track, make("span", percent(value), "value"));
      list.append(row);
    }
    const more = sorted.slice(SHOWN_CLASSES);
    if (more.length) {
      const row = make("li");
      row.append(make("span", `${more.length} more`, "name"), make("span"), make("span", percent(more.reduce((sum, [, v]) => sum + v, 0)), "value"));
      list.append(row);
    }
    return list;
  };
  // The values as points of a line; where there are more than fit, the lowest and highest of each piece, so that no peak is lost.
  const outline = (values, x, y) => {
    const step = Math.max(1, Math.floor(values.length / 800));
    let path = "";
    let open = false;
    for (let at = 0; at < values.length; at += step) {
      const piece = values.slice(at, at + step).filter((value) => value !== null);
      if (!piece.length) { open = false; continue; }
      const ends = step === 1 ? [piece[0]] : [Math.min(...piece), Math.max(...piece)];
      for (const value of ends) { path += `${open ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`; open = true; }
    }
    return path;
  };
  const LEFT = 44;
  // A drawing as wide as the place it stands in, so that its letters have their own size.
  const frame = (place, height, label) => {
    const width = Math.max(260, Math.min(928, place.clientWidth || 640));
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
    return { svg, inner: width - LEFT - 10 };
  };
  const seconds = (svg, inner, from, to, height) => {
    for (const share of inner < 400 ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1]) {
      const anchor = share === 0 ? "start" : share === 1 ? "end" : "middle";
      svg.append(draw("text", { x: LEFT + inner * share, y: height - 5, "text-anchor": anchor }, clock(from + share * (to - from))));
    }
  };
  const traces = (place, trace, target) => {
    const channels = Object.entries(trace.signals);
    const height = 96 * channels.length + 22;
    const { svg, inner } = frame(place, height, `The window from ${clock(trace.start_s)} to ${clock(trace.stop_s)}; shading marks the evidence for ${target}`);
    const count = trace.time_map.length;
    const strips = Math.min(160, count);
    for (let strip = 0; strip < strips; strip += 1) {
      const piece = trace.time_map.slice(Math.floor((strip * count) / strips), Math.max(1, Math.floor(((strip + 1) * count) / strips)));
      const mean = piece.reduce((sum, value) => sum + value, 0) / Math.max(1, piece.length);
      if (mean > 0.02) svg.append(draw("rect", { class: "heat", x: LEFT + (inner * strip) / strips, y: 0, width: inner / strips + 0.3, height: height - 22, opacity: (0.65 * mean).toFixed(3) }));
    }
    channels.forEach(([name, values], at) => {
      const known = values.filter((value) => value !== null);
      const low = known.reduce((a, b) => Math.min(a, b), Infinity);
      const high = known.reduce((a, b) => Math.max(a, b), -Infinity);
      const top = 96 * at + 18;
      const x = (i) => LEFT + (inner * i) / Math.max(1, values.length - 1);
      const y = (value) => top + 70 * (high > low ? (high - value) / (high - low) : 0.5);
      svg.append(draw("path", { class: "trace", d: outline(values, x, y) }));
      svg.append(draw("text", { x: LEFT, y: top - 6 }, trace.units[name] ? `${name}, ${trace.units[name]}` : name));
      if (known.length) {
        svg.append(draw("text", { x: LEFT - 6, y: top + 6, "text-anchor": "end" }, Number(high.toPrecision(3))));
        svg.append(draw("text", { x: LEFT - 6, y: top + 72, "text-anchor": "end" }, Number(low.toPrecision(3))));
      }
    });
    seconds(svg, inner, trace.start_s, trace.stop_s, height);
    return svg;
  };
  const course = (place, windows, name, chosen) => {
    const from = windows[0].start_s;
    const to = windows[windows.length - 1].stop_s;
    const { svg, inner } = frame(place, 110, `Probability of ${name} in each of ${windows.length} windows`);
    const x = (second) => LEFT + (inner * (second - from)) / (to - from);
    const y = (value) => 6 + 78 * (1 - value);
    for (const value of [0, 0.5, 1]) {
      svg.append(draw("line", { class: "axis", x1: LEFT, x2: LEFT + inner, y1: y(value), y2: y(value) }));
      svg.append(draw("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, `${100 * value} %`));
    }
    const mark = draw("rect", { class: "mark", y: 6, height: 78, x: 0, width: 0 });
    svg.append(mark);
    const middle = (window) => x((window.start_s + window.stop_s) / 2);
    const points = windows.map((w) => `${middle(w).toFixed(1)},${y(w.probabilities[name]).toFixed(1)}`);
    svg.append(draw("polyline", { class: "line", points: points.join(" ") }));
    if (windows.length < 60) for (const w of windows) svg.append(draw("circle", { cx: middle(w), cy: y(w.probabilities[name]), r: 2.5, fill: "var(--accent)" }));
    seconds(svg, inner, from, to, 110);
    const choose = (at) => {
      mark.setAttribute("x", x(windows[at].start_s));
      mark.setAttribute("width", Math.max(2, x(windows[at].stop_s) - x(windows[at].start_s)));
    };
    choose(chosen);
    return { svg, choose };
  };

  // --- one answer -------------------------------------------------------------------------------------------------------------

  const explain = async (place, bundle, files, parameters) => {
    place.setAttribute("aria-busy", "true");
    try {
      const answer = await post("/explain", { bundle: bundle.name, partial: "true", ...parameters }, files);
      const [item] = answer.items;
      if (item.error) throw new Refused(item.error);
      const pictures = make("div", undefined, "pictures");
      const size = `${bundle.size} × ${bundle.size} pixels`;
      pictures.append(picture(item.shown, `${item.name} as the network is shown it`, `What the network is shown, ${size}`));
      const found = item.raw_max > 0 ? `Evidence for ${item.target} (${item.method})` : `No evidence for ${item.target} stands out: the map is 0 everywhere (${item.method})`;
      pictures.append(picture(item.overlay, `${item.name} with the evidence for ${item.target} marked`, found));
      const blocks = [];
      if (item.trace) {
        const figure = make("figure", undefined, "wide");
        figure.append(traces(place, item.trace, item.target));
        const shade = item.raw_max > 0 ? ` The stronger the shade, the more evidence for ${item.target}.` : "";
        figure.append(make("figcaption", `The recording from ${clock(item.trace.start_s)} to ${clock(item.trace.stop_s)}.${shade}`));
        blocks.push(figure);
      }
      blocks.push(pictures);
      const branches = Object.entries(item.branches || {});
      if (branches.length > 1) blocks.push(make("p", `Shares of the networks in the decision: ${branches.map(([name, share]) => `${name} ${percent(share)}`).join(", ")}.`, "small"));
      place.replaceChildren(...blocks);
      return item;
    } catch (error) {
      place.append(make("p", `No map: ${error.message}`, "small"));
      return null;
    } finally { place.removeAttribute("aria-busy"); }
  };
  // The classes a map can be made for and, of a recording, its windows.
  const controls = (item, bundle, number, change) => {
    const pick = make("div", undefined, "pick");
    const label = make("label", "Evidence for");
    const select = make("select");
    select.id = `class-${number}-${bundle.name}`;
    label.htmlFor = select.id;
    for (const name of bundle.classes) select.append(new Option(name, name));
    const likeliest = Object.entries(item.probabilities).sort((a, b) => b[1] - a[1])[0][0];
    select.value = likeliest;
    select.addEventListener("change", () => change());
    pick.append(label, select);
    let range = null;
    if (item.windows && item.windows.length > 1) {
      range = make("input");
      range.type = "range"; range.min = 0; range.max = item.windows.length - 1; range.step = 1;
      range.id = `window-${number}-${bundle.name}`;
      const words = make("label", "Window");
      words.htmlFor = range.id;
      const shown = make("output");
      shown.htmlFor = range.id;
      const tell = () => {
        const w = item.windows[Number(range.value)];
        shown.textContent = `${clock(w.start_s)} to ${clock(w.stop_s)}: ${select.value} ${percent(w.probabilities[select.value])}`;
        range.setAttribute("aria-valuetext", shown.textContent);
      };
      range.addEventListener("input", tell);
      range.addEventListener("change", () => change());
      select.addEventListener("change", tell);
      range.tell = tell;
      pick.append(words, range, shown);
    }
    return { pick, select, range };
  };
  const strongest = (windows, name) => windows.reduce((best, w, at) => (w.probabilities[name] > windows[best].probabilities[name] ? at : best), 0);

  const showItem = async (place, bundle, item, files, number, { notes, details }) => {
    const decided = item.decision.class;
    const line = make("p", undefined, "decision");
    line.append(make("strong", decided), ` · ${percent(item.probabilities[decided])}`);
    const of = item.windows ? `, ${bundle.aggregation} of ${item.windows.length} window${item.windows.length > 1 ? "s" : ""}` : "";
    place.append(line, make("p", `Decided by: ${item.decision.rule}${of}.`, "small"), bars(item.probabilities));
    for (const note of notes.filter((text) => !told.has(text))) { told.add(note); place.append(make("p", unbroken(note), "small")); }
    if (details.length) {
      const folded = make("details");
      folded.append(make("summary", "How the recording was read"), ...details.map((text) => make("p", unbroken(text), "small")));
      place.append(folded);
    }
    const map = make("div");
    let timeline = null;
    const { pick, select, range } = controls(item, bundle, number, async () => {
      if (timeline && range) timeline.choose(Number(range.value));
      await explain(map, bundle, files, { target: select.value, window: range ? range.value : undefined });
      say(`The map for ${select.value} is shown.`);
    });
    if (item.windows && item.windows.length > 1) {
      const first = strongest(item.windows, select.value);
      timeline = course(place, item.windows, decided, first);
      const figure = make("figure", undefined, "wide");
      figure.append(timeline.svg, make("figcaption", `Probability of ${decided} along the recording; the band is the window below.`));
      place.append(figure);
      range.value = first;
      range.tell();
    }
    place.append(pick, map);
    if (item.shown) {
      const pictures = make("div", undefined, "pictures");
      pictures.append(picture(item.shown, `${item.name} as the network is shown it`, `What the network is shown, ${bundle.size} × ${bundle.size} pixels`));
      map.append(pictures);
    }
    await explain(map, bundle, files, { target: select.value, window: range ? range.value : undefined });
  };
  const showFiles = async (files, bundles) => {
    const number = (cards += 1);
    const name = files[0].name;
    const card = make("article", undefined, "card");
    const title = make("h3", name);
    title.id = `card-${number}`;
    card.setAttribute("aria-labelledby", title.id);
    const columns = make("div", undefined, "columns");
    card.append(title, columns);
    $("list").append(card);
    for (const bundle of bundles) {
      const place = make("div");
      place.setAttribute("aria-busy", "true");
      if (bundles.length > 1) place.append(make("h4", bundle.title));
      const waiting = make("p", "Computing …", "small");
      place.append(waiting);
      columns.append(place);
      try {
        const size = files.reduce((sum, file) => sum + file.size, 0);
        if (size > version.limits.body_mib * 1024 ** 2) throw new Refused(`${name}: it is larger than ${version.limits.body_mib} MiB, the most this server takes at once.`);
        const answer = await post("/predict", { bundle: bundle.name, shown: "true", partial: "true" }, files);
        const [item] = answer.items;
        waiting.remove();
        if (item.error) throw new Refused(item.error);
        if (item.name !== name) title.textContent = item.name;
        say(`${item.name}: ${item.decision.class}, ${percent(item.probabilities[item.decision.class])}`);
        await showItem(place, bundle, item, files, number, answer);
      } catch (error) {
        waiting.remove();
        place.append(make("p", error.message, "warn"));
        say(error.message);
      } finally { place.removeAttribute("aria-busy"); }
    }
  };

  // --- the page ---------------------------------------------------------------------------------------------------------------

  const stem = (name) => name.replace(/\.[^.]*$/, "");
  // A WFDB header and the files of its name are one recording; any other file stands alone.
  const group = (files) => {
    const headers = new Map(files.filter((f) => /\.hea$/i.test(f.name)).map((f) => [stem(f.name), [f]]));
    const groups = [];
    for (const file of files) {
      const own = headers.get(stem(file.name));
      if (/\.hea$/i.test(file.name)) groups.push(own);
      else if (own && /\.(dat|atr)$/i.test(file.name)) own.push(file);
      else groups.push([file]);
    }
    return groups;
  };
  const computeFiles = async (files, only) => {
    if (!files.length || !version) return;
    $("answers").hidden = false;
    say(`Computing ${files.length} file${files.length > 1 ? "s" : ""}.`);
    for (const one of group([...files])) await showFiles(one, only ? [only] : version.bundles);
  };
  const showBundles = () => {
    const many = version.bundles.length > 1;
    $("title").textContent = many ? `${version.bundles.length} classifiers side by side` : version.bundles[0].title;
    document.title = `${many ? "classifiers" : version.bundles[0].title} · phoropter`;
    $("bundles").replaceChildren(...version.bundles.map((bundle) => {
      const box = make("div");
      if (many) box.append(make("h2", bundle.title));
      for (const sentence of bundle.reliability) box.append(make("p", unbroken(sentence)));
      box.append(make("p", `Classes: ${bundle.classes.slice(0, 12).join(", ")}${bundle.classes.length > 12 ? ` and ${bundle.classes.length - 12} more` : ""}. Network: ${bundle.architecture.join(" and ")}.`));
      return box;
    }));
    const takes = [...new Set(version.bundles.map((bundle) => bundle.takes))];
    $("takes").textContent = takes.join(" ");
    $("foot").textContent = `phoropter ${version.phoropter}`;
    const select = $("example");
    select.replaceChildren();
    version.bundles.forEach((bundle, at) => bundle.examples.forEach(({ name, label }) => {
      const told = `${name} (${label})`;
      select.append(new Option(many ? `${bundle.title}: ${told}` : told, `${at}/${name}`));
    }));
    $("examples").hidden = !select.options.length;
  };
  const load = async () => {
    try {
      version = await (await ask("/version")).json();
      $("token-form").hidden = true;
      showBundles();
    } catch (error) {
      $("takes").textContent = error.message;
      say(error.message);
    }
  };

  $("choose").addEventListener("change", async () => {
    const files = [...$("choose").files];
    $("choose").value = "";
    await computeFiles(files);
  });
  const drop = $("drop");
  for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { event.preventDefault(); computeFiles([...event.dataTransfer.files]); });
  $("show-example").addEventListener("click", async () => {
    const [at, ...name] = $("example").value.split("/");
    const bundle = version.bundles[Number(at)];
    try {
      const answer = await ask(`/examples/${encodeURIComponent(bundle.name)}/${encodeURIComponent(name.join("/"))}`);
      await computeFiles([new File([await answer.blob()], name.join("/"))], bundle);
    } catch (error) { say(error.message); }
  });
  $("clear").addEventListener("click", () => { $("list").replaceChildren(); told.clear(); $("answers").hidden = true; $("choose").focus(); say("Cleared."); });
  $("token-form").addEventListener("submit", (event) => { event.preventDefault(); token = $("token").value.trim(); load(); });
  const theme = $("theme");
  const isDark = () => (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const nameTheme = () => { theme.textContent = isDark() ? "Light page" : "Dark page"; };
  theme.hidden = false;
  nameTheme();
  theme.addEventListener("click", () => { document.documentElement.dataset.theme = isDark() ? "light" : "dark"; nameTheme(); });
  load();
})();
