"""LLMCompiler (Kim et al., arXiv 2312.04511): a plan of tool calls that run as soon as they can, and a joiner that answers or plans anew.

for round in 1 … max_rounds:
    plan ← model(transcript): a numbered call a line, up to join[]
    meanwhile: a call starts once its line is complete and the calls that its argument names by $id are done
    thought, decision ← model(transcript with the plan and all observations)
    if it is finish[answer]: return answer
    it is replan[what is missing]: the next plan's ids count on, and may name the calls before
after the last round one last call must answer, as published, or there is no answer: `at_budget`

Planner and joiner share one transcript, so that each call's prompt begins with the last one's. A tool that
is `ordered` waits for all calls before it, and goes on in the state that the last of them of its kit left;
every other call runs at once, in the state that the round began with. A tool that `ends` the run is ordered,
and whatever stands behind it waits for it; where there is one, the joiner can only plan anew.

A failing tool is an observation, and so is a line that is no call. Of the joiner's reply all up to the line's
last bracket is the answer; a reply that decides nothing is a plan to make anew.
"""

import ast
import asyncio
import re
import warnings
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import ClassVar
from typing import Literal

from pydantic import Field

from workflows.agent_pack import AnswerForm
from workflows.agent_pack import Demonstration
from workflows.agent_pack import Step
from workflows.base import PromptParams
from workflows.config import ACTOR
from workflows.prompt import first_line
from workflows.prompt import layout
from workflows.session import Session
from workflows.steps import cut
from workflows.tools import FINISH
from workflows.tools import Observation
from workflows.tools import Toolbox

JOIN = "join"
REPLAN = "replan"

LEAP = 10
"""A line's own number stands where it is so little above the one before; any other is counted on."""

MOST_CALLS = 12
"""Of a plan under a grammar: small models repeat a line until the tokens run out."""

_NUMBERED = re.compile(r"\s*((?:\d{1,9}[.):]\s*)*)(.*)")
_CALL = re.compile(r"(\w+)\s*(?:\[(.*)\]|\((.*)\))")
_OPENED = re.compile(r"\w+\s*[\[(]")
_LAST = re.compile(rf"({JOIN}|{FINISH}|{REPLAN})\s*([\[(]|$)", re.IGNORECASE)
_DECISION = re.compile(rf"\b({FINISH}|{REPLAN})(?:\[(.*)\]|\((.*)\)|[\[(](.*))", re.IGNORECASE)
_REFERENCE = re.compile(
    r"\$(?:\{(\d{1,9})\}|(\d{1,9})(?!\d|\.\d|,\d{3}))"
)  # not in $1.50 or $1,000
_NUMBER = re.compile(r"(?<![\w.$])\d+(?:\.\d+)?(?!\w|\.\d)")


class LLMCompilerParams(PromptParams):
    """Knobs of LLMCompiler; one round is what every published configuration has."""

    anytime: ClassVar[str | None] = "max_rounds"
    resumable: ClassVar[bool] = True
    forms: ClassVar[tuple[AnswerForm, ...]] = ("line", "action")
    needs_tools: ClassVar[bool] = True

    max_rounds: int = Field(default=1, ge=1, le=16, description="plans")
    max_tokens: int = Field(default=512, ge=1, le=8192, description="for each plan")
    join_tokens: int = Field(default=100, ge=1, le=4096, description="for each decision")
    at_budget: Literal["empty", "answer"] = Field(
        default="answer",
        description="not finished after the last round: no answer, or one last call for it",
    )
    observation_chars: int = Field(
        default=100_000, ge=20, le=100_000, description="longer observations are cut in the prompt"
    )
    planner_model: str = Field(default=ACTOR, description="writes the plans")


class LLMCompiler:
    """Answers with tools, many at a time; leaves a checkpoint after each round."""

    def __init__(self, params: LLMCompilerParams) -> None:
        self.params = params

    async def run(self, question: str, session: Session) -> str:
        """What the joiner finished with, what a tool ended with, or what `at_budget` says."""
        return await Compilation(question, session, self.params).run()


@dataclass(frozen=True, slots=True)
class Call:
    """A line of a plan."""

    number: int
    tool: str
    """"" where the line is no call."""
    argument: str
    """As written; what it names is not filled in."""
    text: str
    """As it stands in prompts."""
    thought: str = ""
    """What was written before it, "" where nothing was."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the joiner makes of a round."""

    thought: str
    answer: str | None
    """None to plan anew."""
    missing: str = ""


