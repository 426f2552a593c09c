// The plots: two objectives, all of them, and what knobs do.

// Two objectives

function pairsOf(count) {
  const all = [];
  for (let a = 0; a < count; a++) for (let b = a + 1; b < count; b++) all.push([a, b]);
  // What is to be maximised stands upright, what is to be kept small lies.
  return all.map(([a, b]) => (objectives[a].up ? { y: a, x: b } : objectives[b].up ? { y: b, x: a } : { x: a, y: b }));
}
const axisTitle = (index, scale) =>
  `${objectives[index].title}, ${objectives[index].unit}${scale.isLog ? " (log scale)" : ""}`;
const better = (index) => (objectives[index].up ? "higher is better" : "lower is better");
function extent(index) {
  const known = data.points.flatMap((p) => {
    const matters = !["beaten", "stopped", "infeasible"].includes(p.kind);
    return [p.values[index], ...(matters ? [p.low[index], p.high[index]] : [])].filter((v) => v != null);
  });
  // An end at 0 of an amount that none has would bring every point together on a logarithmic axis.
  const values = data.points.map((p) => p.values[index]),
    least = Math.min(...values),
    most = Math.max(...known);
  const low = Math.min(...known);
  return [
    least > 0 && most / least > 25 ? Math.max(low, least / 1.6) : low,
    objectives[index].unit === "%" ? Math.min(100, most) : Math.min(most, 2.5 * Math.max(...values)),
  ];
}
function drawPair({ x, y }, width) {
  const narrow = width < 560,
    height = narrow ? Math.round(width * 0.95) : Math.round(Math.min(560, width * 0.52));
  const box = { left: narrow ? 44 : 58, right: 16, top: 26, bottom: 50 };
  const sx = makeScale(...extent(x), box.left, width - box.right),
    sy = makeScale(...extent(y), height - box.bottom, box.top);
  const title = `${objectives[y].title} by ${objectives[x].title}`;
  const parts = [
    sx.ticks.map((t) => [
      svg("line", { class: "grid", x1: sx(t), x2: sx(t), y1: box.top, y2: height - box.bottom }),
      svg("text", { class: "tick", x: sx(t), y: height - box.bottom + 17, "text-anchor": "middle" }, tickText(t)),
    ]),
    sy.ticks.map((t) => [
      svg("line", { class: "grid", x1: box.left, x2: width - box.right, y1: sy(t), y2: sy(t) }),
      svg("text", { class: "tick", x: box.left - 8, y: sy(t) + 4, "text-anchor": "end" }, tickText(t)),
    ]),
    svg("line", {
      class: "axis",
      x1: box.left,
      x2: width - box.right,
      y1: height - box.bottom,
      y2: height - box.bottom,
    }),
    svg(
      "text",
      { x: (box.left + width - box.right) / 2, y: height - 10, "text-anchor": "middle" },
      narrow ? axisTitle(x, sx) : `${axisTitle(x, sx)} — ${better(x)}`,
    ),
    svg("text", { x: 2, y: 14 }, narrow ? axisTitle(y, sy) : `${axisTitle(y, sy)} — ${better(y)}`),
  ];
  const place = (point) => [sx(point.values[x]), sy(point.values[y])];
  for (const point of data.points) {
    if (point.split !== "holdout") continue;
    const before = data.points.find((other) => other.trial === point.trial && other.split === "search");
    if (!before) continue;
    const [x1, y1] = place(before),
      [x2, y2] = place(point);
    parts.push(svg("line", { class: "link", x1, y1, x2, y2, "data-link": `${before.index} ${point.index}` }));
  }
  parts.push(stair(hasHoldout ? "holdout" : "front", x, y, place));
  const rank = { beaten: 0, stopped: 1, infeasible: 2, near: 3, front: 4, holdout: 5 };
  const ordered = [...data.points].sort((p, q) => rank[p.kind] - rank[q.kind]);
  for (const point of ordered) parts.push(errorBars(point, x, y, sx, sy));
  const marks = [...data.points]
    .sort((p, q) => p.values[x] - q.values[x] || p.values[y] - q.values[y])
    .map((point) => {
      const [cx, cy] = place(point),
        chosen = isChosen(point);
      return svg(
        "g",
        {
          class: `point ${classOf(point.kind, point.flags)}`,
          transform: `translate(${cx.toFixed(1)},${cy.toFixed(1)})`,
          role: "button",
          tabindex: -1,
          "data-stop": true,
          "data-point": point.index,
          "data-trial": point.trial,
          "data-x": cx,
          "data-y": cy,
          "data-first": chosen ? "yes" : null,
          "aria-label": describe(point) + (chosen ? "; recommended" : ""),
        },
        svg("circle", { class: "ring", r: 13 }),
        chosen ? svg("circle", { class: "halo", r: 14.5 }) : null,
        glyph(point.kind, point.flags, point.membership, narrow ? 5.5 : 6.5),
      );
    });
  // Those that matter most are painted last; arrows go by the order on the axis.
  parts.push(marks);
  const chosen = data.points.find(isChosen);
  if (chosen) {
    const [cx, cy] = place(chosen),
      toLeft = cx > width - 190;
    parts.push(
      svg(
        "text",
        {
          class: "callout",
          x: toLeft ? cx - 19 : cx + 19,
          y: cy - 12,
          "text-anchor": toLeft ? "end" : "start",
          "data-point": chosen.index,
          "aria-hidden": "true",
        },
        `${data.recommended.rule}: trial ${chosen.trial}`,
      ),
    );
  }
  const root = svg(
    "svg",
    {
      viewBox: `0 0 ${width} ${height}`,
      role: "group",
      "aria-label": `${title}: ${data.points.length} points; arrow keys move, Enter opens`,
    },
    parts,
  );
  const figure = el("figure", {}, root, el("figcaption", {}, summaryOf(x, y)));
  wire(root, 26, (node, at) => Math.hypot(node.dataset.x - at.x, node.dataset.y - at.y));
  return figure;
}
function stair(kind, x, y, place) {
  const sign = (index, value) => (objectives[index].up ? -value : value);
  const points = data.points
    .filter((p) => p.kind === kind && p.membership != null && (kind !== "holdout" || p.on_front))
    .sort((p, q) => sign(x, p.values[x]) - sign(x, q.values[x]) || sign(y, p.values[y]) - sign(y, q.values[y]));
  let best = Infinity;
  const kept = points.filter((p) => sign(y, p.values[y]) < best && ((best = sign(y, p.values[y])), true));
  if (kept.length < 2) return null;
  const d = kept
    .map((p, i) => {
      const [px, py] = place(p);
      return i ? `H${px.toFixed(1)}V${py.toFixed(1)}` : `M${px.toFixed(1)},${py.toFixed(1)}`;
    })
    .join("");
  return svg("g", { class: kind }, svg("path", { class: "stair", d, "data-stair": kind }));
}
function errorBars(point, x, y, sx, sy) {
  const cx = sx(point.values[x]),
    cy = sy(point.values[y]);
  const clip = (scale, value, end) => {
    const [a, b] = [...scale.ends].sort((p, q) => p - q);
    return value == null
      ? (end === "high") === scale.ends[0] < scale.ends[1]
        ? b
        : a
      : Math.min(b, Math.max(a, scale(value)));
  };
  const [x1, x2] = [clip(sx, point.low[x], "low"), clip(sx, point.high[x], "high")],
    [y1, y2] = [clip(sy, point.low[y], "low"), clip(sy, point.high[y], "high")];
  const cap = (value, d) => (value == null ? null : svg("path", { d }));
  const always = ["front", "holdout"].includes(point.kind);
  return svg(
    "g",
    {
      class: `bar ${classOf(point.kind, point.flags)}`,
      opacity: always ? 0.55 : 0.35,
      "data-bars": always ? "always" : "some",
      "data-of": point.index,
    },
    svg("path", {
      d: `M${x1.toFixed(1)},${cy.toFixed(1)}H${x2.toFixed(1)}M${cx.toFixed(1)},${y1.toFixed(1)}V${y2.toFixed(1)}`,
    }),
    cap(point.low[x], `M${x1},${cy - 3}V${cy + 3}`),
    cap(point.high[x], `M${x2},${cy - 3}V${cy + 3}`),
    cap(point.low[y], `M${cx - 3},${y1}H${cx + 3}`),
    cap(point.high[y], `M${cx - 3},${y2}H${cx + 3}`),
  );
}
function summaryOf(x, y) {
  const split = hasHoldout ? "holdout" : "search";
  const all = data.points.filter((p) => p.split === split && p.membership != null && !Object.keys(p.excess).length);
  if (!all.length) return "";
  const best = (index) =>
    all.reduce((p, q) =>
      (objectives[index].up ? q.values[index] > p.values[index] : q.values[index] < p.values[index]) ? q : p,
    );
  const said = [y, x].map((index) => {
    const p = best(index);
    return `best ${objectives[index].title}: trial ${p.trial} with ${shownFor(p, objectives[index].name)}`;
  });
  return `On the ${split} questions, ${said.join("; ")}. The stepped line joins what is best in these two alone. Figures of all points are in the tables below.`;
}

