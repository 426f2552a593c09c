"""`tuner run`: runs a study, or goes on with it."""

from typing import TYPE_CHECKING
from typing import Annotated

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

    from tuner.cli.stream import Printer
    from tuner.content import front_content
    from tuner.content import recommended
    from tuner.results import open_results
    from tuner.study import run_study

    printer = Printer(study)
    run_study(study, report=printer)
    from tuner.dashboard import refresh_notes

    with closing(open_results(study)) as store:
        refresh_notes(study, store)
        printer.write("result", front=front_content(study, store), recommended=recommended(study))
