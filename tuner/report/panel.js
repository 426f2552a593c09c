// The panel: a trial with its runs, unpacked when somebody asks for them, and one run with its timeline and transcript.

// Packed runs

async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}
let questions = null;
const loadQuestions = async () =>
  (questions ??= data.questions ? await unpack(data.questions) : { search: {}, holdout: {} });
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
panel.addEventListener("click", (event) => {
  if (event.target === panel) panel.close();
});
function head(title, ...buttons) {
  const close = el(
    "button",
    { type: "button", "aria-label": "close", onclick: () => panel.close() },
    "✕",
    el("span", { class: "word" }, " Close"),
  );
  return el("div", { class: "panelhead" }, buttons, el("h2", { id: "panel-title", tabindex: -1 }, title), close);
}
function table(caption, columns, rows, attributes = {}) {
  const heads = columns.map((column) => el("th", { scope: "col" }, column));
  return el(
    "div",
    { class: "scroll", role: "region", tabindex: 0, "aria-label": caption },
    el(
      "table",
      attributes,
      el("caption", {}, el("span", {}, caption)),
      el("thead", {}, el("tr", {}, heads)),
      el("tbody", {}, rows),
    ),
  );
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
  const info = data.trials[trial],
    points = data.points.filter((point) => point.trial === trial);
  panel.replaceChildren(
    ...flat([
      head(`Trial ${trial}`),
      el("p", { class: "config" }, info.label),
      info.notes.map((note) => el("p", { class: "note" }, note)),
      el("h3", {}, "Measured"),
      measured(points, info),
      el("h3", {}, "Config"),
      el("p", { class: "note" }, "What the study does not vary is grey."),
      el(
        "dl",
        { class: "knobs" },
        info.config.map(([name, value, varied]) =>
          el("div", { class: varied ? null : "fixed" }, el("dt", {}, name), el("dd", {}, value)),
        ),
      ),
      el("h3", {}, "Runs"),
      runsView(trial, runs),
    ]),
  );
  present(`trial-${trial}`);
}
function present(hash) {
  if (!panel.open) panel.showModal();
  panel.scrollTop = 0;
  history.replaceState(null, "", `#${hash}`);
  panel.querySelector("h2").focus({ preventScroll: true });
}
function measured(points, info) {
  const names = Object.keys(points[0].shown),
    hasDrop = points.some((point) => Object.keys(point.drop).length);
  const titleOf = (name) => objectives.find((o) => o.name === name)?.title ?? `${name} (only constrained)`;
  const rows = names.map((name) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, titleOf(name)),
      points.map((point) =>
        el(
          "td",
          {},
          point.shown[name],
          point.excess[name] ? el("span", { class: "mark" }, `beyond its bound by ${point.excess[name]}`) : null,
        ),
      ),
      hasDrop ? el("td", {}, points.find((p) => p.drop[name])?.drop[name] ?? "–") : null,
    ),
  );
  const line = (title, of) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, title),
      points.map((point) => el("td", {}, of(point))),
      hasDrop ? el("td", {}, "") : null,
    );
  rows.push(
    line("on the front, of resamples", (point) => percent(point.membership)),
    line("what it is", (point) => KINDS[point.kind]),
    line("questions that failed", (point) => `${point.failed} of ${point.n}`),
  );
  if (points.some((point) => point.group)) rows.push(line("alike", (point) => point.group || "–"));
  return [
    table(
      "Values with 95 % intervals",
      ["", ...points.map((point) => `${point.n} ${point.split} questions`), ...(hasDrop ? ["drop"] : [])],
      rows,
    ),
    info.source ? el("p", { class: "note" }, `Energy: ${info.source}.`) : null,
  ];
}
const traceCommand = (trial, id) => `tuner trace ${data.path} ${trial} ${id}`;
function runsView(trial, runs) {
  if (!runs)
    return el(
      "p",
      { class: "note" },
      "This page has no room for the runs of this trial. ",
      el("code", {}, `tuner show ${data.path} ${trial}`),
      " lists them.",
    );
  const views = [];
  if (data.replayed)
    views.push(
      el(
        "p",
        { class: "note" },
        "Replayed from a table, which holds figures only: there are no answers and no calls to show.",
      ),
    );
  else if (data.blocks[trial][0] === "rows")
    views.push(
      el(
        "p",
        { class: "note" },
        "This page has no room for the calls of this trial’s runs. ",
        el("code", {}, traceCommand(trial, "EXAMPLE")),
        " shows them.",
      ),
    );
  else if (data.blocks[trial][0] === "calls")
    views.push(
      el(
        "p",
        { class: "note" },
        "This page has the timelines of these runs; ",
        el("code", {}, traceCommand(trial, "EXAMPLE")),
        " shows what was said.",
      ),
    );
  if (data.no_questions) views.push(el("p", { class: "note" }, `The questions cannot be shown: ${data.no_questions}`));
  for (const split of ["holdout", "search"]) {
    if (!runs[split].length) continue;
    const rows = runs[split].map((run, index) => {
      const [question, gold] = questions[split][run.id] ?? ["–", "–"];
      const verdict = run.score >= 1 ? "right" : run.score > 0 ? "part" : "wrong";
      return el(
        "tr",
        {},
        el(
          "td",
          {},
          run.spans
            ? el(
                "button",
                {
                  type: "button",
                  class: "open",
                  "data-run": `${split}/${index}`,
                  "aria-label": `open the run of ${run.id}`,
                  onclick: () => openRun(trial, runs, split, index),
                },
                run.id,
              )
            : run.id,
          run.repeat ? ` again (${run.repeat + 1})` : "",
        ),
        el("th", { scope: "row", class: "text" }, el("div", { class: "clamp", title: question }, question)),
        el(
          "td",
          { class: "text" },
          el(
            "div",
            { class: "clamp", title: run.error ?? run.answer },
            run.error ? `failed: ${run.error}` : run.answer || "–",
          ),
        ),
        el("td", { class: "text" }, el("div", { class: "clamp", title: gold }, gold || "–")),
        el("td", {}, el("span", { class: verdict }, number(run.score))),
        el("td", {}, number(run.latency_s)),
        el("td", {}, number(run.energy_j)),
        el("td", {}, tokens(run.tokens)),
        el("td", {}, `${run.calls[0]} + ${run.calls[1]}`),
      );
    });
    views.push(
      table(
        `${runs[split].length} answers to ${split} questions`,
        [
          "run",
          "question",
          "answer",
          "right answer",
          "score",
          "latency, s",
          "energy, J",
          "tokens in / cached / out",
          "calls, model + tools",
        ],
        rows,
        { class: "runs" },
      ),
    );
  }
  return views;
}
function tokens([into, out, cached]) {
  return [into, cached, out].map((count) => (count == null ? "–" : count.toLocaleString("en-US"))).join(" / ");
}