// All objectives

function drawParallel(width) {
  const narrow = width < 560,
    height = narrow ? 330 : 380,
    top = 62,
    bottom = height - 22,
    side = narrow ? 34 : 70;
  const axes = [
    ...objectives.map((o, index) => ({
      title: o.title,
      unit: o.unit,
      value: (p) => p.values[index],
      range: [
        Math.min(...data.points.map((p) => p.values[index])),
        Math.max(...data.points.map((p) => p.values[index])),
      ],
      up: o.up,
    })),
    {
      title: "on the front",
      unit: "% of resamples",
      value: (p) => (p.membership == null ? null : 100 * p.membership),
      range: [0, 100],
      up: true,
    },
  ];
  axes.forEach((axis, index) => {
    axis.x = side + (index * (width - 2 * side)) / (axes.length - 1);
    axis.scale = makeScale(...axis.range, axis.up ? bottom : top, axis.up ? top : bottom);
  });
  const parts = axes.map((axis, index) => {
    const anchor = index === 0 ? "start" : index === axes.length - 1 ? "end" : "middle";
    const x = index === 0 ? axis.x - side + 4 : index === axes.length - 1 ? axis.x + side - 4 : axis.x;
    const words = narrow
      ? axis.title
          .replace("median latency", "latency p50")
          .replace("95th percentile of latency", "latency p95")
          .replace("mean latency", "latency mean")
      : axis.title;
    return [
      svg("text", { x, y: 16, "text-anchor": anchor }, words),
      svg(
        "text",
        { class: "tick", x, y: 33, "text-anchor": anchor },
        `${narrow ? axis.unit.replace(/ of resamples|\/query/, "") : axis.unit}${axis.scale.isLog ? ", log" : ""}`,
      ),
      svg("text", { class: "tick", x, y: 49, "text-anchor": anchor, "aria-hidden": "true" }, narrow ? "↑" : "↑ better"),
      svg("line", { class: "axis", x1: axis.x, x2: axis.x, y1: top - 6, y2: bottom + 6 }),
      axis.scale.ticks.map((t) =>
        svg("line", { class: "axis", x1: axis.x - 4, x2: axis.x, y1: axis.scale(t), y2: axis.scale(t) }),
      ),
    ];
  });
  // Above the lines, which would hide them.
  const labels = axes.map((axis) =>
    axis.scale.ticks.map((t) =>
      svg("text", { class: "tick above", x: axis.x - 9, y: axis.scale(t) + 4, "text-anchor": "end" }, tickText(t)),
    ),
  );
  const rank = { stopped: 0, beaten: 1, infeasible: 2, near: 3, front: 4, holdout: 5 };
  const look = {
    front: [1.8, 0.85, null],
    near: [1.3, 0.7, "6 3"],
    beaten: [1, 0.3, null],
    infeasible: [1.2, 0.6, "2 3"],
    stopped: [1, 0.45, "1 3"],
    holdout: [2.4, 0.9, null],
  };
  const lines = [...data.points]
    .sort((p, q) => rank[p.kind] - rank[q.kind] || p.values[0] - q.values[0])
    .map((point) => {
      const at = axes
        .map((axis) => {
          const v = axis.value(point);
          return v == null ? null : [axis.x, axis.scale(v)];
        })
        .filter(Boolean);
      const [size, opacity, dashes] = look[point.kind];
      const ends =
        point.kind === "holdout" || point.kind === "front"
          ? at.map(([cx, cy]) =>
              svg(
                "g",
                { transform: `translate(${cx},${cy.toFixed(1)})` },
                glyph(point.kind, point.flags, point.membership, 3.6),
              ),
            )
          : [];
      return svg(
        "g",
        {
          class: `point ${classOf(point.kind, point.flags)}`,
          role: "button",
          tabindex: -1,
          "data-stop": true,
          "data-point": point.index,
          "data-trial": point.trial,
          "data-first": isChosen(point) ? "yes" : null,
          "data-at": JSON.stringify(at),
          "aria-label": describe(point),
        },
        svg("polyline", {
          class: "course",
          points: at.map((pair) => pair.map((v) => v.toFixed(1)).join(",")).join(" "),
          "stroke-width": isChosen(point) ? size + 2 : size,
          opacity,
          "stroke-dasharray": dashes,
        }),
        ends,
      );
    });
  const root = svg(
    "svg",
    {
      viewBox: `0 0 ${width} ${height}`,
      role: "group",
      "aria-label": "Parallel coordinates: a line for each config; arrow keys move, Enter opens",
    },
    parts,
    lines,
    labels,
  );
  const figure = el(
    "figure",
    {},
    root,
    el(
      "figcaption",
      {},
      "Thick lines with rings: holdout. Solid: the search front. Dashed: near it, dotted: beyond a constraint or stopped, thin: dominated. The same figures are in the tables below.",
    ),
  );
  wire(root, 14, (node, at) => {
    const points = JSON.parse(node.dataset.at);
    let least = Infinity;
    for (let i = 1; i < points.length; i++) {
      const [[x1, y1], [x2, y2]] = [points[i - 1], points[i]],
        t = Math.max(
          0,
          Math.min(1, ((at.x - x1) * (x2 - x1) + (at.y - y1) * (y2 - y1)) / ((x2 - x1) ** 2 + (y2 - y1) ** 2)),
        );
      least = Math.min(least, Math.hypot(x1 + t * (x2 - x1) - at.x, y1 + t * (y2 - y1) - at.y));
    }
    return least;
  });
  return figure;
}

