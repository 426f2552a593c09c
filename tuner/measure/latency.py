"""Latency and idle time of finished runs; apart from the meters, because it needs nothing but the records.

Quantiles interpolate linearly between order statistics (Hyndman and Fan's definition 7, numpy's default):
quantile q of n sorted values lies at position (n − 1)·q.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner.records import ExampleRun
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


def idle_share(runs: Sequence[ExampleRun]) -> float | None:
    """The share of their window in which no model call of any of these runs was in flight, 0 … 1.

    The runs are of one pass; the window is from the start of the first to the end of the last. Over a whole
    pass this is how long the device sat idle, over a single run how long that query did not use it. None
    where it cannot be known: no runs, a window of no length, or runs that were kept without their spans.
    """
    if not runs or any(run.llm_calls > 0 and not run.spans for run in runs):
        return None
    start_s = min(run.started_s for run in runs)
    end_s = max(run.started_s + run.latency_s for run in runs)
    if end_s <= start_s:
        return None
    calls = [
        (max(run.started_s + span.start_s, start_s), min(run.started_s + span.end_s, end_s))
        for run in runs
        for span in run.spans
        if span.kind == "llm"
    ]
    return min(1.0, max(0.0, 1 - union_s(calls) / (end_s - start_s)))
