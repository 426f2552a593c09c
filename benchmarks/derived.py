"""Whether samplers find the front sooner when they are told of the trials that checkpoints derive.

Every trial with a budget in rounds also tells what smaller budgets would have come to. Those configs are shown and cost
nothing either way; the question is whether the sampler is told of them as trials of its own. On the recorded table: the
agent-seconds until the front holds a share of the true front's hypervolume, as search_efficiency.py counts them.
"""

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import optuna
from search_efficiency import LEVELS  # beside this script
from search_efficiency import RIVALS
from search_efficiency import Metric
from search_efficiency import World
from search_efficiency import median
from search_efficiency import recorded
from search_efficiency import summarised
from search_efficiency import until

from tuner.front import Floats
from tuner.front import non_dominated

RESULTS = Path(__file__).parent / "results" / "derived.json"
SAMPLERS = ("tpe", "tpe, multivariate + group")
"""Those that learn from what they are told within so few trials."""

SIZES = (12, 24)
"""Questions a config."""

WAYS = ("told", "kept from it", "not derived")
HORIZON_S = 3000.0


def searched(world: World, name: str, way: str, size: int, seed: int) -> dict[str, float | None]:
    """The agent-seconds of one search to each level."""
    places = {
        world.space.config(flat, world.models).hash(): place
        for place, flat in enumerate(world.flats)
    }
    order = np.random.default_rng(seed).permutation(world.amounts.shape[1])[:size]
    study = optuna.create_study(
        directions=["maximize", "minimize", "minimize"], sampler=RIVALS[name].sampler(seed)
    )
    metric = Metric(world)
    values: dict[int, Floats] = {}
    shares = []
    cost = 0.0

    def tell(trial: optuna.Trial, config: int) -> None:
        study.tell(trial, [-values[config][0], *values[config][1:]])

    for _ in range(RIVALS[name].trials):
        trial = study.ask()
        config = places[world.space.sample(trial, world.models).hash()]
        news = [config]
        if way != "not derived":
            news += world.covers[config]
        cost += 0.0 if config in values else float(world.seconds[config, order].sum())
        news = [each for each in news if each not in values]
        for each in news:
            values[each] = summarised(world.amounts[each][order][None])[0]
        tell(trial, config)
        if way == "told":
            for each in news:
                if each == config:
                    continue
                study.enqueue_trial(dict(world.flats[each]))
                derived = study.ask()
                world.space.sample(derived, world.models)
                tell(derived, each)
        known = np.array(list(values))
        front = known[non_dominated(np.stack([values[int(each)] for each in known]))]
        shares.append((cost, metric.share(front)))
        if cost > HORIZON_S:
            break
    return {str(level): until(shares, level) for level in LEVELS}


def one_seed(seed: int) -> list[dict[str, Any]]:
    """Every sampler, way and size on one seed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.logging.disable_default_handler()
    world = recorded()
    return [
        {"sampler": name, "way": way, "size": size, **searched(world, name, way, size, seed)}
        for name in SAMPLERS
        for way in WAYS
        for size in SIZES
    ]


def main() -> None:
    """Run everything, print a table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two seeds")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    seeds = 2 if options.quick else 20
    began_s = time.perf_counter()
    with ProcessPoolExecutor(2) as processes:
        rows = [row for found in processes.map(one_seed, range(seeds)) for row in found]
    found: dict[str, Any] = {}
    for name in SAMPLERS:
        for way in WAYS:
            of_way = [row for row in rows if (row["sampler"], row["way"]) == (name, way)]
            for level in map(str, LEVELS):
                medians = [
                    median([row[level] for row in of_way if row["size"] == size]) for size in SIZES
                ]
                known = [value for value in medians if value is not None]
                found.setdefault(name, {}).setdefault(way, {})[level] = (
                    min(known) if known else None
                )
    result = {"seeds": seeds, "to": found, "seconds": time.perf_counter() - began_s}
    if options.json:
        print(json.dumps(result))
    else:
        print(f"{seeds} seeds, agent-seconds to a share of the hypervolume, at the best size")
        print(f"  {'sampler':28s}{'derived trials':16s}" + "".join(f"{x:>9}" for x in LEVELS))
        for name, ways in found.items():
            for way, costs in ways.items():
                cells = "".join(
                    f"{'never' if c is None else f'{c:,.0f}':>9}" for c in costs.values()
                )
                print(f"  {name:28s}{way:16s}{cells}")
    if not options.quick:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