@dataclass(frozen=True, slots=True)
class _Done:
    """What came of a call; `tools` as it left them, None where it was not made or there is no such tool."""

    seen: Observation
    tools: Toolbox | None


@dataclass(frozen=True, slots=True)
class _Started:
    call: Call
    done: asyncio.Task[_Done]


class Compilation:
    """The rounds for one question."""

    def __init__(self, question: str, session: Session, params: LLMCompilerParams) -> None:
        self._session = session
        self._params = params
        self._system = _show_tools(session)
        self._text = layout(
            question,
            session.demonstrations(question, params),
            lambda demo: show_plans(demo, session),
        )
        self._tools = session.tools
        """As the rounds so far left them."""
        self._seen: dict[int, str] = {}
        """What the calls of the rounds so far observed."""
        self._next = 1
        """The number that the next plan begins with."""

    async def run(self) -> str:
        """The answer that the rounds led to; "" when there is none."""
        for number in range(1, self._params.max_rounds + 1):
            answer = await self._carry_out()
            if answer is not None:
                self._session.checkpoint(number, answer)
                return answer
            if self._tools.end is not None:
                # Before the joiner, who could say no more than what the next plan needs.
                self._session.checkpoint(number, "")
                if number == self._params.max_rounds:
                    return ""
            decision = await self._join()
            if decision.answer is not None:
                self._session.checkpoint(number, decision.answer)
                return decision.answer
            if self._tools.end is None:
                empty = self._params.at_budget == "empty"
                self._session.checkpoint(number, "" if empty else None)
                if number == self._params.max_rounds:
                    return "" if empty else await self._answer_now(decision)
            self._text += f"Thought: {decision.thought}\nAction: {REPLAN}[{decision.missing}]\n"
        raise AssertionError("the last round returns")

    async def _carry_out(self) -> str | None:
        """Plan, and make the calls meanwhile; the answer where one of them ended the run."""
        self._text += "Plan:\n"
        reader = PlanReader(self._next)
        started: list[_Started] = []
        try:
            async with asyncio.TaskGroup() as group:

                def start(calls: Iterator[Call]) -> None:
                    for call in calls:
                        task = group.create_task(self._make(call, tuple(started)))
                        started.append(_Started(call, task))

                reply = await self._session.complete(
                    f"{self._text}{self._next}.",
                    system=self._system,
                    max_tokens=self._params.max_tokens,
                    temperature=self._params.temperature,
                    stop=(f"{JOIN}[", f"{JOIN}(", "\nObservation", "\nQuestion:"),
                    grammar=_plan_grammar(self._tools),
                    model=self._params.planner_model,
                    on_text=lambda text: start(reader.read(text)),
                )
                start(reader.read(reply[reader.heard :]))
                start(reader.end())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        made = [(one.call, one.done.result()) for one in started]
        self._show(made)
        self._seen |= {call.number: done.seen.text for call, done in made}
        self._tools = _left_by(started, self._tools)
        return next((done.seen.text for _, done in made if done.seen.ends), None)

    async def _make(self, call: Call, before: Sequence[_Started]) -> _Done:
        """Make a call when what it waits for is done; nothing where a call before it ended the run."""
        argument = read_argument(call.argument)
        if any(self._is_ordered(one.call, ends=True) for one in before) or self._is_ordered(call):
            for one in before:
                if (await one.done).seen.ends:
                    return _Done(Observation(""), None)
        tools = (_left_by(before, self._tools) if self._is_ordered(call) else self._tools).fork()
        known = dict(self._seen)
        wanted = set(references(argument))
        for one in before:
            if one.call.number in wanted:
                known[one.call.number] = (await one.done).seen.text
        argument = show_argument(substitute(argument, known))
        seen = await self._session.act(call.tool, argument, tools=tools)
        return _Done(seen, tools if call.tool in tools else None)

    def _is_ordered(self, call: Call, *, ends: bool = False) -> bool:
        """Whether a call must wait for all before it; with `ends`, whether all behind it must wait for it."""
        tool = self._tools.get(call.tool)
        return tool is not None and (tool.ends or (tool.ordered and not ends))

    def _show(self, made: Sequence[tuple[Call, _Done]]) -> None:
        """Write plan and observations down."""
        for call, _ in made:
            thought = f"Thought: {call.thought}\n" if call.thought else ""
            self._text += f"{thought}{call.number}. {call.text}\n"
            self._next = call.number + 1
        self._text += f"{self._next}. {JOIN}[]\n"
        self._next += 1
        for call, done in made:
            seen = cut(done.seen.text, self._params.observation_chars)
            self._text += f"Observation {call.number}: {seen}\n"

    async def _join(self) -> Decision:
        choices = f'"{REPLAN}"' if self._tools.end else f'("{FINISH}" | "{REPLAN}")'
        reply = await self._session.complete(
            f"{self._text}Thought:",
            system=self._system,
            max_tokens=self._params.join_tokens,
            temperature=self._params.temperature,
            stop=("\nPlan:", "\nObservation", "\nQuestion:"),
            grammar=f'root ::= " " [^\\n]{{1,400}} "\\nAction: " {choices} "[" [^\\[\\]\\n]{{0,200}} "]"',
        )
        decision = read_decision(reply)
        if self._tools.end is None or decision.answer is None:
            return decision
        return Decision(decision.thought, None, decision.answer)

    async def _answer_now(self, decision: Decision) -> str:
        """What one last call answers."""
        reply = await self._session.complete(
            f"{self._text}Thought: {decision.thought}\nAction: {FINISH}[",
            system=self._system,
            max_tokens=self._params.join_tokens,
            temperature=self._params.temperature,
            stop=("]", "\n"),
        )
        return first_line(reply.rpartition(f"{FINISH}[")[2])


