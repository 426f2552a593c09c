"""Tools by name, and the one place where a tool call is timed.

A toolkit is opened once per question, so that whatever its tools remember (the page under the cursor)
belongs to that question alone.
"""

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

from workflows.agent_pack import AgentPack
from workflows.errors import ConfigError
from workflows.errors import ToolError
from workflows.trace import Span
from workflows.trace import Trace


@dataclass(frozen=True, slots=True)
class Tool:
    """An action that an agent may take: `name[argument]`."""

    name: str
    description: str
    """One sentence for the prompt."""
    call: Callable[[str], Awaitable[str]]
    """Argument to observation. Raises ToolError."""


Toolkit = Callable[[], Iterable[Tool]]

TOOLKITS: Mapping[str, str] = {
    "browser": "workflows.tools.browser",
    "calculator": "workflows.tools.calculator",
}


def load_toolkits(pack: AgentPack) -> list[Toolkit]:
    """A factory per toolkit of the pack, with whatever all questions share (an index) made once.

    Raises ConfigError for a name that is not in TOOLKITS.
    """
    toolkits: list[Toolkit] = []
    for name in pack.toolkits:
        if name not in TOOLKITS:
            raise ConfigError(f"unknown toolkit {name!r}; known: {', '.join(TOOLKITS)}")
        toolkits.append(import_module(TOOLKITS[name]).load(pack))
    return toolkits


async def call_tool(tools: Mapping[str, Tool], name: str, argument: str, trace: Trace) -> str:
    """The observation for `name[argument]`. A call that fails is an observation that says so.

    A name that no tool has is such a failure, and so is "", which stands for an argument that is no action.
    """
    start_s = trace.now_s()
    observation = ""
    error: str | None = "cancelled"
    try:
        if name in tools:
            observation = await tools[name].call(argument)
            error = None
        else:
            given = f"{name}[{argument}]" if name else argument
            observation = error = (
                f"Invalid action {given!r}. Known: {', '.join((*tools, 'finish'))}."
            )
    except ToolError as failure:
        observation = error = str(failure)
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
        raise
    finally:
        trace.add(
            Span(
                kind="tool",
                name=name,
                start_s=start_s,
                end_s=trace.now_s(),
                input=argument,
                output=observation,
                error=error,
            )
        )
    return observation
