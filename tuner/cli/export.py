"""`tuner export`: a recommended configuration as a file that runs."""

from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.arguments import StudyPath


def export(
    study: StudyPath,
    rule: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="knee, max-accuracy, min-energy, min-latency, cheapest-within:0.02, "
            "slo:latency_p95_s<=5,accuracy>=0.6 or weights:accuracy=2,energy_wh=1.",
        ),
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
    from tuner.rules import Rule
    from tuner.spec import load_study

    chosen_by = Rule.parse(rule)
    loaded = load_study(study)
    store = open_results(loaded)
    choice = exporting.export(loaded, store, rule=chosen_by, out=out)
    point = choice.point
    figures = ", ".join(f"{name} {with_interval(point, name)}" for name in loaded.spec.objectives)
    config = summary(loaded, point.trial.config) if point.trial.config else ""
    talk(f"{rule}: {choice.why}")
    talk(f"trial {point.trial.number}: {config}")
    talk(f"measured on {point.n} {point.split} questions: {figures}")
    print(out)
    first = loaded.load_task().examples(point.split)[0]
    talk(f'next: {command()} ask {out} "{first.question}"')
