"use strict";
// Draws the report's plots and its panel. Text of models and data sets is only ever set as text, never as markup.
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

// Elements

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...flat(children));
  return node;
}
const flat = (children) => children.flat(9).filter((child) => child != null && child !== false);
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const minus = (text) => text.replace(/^-/, "−");
const percent = (share) => share == null ? "–" : `${Math.round(100 * share)} %`;
function number(value) {
  if (value == null) return "–";
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en-US");
  return minus(String(Number(value.toPrecision(3))));
}

// Scales and axes

/** A scale from values to pixels, logarithmic where values are positive and spread over more than a factor of 25. */
function makeScale(low, high, from, to) {
  if (low === high) { const pad = Math.abs(low) * 0.1 || 1; low -= pad; high += pad; }
  const isLog = low > 0 && high / low > 25;
  const f = isLog ? Math.log10 : (x) => x;
  const pad = 0.05 * (f(high) - f(low));
  let a = f(low) - pad, b = f(high) + pad;
  if (!isLog && low >= 0 && a < 0.25 * (b - a)) a = Math.min(0, low) - (low === 0 ? 0.02 * b : 0);
  const scale = (value) => from + (f(Math.max(value, isLog ? low / 10 : value)) - a) / (b - a) * (to - from);
  scale.isLog = isLog;
  scale.ends = [from, to];
  scale.ticks = isLog ? logTicks(10 ** a, 10 ** b) : linearTicks(a, b, Math.max(3, Math.round(Math.abs(to - from) / 70)));
  return scale;
}
function linearTicks(low, high, count) {
  const raw = (high - low) / count, size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find((m) => m * size >= raw) * size;
  const ticks = [];
  for (let i = Math.ceil(low / step); i * step <= high + 1e-9 * step; i++) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}
function logTicks(low, high) {
  const all = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++)
    for (const m of [1, 2, 5]) { const t = m * 10 ** e; if (t >= low && t <= high) all.push(Number(t.toPrecision(3))); }
  return all.length > 8 ? all.filter((t) => /^1/.test(t.toExponential())) : all;
}
function tickText(value) {
  const size = Math.abs(value);
  return size !== 0 && size < 0.0001 ? minus(value.toExponential(0)) : minus(size >= 10000 ? value.toLocaleString("en-US") : String(value));
}

// Points

const objectives = data.objectives;
data.points.forEach((point, index) => { point.index = index; point.info = data.trials[point.trial]; });
const hasHoldout = data.points.some((point) => point.split === "holdout");
const KINDS = {
  front: "on the search front", near: "near the front", beaten: "dominated", infeasible: "beyond a constraint",
  stopped: "stopped early", holdout: "measured again on holdout questions",
};
const FLAGS = { derived: "derived from checkpoints", reused: "reused from another study", oracle: "oracle: told when right", failed: "some questions failed" };
const shownFor = (point, name) => point.shown[name];
const isChosen = (point) => data.recommended && point.trial === data.recommended.trial && point.split === data.recommended.split;
function describe(point) {
  const figures = objectives.map((o) => `${o.title} ${shownFor(point, o.name)}`).join(", ");
  const marks = point.flags.map((flag) => FLAGS[flag]);
  const membership = point.membership == null ? [] : [`on the front in ${percent(point.membership)} of resamples`];
  return [`trial ${point.trial}, ${KINDS[point.kind]}: ${point.info.label}`, figures, ...membership, `${point.n} ${point.split} questions`, ...marks].join("; ");
}

const SHAPES = {
  circle: (r) => `M${r},0A${r},${r},0,1,1,${-r},0A${r},${r},0,1,1,${r},0Z`,
  diamond: (r) => `M0,${-1.3 * r}L${1.3 * r},0L0,${1.3 * r}L${-1.3 * r},0Z`,
  square: (r) => `M${-r},${-r}H${r}V${r}H${-r}Z`,
  down: (r) => `M${-1.15 * r},${-0.8 * r}H${1.15 * r}L0,${1.2 * r}Z`,
  star: (r) => `M${[...Array(10).keys()].map((i) => { const q = i % 2 ? 0.55 * r : 1.4 * r, t = Math.PI * (i / 5 - 0.5); return `${(q * Math.cos(t)).toFixed(2)},${(q * Math.sin(t)).toFixed(2)}`; }).join("L")}Z`,
  cross: (r) => `M${-r},${-r}L${r},${r}M${-r},${r}L${r},${-r}`,
};
/** The marker of a kind and flags: shape says how it came about, what is around or across it where it belongs; filled by membership. */
function glyph(kind, flags, membership, radius = 6.5) {
  const r = kind === "beaten" ? radius * 0.62 : radius;
  const shape = flags.includes("oracle") ? "star" : kind === "stopped" ? "down" : flags.includes("derived") ? "diamond" : flags.includes("reused") ? "square" : "circle";
  const parts = [];
  if (kind === "infeasible") {
    if (shape !== "circle") parts.push(svg("path", { class: "glyph bare", d: SHAPES[shape](r) }));
    parts.push(svg("path", { class: "glyph bare", d: SHAPES.cross(r * 0.8), "stroke-width": 2.2 }));
  } else {
    const opacity = kind === "stopped" ? 0 : kind === "beaten" ? 0.25 : 0.06 + 0.94 * (membership ?? 0);
    parts.push(svg("path", { class: "glyph", d: SHAPES[shape](r), "fill-opacity": opacity, "stroke-dasharray": kind === "near" ? "2.5 2" : null }));
    if (kind === "holdout") parts.push(svg("path", { class: "glyph bare", d: SHAPES[shape](r + 3.2), "stroke-width": 1.2 }));
  }
  if (flags.includes("failed")) parts.push(svg("path", { class: "glyph bare", d: `M${-r},${r + 5}H${r}`, "stroke-width": 2 }));
  return parts;
}
const classOf = (kind, flags) => `${kind}${flags.includes("oracle") ? " isoracle" : ""}`;

// What is shown: one state for all plots

const state = { pair: 0, bars: data.points.length <= 40, off: new Set(), effect: 0 };
const tagsOf = (point) => [point.kind, ...point.flags];
const isShown = (point) => !tagsOf(point).some((tag) => state.off.has(tag));

