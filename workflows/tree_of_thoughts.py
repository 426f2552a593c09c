"""Tree of Thoughts (Yao et al., arXiv 2305.10601): breadth-first search over lines of reasoning, the best few kept at each depth.

states ← [no thoughts]
for depth in 1 … steps:
    generate: to each state without an answer, samples of one more thought, or thoughts that one call proposes
    evaluate: the model says of each new state whether it can lead to the right answer, or votes for the best
    states ← the `breadth` best; among equals, the first
    if the best has an answer: return it
return the answer of the best that has one; else what one last call says, or none: `at_budget`

value: sure, likely, impossible = 20, 1, 0.001, summed over the evaluations; a state that was there before, and
a reply that cannot be read, are worth 0
vote: as many ballots, each for one of the states by its number

A thought is a line; demonstrations are taken apart into theirs. A line that begins with "Answer:" is a thought
that completes its state, which then stays as it is and competes on. A state is valued once; where there
is only one, there is nothing to choose and no call is made. The calls of a depth are concurrent: all
that generate, then all that evaluate. Nothing depends on which is done first.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar
from typing import Literal

from pydantic import Field

from workflows.agent_pack import Demonstration
from workflows.base import PromptParams
from workflows.config import ACTOR
from workflows.cot import LINE_TOKENS
from workflows.prompt import ANSWER_STOP
from workflows.prompt import first_line
from workflows.prompt import layout
from workflows.prompt import read_answer
from workflows.session import Session
from workflows.together import together

VALUES = {"sure": 20.0, "likely": 1.0, "impossible": 0.001}

EVALUATION_TOKENS = 8

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9])")
_LABEL = re.compile(r"\s*(?:(?:\d+[.)]|[-*])(?=\s|$))?\s*(?:Thought(?: \d+)?:)?")
_VOTE = re.compile(r"[0-9]{1,9}")
_VALUE = re.compile(rf"\b({'|'.join(VALUES)})\b", re.IGNORECASE)


class TreeOfThoughtsParams(PromptParams):
    """Knobs of Tree of Thoughts; the defaults are those published for the Game of 24."""

    anytime: ClassVar[str | None] = "steps"
    resumable: ClassVar[bool] = True

    temperature: float = Field(default=0.7, ge=0.0, le=2.0, description="of all calls")
    steps: int = Field(default=4, ge=1, le=64, description="thoughts on any way")
    generate: Literal["sample", "propose"] = Field(
        default="propose", description="a call for each thought, or one call for a list of them"
    )
    children: int = Field(
        default=8, ge=1, le=64, description="thoughts after a state: drawn, or read from a list"
    )
    evaluate: Literal["value", "vote"] = Field(
        default="value", description="each state by itself, or all of them compared"
    )
    evaluations: int = Field(
        default=3, ge=1, le=64, description="values of a state, or votes at a depth"
    )
    breadth: int = Field(default=5, ge=1, le=64, description="states that are kept")
    max_tokens: int = Field(
        default=256, ge=1, le=8192, description="for each call that makes thoughts"
    )
    at_budget: Literal["empty", "answer"] = Field(
        default="answer",
        description="no state with an answer after the last step: no answer, or one last call for it",
    )
    value_model: str = Field(default=ACTOR, description="says values and votes")


class TreeOfThoughts:
    """Answers by breadth-first search; leaves a checkpoint after each depth."""

    def __init__(self, params: TreeOfThoughtsParams) -> None:
        self.params = params

    async def run(self, question: str, session: Session) -> str:
        """The best state's answer, or what `at_budget` says. Raises what the first call to fail raised."""
        return await Search(question, session, self.params).run()


