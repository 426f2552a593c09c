"""Tools by name, and the one place where a tool call is timed.

A toolkit is opened once per question, so that whatever its tools remember (the page under the cursor)
belongs to that question alone; a workflow that tries several ways forks what was opened.
"""

import asyncio
import copy
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from importlib import import_module
from typing import Protocol

from workflows.agent_pack import AgentPack
from workflows.errors import ConfigError
from workflows.errors import ToolError
from workflows.trace import Span
from workflows.trace import Trace
from workflows.trace import keepable


@dataclass(frozen=True, slots=True)
class Tool:
    """An action that an agent may take: `name[argument]`."""

    name: str
    description: str
    """One sentence for the prompt."""
    call: Callable[[str], Awaitable[str]]
    """Argument to observation. Raises ToolError."""
    ends: bool = False
    """Its observation is the answer, so that the run is over: there is no `finish` beside it."""
    ordered: bool = False
    """Its observation depends on what the calls before it did, so that it must wait for them."""
    block: bool = False
    """Its argument is a fenced block of several lines: a program."""


class Kit(Protocol):
    """One question's tools with what they remember.

    What is remembered is replaced, never changed in place: `copy.copy` of a kit is then a fork, which
    goes its own way from the same state.
    """

    def tools(self) -> Iterable[Tool]:
        """The tools, bound to this kit."""
        ...


Toolkit = Callable[[], Kit]


@dataclass(frozen=True, slots=True)
class Delayed:
    """A kit each of whose tools takes so much longer: what it stands for is not on this machine."""

    kit: Kit
    delay_s: float

    def __copy__(self) -> "Delayed":
        return Delayed(copy.copy(self.kit), self.delay_s)

    def tools(self) -> Iterable[Tool]:
        """The kit's tools, each after a wait."""
        return [replace(tool, call=self._after_a_wait(tool.call)) for tool in self.kit.tools()]

    def _after_a_wait(
        self, call: Callable[[str], Awaitable[str]]
    ) -> Callable[[str], Awaitable[str]]:
        async def delayed(argument: str) -> str:
            await asyncio.sleep(self.delay_s)
            return await call(argument)

        return delayed


class Toolbox(Mapping[str, Tool]):
    """Tools by name, over the kits that they belong to."""

    def __init__(self, kits: Sequence[Kit] = ()) -> None:
        self._kits = kits
        self._tools = {tool.name: tool for kit in kits for tool in kit.tools()}

    def __getitem__(self, name: str) -> Tool:
        return self._tools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)

    @property
    def end(self) -> str | None:
        """The tool that ends a run, None where the agent says its answer itself."""
        return next((name for name, tool in self.items() if tool.ends), None)

    async def call_again(self, name: str, argument: str) -> str | None:
        """What a call gives that was made before, made again at once for what it leaves behind.

        None where no tool of its kit depends on that: the call is not made.
        """
        for kit in self._kits:
            tools = {
                tool.name: tool for tool in (kit.kit if isinstance(kit, Delayed) else kit).tools()
            }
            if name in tools and any(tool.ordered for tool in tools.values()):
                try:
                    return await tools[name].call(argument)
                except ToolError as failure:
                    return str(failure)
        return None

    def fork(self) -> "Toolbox":
        """A box in the same state that goes its own way."""
        return Toolbox([copy.copy(kit) for kit in self._kits])

    def adopt(self, name: str, other: "Toolbox") -> "Toolbox":
        """This box, but with the kit of that tool as it is in another fork."""
        kits = zip(self._kits, other._kits, strict=True)
        return Toolbox(
            [
                theirs if any(tool.name == name for tool in ours.tools()) else ours
                for ours, theirs in kits
            ]
        )


FINISH = "finish"
"""The action that gives the answer, where no tool ends the run."""

TOOLKITS: Mapping[str, str] = {
    "browser": "workflows.tools.browser",
    "calculator": "workflows.tools.calculator",
    "python": "workflows.tools.python",
    "shop": "workflows.tools.shop",
}


def load_toolkits(pack: AgentPack) -> list[Toolkit]:
    """A factory per toolkit of the pack, with whatever all questions share (an index) made once.

    Raises ConfigError for a name that is not in TOOLKITS.
    """
    toolkits: list[Toolkit] = []
    for name in pack.toolkits:
        if name not in TOOLKITS:
            raise ConfigError(f"unknown toolkit {name!r}", hint=f"known: {', '.join(TOOLKITS)}")
        toolkits.append(import_module(TOOLKITS[name]).load(pack))
    return toolkits


@dataclass(frozen=True, slots=True)
class Observation:
    """What came of a tool call."""

    text: str
    ends: bool = False
    """Whether the run is over and the text its answer."""


async def call_tool(
    tools: Toolbox, name: str, argument: str, trace: Trace, *, speculative: bool = False
) -> Observation:
    """The observation for `name[argument]`. A call that fails is an observation that says so.

    A name that no tool has is such a failure, and so is "", which stands for an argument that is no action.
    """
    argument = keepable(argument)
    start_s = trace.now_s()
    observation = ""
    ends = False
    error: str | None = "cancelled"
    try:
        if name in tools:
            observation = keepable(await tools[name].call(argument))
            ends, error = tools[name].ends, None
        else:
            given = f"{name}[{argument}]" if name else argument
            observation = error = f"Invalid action {given!r}. Known: {', '.join(actions(tools))}."
    except ToolError as failure:
        observation = error = keepable(str(failure))
    except Exception as failure:
        error = keepable(f"{type(failure).__name__}: {failure}")
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
                speculative=speculative,
            )
        )
    return Observation(observation, ends)


def actions(tools: Toolbox) -> tuple[str, ...]:
    """Names of what an agent may do: its tools, and `finish` where none of them ends the run."""
    return (*tools,) if tools.end else (*tools, FINISH)