function radios(into, legend, name, labels, chosen, choose) {
  into.append(el("fieldset", {}, el("legend", {}, legend), labels.map((label, index) =>
    el("label", { class: "choice" },
      el("input", { type: "radio", name, value: index, checked: index === chosen, onchange: () => choose(index) }), el("span", {}, label)))));
}
function checkbox(into, label, checked, change) {
  into.append(el("label", {}, el("input", { type: "checkbox", checked, onchange: (event) => change(event.target.checked) }), ` ${label}`));
}
function drawLegend() {
  const items = [...Object.entries(KINDS), ...Object.entries(FLAGS)]
    .map(([tag, text]) => ({ tag, text, points: data.points.filter((point) => tagsOf(point).includes(tag)) }))
    .filter((item) => item.points.length);
  $("legend").replaceChildren(...items.map(({ tag, text, points }) => {
    const isKind = tag in KINDS, kind = isKind ? tag : "beaten", flags = isKind ? [] : [tag];
    const sign = svg("svg", { viewBox: "-11 -11 22 22", "aria-hidden": "true", class: classOf(kind, flags) }, glyph(isKind ? kind : "front", flags, isKind ? (kind === "near" ? 0.3 : 0.8) : 0.4, 6));
    return el("button", { type: "button", "aria-pressed": "true", "data-tag": tag, onclick: (event) => {
      const off = !state.off.delete(tag);
      if (off) state.off.add(tag);
      event.currentTarget.setAttribute("aria-pressed", String(!off));
      refresh();
    } }, sign, `${text} (${points.length})`);
  }));
}
function refresh() {
  for (const node of document.querySelectorAll("[data-point]")) node.classList.toggle("gone", !isShown(data.points[node.dataset.point]));
  for (const node of document.querySelectorAll("[data-link]")) node.classList.toggle("gone", node.dataset.link.split(" ").some((i) => !isShown(data.points[i])));
  for (const node of document.querySelectorAll("[data-bars]")) node.classList.toggle("gone", !(state.bars || node.dataset.bars === "always") || !isShown(data.points[node.dataset.of]));
  document.querySelectorAll("#pairs figure").forEach((figure, index) => figure.classList.toggle("off", index !== state.pair));
  document.querySelectorAll("#effects figure").forEach((figure, index) => figure.classList.toggle("off", index !== state.effect));
  document.querySelectorAll(".plots svg[role=group]").forEach(keepOneStop);
}

// Keyboard: one tab stop a plot, arrows within

