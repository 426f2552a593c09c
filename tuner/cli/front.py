"""`tuner front`: the Pareto front found so far, with intervals and membership."""

from collections import Counter
from typing import TYPE_CHECKING
from typing import Any

from tuner.cli.arguments import AsJson
from tuner.cli.arguments import StudyPath

if TYPE_CHECKING:
    from tuner.results import Point
    from tuner.spec import LoadedStudy
    from tuner.store import Store


def front(study: StudyPath, as_json: AsJson = False) -> None:
    """Show the front: values with 95 % intervals, and how often each point stays on it under resampling."""
    from tuner.cli.output import print_json
    from tuner.results import open_results
    from tuner.spec import load_study

    loaded = load_study(study)
    store = open_results(loaded)
    if as_json:
        print_json(_content(loaded, store))
    else:
        print_front(loaded, store)


def print_front(study: "LoadedStudy", store: "Store") -> None:
    """The front on the search questions, and the same configs on the holdout questions where measured."""
    from tuner.cli.output import print_points
    from tuner.results import Front

    found = Front.read(study, store)
    if not found.search:
        print("No trial is complete and within the constraints yet.")
        return
    print_points(study, f"Front on {found.search[0].n} search questions", found.search)
    if found.confirmed:
        questions = found.confirmed[0].n
        title = f"The same configs on {questions} holdout questions, which the search never saw"
        print_points(study, title, found.confirmed)


def _content(study: "LoadedStudy", store: "Store") -> dict[str, Any]:
    from tuner.objectives import OBJECTIVES
    from tuner.results import Front

    found = Front.read(study, store)
    states = Counter(trial.state for trial in store.trials())
    return {
        "study": study.spec.name,
        "task": study.spec.task["name"],
        "objectives": [
            {"name": name, "direction": OBJECTIVES[name].direction, "unit": OBJECTIVES[name].unit}
            for name in found.objectives
        ],
        "trials": {
            **{state: states[state] for state in ("complete", "pruned", "failed", "running")},
            "derived": 0,
        },
        "points": [_point(point) for point in (*found.search, *found.confirmed)],
    }


def _point(point: "Point") -> dict[str, Any]:
    from tuner.export import describe

    config = point.trial.config
    return {
        "trial": point.trial.number,
        "config": None if config is None else config.model_dump(),
        "split": point.split,
        **describe(point),
    }
