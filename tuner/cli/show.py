"""`tuner show`: one trial, its config, its values, and its examples one by one."""

from typing import TYPE_CHECKING
from typing import Annotated
from typing import Any

import typer

from tuner.cli.arguments import AsJson
from tuner.cli.arguments import StudyPath

if TYPE_CHECKING:
    from tuner.records import ExampleRun
    from tuner.records import TrialRecord
    from tuner.store import Store

TrialNumber = Annotated[int, typer.Argument(metavar="TRIAL", help="Number of the trial.")]


def show(study: StudyPath, trial: TrialNumber, as_json: AsJson = False) -> None:
    """Show a trial: config, values, idle time, and each example's answer and cost."""
    from tuner.cli.output import number
    from tuner.cli.output import print_json
    from tuner.cli.output import print_table
    from tuner.cli.output import quantity
    from tuner.results import open_results
    from tuner.spec import load_study

    loaded = load_study(study)
    store = open_results(loaded)
    found = find_trial(store, trial)
    runs = [
        (split, run) for split in ("search", "holdout") for run in store.runs(found.trial_id, split)
    ]
    if as_json:
        print_json(_content(found, runs))
        return
    config = found.config
    rows = [["state", found.state if found.failure is None else f"failed: {found.failure}"]]
    if found.replay_of is not None:
        rows.append(["replay of", f"trial {found.replay_of}"])
    if config is not None:
        mark = " (oracle)" if config.oracle else ""
        rows += [["workflow", f"{config.workflow}{mark}"], ["model", config.model]]
        rows += [[f"{config.workflow}.{name}", str(value)] for name, value in config.params.items()]
    rows += [[name, quantity(name, value)] for name, value in (found.values or {}).items()]
    rows += _pass_rows([run for split, run in runs if split == "search"])
    rows += [["energy source", source] for source in found.sources.values()]
    print_table(f"Trial {trial} of {loaded.spec.name}", ["", ""], rows)
    print_table(
        "Examples",
        [
            "split",
            "example",
            "score",
            "latency_s",
            "joules",
            "calls",
            "tokens in/out/cached",
            "answer",
        ],
        [
            [
                split,
                run.example_id,
                number(run.score),
                number(run.latency_s),
                "–" if run.energy.gross_j is None else number(run.energy.gross_j),
                f"{run.llm_calls}+{run.tool_calls}",
                f"{run.tokens_in}/{run.tokens_out}/{run.tokens_cached}",
                _line(run.answer if run.error is None else f"failed: {run.error}")[:60],
            ]
            for split, run in runs
        ],
    )


def _line(text: str) -> str:
    """A text of several lines, a program say, as one."""
    return " ".join(text.split())


def _pass_rows(runs: "list[ExampleRun]") -> list[list[str]]:
    """What a pass over the search questions took, all questions together."""
    from tuner.cli.output import number
    from tuner.measure.latency import idle_share
    from tuner.measure.latency import summarise

    if not runs:
        return []
    latency, idle = summarise([run.latency_s for run in runs]), idle_share(runs)
    tokens = [
        [run.tokens_in for run in runs],
        [run.tokens_out for run in runs],
        [run.tokens_cached for run in runs],
    ]
    known = [
        "unknown" if None in counts else str(sum(count or 0 for count in counts))
        for counts in tokens
    ]
    return [
        [
            "latency_s",
            f"mean {number(latency.mean_s)}, p50 {number(latency.p50_s)}, "
            f"p95 {number(latency.p95_s)} (n = {latency.n})",
        ],
        ["tokens", f"{known[0]} in, {known[2]} of them cached, {known[1]} out"],
        [
            "calls",
            f"{sum(run.llm_calls for run in runs)} of the model, "
            f"{sum(run.tool_calls for run in runs)} of tools",
        ],
        ["server idle", "unknown" if idle is None else f"{100 * idle:.1f} % of the pass"],
    ]


def find_trial(store: "Store", number: int) -> "TrialRecord":
    """The trial of that number. Raises UserError saying which there are."""
    from tuner.errors import UserError

    trials = store.trials()
    for trial in trials:
        if trial.number == number:
            return trial
    last = f"they go from 0 to {trials[-1].number}" if trials else "there are none yet"
    raise UserError(f"there is no trial {number}; {last}")


def _content(trial: "TrialRecord", runs: "list[tuple[str, ExampleRun]]") -> dict[str, Any]:
    from dataclasses import asdict

    def plain(run: "ExampleRun") -> dict[str, Any]:
        content = asdict(run)
        content.pop("spans")
        return content

    return {
        "trial": trial.number,
        "state": trial.state,
        "config": None if trial.config is None else trial.config.model_dump(),
        "values": trial.values,
        "feasible": trial.feasible,
        "replay_of": trial.replay_of,
        "failure": trial.failure,
        "sources": dict(trial.sources),
        "examples": [{"split": split, **plain(run)} for split, run in runs],
    }