const stops = (root) => [...root.querySelectorAll("[data-stop]:not(.gone)")];
function keepOneStop(root) {
  const all = stops(root);
  const current = all.find((node) => node.getAttribute("tabindex") === "0") ?? all.find((node) => node.dataset.first) ?? all[0];
  for (const node of root.querySelectorAll("[data-stop]")) node.setAttribute("tabindex", node === current ? 0 : -1);
}
function rove(root, open) {
  root.addEventListener("keydown", (event) => {
    const all = stops(root), at = all.indexOf(document.activeElement);
    if (at < 0) return;
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (to != null) {
      event.preventDefault();
      const next = all[(to + all.length) % all.length];
      for (const node of all) node.setAttribute("tabindex", node === next ? 0 : -1);
      next.focus();
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      open(all[at]);
    }
  });
  keepOneStop(root);
}
const tip = $("tip");
function showTip(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 4))}px`;
  tip.style.top = `${y + 18 + box.height > innerHeight ? Math.max(4, y - box.height - 14) : y + 18}px`;
}
const hideTip = () => { tip.hidden = true; };
function tipOf(point) {
  const lines = objectives.map((o) => `${o.title}: ${shownFor(point, o.name)}`);
  if (point.membership != null) lines.push(`on the front in ${percent(point.membership)} of resamples`);
  return [`trial ${point.trial}, ${KINDS[point.kind]} (${point.n} ${point.split} questions)`, point.info.label, ...lines, ...point.flags.map((flag) => FLAGS[flag])].join("\n");
}
function heat(point) {
  for (const node of document.querySelectorAll(".hot")) node.classList.remove("hot");
  if (point) for (const node of document.querySelectorAll(`[data-trial="${point.trial}"]`)) node.classList.add("hot");
}
/** Pointer and keyboard for the points of a plot: the nearest of them is meant, however small or crowded they are. */
function wire(root, reach, distance) {
  const nearest = (event) => {
    const at = root.createSVGPoint();
    [at.x, at.y] = [event.clientX, event.clientY];
    const here = at.matrixTransform(root.getScreenCTM().inverse());
    let best = null, least = reach;
    for (const node of stops(root)) {
      const apart = distance(node, here);
      if (apart < least) [best, least] = [node, apart];
    }
    return best;
  };
  root.addEventListener("pointermove", (event) => {
    const node = nearest(event);
    root.style.cursor = node ? "pointer" : "";
    if (!node) { hideTip(); heat(null); return; }
    const point = data.points[node.dataset.point];
    heat(point);
    showTip(tipOf(point), event.clientX, event.clientY);
  });
  root.addEventListener("pointerleave", () => { hideTip(); heat(null); });
  root.addEventListener("click", (event) => { const node = nearest(event); if (node) openTrial(data.points[node.dataset.point].trial, node); });
  // Not on the drawing itself, which Chromium would make a tab stop for it.
  root.parentNode.addEventListener("focusin", (event) => {
    const node = event.target.closest("[data-point]");
    if (!node || !node.matches(":focus-visible")) return;
    const box = node.getBoundingClientRect();
    heat(data.points[node.dataset.point]);
    showTip(tipOf(data.points[node.dataset.point]), box.x + box.width / 2, box.y + box.height / 2);
  });
  root.parentNode.addEventListener("focusout", () => { hideTip(); heat(null); });
  rove(root, (node) => openTrial(data.points[node.dataset.point].trial, node));
}

// Two objectives

function pairsOf(count) {
  const all = [];
  for (let a = 0; a < count; a++) for (let b = a + 1; b < count; b++) all.push([a, b]);
  // What is to be maximised stands upright, what is to be kept small lies.
  return all.map(([a, b]) => (objectives[a].up ? { y: a, x: b } : objectives[b].up ? { y: b, x: a } : { x: a, y: b }));
}
const axisTitle = (index, scale) => `${objectives[index].title}, ${objectives[index].unit}${scale.isLog ? " (log scale)" : ""}`;
const better = (index) => objectives[index].up ? "higher is better" : "lower is better";
function extent(index) {
  const known = data.points.flatMap((p) => {
    const matters = !["beaten", "stopped", "infeasible"].includes(p.kind);
    return [p.values[index], ...(matters ? [p.low[index], p.high[index]] : [])].filter((v) => v != null);
  });
  // An end at 0 of an amount that none has would bring every point together on a logarithmic axis.
  const values = data.points.map((p) => p.values[index]), least = Math.min(...values), most = Math.max(...known);
  const low = Math.min(...known);
  return [least > 0 && most / least > 25 ? Math.max(low, least / 1.6) : low, objectives[index].unit === "%" ? Math.min(100, most) : Math.min(most, 2.5 * Math.max(...values))];
}
function drawPair({ x, y }, width) {
  const narrow = width < 560, height = narrow ? Math.round(width * 0.95) : Math.round(Math.min(560, width * 0.52));
  const box = { left: narrow ? 44 : 58, right: 16, top: 26, bottom: 50 };
  const sx = makeScale(...extent(x), box.left, width - box.right), sy = makeScale(...extent(y), height - box.bottom, box.top);
  const title = `${objectives[y].title} by ${objectives[x].title}`;
  const parts = [
    sx.ticks.map((t) => [svg("line", { class: "grid", x1: sx(t), x2: sx(t), y1: box.top, y2: height - box.bottom }), svg("text", { class: "tick", x: sx(t), y: height - box.bottom + 17, "text-anchor": "middle" }, tickText(t))]),
    sy.ticks.map((t) => [svg("line", { class: "grid", x1: box.left, x2: width - box.right, y1: sy(t), y2: sy(t) }), svg("text", { class: "tick", x: box.left - 8, y: sy(t) + 4, "text-anchor": "end" }, tickText(t))]),
    svg("line", { class: "axis", x1: box.left, x2: width - box.right, y1: height - box.bottom, y2: height - box.bottom }),
    svg("text", { x: (box.left + width - box.right) / 2, y: height - 10, "text-anchor": "middle" }, narrow ? axisTitle(x, sx) : `${axisTitle(x, sx)} — ${better(x)}`),
    svg("text", { x: 2, y: 14 }, narrow ? axisTitle(y, sy) : `${axisTitle(y, sy)} — ${better(y)}`),
  ];
  const place = (point) => [sx(point.values[x]), sy(point.values[y])];
  for (const point of data.points) {
    if (point.split !== "holdout") continue;
    const before = data.points.find((other) => other.trial === point.trial && other.split === "search");
    if (!before) continue;
    const [x1, y1] = place(before), [x2, y2] = place(point);
    parts.push(svg("line", { class: "link", x1, y1, x2, y2, "data-link": `${before.index} ${point.index}` }));
  }
  parts.push(stair(hasHoldout ? "holdout" : "front", x, y, place));
  const rank = { beaten: 0, stopped: 1, infeasible: 2, near: 3, front: 4, holdout: 5 };
  const ordered = [...data.points].sort((p, q) => rank[p.kind] - rank[q.kind]);
  for (const point of ordered) parts.push(errorBars(point, x, y, sx, sy));
  const marks = [...data.points].sort((p, q) => p.values[x] - q.values[x] || p.values[y] - q.values[y]).map((point) => {
    const [cx, cy] = place(point), chosen = isChosen(point);
    return svg("g", {
      class: `point ${classOf(point.kind, point.flags)}`, transform: `translate(${cx.toFixed(1)},${cy.toFixed(1)})`, role: "button", tabindex: -1,
      "data-stop": true, "data-point": point.index, "data-trial": point.trial, "data-x": cx, "data-y": cy, "data-first": chosen ? "yes" : null, "aria-label": describe(point) + (chosen ? "; recommended" : ""),
    }, svg("circle", { class: "ring", r: 13 }), chosen ? svg("circle", { class: "halo", r: 14.5 }) : null, glyph(point.kind, point.flags, point.membership, narrow ? 5.5 : 6.5));
  });
  // Those that matter most are painted last; arrows go by the order on the axis.
  parts.push(marks);
  const chosen = data.points.find(isChosen);
  if (chosen) {
    const [cx, cy] = place(chosen), toLeft = cx > width - 190;
    parts.push(svg("text", { class: "callout", x: toLeft ? cx - 19 : cx + 19, y: cy - 12, "text-anchor": toLeft ? "end" : "start", "data-point": chosen.index, "aria-hidden": "true" }, `${data.recommended.rule}: trial ${chosen.trial}`));
  }
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${title}: ${data.points.length} points; arrow keys move, Enter opens` }, parts);
  const figure = el("figure", {}, root, el("figcaption", {}, summaryOf(x, y)));
  wire(root, 26, (node, at) => Math.hypot(node.dataset.x - at.x, node.dataset.y - at.y));
  return figure;
}
function stair(kind, x, y, place) {
  const sign = (index, value) => objectives[index].up ? -value : value;
  const points = data.points.filter((p) => p.kind === kind && p.membership != null && (kind !== "holdout" || p.on_front)).sort((p, q) => sign(x, p.values[x]) - sign(x, q.values[x]) || sign(y, p.values[y]) - sign(y, q.values[y]));
  let best = Infinity;
  const kept = points.filter((p) => sign(y, p.values[y]) < best && ((best = sign(y, p.values[y])), true));
  if (kept.length < 2) return null;
  const d = kept.map((p, i) => { const [px, py] = place(p); return i ? `H${px.toFixed(1)}V${py.toFixed(1)}` : `M${px.toFixed(1)},${py.toFixed(1)}`; }).join("");
  return svg("g", { class: kind }, svg("path", { class: "stair", d, "data-stair": kind }));
}
function errorBars(point, x, y, sx, sy) {
  const cx = sx(point.values[x]), cy = sy(point.values[y]);
  const clip = (scale, value, end) => { const [a, b] = [...scale.ends].sort((p, q) => p - q); return value == null ? (end === "high") === (scale.ends[0] < scale.ends[1]) ? b : a : Math.min(b, Math.max(a, scale(value))); };
  const [x1, x2] = [clip(sx, point.low[x], "low"), clip(sx, point.high[x], "high")], [y1, y2] = [clip(sy, point.low[y], "low"), clip(sy, point.high[y], "high")];
  const cap = (value, d) => value == null ? null : svg("path", { d });
  const always = ["front", "holdout"].includes(point.kind);
  return svg("g", { class: `bar ${classOf(point.kind, point.flags)}`, opacity: always ? 0.55 : 0.35, "data-bars": always ? "always" : "some", "data-of": point.index },
    svg("path", { d: `M${x1.toFixed(1)},${cy.toFixed(1)}H${x2.toFixed(1)}M${cx.toFixed(1)},${y1.toFixed(1)}V${y2.toFixed(1)}` }),
    cap(point.low[x], `M${x1},${cy - 3}V${cy + 3}`), cap(point.high[x], `M${x2},${cy - 3}V${cy + 3}`), cap(point.low[y], `M${cx - 3},${y1}H${cx + 3}`), cap(point.high[y], `M${cx - 3},${y2}H${cx + 3}`));
}
function summaryOf(x, y) {
  const split = hasHoldout ? "holdout" : "search";
  const all = data.points.filter((p) => p.split === split && p.membership != null && !Object.keys(p.excess).length);
  if (!all.length) return "";
  const best = (index) => all.reduce((p, q) => ((objectives[index].up ? q.values[index] > p.values[index] : q.values[index] < p.values[index]) ? q : p));
  const said = [y, x].map((index) => { const p = best(index); return `best ${objectives[index].title}: trial ${p.trial} with ${shownFor(p, objectives[index].name)}`; });
  return `On the ${split} questions, ${said.join("; ")}. The stepped line joins what is best in these two alone. Figures of all points are in the tables below.`;
}

