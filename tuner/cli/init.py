"""`tuner init`: a starter study and search space to edit."""

from pathlib import Path
from typing import Annotated

import typer

STARTERS = ("search_spaces/quickstart.yaml", "studies/quickstart.yaml")


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write.")] = Path(),
) -> None:
    """Write a starter study and search space, to run as they are or to edit."""
    from tuner.cli.output import command
    from tuner.cli.output import talk
    from tuner.errors import UserError

    package = Path(__file__).parent.parent
    for name in STARTERS:
        target = folder / name
        if target.exists():
            raise UserError(f"{target} exists already", hint="name another folder: tuner init DIR")
    for name in STARTERS:
        # In the wheel they lie inside the package, in a checkout beside it.
        source = next(path for path in (package / name, package.parent / name) if path.is_file())
        target = folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
        except OSError as error:
            raise UserError(
                f"{target}: cannot be written: {error.strerror}",
                hint="name a folder that may be written to: tuner init DIR",
            ) from None
        print(target)
    talk(f"next: {command()} run {folder / STARTERS[1]}")
