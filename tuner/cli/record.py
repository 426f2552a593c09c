"""`tuner record`: a study's evaluations, or its whole space, as a table that studies can be replayed from."""

from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.arguments import StudyPath


def record(
    study: StudyPath,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Where to write: a .jsonl.gz, or a plain .jsonl.")
    ],
    whole_space: Annotated[
        bool,
        typer.Option(
            "--whole-space",
            help="First measure what is not known of the search space, on the search questions.",
        ),
    ] = False,
) -> None:
    """Write every evaluation of a study, question by question, into a table for `executor: {replay: FILE}`.

    Without answers or prompts: scores, times, energy, tokens and calls, and the same for each checkpoint. With
    --whole-space, the same command goes on where it stopped.
    """
    from tuner.cli.output import talk
    from tuner.cli.progress import open_progress
    from tuner.errors import UserError
    from tuner.record import as_recorded
    from tuner.record import lacking
    from tuner.record import measure_space
    from tuner.record import read_table
    from tuner.spec import load_study

    if not out.parent.is_dir():  # before hours of measuring
        raise UserError(
            f"--out: there is no folder {out.parent}",
            hint="make it first, or name a file elsewhere",
        )
    loaded = load_study(study)
    if whole_space:
        talk(f"study {loaded.spec.name}: {study}")
        with open_progress(as_recorded(loaded)) as report:
            table = measure_space(loaded, report=report)
        for config in lacking(loaded, table):
            talk(f"not measured, so the table lacks it: {loaded.label(config)}")
    else:
        table = read_table(loaded)
    table.write(out)
    recorded, told = len(table.recorded), len(table.configs)
    talk(
        f"{told} configs, {recorded} of them recorded and {told - recorded} at budgets that their checkpoints tell; "
        f"{table.header.rows} rows; {out.stat().st_size / 1e6:.2g} MB"
    )
    print(out)
