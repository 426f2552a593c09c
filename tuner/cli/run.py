"""`tuner run`: runs a study, or goes on with it."""

from typing import TYPE_CHECKING
from typing import Annotated
from typing import Any

import typer

from tuner.cli.arguments import StudyPath

if TYPE_CHECKING:
    from tuner.spec import LoadedStudy


def run(
    study: StudyPath,
    as_json: Annotated[
        bool, typer.Option("--json", help="A line of JSON for each event, the last the result.")
    ] = False,
) -> None:
    """Run or resume a study, then confirm its front on the holdout questions."""
    from contextlib import closing

    from tuner.cli.front import print_front
    from tuner.cli.output import command
    from tuner.cli.output import talk
    from tuner.cli.progress import open_progress
    from tuner.results import open_results
    from tuner.spec import load_study

    loaded = load_study(study)
    if as_json:
        _run_for_programs(loaded)
        return
    talk(f"study {loaded.spec.name}: {study}")
    with open_progress(loaded) as report:
        from tuner.study import (
            run_study,  # seconds of import, under way while the line above is read
        )

        run_study(loaded, report=report)
    from tuner.dashboard import refresh_notes

    with closing(open_results(loaded)) as store:
        print_front(loaded, store)
        refresh_notes(loaded, store)  # for a dashboard that is open: 1 s for 1,000 trials
    talk(f"next: {command()} export {study} --rule knee --out best.yaml")


def _run_for_programs(study: "LoadedStudy") -> None:
    from contextlib import closing

    from tuner.cli.front import front_content
    from tuner.cli.stream import Stream
    from tuner.results import open_results
    from tuner.study import run_study

    stream = Stream(study)
    run_study(study, report=stream)
    from tuner.dashboard import refresh_notes

    with closing(open_results(study)) as store:
        refresh_notes(study, store)
        stream.write("result", front=front_content(study, store), recommended=_recommended(study))


def _recommended(study: "LoadedStudy") -> dict[str, Any] | None:
    """What `tuner export --rule knee` would write; None where no point can be recommended."""
    from tuner.errors import UserError
    from tuner.results import Front
    from tuner.rules import Rule
    from tuner.rules import recommend

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
