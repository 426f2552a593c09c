"""Arguments that several verbs share, so that they read alike in every `--help`, and complete alike."""

from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.completion import complete_example
from tuner.cli.completion import complete_rule
from tuner.cli.completion import complete_study
from tuner.cli.completion import complete_trial

StudyPath = Annotated[
    Path,
    typer.Argument(metavar="STUDY", help="Study file (YAML).", autocompletion=complete_study),
]
TrialNumber = Annotated[
    int,
    typer.Argument(metavar="TRIAL", help="Number of the trial.", autocompletion=complete_trial),
]
ExampleId = Annotated[
    str | None,
    typer.Argument(
        metavar="EXAMPLE",
        help="Id of the example; without it, they are listed.",
        autocompletion=complete_example,
    ),
]
RuleText = Annotated[
    str,
    typer.Option(
        "--rule",
        metavar="RULE",
        help="knee, max-accuracy, min-energy, min-latency, cheapest-within:0.02, "
        "slo:latency_p95_s<=5,accuracy>=0.6 or weights:accuracy=2,energy_wh=1.",
        autocompletion=complete_rule,
    ),
]
SubmittedName = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="Name of a study of the service, or the file that was submitted.",
        autocompletion=complete_study,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
AllowCustom = Annotated[
    bool,
    typer.Option(
        "--allow-custom",
        help="Let FILE name code that is not tuner's, which is run: only for files that you trust.",
    ),
]


def submitted_name(given: str) -> str:
    """The name of a study, of which the file may be given."""
    from tuner.source import Source

    path = Path(given)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return given
    source = Source.read(path)
    name = source.content.get("name")
    if not isinstance(name, str):
        raise source.error(("name",), "is missing", hint="give the study's name")
    return name
