"""`tuner front`: the Pareto front found so far, with intervals and membership."""

from collections import Counter
from typing import TYPE_CHECKING
from typing import Any

from tuner.cli.arguments import AsJson
from tuner.cli.arguments import StudyPath

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tuner.events import Expected
    from tuner.records import TrialRecord
    from tuner.results import Point
    from tuner.spec import LoadedStudy
    from tuner.store import Store


def front(study: StudyPath, as_json: AsJson = False) -> None:
    """Show the front: values with 95 % intervals, and how likely each point is on it; what is near it, and what was confirmed."""
    from tuner.cli.output import print_json
    from tuner.results import open_results
    from tuner.spec import load_study

    loaded = load_study(study)
    store = open_results(loaded)
    if as_json:
        print_json(front_content(loaded, store))
    else:
        print_front(loaded, store)


def print_front(study: "LoadedStudy", store: "Store") -> None:
    """The front on the search questions, what is near it or not allowed, and what was confirmed on the holdout questions."""
    from tuner.cli.output import expected_rows
    from tuner.cli.output import print_drops
    from tuner.cli.output import print_points
    from tuner.cli.output import print_table
    from tuner.results import Front

    found = Front.read(study, store)
    if found.search:
        print_points(study, f"Front on {found.search[0].n} search questions", found.search)
    else:
        print("No trial is complete and within the constraints yet.")
    expected = _expected(study, store, found.trials)
    if expected:
        title = (
            "Expected front, by all answers so far: what was not asked everything is not confirmed"
        )
        print_table(title, *expected_rows(study, expected))
    if found.near:
        title = "Near the front: others are better there, perhaps by chance"
        print_points(study, title, found.near)
    if found.infeasible:
        print_points(study, "Not within the constraints: the nearest misses", found.infeasible)
    if found.confirmed:
        questions = found.confirmed[0].n
        title = f"Confirmed on {questions} holdout questions, which the search never saw"
        print_points(study, title, found.confirmed)
        print_drops(study, found.confirmed)
    if any(point.group for point in (*found.candidates, *found.confirmed)):
        print("Configs that are alike have a letter in common: nothing measured tells them apart.")
    print(_counts(_trials(found.trials)))


def _expected(
    study: "LoadedStudy", store: "Store", trials: "Sequence[TrialRecord]"
) -> "tuple[Expected, ...]":
    """The front that the pooled sampler expects; nothing where all of it is complete, as then it is the front shown."""
    from tuner.samplers import POOLED

    if study.spec.sampler.name != POOLED or not any(trial.config for trial in trials):
        return ()
    from tuner.blocks import Blocks
    from tuner.seen import COST
    from tuner.seen import Seen

    task = study.load_task()
    seen = Seen(store, task, list(dict.fromkeys([*study.measured(), COST])))
    found = Blocks(study, task, store, seen).expected()
    return found if any(each.answered < len(task.search) for each in found) else ()


def _counts(trials: dict[str, int]) -> str:
    """The trials in a sentence."""
    among = {
        "derived from others": trials["derived"],
        "reused": trials["reused"],
        "stopped early": trials["stopped"],
        "not within the constraints": trials["infeasible"],
    }
    parts = ", ".join(f"{count} {what}" for what, count in among.items() if count)
    others = {"failed": "failed", "left_out": "left out", "running": "running"}
    rest = ", ".join(f"{trials[state]} {what}" for state, what in others.items() if trials[state])
    complete = f"{trials['complete']} trials are complete{f' ({parts})' if parts else ''}"
    return f"{complete}{f', {rest}' if rest else ''}."


def _trials(trials: "Sequence[TrialRecord]") -> dict[str, int]:
    from tuner.results import LEFT_OUT

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


def front_content(study: "LoadedStudy", store: "Store") -> dict[str, Any]:
    """What was found, as programs get it."""
    from tuner.objectives import OBJECTIVES
    from tuner.results import Front

    found = Front.read(study, store)
    return {
        "study": study.spec.name,
        "task": study.spec.task["name"],
        "objectives": [
            {"name": name, "direction": OBJECTIVES[name].direction, "unit": OBJECTIVES[name].unit}
            for name in found.objectives
        ],
        "trials": _trials(found.trials),
        "points": [point_content(point) for point in (*found.search, *found.confirmed)],
        "near": [point_content(point) for point in found.near],
        "infeasible": [point_content(point) for point in found.infeasible],
        "expected": [
            {
                "config": each.config.model_dump(),
                "answered": each.answered,
                "values": dict(each.values),
            }
            for each in _expected(study, store, found.trials)
        ],
    }


def point_content(point: "Point") -> dict[str, Any]:
    """A point as programs get it."""
    from tuner.export import describe
    from tuner.export import ends

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
