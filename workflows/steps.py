"""Steps of thought, action and observation: how they are asked for, written and read.

Apart from `react`, because other methods take the same steps in another order.
"""

import re
from collections.abc import Awaitable
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace

from workflows.agent_pack import Demonstration
from workflows.agent_pack import Step
from workflows.prompt import FENCE
from workflows.prompt import fenced
from workflows.prompt import first_line
from workflows.prompt import read_block
from workflows.session import Session
from workflows.tools import FINISH
from workflows.tools import Observation
from workflows.tools import Toolbox
from workflows.tools import actions

_ON_A_LINE = re.compile(r"\s*(\w+)\s*\[(?:(.*)\]|(.+))", re.DOTALL)
_IN_A_FENCE = re.compile(r"\s*(\w+)[ \t]*:?\s*(?=```)")

Ask = Callable[[str, tuple[str, ...], str], Awaitable[str]]
"""A prompt, where the reply ends, and a grammar for it, to the reply."""


@dataclass(frozen=True, slots=True)
class Action:
    """What an agent wants done: `tool[argument]`, or a tool and a program in a fence."""

    tool: str
    """"" where the text is no action."""
    argument: str
    text: str
    """As it stands in prompts."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A step that an agent took."""

    thought: str | None
    """None where steps have no thoughts."""
    action: Action
    observation: str | None
    """None where the run ended with it."""


async def choose(step: int, text: str, session: Session, ask: Ask, *, thoughts: bool) -> Taken:
    """The next step of a run, not yet taken: one call for thought and action, and one more where the action is missing.

    `text` is all that stands before the step. Published with ReAct (arXiv 2210.03629).
    """
    marker = f"Action {step}:"
    stop = (f"\nObservation {step}:",)
    grammar = _grammar(session.tools, session.pack.answer == "program")
    if not thoughts:
        reply = await ask(f"{text}{marker}", stop, f"root ::= {grammar}")
        return Taken(None, read_action(reply.replace(marker, "", 1)), None)
    opening = f"{text}Thought {step}:"
    reply = await ask(opening, stop, f'root ::= " " [^\\n]{{1,400}} "\\n{marker}" {grammar}')
    thought, _, rest = reply.partition(marker)
    thought = thought.replace(f"Thought {step}:", "", 1).strip()
    if not rest.strip():
        thought = first_line(thought)
        rest = await ask(f"{opening} {thought}\n{marker}", stop, f"root ::= {grammar}")
    return Taken(thought, read_action(rest.replace(marker, "", 1)), None)


async def take(taken: Taken, session: Session, tools: Toolbox) -> tuple[Taken, str | None]:
    """The step with what came of it, and the run's answer where it ended with it."""
    action = taken.action
    if action.tool == end_of(tools) == FINISH:
        return taken, action.argument
    seen = await session.act(action.tool, action.argument, tools=tools)
    return observed(taken, seen)


def observed(taken: Taken, seen: Observation) -> tuple[Taken, str | None]:
    """The step with an observation, and the run's answer where that is one."""
    if seen.ends:
        return taken, seen.text
    return replace(taken, observation=seen.text), None


def read_action(text: str) -> Action:
    """The action that a text begins with; of any other text, no tool ("") and its first line.

    `tool[argument]` goes to the line's last bracket, or to the line's end where the reply was cut off before
    one; a tool's name before a fence has the program in it.
    """
    fence = _IN_A_FENCE.match(text)
    if fence is not None:
        program = read_block(text[fence.end() :])
        tool = fence[1].lower()
        return Action(tool, program, f"{tool}\n{fenced(program)}")
    line = first_line(text)
    match = _ON_A_LINE.match(line)
    if match is None:
        return Action("", line, line)
    tool, whole, broken_off = match.groups()
    if whole is None:
        return Action(tool.lower(), broken_off.strip(), f"{line}]")
    return Action(tool.lower(), whole.strip(), line)


def cut(observation: str, longest: int) -> str:
    """An observation in at most so many characters."""
    return observation if len(observation) <= longest else f"{observation[: longest - 1]}…"


def end_of(tools: Toolbox) -> str:
    """The action that ends a run: `finish`, or the tool that does."""
    return tools.end or FINISH


def show_actions(session: Session) -> str:
    """What an agent may do, as one sentence of its instruction."""
    told = [tool.description for tool in session.tools.values()]
    if session.tools.end is None:
        fence = session.pack.answer == "program"
        told.append(
            f"{FINISH} with a program in a fenced block gives the answer"
            if fence
            else f"{FINISH}[answer] ends with the answer"
        )
    return f"{session.pack.instruction} Actions: {'; '.join(told)}."


def show_step(number: int, taken: Taken) -> str:
    """A step as it stands in prompts, with a line end behind it."""
    text = "" if taken.thought is None else f"Thought {number}: {taken.thought}\n"
    text += f"Action {number}: {taken.action.text}\n"
    return (
        text if taken.observation is None else f"{text}Observation {number}: {taken.observation}\n"
    )


def show_demonstration(demo: Demonstration, session: Session, *, thoughts: bool) -> str:
    """The steps of a demonstration."""
    return "".join(
        show_step(number, _demonstrated(step, session, thoughts=thoughts))
        for number, step in enumerate(demo.steps, 1)
    ).rstrip("\n")


def _demonstrated(step: Step, session: Session, *, thoughts: bool) -> Taken:
    tool = session.tools.get(step.tool)
    block = tool.block if tool is not None else session.pack.answer == "program"
    text = f"{step.tool}\n{fenced(step.argument)}" if block else f"{step.tool}[{step.argument}]"
    last = step.tool == end_of(session.tools)
    return Taken(
        step.thought if thoughts else None,
        Action(step.tool, step.argument, text),
        None if last else step.observation,
    )


def _grammar(tools: Toolbox, program: bool) -> str:
    """An action in GBNF, as the end of a rule."""
    block = [name for name, tool in tools.items() if tool.block]
    names = actions(tools)
    if program and FINISH in names:
        block.append(FINISH)
    line = [name for name in names if name not in block]
    forms = []
    if line:
        # Brackets within are for intervals and lists.
        argument = '([^\\[\\]\\n] | "[" [^\\[\\]\\n]* [\\])])'
        forms.append(f'({_either(line)}) "[" {argument}{{1,200}} "]"')
    if block:
        # A line of the program that begins with the fence would end it.
        forms.append(
            f'({_either(block)}) "\\n{FENCE}python\\n" ([^`\\n] [^\\n]* "\\n" | "\\n")+ "{FENCE}"'
        )
    return f'" "? ({" | ".join(forms)})'


def _either(names: list[str]) -> str:
    return " | ".join(f'"{name}"' for name in names)
