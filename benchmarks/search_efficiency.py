"""How much agent time samplers take to find the front, on recorded runs of a real model and on spaces whose front is known.

For each method and seed: the agent-seconds (latency of every question answered) until the configs that it would show hold
a share of the true front's hypervolume, and hold it from then on. Methods that give every config the same number
of questions are run with 12, 24 and 60 of them, and the best of these counts.

The hypervolume is that of accuracy, median latency and energy, each scaled to its range over the space, with the worst
values as the reference. What a method would show is read in two ways: its front alone (Optuna's `best_trials`; the configs
that the pooled sampler expects on the front), and with the configs near it (membership of 10 % or more, ten at most), as
`tuner front` shows them and the holdout pass measures them, for every method alike. The second can only hold more.

Then whole studies are run on the recorded table, and their recommendations are held against what all questions say.
"""

import argparse
import json
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# Two processes on two cores: threads of linear algebra beside them would only be in the way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import optuna

from tuner.derive import smaller
from tuner.front import MOST_NEAR
from tuner.front import NEAR
from tuner.front import Floats
from tuner.front import hypervolume
from tuner.front import non_dominated
from tuner.objectives import OBJECTIVES
from tuner.results import Front
from tuner.rules import Rule
from tuner.samplers.pooled import Pool
from tuner.space import SearchSpace
from tuner.space import load_space
from tuner.spec import load_study
from tuner.study import run_study
from tuner.table import Table

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "search_efficiency.json"
TABLE = HERE / "tables" / "quickstart.jsonl.gz"
SPACE = HERE.parent / "search_spaces" / "quickstart.yaml"
NAMES = ("accuracy", "latency_p50_s", "energy_wh")
QUESTIONS = 60
LEVELS = (0.90, 0.95)
SIZES = (12, 24, 60)
"""Questions that each config is given by methods that give all the same."""

Places = npt.NDArray[np.int64]
Trace = list[tuple[float, Places, Places | None]]
"""After each step: the agent-seconds spent, the configs on the front, and now and then the front and what is near it."""

APART = 1.4
"""The configs near the front are looked for whenever so many times as much has been spent."""

RESAMPLES = 12
"""Of the questions, for a rival's memberships."""

MARKS = (50, 100, 200, 400, 800, 1600, 3200)
"""Agent-seconds at which the plot is read."""


@dataclass(frozen=True, slots=True)
class World:
    """A space of which every answer is known."""

    name: str
    space: SearchSpace
    models: tuple[str, ...]
    flats: tuple[dict[str, Any], ...]
    amounts: Floats
    """(configs, questions, objectives): scores, seconds, watt-hours."""
    truth: Floats
    """(configs, objectives), what is to be found."""
    covers: tuple[tuple[int, ...], ...]
    """For each config those whose answers its runs hold, at smaller budgets."""

    @property
    def seconds(self) -> Floats:
        """(configs, questions): what an answer takes."""
        return self.amounts[:, :, 1]

    def covered_by(self) -> list[list[int]]:
        """For each config those whose runs hold its answers."""
        found: list[list[int]] = [[] for _ in self.flats]
        for config, held in enumerate(self.covers):
            for each in held:
                found[each].append(config)
        return found


def summarised(amounts: Floats) -> Floats:
    """(configs, objectives) of (configs, questions, objectives), smaller being better."""
    columns = [OBJECTIVES[name].summary(amounts[:, :, k]) for k, name in enumerate(NAMES)]
    return np.stack([-columns[0], *columns[1:]], axis=1)


class Metric:
    """The share of the true front's hypervolume that a set of configs holds."""

    def __init__(self, world: World, *, in_logs: bool = False) -> None:
        values = world.truth.copy()
        values[:, 0] *= -1
        if in_logs:
            values[:, 1:] = np.log(values[:, 1:])
        low, high = values.min(axis=0), values.max(axis=0)
        self._values = (values - low) / (high - low)
        self._worst = np.ones(values.shape[1])
        self._whole = hypervolume(self._values[non_dominated(self._values)], self._worst)

    def share(self, shown: Places) -> float:
        """0 … 1."""
        return float(hypervolume(self._values[shown], self._worst) / self._whole)


def until(trace: Sequence[tuple[float, float]], level: float) -> float | None:
    """The cost from which on the share stays at the level or above; None where it does not."""
    since = None
    for cost, share in trace:
        if share < level:
            since = None
        elif since is None:
            since = cost
    return since


# Methods


