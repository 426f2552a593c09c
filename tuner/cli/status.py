"""`tuner status`: how far a study is, and what it has spent."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from tuner.cli.arguments import AsJson
from tuner.cli.arguments import StudyPath

if TYPE_CHECKING:
    from tuner.records import TrialRecord


def status(study: StudyPath, as_json: AsJson = False) -> None:
    """Show trials by state, where they come from, and the budget spent."""
    from contextlib import closing

    from tuner.cli.output import print_json
    from tuner.cli.output import print_table
    from tuner.content import budget_content
    from tuner.results import open_results
    from tuner.spec import load_study

    loaded = load_study(study)
    with closing(open_results(loaded)) as store:
        trials, row = store.trials(), store.row()
        content = {
            "study": loaded.spec.name,
            **_trials(trials),
            "budget": budget_content(loaded, store, trials),
            "owner": row.owner if row else None,
            "failures": {
                str(trial.number): trial.failure for trial in trials if trial.failure is not None
            },
        }
    if as_json:
        print_json(content)
    else:
        print_table(f"Study {loaded.spec.name}", ["", ""], _rows(content), wrap=True)


_ORIGINS = {
    "replays": "replays of others",
    "derived": "derived from others",
    "reused": "reused from other studies",
    "stopped": "stopped early",
}


def _trials(trials: "Sequence[TrialRecord]") -> dict[str, Any]:
    """How many there are: by state, and of those that cost nothing or not all."""
    states = Counter(trial.state for trial in trials)
    return {
        "trials": {
            state: states[state] for state in ("complete", "pruned", "failed", "running", "waiting")
        },
        "replays": sum(trial.replay_of is not None for trial in trials),
        "derived": sum(trial.derived_from is not None for trial in trials),
        "reused": sum(trial.reused_from is not None for trial in trials),
        "stopped": sum(trial.stopped is not None for trial in trials),
    }


def _rows(content: dict[str, Any]) -> list[list[str]]:
    """For people: what there is none of is left out, and so are limits that are not set, but for the time."""
    rows = [[state, str(count)] for state, count in content["trials"].items() if count]
    rows += [[f"  {what}", str(content[key])] for key, what in _ORIGINS.items() if content[key]]
    rows += [
        [f"budget, {name}", _spent(of)]
        for name, of in content["budget"].items()
        if of["limit"] is not None or name == "wall_clock_s"
    ]
    rows.append(["running now", content["owner"] or "no"])
    rows += [[f"trial {number}", f"failed: {why}"] for number, why in content["failures"].items()]
    return rows


def _spent(of: dict[str, float | int | None]) -> str:
    """A limit and what is spent of it."""
    from tuner.cli.output import number

    amount, limit = of["spent"], of["limit"]
    text = "unknown" if amount is None else number(amount)
    text += ", no limit" if limit is None else f" of {number(limit)}"
    if of.get("holdout"):
        text += f", {number(of['holdout'] or 0.0)} by the holdout pass"
    if of.get("unknown_runs") and amount is not None:
        text += f"; not known of {of['unknown_runs']}: taken for the dearest of the trial"
    return text
