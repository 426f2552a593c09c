"""Going on from an earlier run of the same question, under another budget, as if it had never ended.

Apart from the session, through which every call passes, because only a run that goes on needs it.

What a workflow does depends on its question, its seed and what its calls gave, and on nothing else. So a run whose first
calls are given what the earlier run was given comes to where that one was, and goes on from there. A call is known again
by what it asks, of which tool or with which seed, and not by its place: which of several calls at once came first is chance.
"""

import time
from collections import defaultdict
from collections import deque
from dataclasses import dataclass
from typing import Literal

from workflows.base import Checkpoint
from workflows.errors import WorkflowsError
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


_Key = tuple[Literal["llm", "tool"], str, str | int | None]


class DepartedError(WorkflowsError):
    """The run does not do what the earlier one did, so it cannot go on from there."""


class Recall:
    """Gives a run what an earlier one was given, call by call; `trace` then has the earlier one's spans, times included.

    Once nothing is left to give, the trace's clock goes on from the earlier run's end. Raises DepartedError for a call or
    checkpoint that the earlier run did not have, as long as it had any that this run has not come to.
    """

    def __init__(self, past: PastRun, trace: Trace) -> None:
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
        self._taken = 0
        """How many of the spans were given."""
        self.is_over = False
        """Whether nothing is left to give, and the run is on its own."""

    def reply(self, request: Request) -> str | None:
        """What the earlier run was replied, after as many tries; None for a call that it did not make."""
        calls = self._find("llm", request.text(), request.seed)
        return None if calls is None else self._take(calls, calls[0]).output

    async def observe(self, tools: Toolbox, tool: str, argument: str) -> Observation | None:
        """What the earlier run observed; None for a call that it did not make.

        Where later observations depend on it, the call is made once more for what it leaves behind, which takes
        none of the run's time.
        """
        calls = self._find("tool", argument, tool)
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
        if self.is_over:
            return
        if self._taken < len(self._trace.spans) or self._checkpoints:
            raise DepartedError("the earlier run did something else")
        self._trace.origin_s = time.perf_counter() - self._elapsed_s
        self.is_over = True

    def _find(
        self, kind: Literal["llm", "tool"], asked: str, mark: str | int
    ) -> deque[list[Span]] | None:
        """The calls of this kind that are left, of which there is one; None where the run is on its own."""
        calls = None if self.is_over else self._calls.get((kind, asked, mark))
        if not calls:
            self.go_on()
            return None
        return calls

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
