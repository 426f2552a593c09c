"""`run` for programs, in the sandbox: what a program prints is its observation."""

from collections.abc import Iterable

from workflows.agent_pack import AgentPack
from workflows.tools import Tool
from workflows.tools import Toolkit
from workflows.tools.sandbox import WALL_S
from workflows.tools.sandbox import Ran
from workflows.tools.sandbox import run_python

SHOWN_BYTES = 2000
"""Of an output; small models have little room."""


async def run(program: str) -> str:
    """What the program prints, and how it ended where that was not by itself. Raises SandboxError."""
    ran = await run_python(program, wall_s=WALL_S, output_bytes=SHOWN_BYTES)
    said = [ran.output.rstrip(), _ending(ran)]
    return "\n".join(filter(None, said)) or "(no output)"


def _ending(ran: Ran) -> str:
    if ran.ended == "time":
        return f"(stopped after {WALL_S:g} seconds)"
    if ran.ended == "output":
        return "(stopped, for it printed too much)"
    if ran.exit_code is None:
        return "(killed)"
    if ran.exit_code < 0:
        return f"(ended by signal {-ran.exit_code})"
    return f"(exit code {ran.exit_code})" if ran.exit_code and not ran.output.strip() else ""


class Python:
    """An interpreter; it remembers nothing."""

    def tools(self) -> Iterable[Tool]:
        """`run`."""
        return (
            Tool(
                "run", "run with a program in a fenced block gives what it prints", run, block=True
            ),
        )


def load(pack: AgentPack) -> Toolkit:
    """A toolkit of `run`."""
    return Python
