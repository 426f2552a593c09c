"""The command line: one file a verb, each parsing, calling one function and printing.

stdout is data, stderr is talk. Exit 0: done; 2: something that the user gave cannot be used; 1: a defect of ours.
"""

import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec

import typer

VERBS: Mapping[str, str] = {
    "init": "tuner.cli.init",
    "doctor": "tuner.cli.doctor",
    "check": "tuner.cli.check",
    "run": "tuner.cli.run",
    "status": "tuner.cli.status",
    "front": "tuner.cli.front",
    "show": "tuner.cli.show",
    "trace": "tuner.cli.trace",
    "export": "tuner.cli.export",
    "ask": "tuner.cli.ask",
    "dashboard": "tuner.cli.dashboard",
}
"""Verb to the module whose function of the same name it is."""


def make_app() -> typer.Typer:
    """The command-line application with every verb."""
    app = typer.Typer(
        help="Find the LLM-agent configurations worth deploying: accuracy, latency and energy.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for verb, module in VERBS.items():
        app.command(verb)(getattr(import_module(module), verb))
    return app


def main() -> None:
    """Run the command line; user mistakes end with exit status 2 and no traceback."""
    from tuner.errors import UserError
    from workflows.errors import WorkflowsError

    try:
        _refuse_other_workflows()
        make_app()()
    except (UserError, WorkflowsError) as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our stdout, `head` say, has seen enough
        sys.stderr.close()
        sys.exit(0)


def _refuse_other_workflows() -> None:
    """Stop when `workflows` is llama-index-workflows, which has the same import name."""
    if find_spec("workflows.agent_pack") is None:
        from tuner.errors import UserError

        found = find_spec("workflows")
        raise UserError(
            f"the package `workflows` at {found.origin if found else 'nowhere'} is not tuner's",
            hint="llama-index-workflows has the same import name: install tuner in an environment without it",
        )