// Knobs

const KNOBS_DRAWN = 8;
function drawEffects(found, width) {
  const objective = objectives.find((o) => o.name === found.objective),
    isRatio = found.scale === "ratio";
  const knobs = found.knobs.slice(0, KNOBS_DRAWN);
  const title = `Effects on ${objective.title}`;
  if (!knobs.length) return el("figure", {}, el("figcaption", {}, `${title}: the configs do not differ in it.`));
  const narrow = width < 560,
    left = narrow ? 118 : Math.max(290, Math.min(440, 8 * Math.max(...knobs.map((knob) => knob.knob.length)) + 100)),
    right = narrow ? 12 : 30,
    row = 22;
  const values = knobs.flatMap((k) => k.values.flatMap((v) => [v.low ?? v.effect, v.high ?? v.effect, v.effect]));
  const rest = isRatio ? 1 : 0;
  let [low, high] = [Math.min(rest, ...values), Math.max(rest, ...values)];
  const f = isRatio ? Math.log : (v) => v,
    lo = f(low),
    hi = f(high),
    span = hi - lo || 1;
  const sx = (v) => left + ((f(v) - lo + 0.04 * span) / (1.08 * span)) * (width - left - right);
  const ticks = isRatio
    ? [0.1, 0.2, 0.33, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10].filter((t) => t >= low && t <= high)
    : linearTicks(low, high, narrow ? 3 : 6);
  const shownTicks =
    narrow && ticks.length > 5 ? ticks.filter((t) => [0.1, 0.2, 0.5, 1, 2, 5, 10].includes(t) || !isRatio) : ticks;
  let y = 28;
  const rows = [],
    bands = [];
  for (const knob of knobs) {
    const share = knob.importance;
    rows.push(
      svg(
        "text",
        { x: 2, y: y + 15, "font-weight": 650 },
        narrow && knob.knob.length > 24 ? `…${knob.knob.slice(-23)}` : knob.knob,
      ),
      svg(
        "text",
        { class: "tick", x: narrow ? width - right : left - 12, y: y + 15, "text-anchor": "end" },
        share == null ? "" : `matters ${percent(share)}`,
      ),
    );
    if (share != null && !narrow)
      rows.push(
        svg("rect", {
          x: left - 12 - 80 * share,
          y: y + 19,
          width: 80 * share,
          height: 3,
          class: "front",
          fill: "var(--front)",
        }),
      );
    y += row;
    for (const value of knob.values) {
      const middle = y + row / 2,
        sure = isRatio ? value.low > 1 || value.high < 1 : value.low > 0 || value.high < 0;
      const good = value.effect > rest === objective.up,
        text = isRatio ? `×${value.effect.toFixed(2)}` : `${value.effect > 0 ? "+" : ""}${number(value.effect)}`;
      const label = narrow && value.value.length > 13 ? `${value.value.slice(0, 12)}…` : value.value;
      rows.push(
        svg(
          "g",
          { class: !sure ? "beaten" : good ? "holdout" : "infeasible" },
          svg("text", { class: "tick", x: left - 12, y: middle + 4, "text-anchor": "end" }, label),
          svg("path", {
            class: "bar",
            d: `M${sx(value.low ?? low)},${middle}H${sx(value.high ?? high)}`,
            "stroke-width": 2,
          }),
          svg(
            "g",
            { transform: `translate(${sx(value.effect)},${middle})` },
            svg("path", {
              class: "glyph",
              d: !sure ? SHAPES.circle(4.5) : good ? SHAPES.square(4.5) : SHAPES.diamond(4.5),
              "fill-opacity": sure ? 1 : 0.1,
            }),
          ),
          svg("title", {}, `${knob.knob} = ${value.value}: ${text} (${value.configs} configs)`),
        ),
      );
      y += row;
    }
    y += 8;
    bands.push(svg("line", { class: "grid", x1: 0, x2: width, y1: y - 4, y2: y - 4 }));
  }
  const height = y + 44,
    unit = isRatio
      ? "× the average over the knob’s values (log scale)"
      : `${objective.unit === "%" ? "percentage points" : objective.unit} from the average over the knob’s values`;
  const grid = shownTicks.map((t) => [
    svg("line", { class: "grid", x1: sx(t), x2: sx(t), y1: 22, y2: y }),
    svg("text", { class: "tick", x: sx(t), y: y + 16, "text-anchor": "middle" }, isRatio ? `×${t}` : tickText(t)),
  ]);
  const root = svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}; the table below has every figure` },
    grid,
    bands,
    svg("line", { class: "axis", x1: sx(rest), x2: sx(rest), y1: 22, y2: y, "stroke-width": 1.5 }),
    rows,
    svg("text", { x: narrow ? 2 : left, y: 13 }, `${objective.title} — ${better(objectives.indexOf(objective))}`),
    svg(
      "text",
      {
        class: "tick",
        x: narrow ? width - right : (left + width - right) / 2,
        y: y + 36,
        "text-anchor": narrow ? "end" : "middle",
      },
      narrow ? unit.replace(" over the knob’s values", "") : unit,
    ),
  );
  const more =
    found.knobs.length > knobs.length
      ? ` The ${knobs.length} knobs that matter most of ${found.knobs.length}; the table has all.`
      : "";
  return el(
    "figure",
    {},
    root,
    el("figcaption", {}, `■ better and ◆ worse than the average, ○ perhaps neither; lines are 95 % intervals.${more}`),
  );
}