class PlanReader:
    """Makes calls of a plan that comes in pieces. The plan continues a prompt that ends with its first number."""

    def __init__(self, first: int) -> None:
        self.heard = 0
        """How many characters came so far."""
        self._rest = f"{first}."
        self._last = first - 1
        self._thought = ""
        self._over = False

    def read(self, text: str) -> Iterator[Call]:
        """The calls whose lines this piece completes."""
        self.heard += len(text)
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            yield from self._read_line(line)

    def end(self) -> Iterator[Call]:
        """The call in the last line, which nothing ended; half a call, where the tokens ran out, is none."""
        text = self._rest.lstrip(" 0123456789.):")
        if _CALL.match(text) or not _OPENED.match(text):
            yield from self._read_line(self._rest)
        self._over = True

    def _read_line(self, line: str) -> Iterator[Call]:
        match = _NUMBERED.match(line)
        if self._over or match is None:
            return
        written = re.findall(r"\d+", match[1])
        text = match[2].strip()
        call = _CALL.match(text)
        if _LAST.match(text):
            self._over = True
        elif text.startswith("Thought:") or not (written or call):
            self._thought = text.removeprefix("Thought:").strip()
        elif text and text != "Plan:" and not text.startswith("```"):
            number = int(written[-1]) if written else 0
            self._last = number if 0 < number - self._last < LEAP else self._last + 1
            tool, argument = _parts(call) if call else ("", text)
            yield Call(self._last, tool, argument, text, self._thought)
            self._thought = ""


def read_argument(text: str) -> Any:
    """A call's argument: a literal text or list of such, several arguments as a list; else the text as it stands."""
    if not text.startswith(('"', "'", "[", "(")):
        return text
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes that Python does not know
            values = ast.literal_eval(f"[{text}\n]")
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return text
    return values[0] if len(values) == 1 else values


def references(value: Any) -> Iterator[int]:
    """The numbers that an argument names as $1 or ${1}, through lists."""
    if isinstance(value, str):
        for match in _REFERENCE.finditer(value):
            yield int(match[1] or match[2])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from references(item)


def substitute(value: Any, known: Mapping[int, str]) -> Any:
    """The argument with what is known in the place of its number; whatever else it names is left as it is.

    In one pass: $12 is never a $1, and what is filled in names nothing.
    """
    if isinstance(value, str):
        return _REFERENCE.sub(lambda match: known.get(int(match[1] or match[2]), match[0]), value)
    if isinstance(value, list | tuple):
        return [substitute(item, known) for item in value]
    return value


def show_argument(value: Any) -> str:
    """An argument as tools take it: one text, commas between the parts of a list."""
    if isinstance(value, list | tuple):
        return ", ".join(show_argument(item) for item in value)
    return str(value)