@dataclass(frozen=True, slots=True)
class State:
    """Thoughts so far, and the answer where they came to one."""

    thoughts: tuple[str, ...] = ()
    answer: str | None = None

    def show(self) -> str:
        """The state as prompts show it, a line end behind each line."""
        lines = [
            f"Thought {number}: {thought}\n" for number, thought in enumerate(self.thoughts, 1)
        ]
        return "".join(lines) + ("" if self.answer is None else f"Answer: {self.answer}\n")

    def extend(self, line: str) -> "State | None":
        """The state with one more line, None where that says nothing."""
        thought, answer, *_ = (
            part.strip() for part in f"{_unlabelled(line)}Answer:".split("Answer:")
        )
        thoughts = (*self.thoughts, thought) if thought else self.thoughts
        if answer:
            return State(thoughts, answer)
        return State(thoughts) if thought else None


class Search:
    """The search for one question's answer."""

    def __init__(self, question: str, session: Session, params: TreeOfThoughtsParams) -> None:
        self._question = question
        self._session = session
        self._params = params
        self._head = layout(question, session.demonstrations(question, params), show_thoughts)
        self._system = (
            f"{session.pack.instruction} Think in thoughts, one a line, then give the answer alone "
            'on a line that starts with "Answer:".'
        )
        if params.generate == "propose":
            self._system += " When asked for candidates, list different next lines, one a line."
        self._states = [State()]
        """The best so far, best first."""
        self._values: dict[State, float] = {}

    async def run(self) -> str:
        """The answer that the search led to; "" when there is none."""
        for depth in range(1, self._params.steps + 1):
            candidates = await self._generate(depth)
            if candidates:
                values = await self._evaluate(candidates, depth)
                self._states = best(candidates, values, self._params.breadth)
            answer = next((one.answer for one in self._states if one.answer is not None), None)
            if answer is None and self._params.at_budget == "empty":
                answer = ""
            self._session.checkpoint(depth, answer)
            if not candidates or self._states[0].answer is not None:
                break
        return await self._answer_now() if answer is None else answer

    async def _generate(self, depth: int) -> list[State]:
        """What the states become with one more line each; empty where the model says nothing to any of them."""
        grown = await together(
            self._extend(state, f"{depth}/{index}") for index, state in enumerate(self._states)
        )
        if not any(grown):
            return []
        return [
            child
            for state, children in zip(self._states, grown, strict=True)
            for child in ([state] if state.answer is not None else children)
        ]

    async def _extend(self, state: State, place: str) -> list[State]:
        if state.answer is not None:
            return []
        if self._params.generate == "propose":
            lines = await self._propose(state, place)
        else:
            lines = await together(
                self._sample(state, f"{place}/{index}") for index in range(self._params.children)
            )
        children = [state.extend(line) for line in lines]
        return [child for child in children if child is not None]

    async def _sample(self, state: State, place: str) -> str:
        reply = await self._session.complete(
            f"{self._head}{state.show()}",
            system=self._system,
            max_tokens=self._params.max_tokens,
            temperature=self._params.temperature,
            stop=("\n",),
            grammar=f'root ::= ("Thought {len(state.thoughts) + 1}:" | "Answer:") " " [^\\n]{{1,200}}',
            seed=self._seed(place),
        )
        return first_line(reply)

    async def _propose(self, state: State, place: str) -> list[str]:
        """The lines of a list, none twice, at most as many as wanted."""
        wanted = self._params.children
        reply = await self._session.complete(
            f"{self._head}{state.show()}{wanted} candidates for the next line:\n1.",
            system=self._system,
            max_tokens=self._params.max_tokens,
            temperature=self._params.temperature,
            stop=("\n\n", "\nQuestion:"),
            grammar=f'root ::= " " line ("\\n" [1-9] [0-9]? ". " line){{0,{wanted - 1}}}\n'
            "line ::= [^\\n]{1,200}",
            seed=self._seed(place),
        )
        listed = f"1. {reply.strip().removeprefix('1.')}".split("\n")
        lines = dict.fromkeys(_unlabelled(line) for line in listed)
        return [line for line in lines if line][:wanted]

    async def _evaluate(self, candidates: Sequence[State], depth: int) -> list[float]:
        """What each is worth; a repeated one nothing."""
        distinct = list(dict.fromkeys(candidates))
        worth: dict[State, float] = {}
        if len(distinct) > 1:
            if self._params.evaluate == "vote":
                worth = await self._vote(distinct, depth)
            else:
                worth = await self._value_all(distinct, depth)
        return [worth.pop(state, 0.0) for state in candidates]

    async def _value_all(self, states: Sequence[State], depth: int) -> dict[State, float]:
        new = [state for state in states if state not in self._values]
        values = await together(
            self._value(state, f"{depth}/value/{index}") for index, state in enumerate(new)
        )
        self._values.update(zip(new, values, strict=True))
        return {state: self._values[state] for state in states}

    async def _value(self, state: State, place: str) -> float:
        choices = " | ".join(f'"{word}"' for word in VALUES)
        replies = await self._ask(
            f"Question: {self._question}\n{state.show()}"
            "Can this lead to the right answer? Say sure, likely or impossible:",
            f"{self._session.pack.instruction} Do not answer. Judge whether the thoughts can lead to "
            "the right answer. Reply with one word: sure, likely or impossible.",
            choices,
            place,
        )
        return sum(read_value(reply) for reply in replies)

    async def _vote(self, states: Sequence[State], depth: int) -> dict[State, float]:
        shown = "".join(
            f"Candidate {number}:\n{state.show()}" for number, state in enumerate(states, 1)
        )
        numbers = range(1, len(states) + 1)
        replies = await self._ask(
            f"Question: {self._question}\n{shown}The number of the best candidate:",
            f"{self._session.pack.instruction} Do not answer. Choose the candidate that leads best to "
            "the right answer. Reply with its number alone.",
            " | ".join(f'"{number}"' for number in reversed(numbers)),
            f"{depth}/vote",
        )
        ballots = [read_vote(reply) for reply in replies]
        return {
            state: float(ballots.count(number))
            for number, state in zip(numbers, states, strict=True)
        }

    async def _ask(self, prompt: str, system: str, choices: str, place: str) -> list[str]:
        """As many replies as there are evaluations."""
        return await together(
            self._session.complete(
                prompt,
                system=system,
                max_tokens=EVALUATION_TOKENS,
                temperature=self._params.temperature,
                grammar=f'root ::= " "? ({choices})',
                seed=self._seed(f"{place}/{index}"),
                model=self._params.value_model,
            )
            for index in range(self._params.evaluations)
        )

    async def _answer_now(self) -> str:
        """What one last call answers from the best state."""
        reply = await self._session.complete(
            f"{self._head}{self._states[0].show()}Answer:",
            system=self._system,
            max_tokens=LINE_TOKENS,
            temperature=self._params.temperature,
            stop=ANSWER_STOP["line"],
        )
        return read_answer(reply, "line")

    def _seed(self, place: str) -> int:
        """A seed that depends on the place in the search alone, not on the calls before it."""
        return zlib.crc32(f"{self._session.seed}/{place}".encode()) & 0x7FFFFFFF


def best(states: Sequence[State], values: Sequence[float], count: int) -> list[State]:
    """So many states of highest value, the highest first; among equals, the first."""
    ranked = sorted(zip(states, values, strict=True), key=lambda pair: pair[1], reverse=True)
    return [state for state, _ in ranked[:count]]


def read_value(reply: str) -> float:
    """The worth of the first word of VALUES in a reply, 0 where there is none."""
    match = _VALUE.search(reply)
    return VALUES[match[1].lower()] if match else 0.0


def read_vote(reply: str) -> int:
    """The first number in a reply, 0 where there is none."""
    match = _VOTE.search(reply)
    return int(match[0]) if match else 0


def show_thoughts(demo: Demonstration) -> str:
    """A demonstration a thought a line: the lines of its reasoning, or the sentences where it is one line."""
    lines = demo.reasoning.splitlines()
    if len(lines) == 1:
        lines = _SENTENCE_END.split(demo.reasoning)
    return State(tuple(filter(None, map(str.strip, lines))), demo.answer).show().rstrip("\n")


def _unlabelled(line: str) -> str:
    """A line without its number in a list, and without "Thought 1:"."""
    return _LABEL.sub("", line, count=1).strip()
