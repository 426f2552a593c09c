"""`tuner status`: how far a study is, and what it has spent."""

from collections import Counter

from tuner.cli.arguments import AsJson
from tuner.cli.arguments import StudyPath


def status(study: StudyPath, as_json: AsJson = False) -> None:
    """Show trials by state and the budget spent."""
    from tuner.cli.output import print_json
    from tuner.cli.output import print_table
    from tuner.results import counted
    from tuner.results import open_results
    from tuner.spec import load_study

    loaded = load_study(study)
    store = open_results(loaded)
    trials, row = store.trials(), store.row()
    states = Counter(trial.state for trial in trials)
    replays = sum(trial.replay_of is not None for trial in trials)
    budget, spent = loaded.spec.budget, len(counted(trials))
    content = {
        "study": loaded.spec.name,
        "trials": {
            state: states[state] for state in ("complete", "pruned", "failed", "running", "waiting")
        },
        "replays": replays,
        "budget": {
            "trials": {
                "spent": spent,
                "limit": budget.trials,
            },
            "wall_clock_s": {"spent": row.search_s if row else 0.0, "limit": budget.wall_clock},
        },
        "owner": row.owner if row else None,
        "failures": {
            str(trial.number): trial.failure for trial in trials if trial.failure is not None
        },
    }
    if as_json:
        print_json(content)
        return
    spent_s = row.search_s if row else 0.0
    limit_s = "no limit" if budget.wall_clock is None else f"of {budget.wall_clock:.0f} s"
    rows = [[state, str(count)] for state, count in content["trials"].items() if count]  # type: ignore[attr-defined]
    rows += [
        ["of these replays", str(replays)],
        ["budget, trials", f"{spent} of {budget.trials}"],
        ["budget, wall clock", f"{spent_s:.0f} s {limit_s}"],
        ["running now", "no" if row is None or row.owner is None else row.owner],
    ]
    rows += [[f"trial {number}", f"failed: {why}"] for number, why in content["failures"].items()]  # type: ignore[attr-defined]
    print_table(f"Study {loaded.spec.name}", ["", ""], rows)