// All objectives

function drawParallel(width) {
  const narrow = width < 560, height = narrow ? 330 : 380, top = 62, bottom = height - 22, side = narrow ? 34 : 70;
  const axes = [...objectives.map((o, index) => ({ title: o.title, unit: o.unit, value: (p) => p.values[index], range: [Math.min(...data.points.map((p) => p.values[index])), Math.max(...data.points.map((p) => p.values[index]))], up: o.up })),
    { title: "on the front", unit: "% of resamples", value: (p) => p.membership == null ? null : 100 * p.membership, range: [0, 100], up: true }];
  axes.forEach((axis, index) => {
    axis.x = side + index * (width - 2 * side) / (axes.length - 1);
    axis.scale = makeScale(...axis.range, axis.up ? bottom : top, axis.up ? top : bottom);
  });
  const parts = axes.map((axis, index) => {
    const anchor = index === 0 ? "start" : index === axes.length - 1 ? "end" : "middle";
    const x = index === 0 ? axis.x - side + 4 : index === axes.length - 1 ? axis.x + side - 4 : axis.x;
    const words = narrow ? axis.title.replace("median latency", "latency p50").replace("95th percentile of latency", "latency p95").replace("mean latency", "latency mean") : axis.title;
    return [
      svg("text", { x, y: 16, "text-anchor": anchor }, words), svg("text", { class: "tick", x, y: 33, "text-anchor": anchor }, `${narrow ? axis.unit.replace(/ of resamples|\/query/, "") : axis.unit}${axis.scale.isLog ? ", log" : ""}`),
      svg("text", { class: "tick", x, y: 49, "text-anchor": anchor, "aria-hidden": "true" }, narrow ? "↑" : "↑ better"),
      svg("line", { class: "axis", x1: axis.x, x2: axis.x, y1: top - 6, y2: bottom + 6 }),
      axis.scale.ticks.map((t) => svg("line", { class: "axis", x1: axis.x - 4, x2: axis.x, y1: axis.scale(t), y2: axis.scale(t) })),
    ];
  });
  // Above the lines, which would hide them.
  const labels = axes.map((axis) => axis.scale.ticks.map((t) => svg("text", { class: "tick above", x: axis.x - 9, y: axis.scale(t) + 4, "text-anchor": "end" }, tickText(t))));
  const rank = { stopped: 0, beaten: 1, infeasible: 2, near: 3, front: 4, holdout: 5 };
  const look = { front: [1.8, 0.85, null], near: [1.3, 0.7, "6 3"], beaten: [1, 0.3, null], infeasible: [1.2, 0.6, "2 3"], stopped: [1, 0.45, "1 3"], holdout: [2.4, 0.9, null] };
  const lines = [...data.points].sort((p, q) => rank[p.kind] - rank[q.kind] || p.values[0] - q.values[0]).map((point) => {
    const at = axes.map((axis) => { const v = axis.value(point); return v == null ? null : [axis.x, axis.scale(v)]; }).filter(Boolean);
    const [size, opacity, dashes] = look[point.kind];
    const ends = point.kind === "holdout" || point.kind === "front" ? at.map(([cx, cy]) => svg("g", { transform: `translate(${cx},${cy.toFixed(1)})` }, glyph(point.kind, point.flags, point.membership, 3.6))) : [];
    return svg("g", { class: `point ${classOf(point.kind, point.flags)}`, role: "button", tabindex: -1, "data-stop": true, "data-point": point.index, "data-trial": point.trial, "data-first": isChosen(point) ? "yes" : null, "data-at": JSON.stringify(at), "aria-label": describe(point) },
      svg("polyline", { class: "course", points: at.map((pair) => pair.map((v) => v.toFixed(1)).join(",")).join(" "), "stroke-width": isChosen(point) ? size + 2 : size, opacity, "stroke-dasharray": dashes }), ends);
  });
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Parallel coordinates: a line for each config; arrow keys move, Enter opens" }, parts, lines, labels);
  const figure = el("figure", {}, root, el("figcaption", {}, "Thick lines with rings: holdout. Solid: the search front. Dashed: near it, dotted: beyond a constraint or stopped, thin: dominated. The same figures are in the tables below."));
  wire(root, 14, (node, at) => {
    const points = JSON.parse(node.dataset.at);
    let least = Infinity;
    for (let i = 1; i < points.length; i++) {
      const [[x1, y1], [x2, y2]] = [points[i - 1], points[i]], t = Math.max(0, Math.min(1, ((at.x - x1) * (x2 - x1) + (at.y - y1) * (y2 - y1)) / ((x2 - x1) ** 2 + (y2 - y1) ** 2)));
      least = Math.min(least, Math.hypot(x1 + t * (x2 - x1) - at.x, y1 + t * (y2 - y1) - at.y));
    }
    return least;
  });
  return figure;
}