def pooled(world: World, seed: int, horizon: float) -> Trace:
    """Ours: a block of questions at a time, guided by one surrogate of each objective."""
    pool = Pool(
        world.flats,
        [OBJECTIVES[name] for name in NAMES],
        questions=world.amounts.shape[1],
        seed=seed,
        cost=1,
        covered_by=world.covered_by(),
    )
    # The order of questions is the study's seed's; here the world's is shuffled.
    order = np.random.default_rng(seed).permutation(world.amounts.shape[1])
    answered = np.zeros(world.seconds.shape, dtype=np.bool_)
    trace: Trace = []
    cost, step, due = 0.0, 0, 0.0
    while cost < horizon:
        block = pool.propose(step)
        if block is None:
            break
        questions = order[list(block.questions)]
        new = questions[~answered[block.config, questions]]
        cost += float(world.seconds[block.config, new].sum())
        for config in (block.config, *world.covers[block.config]):
            answered[config, questions] = True
            known = np.where(answered[config][:, None], world.amounts[config], np.nan)
            pool.observe(config, known[order])
        step += 1
        front = pool.front()
        if len(front):
            both = np.concatenate([front, pool.near()]) if cost >= due else None
            due = due if both is None else APART * cost
            trace.append((cost, front, both))
    return trace


def by_trials(
    world: World,
    seed: int,
    horizon: float,
    *,
    sampler: Callable[[int], optuna.samplers.BaseSampler],
    size: int,
    trials: int,
    stops: bool = False,
) -> Trace:
    """An Optuna sampler: every config it proposes is given the same first questions; known ones cost nothing.

    With `stops`, as syftr does it: in batches of 5, a config is given up after 30 questions or more when the optimistic
    corner of its Wald intervals is dominated by a config that was evaluated.
    """
    places = _places(world)
    order = np.random.default_rng(seed).permutation(world.amounts.shape[1])[:size]
    study = optuna.create_study(
        directions=["maximize", "minimize", "minimize"], sampler=sampler(seed)
    )
    values: dict[int, Floats] = {}
    given_up: set[int] = set()
    trace: Trace = []
    cost = due = 0.0
    draws = np.random.default_rng(seed).integers(size, size=(RESAMPLES, size))
    for _ in range(trials):
        trial = study.ask()
        config = places[world.space.sample(trial, world.models).hash()]
        if config not in values:
            seen = size
            if stops and values:
                whole = np.stack([values[each] for each in values if each not in given_up])
                seen = _syftr_stop(world.amounts[config][order], whole)
            values[config] = summarised(world.amounts[config][order[:seen]][None])[0]
            if seen < size:
                given_up.add(config)
            cost += float(world.seconds[config, order[:seen]].sum())
        told = values[config]
        study.tell(trial, [-told[0], told[1], told[2]])
        known = np.array([each for each in values if each not in given_up])
        front = known[non_dominated(np.stack([values[int(c)] for c in known]))]
        both = None
        if cost >= due:
            both, due = (
                _with_near(world.amounts[known][:, order], known, front, draws),
                APART * cost,
            )
        trace.append((cost, front, both))
        if cost > horizon:
            break
    return trace


def _with_near(amounts: Floats, known: Places, front: Places, draws: Places) -> Places:
    """The front, and of the others the likeliest members in resamples of the questions."""
    shares = np.zeros(len(known))
    for draw in draws:
        shares += non_dominated(summarised(amounts[:, draw])) / len(draws)
    others = np.flatnonzero((shares >= NEAR) & ~np.isin(known, front))
    likeliest = others[np.argsort(-shares[others], kind="stable")][:MOST_NEAR]
    return np.concatenate([front, known[likeliest]])


def _syftr_stop(amounts: Floats, others: Floats) -> int:
    """How many of a config's questions it is given."""
    for seen in range(30, len(amounts), 5):
        values = summarised(amounts[None, :seen])[0]
        accuracy = -values[0]
        half = 1.96 * np.sqrt(accuracy * (1 - accuracy) / seen)
        spread = 1.96 * amounts[:seen, 1:].std(axis=0) / np.sqrt(seen)
        best = values - np.array([half, *spread])
        if ((others <= best).all(axis=1) & (others < best).any(axis=1)).any():
            return seen
    return len(amounts)


def _places(world: World) -> dict[str, int]:
    configs = (world.space.config(flat, world.models) for flat in world.flats)
    return {config.hash(): place for place, config in enumerate(configs)}


def _tpe(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed)


def _tpe_grouped(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)