def read_decision(reply: str) -> Decision:
    """The first `finish[…]` or `replan[…]` of a reply, up to the line's last bracket; without one, a plan to make anew."""
    match = _DECISION.search(reply)
    thought = (reply[: match.start()] if match else reply).partition("Action:")[0]
    thought = first_line(thought.replace("Thought:", "", 1))
    if match is None:
        return Decision(thought, None)
    said = next(text for text in match.groups()[1:] if text is not None).strip()
    if match[1].lower() == FINISH:
        return Decision(thought, said)
    return Decision(thought, None, said)


def show_plans(demo: Demonstration, session: Session) -> str:
    """The steps of a demonstration as rounds.

    What an earlier observation of the round is becomes $id. A call whose argument can only be read in such
    an observation is for the next round.
    """
    text = "Plan:\n"
    plan: dict[int, Step] = {}
    number = 1
    for step in demo.steps:
        seen = {earlier: taken.observation for earlier, taken in plan.items()}
        over = step.tool == FINISH
        if over or _must_be_seen(step.argument, seen.values(), demo.question):
            action = f"{FINISH if over else REPLAN}[{step.argument}]"
            text += (
                f"{number}. {JOIN}[]\n{_observed(plan)}Thought: {step.thought}\nAction: {action}\n"
            )
            if over:
                return text.rstrip("\n")
            text += "Plan:\n"
            plan, seen, number = {}, {}, number + 1
        text += f"{number}. {step.tool}[{_named(step.argument, seen)}]\n"
        plan[number] = step
        number += 1
    return f"{text}{number}. {JOIN}[]"


def _observed(plan: Mapping[int, Step]) -> str:
    return "".join(f"Observation {number}: {step.observation}\n" for number, step in plan.items())


def _must_be_seen(argument: str, seen: Iterable[str], question: str) -> bool:
    """Whether only these observations tell an argument, or a number in it, and $id could not say it."""
    seen = set(seen)
    unknown = [
        part
        for part in (argument, *_NUMBER.findall(argument))
        if part not in seen and not _stands_in(part, question)
    ]
    return any(_stands_in(part, text) for part in unknown for text in seen)


def _stands_in(part: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text, re.IGNORECASE) is not None


def _named(argument: str, seen: Mapping[int, str]) -> str:
    """The argument with $id for what is one of these observations: all of it, or a number in it."""
    numbers = {text: number for number, text in seen.items()}
    if argument in numbers:
        return f"${numbers[argument]}"
    return _NUMBER.sub(
        lambda match: f"${numbers[match[0]]}" if match[0] in numbers else match[0], argument
    )


def _parts(call: re.Match[str]) -> tuple[str, str]:
    tool, bracketed, in_parentheses = call.groups()
    return tool.lower(), (in_parentheses if bracketed is None else bracketed).strip()


def _left_by(started: Sequence[_Started], tools: Toolbox) -> Toolbox:
    """The tools with each kit as the last of the calls, all done now, left it."""
    for one in started:
        left = one.done.result().tools
        if left is not None:
            tools = tools.adopt(one.call.tool, left)
    return tools


def _show_tools(session: Session) -> str:
    """What planner and joiner may do, as their instruction."""
    tools = session.tools
    told = "; ".join(tool.description for tool in tools.values())
    finish = "" if tools.end else f"{FINISH}[answer] ends with the answer; "
    return (
        f"{session.pack.instruction} Tools: {told}. A plan is a numbered list of calls of tools, one a "
        f"line, and ends with {JOIN}[]. Calls run at the same time; $1 in a call stands for what call 1 "
        f"observes. Then a thought and an action follow. Actions: {finish}{REPLAN}[what is missing] "
        "asks for another plan."
    )


def _plan_grammar(tools: Toolbox) -> str:
    """A plan behind its first number, in GBNF."""
    names = " | ".join(f'"{name}"' for name in tools)
    # A rule of its own: llama.cpp multiplies nested repetitions out, and refuses more than 2000.
    call = f'" "? ({names}) "[" [^\\[\\]\\n]{{1,200}} "]\\n" [1-9] [0-9]* "."'
    return f'root ::= call{{0,{MOST_CALLS}}} " "? "{JOIN}[]"\ncall ::= {call}'