// Knobs

const KNOBS_DRAWN = 8;
function drawEffects(found, width) {
  const objective = objectives.find((o) => o.name === found.objective), isRatio = found.scale === "ratio";
  const knobs = found.knobs.slice(0, KNOBS_DRAWN);
  const title = `Effects on ${objective.title}`;
  if (!knobs.length) return el("figure", {}, el("figcaption", {}, `${title}: the configs do not differ in it.`));
  const narrow = width < 560, left = narrow ? 118 : 290, right = narrow ? 12 : 30, row = 22;
  const values = knobs.flatMap((k) => k.values.flatMap((v) => [v.low ?? v.effect, v.high ?? v.effect, v.effect]));
  const rest = isRatio ? 1 : 0;
  let [low, high] = [Math.min(rest, ...values), Math.max(rest, ...values)];
  const f = isRatio ? Math.log : (v) => v, lo = f(low), hi = f(high), span = hi - lo || 1;
  const sx = (v) => left + (f(v) - lo + 0.04 * span) / (1.08 * span) * (width - left - right);
  const ticks = isRatio ? [0.1, 0.2, 0.33, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10].filter((t) => t >= low && t <= high) : linearTicks(low, high, narrow ? 3 : 6);
  const shownTicks = narrow && ticks.length > 5 ? ticks.filter((t) => [0.1, 0.2, 0.5, 1, 2, 5, 10].includes(t) || !isRatio) : ticks;
  let y = 28;
  const rows = [], bands = [];
  for (const knob of knobs) {
    const share = knob.importance;
    rows.push(svg("text", { x: 2, y: y + 15, "font-weight": 650 }, narrow && knob.knob.length > 24 ? `…${knob.knob.slice(-23)}` : knob.knob),
      svg("text", { class: "tick", x: narrow ? width - right : left - 12, y: y + 15, "text-anchor": "end" }, share == null ? "" : `matters ${percent(share)}`));
    if (share != null && !narrow) rows.push(svg("rect", { x: left - 12 - 80 * share, y: y + 19, width: 80 * share, height: 3, class: "front", fill: "var(--front)" }));
    y += row;
    for (const value of knob.values) {
      const middle = y + row / 2, sure = isRatio ? (value.low > 1 || value.high < 1) : (value.low > 0 || value.high < 0);
      const good = (value.effect > rest) === objective.up, text = isRatio ? `×${value.effect.toFixed(2)}` : `${value.effect > 0 ? "+" : ""}${number(value.effect)}`;
      const label = narrow && value.value.length > 13 ? `${value.value.slice(0, 12)}…` : value.value;
      rows.push(svg("g", { class: !sure ? "beaten" : good ? "holdout" : "infeasible" },
        svg("text", { class: "tick", x: left - 12, y: middle + 4, "text-anchor": "end" }, label),
        svg("path", { class: "bar", d: `M${sx(value.low ?? low)},${middle}H${sx(value.high ?? high)}`, "stroke-width": 2 }),
        svg("g", { transform: `translate(${sx(value.effect)},${middle})` }, svg("path", { class: "glyph", d: !sure ? SHAPES.circle(4.5) : good ? SHAPES.square(4.5) : SHAPES.diamond(4.5), "fill-opacity": sure ? 1 : 0.1 })),
        svg("title", {}, `${knob.knob} = ${value.value}: ${text} (${value.configs} configs)`)));
      y += row;
    }
    y += 8;
    bands.push(svg("line", { class: "grid", x1: 0, x2: width, y1: y - 4, y2: y - 4 }));
  }
  const height = y + 44, unit = isRatio ? "× the average over the knob’s values (log scale)" : `${objective.unit === "%" ? "percentage points" : objective.unit} from the average over the knob’s values`;
  const grid = shownTicks.map((t) => [svg("line", { class: "grid", x1: sx(t), x2: sx(t), y1: 22, y2: y }), svg("text", { class: "tick", x: sx(t), y: y + 16, "text-anchor": "middle" }, isRatio ? `×${t}` : tickText(t))]);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}; the table below has every figure` }, grid, bands,
    svg("line", { class: "axis", x1: sx(rest), x2: sx(rest), y1: 22, y2: y, "stroke-width": 1.5 }), rows,
    svg("text", { x: narrow ? 2 : left, y: 13 }, `${objective.title} — ${better(objectives.indexOf(objective))}`), svg("text", { class: "tick", x: narrow ? width - right : (left + width - right) / 2, y: y + 36, "text-anchor": narrow ? "end" : "middle" }, narrow ? unit.replace(" over the knob’s values", "") : unit));
  const more = found.knobs.length > knobs.length ? ` The ${knobs.length} knobs that matter most of ${found.knobs.length}; the table has all.` : "";
  return el("figure", {}, root, el("figcaption", {}, `■ better and ◆ worse than the average, ○ perhaps neither; lines are 95 % intervals.${more}`));
}

// Packed runs

async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}
let questions = null;
const loadQuestions = async () => (questions ??= data.questions ? await unpack(data.questions) : { search: {}, holdout: {} });
const runsOf = new Map();
async function loadRuns(trial) {
  if (!runsOf.has(trial)) {
    const block = $(`runs-${trial}`);
    if (!block) return null;
    const content = await unpack(block.textContent.trim());
    const texts = [];
    for (const [from, common, rest] of content.texts) texts.push((common ? texts[from].slice(0, common) : "") + rest);
    runsOf.set(trial, { search: content.search, holdout: content.holdout, texts });
  }
  return runsOf.get(trial);
}

// The panel

const panel = $("panel");
let opener = null;
let shown = null;
panel.addEventListener("close", () => {
  shown = null;
  history.replaceState(null, "", location.pathname + location.search);
  hideTip();
  opener?.focus({ preventScroll: true });
});
panel.addEventListener("click", (event) => { if (event.target === panel) panel.close(); });
function head(title, ...buttons) {
  const close = el("button", { type: "button", "aria-label": "close", onclick: () => panel.close() }, "✕", el("span", { class: "word" }, " Close"));
  return el("div", { class: "panelhead" }, buttons, el("h2", { id: "panel-title", tabindex: -1 }, title), close);
}
function table(caption, columns, rows, attributes = {}) {
  const heads = columns.map((column) => el("th", { scope: "col" }, column));
  return el("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": caption },
    el("table", attributes, el("caption", {}, el("span", {}, caption)), el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows)));
}
async function openTrial(trial, from) {
  trial = Number(trial);
  if (!data.trials[trial]) return;
  const mine = {};
  shown = mine;
  if (!panel.open) opener = from ?? document.activeElement;
  const [runs] = await Promise.all([loadRuns(trial), loadQuestions()]);
  if (shown !== mine) return;
  hideTip();
  const info = data.trials[trial], points = data.points.filter((point) => point.trial === trial);
  panel.replaceChildren(...flat([head(`Trial ${trial}`), el("p", { class: "config" }, info.label), info.notes.map((note) => el("p", { class: "note" }, note)),
    el("h3", {}, "Measured"), measured(points, info),
    el("h3", {}, "Config"), el("p", { class: "note" }, "What the study does not vary is grey."),
    el("dl", { class: "knobs" }, info.config.map(([name, value, varied]) => el("div", { class: varied ? null : "fixed" }, el("dt", {}, name), el("dd", {}, value)))),
    el("h3", {}, "Runs"), runsView(trial, runs)]));
  present(`trial-${trial}`);
}
function present(hash) {
  if (!panel.open) panel.showModal();
  panel.scrollTop = 0;
  history.replaceState(null, "", `#${hash}`);
  panel.querySelector("h2").focus({ preventScroll: true });
}
function measured(points, info) {
  const names = Object.keys(points[0].shown), hasDrop = points.some((point) => Object.keys(point.drop).length);
  const titleOf = (name) => objectives.find((o) => o.name === name)?.title ?? `${name} (only constrained)`;
  const rows = names.map((name) => el("tr", {}, el("th", { scope: "row" }, titleOf(name)), points.map((point) => el("td", {}, point.shown[name], point.excess[name] ? el("span", { class: "mark" }, `beyond its bound by ${point.excess[name]}`) : null)), hasDrop ? el("td", {}, points.find((p) => p.drop[name])?.drop[name] ?? "–") : null));
  const line = (title, of) => el("tr", {}, el("th", { scope: "row" }, title), points.map((point) => el("td", {}, of(point))), hasDrop ? el("td", {}, "") : null);
  rows.push(line("on the front, of resamples", (point) => percent(point.membership)), line("what it is", (point) => KINDS[point.kind]), line("questions that failed", (point) => `${point.failed} of ${point.n}`));
  if (points.some((point) => point.group)) rows.push(line("alike", (point) => point.group || "–"));
  return [table("Values with 95 % intervals", ["", ...points.map((point) => `${point.n} ${point.split} questions`), ...(hasDrop ? ["drop"] : [])], rows),
    info.source ? el("p", { class: "note" }, `Energy: ${info.source}.`) : null];
}
const traceCommand = (trial, id) => `tuner trace ${data.path} ${trial} ${id}`;
function runsView(trial, runs) {
  if (!runs) return el("p", { class: "note" }, "This page has no room for the runs of this trial. ", el("code", {}, `tuner show ${data.path} ${trial}`), " lists them.");
  const views = [];
  if (data.replayed) views.push(el("p", { class: "note" }, "Replayed from a table, which holds figures only: there are no answers and no calls to show."));
  else if (data.blocks[trial][0] === "rows") views.push(el("p", { class: "note" }, "This page has no room for the calls of this trial’s runs. ", el("code", {}, traceCommand(trial, "EXAMPLE")), " shows them."));
  else if (data.blocks[trial][0] === "calls") views.push(el("p", { class: "note" }, "This page has the timelines of these runs; ", el("code", {}, traceCommand(trial, "EXAMPLE")), " shows what was said."));
  if (data.no_questions) views.push(el("p", { class: "note" }, `The questions cannot be shown: ${data.no_questions}`));
  for (const split of ["holdout", "search"]) {
    if (!runs[split].length) continue;
    const rows = runs[split].map((run, index) => {
      const [question, gold] = questions[split][run.id] ?? ["–", "–"];
      const verdict = run.score >= 1 ? "right" : run.score > 0 ? "part" : "wrong";
      return el("tr", {},
        el("td", {}, run.spans ? el("button", { type: "button", class: "open", "data-run": `${split}/${index}`, "aria-label": `open the run of ${run.id}`, onclick: () => openRun(trial, runs, split, index) }, run.id) : run.id, run.repeat ? ` again (${run.repeat + 1})` : ""),
        el("th", { scope: "row", class: "text" }, el("div", { class: "clamp", title: question }, question)),
        el("td", { class: "text" }, el("div", { class: "clamp", title: run.error ?? run.answer }, run.error ? `failed: ${run.error}` : run.answer || "–")),
        el("td", { class: "text" }, el("div", { class: "clamp", title: gold }, gold || "–")),
        el("td", {}, el("span", { class: verdict }, number(run.score))), el("td", {}, number(run.latency_s)), el("td", {}, number(run.energy_j)),
        el("td", {}, tokens(run.tokens)), el("td", {}, `${run.calls[0]} + ${run.calls[1]}`));
    });
    views.push(table(`${runs[split].length} answers to ${split} questions`, ["run", "question", "answer", "right answer", "score", "latency, s", "energy, J", "tokens in / cached / out", "calls, model + tools"], rows, { class: "runs" }));
  }
  return views;
}
function tokens([into, out, cached]) { return [into, cached, out].map((count) => count == null ? "–" : count.toLocaleString("en-US")).join(" / "); }

