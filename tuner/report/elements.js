// Elements, numbers, scales and ticks: what every drawing is made of.
// The files of SCRIPTS in page.py are one module, in their order. Text of models and data sets is only ever set as text, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

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
const percent = (share) => (share == null ? "–" : `${Math.round(100 * share)} %`);
function number(value) {
  if (value == null) return "–";
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en-US");
  return minus(String(Number(value.toPrecision(3))));
}

// Scales and axes

/** A scale from values to pixels, logarithmic where values are positive and spread over more than a factor of 25. */
function makeScale(low, high, from, to) {
  if (low === high) {
    const pad = Math.abs(low) * 0.1 || 1;
    low -= pad;
    high += pad;
  }
  const isLog = low > 0 && high / low > 25;
  const f = isLog ? Math.log10 : (x) => x;
  const pad = 0.05 * (f(high) - f(low));
  let a = f(low) - pad,
    b = f(high) + pad;
  if (!isLog && low >= 0 && a < 0.25 * (b - a)) a = Math.min(0, low) - (low === 0 ? 0.02 * b : 0);
  const scale = (value) => from + ((f(Math.max(value, isLog ? low / 10 : value)) - a) / (b - a)) * (to - from);
  scale.isLog = isLog;
  scale.ends = [from, to];
  scale.ticks = isLog
    ? logTicks(10 ** a, 10 ** b)
    : linearTicks(a, b, Math.max(3, Math.round(Math.abs(to - from) / 70)));
  return scale;
}
function linearTicks(low, high, count) {
  const raw = (high - low) / count,
    size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find((m) => m * size >= raw) * size;
  const ticks = [];
  for (let i = Math.ceil(low / step); i * step <= high + 1e-9 * step; i++)
    ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}
function logTicks(low, high) {
  const all = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++)
    for (const m of [1, 2, 5]) {
      const t = m * 10 ** e;
      if (t >= low && t <= high) all.push(Number(t.toPrecision(3)));
    }
  return all.length > 8 ? all.filter((t) => /^1/.test(t.toExponential())) : all;
}
function tickText(value) {
  const size = Math.abs(value);
  return size !== 0 && size < 0.0001
    ? minus(value.toExponential(0))
    : minus(size >= 10000 ? value.toLocaleString("en-US") : String(value));
}
