"""`tuner export`: a recommended configuration as a file that runs."""

from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.arguments import StudyPath


def export(
    study: StudyPath,
    rule: Annotated[
        str, typer.Option(help="knee, max-accuracy, min-energy or min-latency.")
    ] = "knee",
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write.")] = Path("best.yaml"),
) -> None:
    """Write the configuration that a rule recommends, with all that it needs to run."""
    from tuner import export as exporting
    from tuner.cli.output import command
    from tuner.cli.output import summary
    from tuner.cli.output import talk
    from tuner.cli.output import with_interval
    from tuner.results import open_results
    from tuner.spec import load_study

    loaded = load_study(study)
    store = open_results(loaded)
    point = exporting.export(loaded, store, rule=rule, out=out)
    figures = ", ".join(f"{name} {with_interval(point, name)}" for name in loaded.spec.objectives)
    config = summary(loaded, point.trial.config) if point.trial.config else ""
    talk(f"{rule}: trial {point.trial.number}, {config}")
    talk(f"measured on {point.n} {point.split} questions: {figures}")
    print(out)
    first = loaded.load_task().examples(point.split)[0]
    talk(f'next: {command()} ask {out} "{first.question}"')