// One run

function openRun(trial, runs, split, index) {
  const run = runs[split][index],
    [question, gold] = questions[split][run.id] ?? [null, null];
  const back = el(
    "button",
    {
      type: "button",
      onclick: async () => {
        await openTrial(trial);
        panel.querySelector(`[data-run="${split}/${index}"]`)?.focus();
      },
    },
    `← Trial ${trial}`,
  );
  const step = (by, text) => {
    const to = nextRun(runs[split], index, by);
    return el(
      "button",
      { type: "button", disabled: to == null, "aria-label": text, onclick: () => openRun(trial, runs, split, to) },
      by < 0 ? "‹" : "›",
    );
  };
  const facts = [
    ["question", question],
    ["answer", run.error ? `failed: ${run.error}` : run.answer || "–"],
    ["right answer", gold],
    ["score", number(run.score)],
  ].filter(([, text]) => text != null);
  const turns = run.told
    ? transcript(run, runs.texts)
    : [
        el(
          "p",
          { class: "note" },
          "This page has no room for what was said in this run. ",
          el("code", {}, traceCommand(trial, run.id)),
          " shows it.",
        ),
      ];
  panel.replaceChildren(
    ...flat([
      head(`${run.id}, ${split}`, back, step(-1, "the run before"), step(1, "the next run")),
      el(
        "dl",
        { class: "facts" },
        facts.map(([term, text]) => [el("dt", {}, term), el("dd", {}, text)]),
      ),
      el("h3", {}, "Timeline"),
      timeline(run, turns),
      partsTable(run),
      callsTable(run),
      checkpointsTable(run),
      el("h3", {}, "Transcript"),
      turns,
    ]),
  );
  present(`trial-${trial}/${split}/${index}`);
}
function nextRun(runs, index, by) {
  for (let at = index + by; at >= 0 && at < runs.length; at += by) if (runs[at].spans) return at;
  return null;
}
const seconds = (value) => `${number(value)} s`;
function timeline(run, turns) {
  const width = Math.max(320, Math.min(900, panel.clientWidth - 40)),
    narrow = width < 560;
  const left = 62,
    right = 10,
    end = Math.max(run.latency_s, ...run.spans.map((s) => s.end_s));
  const sx = (t) => left + (t / end) * (width - left - right);
  const lanes = { llm: [], tool: [] };
  const placed = run.spans.map((span, index) => ({ span, index })).sort((a, b) => a.span.start_s - b.span.start_s);
  for (const each of placed) {
    const rows = lanes[each.span.kind];
    each.row = rows.findIndex((until) => until <= each.span.start_s + 1e-9);
    if (each.row < 0) each.row = rows.push(0) - 1;
    rows[each.row] = each.span.end_s;
  }
  const tall = 24,
    depth = { llm: Math.max(1, lanes.llm.length), tool: Math.max(1, lanes.tool.length) };
  const top = { llm: 8, tool: 8 + depth.llm * tall + 8 };
  const sum = top.tool + depth.tool * tall + 10,
    height = sum + 20 + 46;
  const bars = placed.map(({ span, index, row }) => {
    const isModel = span.kind === "llm",
      x = sx(span.start_s),
      w = Math.max(2, sx(span.end_s) - x),
      y = top[span.kind] + row * tall;
    const told = [
      `call ${index + 1}: ${isModel ? "model" : "tool"} ${span.name}`,
      `${seconds(span.start_s)} to ${seconds(span.end_s)}, ${seconds(span.end_s - span.start_s)} long`,
      isModel ? `tokens in / cached / out: ${tokens(span.tokens)}` : null,
      span.energy_j == null ? null : `${number(span.energy_j)} J`,
      span.guess ? "on a guess" : null,
      span.error ? `error: ${span.error}` : null,
    ]
      .filter(Boolean)
      .join("\n");
    return svg(
      "g",
      {
        class: `point is${isModel ? "model" : "tool"}${span.error ? " failed" : ""}`,
        role: "button",
        tabindex: -1,
        "data-stop": true,
        "data-call": index,
        "aria-label": told.replaceAll("\n", ", "),
      },
      svg("rect", { class: "fill", x, y, width: w, height: tall - 5, rx: 2 }),
      svg("rect", { class: "ring", x: x - 1, y: y - 1, width: w + 2, height: tall - 3 }),
      svg("title", {}, told),
    );
  });
  const covered = stretches(run, end).map(({ from, to, kind }) =>
    svg(
      "g",
      { class: `is${kind}` },
      svg(
        "rect",
        { class: "fill", x: sx(from), y: sum, width: Math.max(0.5, sx(to) - sx(from)), height: 16 },
        svg("title", {}, `${kind}: ${seconds(to - from)}`),
      ),
    ),
  );
  const ticks = linearTicks(0, end, narrow ? 4 : 8).map((t) => [
    svg("line", { class: "grid", x1: sx(t), x2: sx(t), y1: 2, y2: sum + 16 }),
    svg("text", { class: "tick", x: sx(t), y: sum + 32, "text-anchor": "middle" }, tickText(t)),
  ]);
  const lane = (text, y) => svg("text", { x: 0, y, class: "tick" }, text);
  const root = svg(
    "svg",
    {
      viewBox: `0 0 ${width} ${height}`,
      role: "group",
      "aria-label": `Timeline of ${run.spans.length} calls over ${seconds(run.latency_s)}; arrow keys move, Enter goes to what was said`,
    },
    svg(
      "defs",
      {},
      svg(
        "pattern",
        { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse" },
        svg("path", { d: "M-1,7L7,-1M-1,1L1,-1M5,7L7,5" }),
      ),
      svg(
        "pattern",
        { id: "cross", width: 6, height: 6, patternUnits: "userSpaceOnUse" },
        svg("path", { d: "M-1,7L7,-1M-1,-1L7,7" }),
      ),
    ),
    ticks,
    lane("model", top.llm + 14),
    lane("tools", top.tool + 14),
    lane("together", sum + 12),
    bars,
    covered,
    svg(
      "text",
      { class: "tick", x: width - right, y: height - 4, "text-anchor": "end" },
      "seconds since the run began",
    ),
  );
  const goTo = (node) => {
    const turn = turns.find((t) => t.dataset?.turn === node.dataset.call);
    if (turn) {
      turn.scrollIntoView({ block: "start" });
      panel.scrollTop -= 70;
      turn.focus({ preventScroll: true });
    }
  };
  root.addEventListener("click", (event) => {
    const node = event.target.closest("[data-call]");
    if (node) goTo(node);
  });
  const swatch = (kind, text) =>
    el(
      "li",
      {},
      svg(
        "svg",
        { viewBox: "0 0 20 12", class: `is${kind}`, "aria-hidden": "true" },
        svg("rect", { class: "fill", x: 0.5, y: 0.5, width: 19, height: 11 }),
      ),
      text,
    );
  const view = el(
    "div",
    { class: "timeline" },
    root,
    el(
      "ul",
      { class: "swatches" },
      swatch("model", "model"),
      swatch("tool", "tools"),
      swatch("overlap", "both at once"),
      swatch("neither", "neither (idle)"),
    ),
  );
  rove(root, goTo);
  return view;
}
/** The run cut where what is in flight changes, neighbours of a kind together. */
function stretches(run, end) {
  const edges = [...new Set([0, end, ...run.spans.flatMap((s) => [s.start_s, s.end_s])])].sort((a, b) => a - b),
    found = [];
  for (let i = 1; i < edges.length; i++) {
    const [from, to] = [edges[i - 1], edges[i]],
      kinds = new Set(run.spans.filter((s) => s.start_s < to && s.end_s > from).map((s) => s.kind));
    const kind = kinds.size === 2 ? "overlap" : kinds.has("llm") ? "model" : kinds.has("tool") ? "tool" : "neither",
      last = found.at(-1);
    if (last?.kind === kind) last.to = to;
    else found.push({ from, to, kind });
  }
  return found;
}
function partsTable(run) {
  const whole = run.latency_s || 1;
  const rows = run.parts.map(([name, time, joules]) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, name),
      el("td", {}, number(time)),
      el("td", {}, percent(time / whole)),
      el("td", {}, number(joules)),
    ),
  );
  rows.push(
    el(
      "tr",
      {},
      el("th", { scope: "row" }, "the whole run"),
      el("td", {}, number(run.latency_s)),
      el("td", {}, "100 %"),
      el("td", {}, number(run.used_j)),
    ),
  );
  const reused =
    run.reused_s > 0
      ? ` The first ${seconds(run.reused_s)} were another run’s, on which this one went on or from which it was made.`
      : "";
  return [
    table("Where the time and the joules went", ["part", "time, s", "share", "energy, J"], rows),
    el(
      "p",
      { class: "note" },
      `Joules are this run’s share of what the devices drew while it was being computed or waited for tools (${run.source}).${run.used_j == null ? " They are not known of this run." : ""}${reused}`,
    ),
  ];
}
function callsTable(run) {
  const rows = run.spans.map((span, index) =>
    el(
      "tr",
      {},
      el("td", {}, String(index + 1)),
      el(
        "th",
        { scope: "row" },
        `${span.kind === "llm" ? "model" : "tool"} ${span.name}${span.guess ? ", on a guess" : ""}${span.attempt ? `, try ${span.attempt}` : ""}${span.error ? `, failed: ${span.error}` : ""}`,
      ),
      el("td", {}, number(span.start_s)),
      el("td", {}, number(span.end_s - span.start_s)),
      el("td", {}, number(span.ttft_s)),
      el("td", {}, span.tokens ? tokens(span.tokens) : "–"),
      el("td", {}, number(span.energy_j)),
    ),
  );
  return el(
    "details",
    {},
    el("summary", {}, `The ${run.spans.length} calls as a table`),
    table(
      "Calls",
      ["", "call", "began, s", "took, s", "first token after, s", "tokens in / cached / out", "energy, J"],
      rows,
    ),
  );
}
function checkpointsTable(run) {
  if (run.checkpoints.length < 2) return null;
  const rows = run.checkpoints.map(([budget, answer, elapsed]) =>
    el(
      "tr",
      {},
      el("td", {}, String(budget)),
      el("td", {}, number(elapsed)),
      el("td", { class: "text" }, answer ?? "unknown"),
    ),
  );
  return el(
    "details",
    {},
    el("summary", {}, `What smaller budgets would have answered (${run.checkpoints.length})`),
    table("Checkpoints", ["budget", "after, s", "answer"], rows, { class: "runs" }),
  );
}
function transcript(run, texts) {
  let before = "";
  return run.spans.map((span, index) => {
    const [input, output] = span.said.map((place) => texts[place]),
      isModel = span.kind === "llm";
    // A prompt usually goes on where the one before ended: only what is new is worth reading.
    const goesOn = isModel && before && input.startsWith(before),
      fresh = goesOn ? input.slice(before.length) : input;
    if (isModel) before = input;
    return el(
      "section",
      { class: `turn is${isModel ? "model" : "tool"}`, "data-turn": index, tabindex: -1 },
      el(
        "h4",
        {},
        `${index + 1}. ${isModel ? "model" : "tool"} ${span.name}, ${seconds(span.end_s - span.start_s)}${isModel ? `, tokens ${tokens(span.tokens)}` : ""}${span.energy_j == null ? "" : `, ${number(span.energy_j)} J`}`,
      ),
      long(isModel ? (goesOn ? "the prompt before, and then" : "prompt") : "called with", fresh),
      el("p", { class: "note" }, isModel ? "replied" : "gave"),
      el("pre", { tabindex: 0 }, span.error ? `${output}\n[${span.error}]` : output || "–"),
    );
  });
}
const LONG = 1200;
function long(title, text) {
  if (text.length <= LONG) return [el("p", { class: "note" }, title), el("pre", { tabindex: 0 }, text || "–")];
  return [
    el("p", { class: "note" }, `${title}: the end of ${text.length.toLocaleString("en-US")} characters`),
    el("pre", { tabindex: 0 }, `…${text.slice(-LONG / 2)}`),
    el("details", {}, el("summary", {}, "all of it"), el("pre", { tabindex: 0 }, text)),
  ];
}