def _nsga2(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIISampler(population_size=20, seed=seed)


def _random(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def _gp(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.GPSampler(seed=seed)


@dataclass(frozen=True, slots=True)
class Rival:
    """A sampler that is given whole trials."""

    sampler: Callable[[int], optuna.samplers.BaseSampler]
    trials: int
    """At most."""
    stops: bool = False
    """Whether as syftr does it."""


RIVALS = {
    "tpe": Rival(_tpe, 300),
    "tpe, multivariate + group": Rival(_tpe_grouped, 200),
    "nsga2": Rival(_nsga2, 300),
    "random": Rival(_random, 600),
    "syftr": Rival(_nsga2, 300, stops=True),
    "gp": Rival(_gp, 60),
}


# Worlds


def recorded(path: Path = TABLE, space_path: Path = SPACE) -> World:
    """The recorded table, whose front is that of all its questions."""
    table = Table.read(path)
    space = load_space(space_path)
    models = tuple(table.header.models)
    flats = tuple(dict(flat) for flat in space.flats(models) or ())
    configs = [space.config(flat, models) for flat in flats]
    places = {config.hash(): place for place, config in enumerate(configs)}
    amounts = np.array(table.fields(configs, ("score", "latency_s", "energy_j")))
    if np.isnan(amounts).any():
        raise SystemExit(f"{path} lacks answers to some questions by configs of {space_path}")
    amounts[:, :, 2] /= 3600.0
    # A config that the table derives is held by each larger budget of its family.
    covers: list[tuple[int, ...]] = []
    for config in configs:
        held = (each for each in smaller(space, models, config) if table.derived_from(each))
        covers.append(tuple(places[each.hash()] for each in held))
    truth = summarised(amounts) * np.array([-1.0, 1.0, 1.0])
    return World("recorded", space, models, flats, amounts, truth, tuple(covers))


def synthetic(seed: int) -> World:
    """A space of five workflows and two models whose answers are drawn from a law, hence a front that is known."""
    from synthetic import make  # beside this script

    space, models, flats, amounts, truth, covers = make(seed, QUESTIONS)
    return World("synthetic", space, models, flats, amounts, truth, covers)


# Runs


METHODS = ("pooled", *(name for name in RIVALS if name != "gp"))
"""Those that are run unless others are asked for."""


def measured(world: World, method: str, size: int, seed: int, horizon: float) -> dict[str, Any]:
    """The agent-seconds to each level, on both scales, and what a decision took."""
    began_s = time.perf_counter()
    if method == "pooled":
        trace = pooled(world, seed, horizon)
    else:
        rival = RIVALS[method]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trace = by_trials(
                world,
                seed,
                horizon,
                sampler=rival.sampler,
                size=size,
                trials=min(rival.trials, 5 * len(world.flats)),
                stops=rival.stops,
            )
    took_s = time.perf_counter() - began_s
    found: dict[str, Any] = {"method": method, "size": size, "seed": seed, "spent": trace[-1][0]}
    for scale, in_logs in (("linear", False), ("logs", True)):
        metric = Metric(world, in_logs=in_logs)
        alone = [(cost, metric.share(front)) for cost, front, _ in trace]
        near = [(cost, metric.share(both)) for cost, _, both in trace if both is not None]
        for name, shares in ((scale, alone), (f"{scale}, near", near)):
            found[name] = {str(level): until(shares, level) for level in LEVELS}
        found[scale]["at"] = [
            next((share for cost, share in reversed(alone) if cost <= mark), 0.0) for mark in MARKS
        ]
    found["shown"] = [
        float(np.mean([len(front) for _, front, _ in trace])),
        float(np.mean([len(both) for _, _, both in trace if both is not None])),
    ]
    return {**found, "ms_per_step": 1000 * took_s / len(trace)}


def one_seed(kind: str, seed: int, methods: Sequence[str]) -> list[dict[str, Any]]:
    """Every method on one seed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    world = recorded() if kind == "recorded" else synthetic(seed)
    everything = float(world.seconds.sum())
    found = []
    for method in methods:
        for size in SIZES if method != "pooled" else (QUESTIONS,):
            if method == "syftr" and size <= 30:
                continue
            horizon = min(HORIZON[method == "pooled"] * everything, MOST_S[method == "pooled"])
            found.append(measured(world, method, size, seed, horizon))
    return found


HORIZON = {True: 0.05, False: 0.4}
"""Share of the agent-seconds that all questions on all configs take, after which ours and others end."""

MOST_S = {True: 4_000.0, False: 60_000.0}
"""Agent-seconds at most, ours and others: several times what a level takes."""


SEARCHED = {"examples": 30, "holdout": 30, "trials": 60, "wall_clock_s": 600}
"""What a study whose recommendations are looked at may spend, in recorded seconds."""


def regret(seed: int) -> dict[str, float]:
    """What following a study's recommendations costs, against what all questions say of the whole space.

    `knee`: the largest loss of what it chose, in shares of the true front's ranges, less that of the true front's
    knee. `cheapest-within:0.02`: the accuracy that is lacking to 0.02 below the best, and how many times
    the energy of the cheapest config that has that.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    world = recorded()
    places = _places(world)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.yaml"
        path.write_text(
            STUDY.format(seed=seed, space=SPACE.resolve(), table=TABLE.resolve(), **SEARCHED)
        )
        study = load_study(path)
        run_study(study)
        found = Front.read(study)
    accuracy, _, energy_wh = world.truth.T
    values = world.truth * np.array([-1.0, 1.0, 1.0])
    front = values[non_dominated(values)]
    losses = ((values - front.min(axis=0)) / np.ptp(front, axis=0)).max(axis=1)
    chosen = {
        rule: places[Rule.parse(rule).choose(found.confirmed, NAMES).point.trial.config.hash()]
        for rule in ("knee", "cheapest-within:0.02")
    }
    enough = accuracy.max() - 0.02
    cheapest = energy_wh[accuracy >= enough - 1e-9].min()
    within = chosen["cheapest-within:0.02"]
    return {
        "knee_loss": float(losses[chosen["knee"]] - losses[non_dominated(values)].min()),
        "within_accuracy_lacking": float(max(0.0, enough - accuracy[within])),
        "within_energy_ratio": float(energy_wh[within] / cheapest),
    }


STUDY = """
format_version: 1
name: regret
task: {{name: villages, examples: {examples}, holdout: {holdout}, seed: 7}}
search_space: {space}
models: {{smollm2-135m: {{serve: llama.cpp, weights: smollm2-135m-instruct}}}}
objectives: [accuracy, latency_p50_s, energy_wh]
sampler: {{name: pooled, seed: {seed}}}
budget: {{trials: {trials}, wall_clock: {wall_clock_s}s}}
executor: {{replay: {table}}}
storage: sqlite:///regret.db
"""


def median(values: Sequence[float | None]) -> float | None:
    """Of costs, of which None is more than any other."""
    if not values:
        return None
    ordered = sorted(float("inf") if value is None else value for value in values)
    middle = ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1]
    found = float(np.mean(middle))
    return None if np.isinf(found) else found


def summary(rows: Sequence[dict[str, Any]], scale: str) -> dict[str, dict[str, float | None]]:
    """By level and method the median agent-seconds, at the size that suits each method best."""
    table: dict[str, dict[str, float | None]] = {}
    for level in map(str, LEVELS):
        table[level] = {}
        for method in dict.fromkeys(row["method"] for row in rows):
            of_method = [row for row in rows if row["method"] == method]
            medians = [
                median([row[scale][level] for row in of_method if row["size"] == size])
                for size in dict.fromkeys(row["size"] for row in of_method)
            ]
            known = [value for value in medians if value is not None]
            table[level][method] = min(known) if known else None
    return table


def ratio(table: Mapping[str, float | None], others: Iterable[str]) -> float | None:
    """Ours as a share of the best of others; None where none of them gets there, or ours does not."""
    known = [value for name in others if (value := table.get(name)) is not None]
    ours = table.get("pooled")
    return None if ours is None or not known else ours / min(known)


def shares_at(rows: Sequence[dict[str, Any]], method: str) -> list[float]:
    """The median share that a method's front holds at each of MARKS, at the size that is best there."""
    of_method = [row for row in rows if row["method"] == method]
    by_size = [
        np.median([row["linear"]["at"] for row in of_method if row["size"] == size], axis=0)
        for size in dict.fromkeys(row["size"] for row in of_method)
    ]
    return [float(share) for share in np.max(by_size, axis=0)]


def plot(found: dict[str, Any], methods: Sequence[str]) -> None:
    """Shares of the hypervolume by agent-seconds, a bar for each."""
    print("  share of the hypervolume (linear, front alone) after so many agent-seconds, median")
    print(f"  {'':28s}" + "".join(f"{mark:>9,}" for mark in MARKS))
    for method in methods:
        bars = []
        for share in found["at"][method]:
            bar = BARS[min(len(BARS) - 1, int(max(0.0, share - 0.5) * 2 * len(BARS)))]
            bars.append(f"{100 * share:5.0f} {bar * 2} ")
        print(f"  {method:28s}" + "".join(bars))


BARS = " ▁▂▃▄▅▆▇█"
"""From half of the hypervolume, or less, to all of it."""

SCALES = ("linear", "logs", "linear, near", "logs, near")


def main() -> None:
    """Run what was asked for, print tables, write the results beside those of other worlds and methods."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="two seeds of the synthetic space, few methods"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--worlds", nargs="*", default=["recorded", "synthetic"])
    parser.add_argument(
        "--methods", nargs="*", default=list(METHODS), help="gp takes half an hour and needs torch"
    )
    options = parser.parse_args()
    seeds = range(2 if options.quick else options.seeds)
    worlds = ["synthetic"] if options.quick else options.worlds
    methods = ["pooled", "tpe", "random"] if options.quick else options.methods
    began_s = time.perf_counter()
    result: dict[str, Any] = {"worlds": {}}
    if not options.quick and RESULTS.exists():
        before = json.loads(RESULTS.read_text())
        result = {key: before[key] for key in ("worlds", "regret") if key in before}
    with ProcessPoolExecutor(options.jobs) as processes:
        for kind in worlds:
            since_s = time.perf_counter()
            found = list(processes.map(partial(one_seed, kind, methods=methods), seeds))
            rows = [row for of_seed in found for row in of_seed]
            world = result["worlds"].setdefault(kind, {})
            add(world, rows, methods)
            world["seeds"], world["seconds"] = len(seeds), time.perf_counter() - since_s
        if not options.quick and "recorded" in worlds and "pooled" in methods:
            found = list(processes.map(regret, seeds))
            result["regret"] = {
                key: {
                    "median": float(np.median([each[key] for each in found])),
                    "worst": max(each[key] for each in found),
                }
                for key in found[0]
            }
    first = next(iter(result["worlds"].values()))
    for level, name in (("0.95", "95"), ("0.9", "90")):
        result[f"to_{name}"] = first["linear"][level]
    for world in result["worlds"].values():
        for level, name in (("0.95", "95"), ("0.9", "90")):
            world[f"ratio_best_{name}"] = ratio(world["linear"][level], RIVALS)
            world[f"ratio_best_{name}_near"] = ratio(world["linear, near"][level], RIVALS)
        world["ratio_random_95"] = ratio(world["linear"]["0.95"], ["random"])
    # Those of the recorded world are the result's own.
    result |= {key: value for key, value in first.items() if key.startswith("ratio_")}
    # Measured by racing.py and intervals.py, which say how.
    racing, intervals = (json.loads((HERE / "results" / f"{n}.json").read_text()) for n in OTHERS)
    result["false_stop_rate"] = racing["false_stop_rate"]
    result["coverage"] = intervals["coverage"]
    result["membership"] = intervals["membership"]
    result["seconds"] = time.perf_counter() - began_s
    result["machine"] = f"{platform.system()} {platform.machine()}"
    if options.json:
        print(json.dumps(result))
    else:
        show(result)
    if not options.quick:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


def add(world: dict[str, Any], rows: Sequence[dict[str, Any]], methods: Sequence[str]) -> None:
    """Put what these methods came to into a world's results, in place of what they had."""
    for scale in SCALES:
        for level, costs in summary(rows, scale).items():
            world.setdefault(scale, {}).setdefault(level, {}).update(costs)
    for method in methods:
        of_method = [row for row in rows if row["method"] == method]
        world.setdefault("at", {})[method] = shares_at(rows, method)
        shown = np.mean([row["shown"] for row in of_method], axis=0)
        world.setdefault("shown", {})[method] = shown.tolist()
        world.setdefault("ms_per_step", {})[method] = median(
            [row["ms_per_step"] for row in of_method]
        )


OTHERS = ("racing", "intervals")


def show(result: dict[str, Any]) -> None:
    """Tables and a plot for a terminal."""
    for kind, found in result["worlds"].items():
        methods = list(found["at"])
        for scale in SCALES:
            print(
                f"\n{kind}, {found['seeds']} seeds, agent-seconds to a share of the hypervolume ({scale})"
            )
            print(f"  {'method':28s}" + "".join(f"{level:>12}" for level in LEVELS))
            for method in methods:
                costs = [found[scale][str(level)][method] for level in LEVELS]
                print(
                    f"  {method:28s}"
                    + "".join(f"{'never' if c is None else f'{c:,.0f}':>12}" for c in costs)
                )
        print()
        plot(found, methods)
        ratios = [(key, value) for key, value in found.items() if key.startswith("ratio_")]
        print("  " + ", ".join(f"{key} {value:.2f}" for key, value in ratios if value is not None))
        print(f"  pooled: {found['ms_per_step']['pooled']:.0f} ms a block, its front read and all")
    for key, each in result.get("regret", {}).items():
        print(f"regret {key}: {each['median']:.3g} in the median, {each['worst']:.3g} at worst")


if __name__ == "__main__":
    main()
