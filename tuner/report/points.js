// Points: what they are called, how they look, which are shown, and how pointer and keyboard reach them.

const objectives = data.objectives;
data.points.forEach((point, index) => {
  point.index = index;
  point.info = data.trials[point.trial];
});
const hasHoldout = data.points.some((point) => point.split === "holdout");
const KINDS = {
  front: "on the search front",
  near: "near the front",
  beaten: "dominated",
  infeasible: "beyond a constraint",
  stopped: "stopped early",
  holdout: "measured again on holdout questions",
};
const FLAGS = {
  derived: "derived from checkpoints",
  reused: "reused from another study",
  oracle: "oracle: told when right",
  failed: "some questions failed",
};
const shownFor = (point, name) => point.shown[name];
const isChosen = (point) =>
  data.recommended && point.trial === data.recommended.trial && point.split === data.recommended.split;
function describe(point) {
  const figures = objectives.map((o) => `${o.title} ${shownFor(point, o.name)}`).join(", ");
  const marks = point.flags.map((flag) => FLAGS[flag]);
  const membership = point.membership == null ? [] : [`on the front in ${percent(point.membership)} of resamples`];
  return [
    `trial ${point.trial}, ${KINDS[point.kind]}: ${point.info.label}`,
    figures,
    ...membership,
    `${point.n} ${point.split} questions`,
    ...marks,
  ].join("; ");
}

const SHAPES = {
  circle: (r) => `M${r},0A${r},${r},0,1,1,${-r},0A${r},${r},0,1,1,${r},0Z`,
  diamond: (r) => `M0,${-1.3 * r}L${1.3 * r},0L0,${1.3 * r}L${-1.3 * r},0Z`,
  square: (r) => `M${-r},${-r}H${r}V${r}H${-r}Z`,
  down: (r) => `M${-1.15 * r},${-0.8 * r}H${1.15 * r}L0,${1.2 * r}Z`,
  star: (r) =>
    `M${[...Array(10).keys()]
      .map((i) => {
        const q = i % 2 ? 0.55 * r : 1.4 * r,
          t = Math.PI * (i / 5 - 0.5);
        return `${(q * Math.cos(t)).toFixed(2)},${(q * Math.sin(t)).toFixed(2)}`;
      })
      .join("L")}Z`,
  cross: (r) => `M${-r},${-r}L${r},${r}M${-r},${r}L${r},${-r}`,
};
/** The marker of a kind and flags: shape says how it came about, what is around or across it where it belongs; filled by membership. */
function glyph(kind, flags, membership, radius = 6.5) {
  const r = kind === "beaten" ? radius * 0.62 : radius;
  const shape = flags.includes("oracle")
    ? "star"
    : kind === "stopped"
      ? "down"
      : flags.includes("derived")
        ? "diamond"
        : flags.includes("reused")
          ? "square"
          : "circle";
  const parts = [];
  if (kind === "infeasible") {
    if (shape !== "circle") parts.push(svg("path", { class: "glyph bare", d: SHAPES[shape](r) }));
    parts.push(svg("path", { class: "glyph bare", d: SHAPES.cross(r * 0.8), "stroke-width": 2.2 }));
  } else {
    const opacity = kind === "stopped" ? 0 : kind === "beaten" ? 0.25 : 0.06 + 0.94 * (membership ?? 0);
    parts.push(
      svg("path", {
        class: "glyph",
        d: SHAPES[shape](r),
        "fill-opacity": opacity,
        "stroke-dasharray": kind === "near" ? "2.5 2" : null,
      }),
    );
    if (kind === "holdout")
      parts.push(svg("path", { class: "glyph bare", d: SHAPES[shape](r + 3.2), "stroke-width": 1.2 }));
  }
  if (flags.includes("failed"))
    parts.push(svg("path", { class: "glyph bare", d: `M${-r},${r + 5}H${r}`, "stroke-width": 2 }));
  return parts;
}
const classOf = (kind, flags) => `${kind}${flags.includes("oracle") ? " isoracle" : ""}`;

// What is shown: one state for all plots

const state = { pair: 0, bars: data.points.length <= 40, off: new Set(), effect: 0 };
const tagsOf = (point) => [point.kind, ...point.flags];
const isShown = (point) => !tagsOf(point).some((tag) => state.off.has(tag));

