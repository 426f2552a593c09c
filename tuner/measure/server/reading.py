"""What the samples of a window come to: averages over time, maxima, and differences of counts.

Apart from the scraper, which takes the samples: this is arithmetic.
"""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from tuner.measure.server.sample import ServerSample

Timed = tuple[float, ServerSample]
"""time.perf_counter() and what the server said then."""

COUNTS = ("prefix_hits", "prefix_queries", "queue_time_s", "queue_count")
"""Fields of a ServerSample that only grow while a server lives."""


@dataclass(frozen=True, slots=True)
class ServerReading:
    """A server over one window; plain JSON by dataclasses.asdict. None stands for what is not known, never 0.

    Averages are over time, from the first scrape to the last. They and the maxima are None where no scrape lies
    between those two, since nothing was in flight at either.
    """

    engine: str | None = None
    """vllm, sglang, llama.cpp or tensorrt-llm."""
    kv_tokens_mean: float | None = None
    """Tokens whose keys and values are held for requests that run."""
    kv_tokens_max: float | None = None
    kv_bytes_mean: float | None = None
    kv_bytes_max: float | None = None
    kv_source: Literal["metrics", "analytic"] | None = None
    """Who counted the tokens: the server, or we from the calls' token counts, where the server does not tell."""
    kv_capacity_tokens: float | None = None
    kv_capacity_bytes: float | None = None
    prefix_hit_share: float | None = None
    """Of the window's prompt tokens, those from the prefix cache; None where nothing was asked."""
    queue_time_mean_s: float | None = None
    """Over the requests that left the queue in the window."""
    running_mean: float | None = None
    running_max: float | None = None
    waiting_mean: float | None = None
    waiting_max: float | None = None
    scrapes: int = 0
    """How often the server answered."""
    seconds: float = 0.0
    """From the first scrape to the last."""
    problem: str | None = None
    """Why there is nothing."""


def read_window(
    engine: str, samples: Sequence[Timed], *, bytes_per_token: float | None = None
) -> ServerReading:
    """The reading of a window in which the server, of this engine, said this; two samples at the least.

    `bytes_per_token` is what keys and values of a token take. A server whose counts went back was restarted: what it
    counted before is lost, and the reading says so instead of giving figures.
    """
    seconds = samples[-1][0] - samples[0][0]
    counts = {name: [getattr(sample, name) for _, sample in samples] for name in COUNTS}
    if any(_went_back(each) for each in counts.values()):
        return ServerReading(
            engine=engine,
            scrapes=len(samples),
            seconds=seconds,
            problem="the server's counts went back: it was restarted within the window",
        )
    hits, queries, queued_s, queued = (_grown(counts[name]) for name in COUNTS)
    tokens_mean, tokens_max = _over_time(samples, lambda sample: sample.kv_used_tokens)
    running_mean, running_max = _over_time(samples, lambda sample: sample.running)
    waiting_mean, waiting_max = _over_time(samples, lambda sample: sample.waiting)
    capacity = samples[-1][1].kv_capacity_tokens
    return ServerReading(
        engine=engine,
        kv_tokens_mean=tokens_mean,
        kv_tokens_max=tokens_max,
        kv_bytes_mean=_times(tokens_mean, bytes_per_token),
        kv_bytes_max=_times(tokens_max, bytes_per_token),
        kv_source=None if tokens_mean is None else "metrics",
        kv_capacity_tokens=capacity,
        kv_capacity_bytes=_times(capacity, bytes_per_token),
        prefix_hit_share=_ratio(hits, queries),
        queue_time_mean_s=_ratio(queued_s, queued),
        running_mean=running_mean,
        running_max=running_max,
        waiting_mean=waiting_mean,
        waiting_max=waiting_max,
        scrapes=len(samples),
        seconds=seconds,
    )


def _over_time(
    samples: Sequence[Timed], of: Callable[[ServerSample], float | None]
) -> tuple[float | None, float | None]:
    """Time-weighted average and maximum of what a gauge showed, straight lines between."""
    known = [(t_s, value) for t_s, sample in samples if (value := of(sample)) is not None]
    if len(known) < 3:
        return None, None
    times, values = np.array(known).T
    area = float((values[1:] + values[:-1]) @ np.diff(times)) / 2
    seconds = float(times[-1] - times[0])
    return (area / seconds if seconds else None), float(values.max())


def _went_back(counts: Sequence[float | None]) -> bool:
    known = [count for count in counts if count is not None]
    return any(later < earlier for earlier, later in pairwise(known))


def _grown(counts: Sequence[float | None]) -> float | None:
    """By how much a count has grown; one that was not there yet had counted nothing."""
    last = counts[-1]
    return None if last is None else last - (counts[0] or 0.0)


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def _times(count: float | None, factor: float | None) -> float | None:
    return None if count is None or factor is None else count * factor