// One run

function openRun(trial, runs, split, index) {
  const run = runs[split][index], [question, gold] = questions[split][run.id] ?? [null, null];
  const back = el("button", { type: "button", onclick: async () => { await openTrial(trial); panel.querySelector(`[data-run="${split}/${index}"]`)?.focus(); } }, `← Trial ${trial}`);
  const step = (by, text) => { const to = nextRun(runs[split], index, by); return el("button", { type: "button", disabled: to == null, "aria-label": text, onclick: () => openRun(trial, runs, split, to) }, by < 0 ? "‹" : "›"); };
  const facts = [["question", question], ["answer", run.error ? `failed: ${run.error}` : run.answer || "–"], ["right answer", gold], ["score", number(run.score)]].filter(([, text]) => text != null);
  const turns = run.told ? transcript(run, runs.texts) : [el("p", { class: "note" }, "This page has no room for what was said in this run. ", el("code", {}, traceCommand(trial, run.id)), " shows it.")];
  panel.replaceChildren(...flat([head(`${run.id}, ${split}`, back, step(-1, "the run before"), step(1, "the next run")),
    el("dl", { class: "facts" }, facts.map(([term, text]) => [el("dt", {}, term), el("dd", {}, text)])),
    el("h3", {}, "Timeline"), timeline(run, turns), partsTable(run), callsTable(run), checkpointsTable(run),
    el("h3", {}, "Transcript"), turns]));
  present(`trial-${trial}/${split}/${index}`);
}
function nextRun(runs, index, by) {
  for (let at = index + by; at >= 0 && at < runs.length; at += by) if (runs[at].spans) return at;
  return null;
}
const seconds = (value) => `${number(value)} s`;
function timeline(run, turns) {
  const width = Math.max(320, Math.min(900, panel.clientWidth - 40)), narrow = width < 560;
  const left = 62, right = 10, end = Math.max(run.latency_s, ...run.spans.map((s) => s.end_s));
  const sx = (t) => left + t / end * (width - left - right);
  const lanes = { llm: [], tool: [] };
  const placed = run.spans.map((span, index) => ({ span, index })).sort((a, b) => a.span.start_s - b.span.start_s);
  for (const each of placed) {
    const rows = lanes[each.span.kind];
    each.row = rows.findIndex((until) => until <= each.span.start_s + 1e-9);
    if (each.row < 0) each.row = rows.push(0) - 1;
    rows[each.row] = each.span.end_s;
  }
  const tall = 24, depth = { llm: Math.max(1, lanes.llm.length), tool: Math.max(1, lanes.tool.length) };
  const top = { llm: 8, tool: 8 + depth.llm * tall + 8 };
  const sum = top.tool + depth.tool * tall + 10, height = sum + 20 + 46;
  const bars = placed.map(({ span, index, row }) => {
    const isModel = span.kind === "llm", x = sx(span.start_s), w = Math.max(2, sx(span.end_s) - x), y = top[span.kind] + row * tall;
    const told = [`call ${index + 1}: ${isModel ? "model" : "tool"} ${span.name}`, `${seconds(span.start_s)} to ${seconds(span.end_s)}, ${seconds(span.end_s - span.start_s)} long`, isModel ? `tokens in / cached / out: ${tokens(span.tokens)}` : null, span.energy_j == null ? null : `${number(span.energy_j)} J`, span.guess ? "on a guess" : null, span.error ? `error: ${span.error}` : null].filter(Boolean).join("\n");
    return svg("g", { class: `point is${isModel ? "model" : "tool"}${span.error ? " failed" : ""}`, role: "button", tabindex: -1, "data-stop": true, "data-call": index, "aria-label": told.replaceAll("\n", ", ") },
      svg("rect", { class: "fill", x, y, width: w, height: tall - 5, rx: 2 }), svg("rect", { class: "ring", x: x - 1, y: y - 1, width: w + 2, height: tall - 3 }), svg("title", {}, told));
  });
  const covered = stretches(run, end).map(({ from, to, kind }) => svg("g", { class: `is${kind}` }, svg("rect", { class: "fill", x: sx(from), y: sum, width: Math.max(0.5, sx(to) - sx(from)), height: 16 }, svg("title", {}, `${kind}: ${seconds(to - from)}`))));
  const ticks = linearTicks(0, end, narrow ? 4 : 8).map((t) => [svg("line", { class: "grid", x1: sx(t), x2: sx(t), y1: 2, y2: sum + 16 }), svg("text", { class: "tick", x: sx(t), y: sum + 32, "text-anchor": "middle" }, tickText(t))]);
  const lane = (text, y) => svg("text", { x: 0, y, class: "tick" }, text);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `Timeline of ${run.spans.length} calls over ${seconds(run.latency_s)}; arrow keys move, Enter goes to what was said` },
    svg("defs", {},
      svg("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse" }, svg("path", { d: "M-1,7L7,-1M-1,1L1,-1M5,7L7,5" })),
      svg("pattern", { id: "cross", width: 6, height: 6, patternUnits: "userSpaceOnUse" }, svg("path", { d: "M-1,7L7,-1M-1,-1L7,7" }))),
    ticks, lane("model", top.llm + 14), lane("tools", top.tool + 14), lane("together", sum + 12), bars, covered,
    svg("text", { class: "tick", x: width - right, y: height - 4, "text-anchor": "end" }, "seconds since the run began"));
  const goTo = (node) => { const turn = turns.find((t) => t.dataset?.turn === node.dataset.call); if (turn) { turn.scrollIntoView({ block: "start" }); panel.scrollTop -= 70; turn.focus({ preventScroll: true }); } };
  root.addEventListener("click", (event) => { const node = event.target.closest("[data-call]"); if (node) goTo(node); });
  const swatch = (kind, text) => el("li", {}, svg("svg", { viewBox: "0 0 20 12", class: `is${kind}`, "aria-hidden": "true" }, svg("rect", { class: "fill", x: 0.5, y: 0.5, width: 19, height: 11 })), text);
  const view = el("div", { class: "timeline" }, root, el("ul", { class: "swatches" }, swatch("model", "model"), swatch("tool", "tools"), swatch("overlap", "both at once"), swatch("neither", "neither (idle)")));
  rove(root, goTo);
  return view;
}
/** The run cut where what is in flight changes, neighbours of a kind together. */
function stretches(run, end) {
  const edges = [...new Set([0, end, ...run.spans.flatMap((s) => [s.start_s, s.end_s])])].sort((a, b) => a - b), found = [];
  for (let i = 1; i < edges.length; i++) {
    const [from, to] = [edges[i - 1], edges[i]], kinds = new Set(run.spans.filter((s) => s.start_s < to && s.end_s > from).map((s) => s.kind));
    const kind = kinds.size === 2 ? "overlap" : kinds.has("llm") ? "model" : kinds.has("tool") ? "tool" : "neither", last = found.at(-1);
    if (last?.kind === kind) last.to = to; else found.push({ from, to, kind });
  }
  return found;
}
function partsTable(run) {
  const whole = run.latency_s || 1;
  const rows = run.parts.map(([name, time, joules]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, number(time)), el("td", {}, percent(time / whole)), el("td", {}, number(joules))));
  rows.push(el("tr", {}, el("th", { scope: "row" }, "the whole run"), el("td", {}, number(run.latency_s)), el("td", {}, "100 %"), el("td", {}, number(run.used_j))));
  const reused = run.reused_s > 0 ? ` The first ${seconds(run.reused_s)} were another run’s, on which this one went on or from which it was made.` : "";
  return [table("Where the time and the joules went", ["part", "time, s", "share", "energy, J"], rows),
    el("p", { class: "note" }, `Joules are this run’s share of what the devices drew while it was being computed or waited for tools (${run.source}).${run.used_j == null ? " They are not known of this run." : ""}${reused}`)];
}
function callsTable(run) {
  const rows = run.spans.map((span, index) => el("tr", {}, el("td", {}, String(index + 1)), el("th", { scope: "row" }, `${span.kind === "llm" ? "model" : "tool"} ${span.name}${span.guess ? ", on a guess" : ""}${span.attempt ? `, try ${span.attempt}` : ""}${span.error ? `, failed: ${span.error}` : ""}`),
    el("td", {}, number(span.start_s)), el("td", {}, number(span.end_s - span.start_s)), el("td", {}, number(span.ttft_s)), el("td", {}, span.tokens ? tokens(span.tokens) : "–"), el("td", {}, number(span.energy_j))));
  return el("details", {}, el("summary", {}, `The ${run.spans.length} calls as a table`), table("Calls", ["", "call", "began, s", "took, s", "first token after, s", "tokens in / cached / out", "energy, J"], rows));
}
function checkpointsTable(run) {
  if (run.checkpoints.length < 2) return null;
  const rows = run.checkpoints.map(([budget, answer, elapsed]) => el("tr", {}, el("td", {}, String(budget)), el("td", {}, number(elapsed)), el("td", { class: "text" }, answer ?? "unknown")));
  return el("details", {}, el("summary", {}, `What smaller budgets would have answered (${run.checkpoints.length})`), table("Checkpoints", ["budget", "after, s", "answer"], rows, { class: "runs" }));
}
function transcript(run, texts) {
  let before = "";
  return run.spans.map((span, index) => {
    const [input, output] = span.said.map((place) => texts[place]), isModel = span.kind === "llm";
    // A prompt usually goes on where the one before ended: only what is new is worth reading.
    const goesOn = isModel && before && input.startsWith(before), fresh = goesOn ? input.slice(before.length) : input;
    if (isModel) before = input;
    return el("section", { class: `turn is${isModel ? "model" : "tool"}`, "data-turn": index, tabindex: -1 },
      el("h4", {}, `${index + 1}. ${isModel ? "model" : "tool"} ${span.name}, ${seconds(span.end_s - span.start_s)}${isModel ? `, tokens ${tokens(span.tokens)}` : ""}${span.energy_j == null ? "" : `, ${number(span.energy_j)} J`}`),
      long(isModel ? (goesOn ? "the prompt before, and then" : "prompt") : "called with", fresh), el("p", { class: "note" }, isModel ? "replied" : "gave"), el("pre", { tabindex: 0 }, span.error ? `${output}\n[${span.error}]` : output || "–"));
  });
}
const LONG = 1200;
function long(title, text) {
  if (text.length <= LONG) return [el("p", { class: "note" }, title), el("pre", { tabindex: 0 }, text || "–")];
  return [el("p", { class: "note" }, `${title}: the end of ${text.length.toLocaleString("en-US")} characters`), el("pre", { tabindex: 0 }, `…${text.slice(-LONG / 2)}`), el("details", {}, el("summary", {}, "all of it"), el("pre", { tabindex: 0 }, text))];
}

