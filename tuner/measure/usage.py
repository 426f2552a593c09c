"""What the calls of a run add up to; apart, because a run is summed up when it ends, and again where it is cut short."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from workflows.trace import Span
from workflows.trace import union_s

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class Usage:
    """Sums over calls, as records have them; None where a call did not report its own."""

    tokens_in: int | None
    tokens_out: int | None
    tokens_cached: int | None
    cost_usd: float | None
    llm_calls: int
    tool_calls: int
    llm_s: float
    """Length of the union of the model calls."""
    tool_only_s: float
    """Length of what tool calls cover and model calls do not."""


def add_up(spans: Sequence[Span]) -> Usage:
    """What the calls used. A try that was repeated counts as often as it was made."""
    calls = [span for span in spans if span.kind == "llm"]
    thinking = [(span.start_s, span.end_s) for span in calls]
    acting = [(span.start_s, span.end_s) for span in spans if span.kind == "tool"]
    llm_s = union_s(thinking)
    # A try that failed before anything arrived used no tokens; one that broke off used an unknown number.
    priced = [span for span in calls if span.error is None or span.output]
    return Usage(
        tokens_in=_total([span.tokens_in for span in priced]),
        tokens_out=_total([span.tokens_out for span in priced]),
        tokens_cached=_total([span.tokens_cached for span in priced]),
        cost_usd=_total([span.cost_usd for span in priced]),
        llm_calls=len(calls),
        tool_calls=len(acting),
        llm_s=llm_s,
        tool_only_s=union_s(thinking + acting) - llm_s,
    )


def _total(amounts: Sequence[Number | None]) -> Number | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None
