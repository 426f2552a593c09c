"""`tuner up`: a service for a team, with a queue of studies over the models that it has."""

from pathlib import Path
from typing import Annotated

import typer


def up(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The service's file (YAML).")],
    add_user: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Print a fresh token for a user, and end; one that he had is worth nothing then.",
        ),
    ] = None,
    priority: Annotated[
        float,
        typer.Option(min=0.1, max=10.0, help="With --add-user: what is due to him beside others."),
    ] = 1.0,
    remove_user: Annotated[
        str | None, typer.Option(metavar="NAME", help="Forget a user and his token, and end.")
    ] = None,
    allow_custom: Annotated[
        bool,
        typer.Option(
            "--allow-custom",
            help="Let studies name workflows that are not tuner's, which are imported from this folder.",
        ),
    ] = False,
) -> None:
    """Run studies that are submitted over HTTP; Ctrl-C or SIGTERM ends it, and the next start goes on where it was."""
    import importlib.util
    from contextlib import closing

    from tuner.cli.output import talk
    from tuner.errors import UserError

    if any(importlib.util.find_spec(package) is None for package in ("fastapi", "uvicorn")):
        raise UserError("tuner up needs fastapi and uvicorn", hint="pip install 'tuner[service]'")

    from tuner.service.book import Book
    from tuner.service.serving import serve
    from tuner.service.spec import load_service

    service = load_service(file)
    if add_user is not None or remove_user is not None:
        with closing(Book(service.storage_url)) as book:
            if remove_user is not None:
                book.remove_user(remove_user)
                talk(f"{remove_user} may not ask any more")
            if add_user is not None:
                _require_name(add_user)
                print(book.add_user(add_user, priority))
                talk("that is the token, which is shown once: export TUNER_TOKEN=…")
        return

    def ready(address: str) -> None:
        talk(f"serving {file}; its API is at {address}/docs; Ctrl-C stops it")
        print(address, flush=True)

    serve(service, allow_custom=allow_custom, ready=ready)
    talk("stopped; the next start goes on from here")


def _require_name(name: str) -> None:
    import re

    from tuner.errors import UserError
    from tuner.service.book import NOBODY

    if name == NOBODY or not re.fullmatch(r"\w[\w.@-]{0,63}", name):
        raise UserError(
            f"--add-user {name!r}: is no name for a user",
            hint=f"letters, digits, _, -, @ and ., 64 at most; {NOBODY!r} is whoever asks where there are no users",
        )