function radios(into, legend, name, labels, chosen, choose) {
  into.append(
    el(
      "fieldset",
      {},
      el("legend", {}, legend),
      labels.map((label, index) =>
        el(
          "label",
          { class: "choice" },
          el("input", { type: "radio", name, value: index, checked: index === chosen, onchange: () => choose(index) }),
          el("span", {}, label),
        ),
      ),
    ),
  );
}
function checkbox(into, label, checked, change) {
  into.append(
    el(
      "label",
      {},
      el("input", { type: "checkbox", checked, onchange: (event) => change(event.target.checked) }),
      ` ${label}`,
    ),
  );
}
function drawLegend() {
  const items = [...Object.entries(KINDS), ...Object.entries(FLAGS)]
    .map(([tag, text]) => ({ tag, text, points: data.points.filter((point) => tagsOf(point).includes(tag)) }))
    .filter((item) => item.points.length);
  $("legend").replaceChildren(
    ...items.map(({ tag, text, points }) => {
      const isKind = tag in KINDS,
        kind = isKind ? tag : "beaten",
        flags = isKind ? [] : [tag];
      const sign = svg(
        "svg",
        { viewBox: "-11 -11 22 22", "aria-hidden": "true", class: classOf(kind, flags) },
        glyph(isKind ? kind : "front", flags, isKind ? (kind === "near" ? 0.3 : 0.8) : 0.4, 6),
      );
      return el(
        "button",
        {
          type: "button",
          "aria-pressed": "true",
          "data-tag": tag,
          onclick: (event) => {
            const off = !state.off.delete(tag);
            if (off) state.off.add(tag);
            event.currentTarget.setAttribute("aria-pressed", String(!off));
            refresh();
          },
        },
        sign,
        `${text} (${points.length})`,
      );
    }),
  );
}
function refresh() {
  for (const node of document.querySelectorAll("[data-point]"))
    node.classList.toggle("gone", !isShown(data.points[node.dataset.point]));
  for (const node of document.querySelectorAll("[data-link]"))
    node.classList.toggle(
      "gone",
      node.dataset.link.split(" ").some((i) => !isShown(data.points[i])),
    );
  for (const node of document.querySelectorAll("[data-bars]"))
    node.classList.toggle(
      "gone",
      !(state.bars || node.dataset.bars === "always") || !isShown(data.points[node.dataset.of]),
    );
  document
    .querySelectorAll("#pairs figure")
    .forEach((figure, index) => figure.classList.toggle("off", index !== state.pair));
  document
    .querySelectorAll("#effects figure")
    .forEach((figure, index) => figure.classList.toggle("off", index !== state.effect));
  document.querySelectorAll(".plots svg[role=group]").forEach(keepOneStop);
}

// Keyboard: one tab stop a plot, arrows within

const stops = (root) => [...root.querySelectorAll("[data-stop]:not(.gone)")];
function keepOneStop(root) {
  const all = stops(root);
  const current =
    all.find((node) => node.getAttribute("tabindex") === "0") ?? all.find((node) => node.dataset.first) ?? all[0];
  for (const node of root.querySelectorAll("[data-stop]")) node.setAttribute("tabindex", node === current ? 0 : -1);
}
function rove(root, open) {
  root.addEventListener("keydown", (event) => {
    const all = stops(root),
      at = all.indexOf(document.activeElement);
    if (at < 0) return;
    const to = {
      ArrowRight: at + 1,
      ArrowDown: at + 1,
      ArrowLeft: at - 1,
      ArrowUp: at - 1,
      Home: 0,
      End: all.length - 1,
    }[event.key];
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
const hideTip = () => {
  tip.hidden = true;
};
function tipOf(point) {
  const lines = objectives.map((o) => `${o.title}: ${shownFor(point, o.name)}`);
  if (point.membership != null) lines.push(`on the front in ${percent(point.membership)} of resamples`);
  return [
    `trial ${point.trial}, ${KINDS[point.kind]} (${point.n} ${point.split} questions)`,
    point.info.label,
    ...lines,
    ...point.flags.map((flag) => FLAGS[flag]),
  ].join("\n");
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
    let best = null,
      least = reach;
    for (const node of stops(root)) {
      const apart = distance(node, here);
      if (apart < least) [best, least] = [node, apart];
    }
    return best;
  };
  root.addEventListener("pointermove", (event) => {
    const node = nearest(event);
    root.style.cursor = node ? "pointer" : "";
    if (!node) {
      hideTip();
      heat(null);
      return;
    }
    const point = data.points[node.dataset.point];
    heat(point);
    showTip(tipOf(point), event.clientX, event.clientY);
  });
  root.addEventListener("pointerleave", () => {
    hideTip();
    heat(null);
  });
  root.addEventListener("click", (event) => {
    const node = nearest(event);
    if (node) openTrial(data.points[node.dataset.point].trial, node);
  });
  // Not on the drawing itself, which Chromium would make a tab stop for it.
  root.parentNode.addEventListener("focusin", (event) => {
    const node = event.target.closest("[data-point]");
    if (!node || !node.matches(":focus-visible")) return;
    const box = node.getBoundingClientRect();
    heat(data.points[node.dataset.point]);
    showTip(tipOf(data.points[node.dataset.point]), box.x + box.width / 2, box.y + box.height / 2);
  });
  root.parentNode.addEventListener("focusout", () => {
    hideTip();
    heat(null);
  });
  rove(root, (node) => openTrial(data.points[node.dataset.point].trial, node));
}
