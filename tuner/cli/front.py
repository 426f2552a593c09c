"""`tuner front`: the Pareto front found so far, with intervals and membership."""

from typing import TYPE_CHECKING

from tuner.cli.arguments import AsJson
from tuner.cli.arguments import StudyPath

if TYPE_CHECKING:
    from tuner.spec import LoadedStudy
    from tuner.store import Store


def front(study: StudyPath, as_json: AsJson = False) -> None:
    """Show the front: values with 95 % intervals, and how likely each point is on it; what is near it, and what was confirmed."""
    from tuner.cli.output import print_json
    from tuner.content import front_content
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
    from tuner.content import expected_front
    from tuner.content import trial_counts
    from tuner.results import Front

    found = Front.read(study, store)
    if found.search:
        print_points(study, f"Front on {found.search[0].n} search questions", found.search)
    else:
        print("No trial is complete and within the constraints yet.")
    expected = expected_front(study, store, found.trials)
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
    print(_counts(trial_counts(found.trials)))


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