// The page

const PAPER = 760;
function draw(width = Math.round(Math.max(300, Math.min(1200, $("pairs").clientWidth || document.body.clientWidth - 32)))) {
  if (width === draw.width) return;
  draw.width = width;
  $("pairs").replaceChildren(...pairs.map((pair) => drawPair(pair, width)));
  $("parallel").replaceChildren(drawParallel(width));
  $("effects")?.replaceChildren(...data.effects.map((found) => drawEffects(found, width)));
  refresh();
}
const pairs = pairsOf(objectives.length);
if (pairs.length > 1) radios($("controls"), "Objectives", "pair", pairs.map(({ x, y }) => `${objectives[y].title} × ${objectives[x].title}`), 0, (index) => { state.pair = index; refresh(); });
checkbox($("controls"), "intervals of every point", state.bars, (on) => { state.bars = on; refresh(); });
if ($("effect-controls") && data.effects.length) radios($("effect-controls"), "Objective", "effect", data.effects.map((found) => objectives.find((o) => o.name === found.objective).title), 0, (index) => { state.effect = index; refresh(); });
drawLegend();
draw();
let waiting = 0;
new ResizeObserver(() => { clearTimeout(waiting); waiting = setTimeout(() => { if (!matchMedia("print").matches) draw(); }, 80); }).observe($("pairs"));
document.addEventListener("click", (event) => { const button = event.target.closest("button.open[data-trial]"); if (button) openTrial(button.dataset.trial, button); });
let closed = [];
addEventListener("beforeprint", () => { closed = [...document.querySelectorAll("details[data-print]:not([open])")]; for (const each of closed) each.open = true; draw(PAPER); });
addEventListener("afterprint", () => { for (const each of closed) each.open = false; draw(); });
async function followHash() {
  const [, trial, split, index] = /^#trial-(\d+)(?:\/(search|holdout)\/(\d+))?$/.exec(location.hash) ?? [];
  if (trial == null) return;
  await openTrial(trial, document.querySelector(`#pairs figure:not(.off) [data-trial="${trial}"]`));
  const runs = runsOf.get(Number(trial));
  if (split && runs?.[split]?.[index]?.spans) openRun(Number(trial), runs, split, Number(index));
}
addEventListener("hashchange", followHash);
followHash();
document.documentElement.dataset.drawn = performance.now().toFixed(0);
})();
