"""Timed spans of one agent run; written by `llm` and `tools`, never by a workflow, so that no method can misreport its cost."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
from typing import Literal

from workflows.secret import hide

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """A text that every database and file takes: what is no character of one, U+0000 and halves of surrogate pairs, as U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)


def keepable(text: str) -> str:
    """A text as it may be kept: storable, and without the environment's secrets.

    What models, tools and servers say passes here before it is kept, or stands in a prompt.
    """
    return hide(storable(text))


@dataclass(frozen=True, slots=True)
class Span:
    """One try of one call. Times are seconds since the trace's origin, on the monotonic clock.

    Token counts are what the server reported, None where it reported nothing. `tokens_in` includes
    `tokens_cached`, the part of the prompt that the server took from its prefix cache.
    """

    kind: Literal["llm", "tool"]
    name: str
    """Model name or tool name."""
    start_s: float
    end_s: float
    input: str
    output: str
    ttft_s: float | None = None
    """Time to the first chunk with content; None when nothing was streamed."""
    tokens_in: int | None = None
    tokens_out: int | None = None
    tokens_cached: int | None = None
    cost_usd: float | None = None
    attempt: int = 1
    error: str | None = None
    speculative: bool = False
    """A tool call that was started before the model asked for it."""
    seed: int | None = None
    """What a model's reply was drawn with; None where that is not known, and for a tool."""


@dataclass(slots=True)
class Trace:
    """The spans of one agent run, in the order in which they ended.

    `origin_s` is `time.perf_counter()` at the start of the run: on one machine, spans of different
    runs are brought to one axis by adding it.
    """

    origin_s: float = field(default_factory=time.perf_counter)
    spans: list[Span] = field(default_factory=list)
    listeners: list[Callable[[Span], None]] = field(default_factory=list)
    """Hear of each span as it ends, in whichever thread it ended."""

    def now_s(self) -> float:
        """Seconds since the origin."""
        return time.perf_counter() - self.origin_s

    def add(self, span: Span) -> None:
        """Append a finished span."""
        self.spans.append(span)
        for listener in self.listeners:
            listener(span)


def union_s(spans: list[tuple[float, float]]) -> float:
    """Length of the union of intervals (start, end), in the unit given."""
    total = 0.0
    reach = float("-inf")
    for start, end in sorted(spans):
        if end > reach:
            total += end - max(start, reach)
            reach = end
    return total
