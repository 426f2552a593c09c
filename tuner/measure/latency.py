"""Where the time of finished runs went; apart from the meters, because it needs nothing but the records.

Quantiles interpolate linearly between order statistics (Hyndman and Fan's definition 7, numpy's default):
quantile q of n sorted values lies at position (n − 1)·q.
"""

from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner.records import ExampleRun
from tuner.records import as_made
from workflows.trace import Span
from workflows.trace import union_s


@dataclass(frozen=True, slots=True)
class Latency:
    """A distribution of latencies in four numbers; `n` stands beside them wherever they are shown."""

    n: int
    mean_s: float
    p50_s: float
    p95_s: float


def summarise(latencies_s: Sequence[float]) -> Latency:
    """The summary of at least one latency. Raises ValueError for none."""
    if not latencies_s:
        raise ValueError("no latencies to summarise")
    p50_s, p95_s = np.quantile(latencies_s, [0.5, 0.95])
    return Latency(len(latencies_s), float(np.mean(latencies_s)), float(p50_s), float(p95_s))


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Where one query's latency went; the four add up to it."""

    llm_only_s: float
    overlap_s: float
    """Calls of the model and of tools in flight at once."""
    tool_only_s: float
    other_s: float
    """Neither: the workflow's own work, and waiting between tries."""


@dataclass(frozen=True, slots=True)
class DeviceTime:
    """What the device did while queries were answered; prefill, decode and idle add up to the window."""

    window_s: float
    """From the start of the first query to the end of the last."""
    prefill_s: float | None
    """Calls in flight, but none that has begun to write: prompts are read, or wait in the server's queue."""
    decode_s: float | None
    """At least one call is being written; prompts that are read meanwhile count here."""
    idle_s: float
    """No call of the model in flight."""


def lacks_spans(run: ExampleRun) -> bool:
    """Whether a run made calls and was kept without them, so that what they did is not known."""
    return not run.spans and run.llm_calls + run.tool_calls > 0


def breakdown(run: ExampleRun) -> Breakdown | None:
    """Where the latency of one query went; None for a run that was kept without its spans."""
    if lacks_spans(run):
        return None
    calls, tools = (
        _clip([(s.start_s, s.end_s) for s in run.spans if s.kind == kind], 0.0, run.latency_s)
        for kind in ("llm", "tool")
    )
    llm_s, tool_s, either_s = union_s(calls), union_s(tools), union_s(calls + tools)
    return Breakdown(
        llm_only_s=max(0.0, either_s - tool_s),
        overlap_s=max(0.0, llm_s + tool_s - either_s),
        tool_only_s=max(0.0, either_s - llm_s),
        other_s=max(0.0, run.latency_s - either_s),
    )


def device_time(runs: Iterable[ExampleRun]) -> DeviceTime | None:
    """What the device did over any number of windows, as far as these runs made it.

    Windows are looked at one by one, since each has its own origin, and added up. None where this cannot be
    known: no runs, no time, or runs that were kept without their spans; prefill and decode are also None
    where a reply was not streamed, so that its first token was not seen.
    """
    windows = defaultdict(list)
    for run in runs:
        if lacks_spans(run):
            return None
        windows[run.window].append(run)
    window_s = busy_s = decode_s = 0.0
    streamed = True
    for window in map(as_made, windows.values()):
        start_s = min(run.began_s for run in window)
        end_s = max(run.started_s + run.latency_s for run in window)
        calls = [(run.started_s, s) for run in window for s in run.new_spans if s.kind == "llm"]
        in_flight = [(origin_s + span.start_s, origin_s + span.end_s) for origin_s, span in calls]
        written = [(origin_s + _written_s(span), origin_s + span.end_s) for origin_s, span in calls]
        streamed &= not any(span.ttft_s is None and span.output for _, span in calls)
        window_s += end_s - start_s
        busy_s += union_s(_clip(in_flight, start_s, end_s))
        decode_s += union_s(_clip(written, start_s, end_s))
    if window_s <= 0:
        return None
    return DeviceTime(
        window_s=window_s,
        prefill_s=max(0.0, busy_s - decode_s) if streamed else None,
        decode_s=decode_s if streamed else None,
        idle_s=max(0.0, window_s - busy_s),
    )


def _written_s(span: Span) -> float:
    """When the reply began, since the run's start; its end for a call that had none."""
    return span.end_s if span.ttft_s is None else span.start_s + span.ttft_s


def _clip(
    intervals: list[tuple[float, float]], low: float, high: float
) -> list[tuple[float, float]]:
    clipped = [(max(start, low), min(end, high)) for start, end in intervals]
    return [(start, end) for start, end in clipped if start < end]
