"""Going on from an earlier run of the same question, under another budget, as if it had never ended.

Apart from the session, through which every call passes, because only a run that goes on needs it.

What a workflow does depends on its question, its seed and what its calls gave, and on nothing else. So a run whose first
calls are given what the earlier run was given comes to where that one was, and goes on from there. A call is known again
by what it asks, of which tool or with which seed, and not by its place: which of several calls at once came first is chance.

What a call takes depends on more: a server that keeps prefixes of prompts has by now dropped those of the earlier run. So
before the first call that is new, it is given them to read again, outside of the run's time.
"""

import asyncio
import time
from collections import defaultdict
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from workflows.base import Checkpoint
from workflows.errors import WorkflowsError
from workflows.llm import LLM
from workflows.llm import ChatClient
from workflows.llm import Request
from workflows.tools import Observation
from workflows.tools import Toolbox
from workflows.trace import Span
from workflows.trace import Trace


@dataclass(frozen=True, slots=True)
class PastRun:
    """An earlier run up to where another goes on from it: one of its checkpoints, or its end."""

    spans: tuple[Span, ...]
    checkpoints: tuple[Checkpoint, ...]
    elapsed_s: float


OnReadAgain = Callable[[Trace], None]
"""Hears of what servers read again, as a trace of its own, once they have."""

_Key = tuple[Literal["llm", "tool"], str, str | int | None]


class DepartedError(WorkflowsError):
    """The run does not do what the earlier one did, so it cannot go on from there."""


class Recall:
    """Gives a run what an earlier one was given, call by call; `trace` then has the earlier one's spans, times included.

    Once nothing is left to give, the trace's clock goes on from the earlier run's end. Raises DepartedError for a call or
    checkpoint that the earlier run did not have, as long as it had any that this run has not come to.
    """

    def __init__(
        self, past: PastRun, trace: Trace, on_read_again: OnReadAgain | None = None
    ) -> None:
        trace.spans = list(past.spans)
        self._trace = trace
        self._elapsed_s = past.elapsed_s
        self._checkpoints = deque(past.checkpoints)
        self._calls: dict[_Key, deque[list[Span]]] = defaultdict(deque)
        for span in past.spans:
            calls = self._calls[span.kind, span.input, _mark(span)]
            if calls and span.attempt == calls[-1][-1].attempt + 1:
                calls[-1].append(span)  # another try of that call
            else:
                calls.append([span])
        self._on_read_again = on_read_again
        self._prompts: dict[ChatClient, list[tuple[Request, str]]] = {}
        """What each server had read, replies included, less what is the beginning of another."""
        self._leaving = asyncio.Lock()
        self._taken = 0
        """How many of the spans were given."""
        self.is_over = False
        """Whether nothing is left to give, and the run is on its own."""

    async def reply(self, request: Request, llm: LLM) -> str | None:
        """What the earlier run was replied, after as many tries; None for a call that it did not make."""
        calls = await self._find("llm", request.text(), request.seed)
        if calls is None:
            return None
        span = self._take(calls, calls[0])
        if isinstance(llm, ChatClient):
            text = request.text() + span.output
            known = self._prompts.get(llm, [])
            longest = [each for each in known if not text.startswith(each[0].text() + each[1])]
            self._prompts[llm] = [*longest, (request, span.output)]
        return span.output

    async def observe(self, tools: Toolbox, tool: str, argument: str) -> Observation | None:
        """What the earlier run observed; None for a call that it did not make.

        Where later observations depend on it, the call is made once more for what it leaves behind, which takes
        none of the run's time.
        """
        calls = await self._find("tool", argument, tool)
        if calls is None:
            return None
        seen = await tools.call_again(tool, argument)
        known = next((call for call in calls if seen in (None, call[0].output)), None)
        if known is None:
            raise DepartedError(f"{tool}[{argument}] gave something else before")
        span = self._take(calls, known)
        return Observation(span.output, span.error is None and tools[tool].ends)

    def checkpoint(self, budget: int, answer: str | None) -> Checkpoint | None:
        """The checkpoint as the earlier run left it; None for one that it did not leave."""
        if self.is_over or not self._checkpoints:
            self.go_on()
            return None
        left = self._checkpoints.popleft()
        if (left.budget, left.answer, left.span_count) != (budget, answer, self._taken):
            raise DepartedError(f"checkpoint {budget} was another before")
        return left

    def go_on(self) -> None:
        """Let the clock go on, unless it does."""
        if not self.is_over:
            self._require_end()
            self._trace.origin_s = time.perf_counter() - self._elapsed_s
            self.is_over = True

    def _require_end(self) -> None:
        if self._taken < len(self._trace.spans) or self._checkpoints:
            raise DepartedError("the earlier run did something else")

    async def _find(
        self, kind: Literal["llm", "tool"], asked: str, mark: str | int
    ) -> deque[list[Span]] | None:
        """The calls of this kind that are left, of which there is one; None where the run is on its own."""
        calls = None if self.is_over else self._calls.get((kind, asked, mark))
        if calls:
            return calls
        async with self._leaving:  # calls at once are all new from here on, and all wait
            if not self.is_over:
                self._require_end()
                await self._read_again()
                self.go_on()
        return None

    async def _read_again(self) -> None:
        """Have servers read what they had in their caches; only where one has said that it took tokens from there."""
        if not any(span.tokens_cached for span in self._trace.spans):
            return
        trace = Trace()
        for llm, prompts in self._prompts.items():
            for request, reply in prompts:
                await llm.read(request, reply, trace)
        if self._on_read_again is not None:
            self._on_read_again(trace)

    def _take(self, calls: deque[list[Span]], call: list[Span]) -> Span:
        """The last try of a call, which is left no more."""
        span = call[-1]
        if span.error is not None and (span.kind == "llm" or span.error != span.output):
            raise DepartedError(f"a call ended otherwise than by itself: {span.error}")
        calls.remove(call)
        self._taken += len(call)
        return span


def _mark(span: Span) -> str | int | None:
    return span.seed if span.kind == "llm" else span.name
