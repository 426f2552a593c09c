// The page: what is drawn when, on screen and on paper, and where an address leads.

const PAPER = 760;
function draw(
  width = Math.round(Math.max(300, Math.min(1200, $("pairs").clientWidth || document.body.clientWidth - 32))),
) {
  if (width === draw.width) return;
  draw.width = width;
  $("pairs").replaceChildren(...pairs.map((pair) => drawPair(pair, width)));
  $("parallel").replaceChildren(drawParallel(width));
  $("effects")?.replaceChildren(...data.effects.map((found) => drawEffects(found, width)));
  refresh();
}
const pairs = pairsOf(objectives.length);
if (pairs.length > 1)
  radios(
    $("controls"),
    "Objectives",
    "pair",
    pairs.map(({ x, y }) => `${objectives[y].title} × ${objectives[x].title}`),
    0,
    (index) => {
      state.pair = index;
      refresh();
    },
  );
checkbox($("controls"), "intervals of every point", state.bars, (on) => {
  state.bars = on;
  refresh();
});
if ($("effect-controls") && data.effects.length)
  radios(
    $("effect-controls"),
    "Objective",
    "effect",
    data.effects.map((found) => objectives.find((o) => o.name === found.objective).title),
    0,
    (index) => {
      state.effect = index;
      refresh();
    },
  );
drawLegend();
draw();
let waiting = 0;
new ResizeObserver(() => {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    if (!matchMedia("print").matches) draw();
  }, 80);
}).observe($("pairs"));
document.addEventListener("click", (event) => {
  const button = event.target.closest("button.open[data-trial]");
  if (button) openTrial(button.dataset.trial, button);
});
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details[data-print]:not([open])")];
  for (const each of closed) each.open = true;
  draw(PAPER);
});
addEventListener("afterprint", () => {
  for (const each of closed) each.open = false;
  draw();
});
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
