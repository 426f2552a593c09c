"""The command line: one file a verb, each parsing, calling one function and printing.

stdout is data, stderr is talk. Exit 0: done; 2: something that the user gave cannot be used; 1: a defect of ours.
"""

import difflib
import functools
import gc
import os
import re
import sys
from collections.abc import Callable
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from typing import NoReturn

import typer

VERBS: Mapping[str, str] = {
    "init": "tuner.cli.init",
    "doctor": "tuner.cli.doctor",
    "check": "tuner.cli.check",
    "run": "tuner.cli.run",
    "status": "tuner.cli.status",
    "front": "tuner.cli.front",
    "compare": "tuner.cli.compare",
    "effects": "tuner.cli.effects",
    "show": "tuner.cli.show",
    "trace": "tuner.cli.trace",
    "validate": "tuner.cli.validate",
    "export": "tuner.cli.export",
    "report": "tuner.cli.report",
    "ask": "tuner.cli.ask",
    "serve": "tuner.cli.serve",
    "verify": "tuner.cli.verify",
    "forecast": "tuner.cli.forecast",
    "profile": "tuner.cli.profile",
    "record": "tuner.cli.record",
    "dashboard": "tuner.cli.dashboard",
    "up": "tuner.cli.up",
    "submit": "tuner.cli.submit",
    "studies": "tuner.cli.studies",
    "logs": "tuner.cli.logs",
    "pause": "tuner.cli.pause",
    "resume": "tuner.cli.resume",
    "cancel": "tuner.cli.cancel",
}
"""Verb to the module whose function of the same name it is."""


USAGE_ERROR: Any = typer.BadParameter.__base__
"""What a line that cannot be parsed raises: click's own, or that of typer's copy of it, by its version."""


def make_app() -> typer.Typer:
    """The command-line application with every verb."""
    app = typer.Typer(
        help="Find the LLM-agent configurations worth deploying: accuracy, latency and energy.",
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for verb, module in VERBS.items():
        app.command(verb)(_explained(getattr(import_module(module), verb)))
    return app


def main() -> None:
    """Run the command line; user mistakes end with exit status 2 and no traceback."""
    _refuse_other_workflows()
    # Thousands of trials are read at once, and none of what is made then is garbage.
    gc.set_threshold(50_000)
    sys.path.append(os.getcwd())  # workflows of one's own, as in `my_agents:answer`
    try:
        code = make_app()(args=sys.argv[1:] or ["--help"], standalone_mode=False)
    except USAGE_ERROR as error:
        _refuse_line(error)
    gc.freeze()  # nor is it looked through for any once more at the end
    sys.exit(code or 0)


def _explained(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb, with what ends it early said in our words: inside the application, which has words of its own."""

    @functools.wraps(verb)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            verb(*args, **kwargs)
            sys.stdout.flush()
        except _mistakes() as error:
            _refuse(str(error), error.hint)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from here", file=sys.stderr)
            sys.exit(130)
        except BrokenPipeError:  # the reader of our stdout, `head` say, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)

    return run


def _mistakes() -> tuple[type[Any], ...]:
    """What says that the user has to mend something; looked up once something is raised, as `--help` and completion need none of it."""
    from tuner.errors import UserError
    from workflows.errors import WorkflowsError

    return UserError, WorkflowsError


def _refuse_line(error: Any) -> NoReturn:
    """Say what is wrong with a line that cannot be parsed, and how it is written."""
    message = error.format_message().partition(". Did you mean")[0].rstrip(".")
    close = difflib.get_close_matches(_unknown(message), VERBS, n=1)
    context = error.ctx
    if close and "command" in message:
        hint = f"did you mean {context.command_path} {close[0]}?"
    elif context is None:
        hint = "tuner --help lists the commands"
    else:
        usage = " ".join(re.sub("[{}]", "", context.get_usage()).split()).removeprefix("Usage: ")
        hint = f"write: {usage}; more with {context.command_path} --help"
    _refuse(message[0].lower() + message[1:], hint)


def _unknown(message: str) -> str:
    """What the message has in its first quotation marks."""
    found = re.search(r"'([^']*)'", message)
    return found[1] if found else ""


def _refuse(message: str, hint: str | None) -> NoReturn:
    from tuner.cli.output import talk

    talk(f"error: {message}")
    if hint:  # None of what a model's server or a tool answered
        talk(f"hint: {hint}")
    sys.exit(2)


def _refuse_other_workflows() -> None:
    """Stop when `workflows` is llama-index-workflows, which has the same import name; without importing it."""
    found = find_spec("workflows")
    places = (found.submodule_search_locations if found else None) or ()
    if any(Path(place, "agent_pack.py").is_file() for place in places):
        return
    # Said without what says it elsewhere, which imports the package.
    where = found.origin if found else "nowhere"
    print(f"error: the package `workflows` at {where} is not tuner's", file=sys.stderr)
    print(
        "hint: llama-index-workflows has the same import name: install tuner in an environment without it",
        file=sys.stderr,
    )
    sys.exit(2)
