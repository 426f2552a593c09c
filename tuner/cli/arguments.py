"""Arguments that several verbs share, so that they read alike in every `--help`."""

from pathlib import Path
from typing import Annotated

import typer

StudyPath = Annotated[Path, typer.Argument(metavar="STUDY", help="Study file (YAML).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
AllowCustom = Annotated[
    bool,
    typer.Option(
        "--allow-custom",
        help="Let FILE name code that is not tuner's, which is run: only for files that you trust.",
    ),
]
