"""What was found in a study as plain JSON: what `--json` prints, and what the service answers.

Apart from the verbs, which also print for people, and from `results`, which works it out.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tuner.budget import spent
from tuner.errors import UserError
from tuner.events import Expected
from tuner.export import describe
from tuner.export import ends
from tuner.front import non_dominated
from tuner.front import oriented
from tuner.objectives import OBJECTIVES
from tuner.records import TrialRecord
from tuner.results import LEFT_OUT
from tuner.results import Front
from tuner.results import Point
from tuner.results import counted
from tuner.results import evaluated
from tuner.rules import Rule
from tuner.rules import recommend
from tuner.samplers import POOLED
from tuner.spec import LoadedStudy
from tuner.store import Store


def front_content(study: LoadedStudy, store: Store) -> dict[str, Any]:
    """What was found, as programs get it."""
    found = Front.read(study, store)
    return {
        "study": study.spec.name,
        "task": study.spec.task["name"],
        "objectives": [
            {"name": name, "direction": OBJECTIVES[name].direction, "unit": OBJECTIVES[name].unit}
            for name in found.objectives
        ],
        "trials": trial_counts(found.trials),
        "points": [point_content(point) for point in (*found.search, *found.confirmed)],
        "near": [point_content(point) for point in found.near],
        "infeasible": [point_content(point) for point in found.infeasible],
        "expected": [
            {
                "config": each.config.model_dump(),
                "answered": each.answered,
                "values": dict(each.values),
            }
            for each in expected_front(study, store, found.trials)
        ],
    }


def point_content(point: Point) -> dict[str, Any]:
    """A point as programs get it."""
    trial = point.trial
    return {
        "trial": trial.number,
        "config": None if trial.config is None else trial.config.model_dump(),
        "split": point.split,
        **describe(point),
        "on_front": point.on_front,
        "group": point.group,
        "feasible": point.feasible,
        "excess": dict(point.excess),
        "derived_from": trial.derived_from,
        "reused_from": trial.reused_from,
        "drop": {
            name: {"value": drop.value, "interval": ends(drop.interval)}
            for name, drop in point.drop.items()
        },
    }


def expected_front(
    study: LoadedStudy, store: Store, trials: Sequence[TrialRecord]
) -> tuple[Expected, ...]:
    """The front that the pooled sampler expects; nothing where all of it is complete, as then it is the front shown."""
    if study.spec.sampler.name != POOLED or not any(trial.config for trial in trials):
        return ()
    # Half a second of import, which other samplers' studies do without.
    from tuner.blocks import Blocks
    from tuner.seen import COST
    from tuner.seen import Seen

    task = study.load_task()
    seen = Seen(store, task, list(dict.fromkeys([*study.measured(), COST])))
    found = Blocks(study, task, store, seen).expected()
    return found if any(each.answered < len(task.search) for each in found) else ()


def trial_counts(trials: Sequence[TrialRecord]) -> dict[str, int]:
    """How many there are: by state, and of those that are complete how they came about."""
    states = Counter("left_out" if t.failure == LEFT_OUT else t.state for t in trials)
    ended = [trial for trial in trials if trial.state == "complete" and trial.replay_of is None]
    return {
        **{
            state: states[state]
            for state in ("complete", "pruned", "failed", "left_out", "running")
        },
        "derived": sum(trial.derived_from is not None for trial in ended),
        "reused": sum(trial.reused_from is not None for trial in ended),
        "stopped": sum(trial.stopped is not None for trial in ended),
        "infeasible": sum(not trial.feasible for trial in ended),
    }


def budget_content(
    study: LoadedStudy, store: Store, trials: Sequence[TrialRecord]
) -> dict[str, dict[str, float | int | None]]:
    """What is spent of each limit; of what is paid for, also the part of the holdout pass, and how many runs it is not known of."""
    budget, row = study.spec.budget, store.row()
    content: dict[str, dict[str, float | int | None]] = {
        "trials": {"spent": len(counted(trials)), "limit": budget.trials},
        "wall_clock_s": {"spent": row.search_s if row else 0.0, "limit": budget.wall_clock},
    }
    if study.spec.sampler.name == POOLED:
        questions = budget.trials * study.task_options.examples
        content["questions"] = {"spent": store.asked_count("search"), "limit": questions}
    for name, of in spent(store).items():
        content[name] = {
            "spent": of.total,
            "limit": getattr(budget, name),
            "holdout": of.holdout,
            "unknown_runs": of.unknown,
        }
    return content


def recommended(study: LoadedStudy) -> dict[str, Any] | None:
    """What `tuner export --rule knee` would write; None where no point can be recommended."""
    try:
        choice = recommend(Front.read(study, deployable=True), Rule.parse("knee"))
    except UserError:  # no trial is complete and within the constraints
        return None
    trial = choice.point.trial
    return {
        "rule": "knee",
        "trial": trial.number,
        "config": None if trial.config is None else trial.config.model_dump(),
        "why": choice.why,
    }


def front_size(study: LoadedStudy, trials: Sequence[TrialRecord]) -> int:
    """How many trials no other dominates by its values; `front_content` says how sure that is, and takes longer."""
    names = study.spec.objectives
    values = [
        [trial.values[name] for name in names]
        for trial in evaluated(trials)
        if trial.values is not None and trial.feasible and trial.stopped is None
    ]
    if not values:
        return 0
    directions = [OBJECTIVES[name].direction for name in names]
    return int(non_dominated(oriented(np.array(values), directions)).sum())
