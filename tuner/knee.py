"""The knee of latency against load: the highest rate that a server sustains, found by a sweep over open loads.

Apart from `load`, which says how the questions of one load came, because this compares several; it asks nothing
itself, and whoever can measure a config under a load can sweep it.

start low; double the rate until a point is no longer good
between the last good rate and the first that is not, halve what lies between until it is small enough
"""

import math
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import Literal
from typing import Protocol

import numpy as np

from tuner.errors import UserError
from tuner.load import P95_NEEDS
from tuner.load import P99_NEEDS
from tuner.load import Load
from tuner.load import quantile
from tuner.objectives import JOULES_PER_WH
from tuner.records import ExampleRun
from tuner.records import PassRecord

SLOWDOWN = 3.0
"""A rate is sustained while p95 of latency is at most so many times that at the lowest rate.

The knee depends little on it: of a server that answers c questions at once in a fixed time each (M/D/c), the
bound is met at 83 % of capacity for c = 1, 91 % for 8, 96 % for 16 and 99 % for 64; twice instead of three times
gives 74, 85, 92 and 97 %. Kim et al. (arXiv 2506.04301) read peak throughput off Figure 11, p95 against rate, by
eye; on its curves with prefix caching the bound is met at 5.8 (ShareGPT), 3.0 (HotpotQA) and 1.2 (WebShop) queries
a second, where they turn up, and their last points lie at 7.0, 3.5 and 1.3.
"""

SHORTFALL = 0.05
"""Of the questions that arrive, the share which may fail to be answered meanwhile before the server counts as saturated."""

CHANCE = 2.3
"""Where k questions are under way on average, at any moment about k ± √k are (Poisson), so that by chance alone
those at the end of the span exceed those at its start by 1.645·√(2k) = 2.3·√k or more in one of 20 spans."""

QUEUED = 1.2
"""And the median latency must exceed that at the lowest rate so many times: a server with a backlog is slow, and
what is left over by one that is not is chance."""

LOWEST_SHORTFALL = 0.25
"""The shortfall at the lowest rate, which cannot be slower than itself: what is beyond doubt with 20 questions."""

FAILURES = 0.05
"""By how much the share of failed questions may exceed that at the lowest rate: a server that refuses them is fast."""

ENOUGH = 5
"""Questions for each one under way at the knee, and P99_NEEDS at the least, that place it within some 10 %.

Fewer are over before a backlog has grown, and the knee comes out too high. On simulated M/D/c servers, medians of
30 draws of arrivals as shares of capacity: c = 8: 142 % with 20 questions, 113 % with 50, 102 % with 100; c = 64:
129 % with 100, 111 % with 200, 102 % with 400.
"""

RESOLUTION = 0.1
"""The first rate that is not sustained exceeds the last that is by no more than this share, once the sweep is done."""

LOWEST_TRIES = 5
"""How often the lowest rate is halved where even that is not sustained."""

FILLED = 2.0
"""A warm-up lasts so many mean latencies: until then, fewer questions are under way than later."""

Run = Callable[[Load], Awaitable[tuple[Sequence[ExampleRun], PassRecord]]]
"""Measures the same questions under a load: their runs, and the sitting's record."""

Verdict = Literal["sustained", "saturated", "client-limited"]


@dataclass(frozen=True, slots=True)
class LoadPoint:
    """What became of one open load; times are of measured questions, and count from their arrival."""

    rate: float
    """Questions a second, as declared."""
    n: int
    failed: int
    offered_per_s: float | None
    """As they came: a draw of n arrivals is never quite at the rate declared."""
    achieved_per_s: float | None
    under_way_mean: float | None
    span_s: float
    mean_s: float
    p50_s: float
    p95_s: float | None
    """None under 20 questions."""
    p99_s: float | None
    """None under 100 questions."""
    energy_wh: float | None
    """Gross, per question; None where a question has no reading."""
    queue_s: float | None
    """Mean wait of a call in the server's queue, of the model that made them wait longest; None where no server says."""
    client_limited: bool
    reason: str | None
    """Why the client was the limit."""


@dataclass(frozen=True, slots=True)
class Knee:
    """The highest rate that was sustained, and what is next to it."""

    last_good: LoadPoint
    first_bad: LoadPoint | None
    """None where the client was the limit before the server was: the knee then lies above `last_good`."""

    @property
    def rate_per_s(self) -> float:
        """The rate at the knee, as it was offered."""
        return _offered(self.last_good)

    @property
    def p95_s(self) -> float | None:
        """95th percentile of latency there."""
        return self.last_good.p95_s

    @property
    def enough(self) -> int:
        """How many questions place a knee like this within some 10 %; with fewer it is known too high."""
        return max(P99_NEEDS, math.ceil(ENOUGH * (self.last_good.under_way_mean or 0.0)))

    @property
    def bracket_per_s(self) -> tuple[float, float | None]:
        """Between which rates the knee lies: of the last that was sustained and the first that was not."""
        return self.rate_per_s, None if self.first_bad is None else _offered(self.first_bad)


@dataclass(frozen=True, slots=True)
class Sweep:
    """Loads from the lowest rate to the highest, and the knee among them."""

    points: tuple[LoadPoint, ...]
    verdicts: tuple[tuple[Verdict, str], ...]
    """Of each point, with the reason."""
    knee: Knee | None
    """None where not even the lowest rate was sustained."""
    slowdown: float
    """How many times p95 at the lowest rate was allowed."""


async def sweep(
    run: Run, *, latency_s: float, slowdown: float = SLOWDOWN, resolution: float = RESOLUTION
) -> Sweep:
    """Measure open loads until the knee is known to `resolution`, a share of the rate.

    `run` asks the same questions each time, 20 or more; `latency_s` is the mean latency of one asked alone. Starts
    at half a question per latency, where the server has one under way every other moment. Raises UserError for too
    few questions, and what `run` raises.
    """
    points: list[LoadPoint] = []
    while load := next_load(points, latency_s=latency_s, slowdown=slowdown, resolution=resolution):
        points.append(load_point(load, *await run(load)))
    return swept(points, slowdown=slowdown)


def next_load(
    points: Sequence[LoadPoint],
    *,
    latency_s: float,
    slowdown: float = SLOWDOWN,
    resolution: float = RESOLUTION,
) -> Load | None:
    """The load that a sweep measures after these points, in any order; None once the knee is known. Raises UserError as `sweep` does."""
    few = next((point for point in points if point.p95_s is None), None)
    if few is not None:
        raise UserError(
            f"a sweep compares 95th percentiles, and {few.n} questions have none",
            hint=f"ask {P95_NEEDS} or more (task: examples)",
        )
    rate = (
        _next_rate(points, slowdown=slowdown, resolution=resolution) if points else 0.5 / latency_s
    )
    return None if rate is None else _filled(rate, points, latency_s, slowdown)


def swept(points: Sequence[LoadPoint], *, slowdown: float = SLOWDOWN) -> Sweep:
    """What these points, in any order, say of the knee. Raises ValueError for points without a p95."""
    ordered = tuple(sorted(points, key=lambda point: point.rate))
    return Sweep(
        ordered,
        judge(ordered, slowdown=slowdown),
        find_knee(ordered, slowdown=slowdown),
        slowdown,
    )


def find_knee(points: Sequence[LoadPoint], *, slowdown: float = SLOWDOWN) -> Knee | None:
    """The knee among points with a p95, in any order; None where the lowest rate was not sustained.

    What lies above the first rate that was not sustained does not count, were it better. Nor does a point at
    which the client was the limit, in either way: rates between it and the last good one remain to be tried.
    Raises ValueError for points without a p95.
    """
    ordered = sorted(points, key=lambda point: point.rate)
    good, bad = None, None
    for point, (verdict, _) in zip(ordered, judge(ordered, slowdown=slowdown), strict=True):
        if verdict == "saturated":
            bad = point
            break
        if verdict == "sustained":
            good = point
    return None if good is None else Knee(good, bad)


def judge(
    points: Sequence[LoadPoint], *, slowdown: float = SLOWDOWN
) -> tuple[tuple[Verdict, str], ...]:
    """Whether each point was sustained, and why not; p95 and failures are held against those of the lowest rate.

    Raises ValueError for points without a p95.
    """
    if not points:
        return ()
    lowest = min(points, key=lambda point: (point.client_limited, point.rate))
    return tuple(_judge(point, lowest, slowdown) for point in points)


class Seen(Protocol):
    """What was seen besides the runs while a load was measured: a PassRecord, or whatever has the same of it."""

    @property
    def load(self) -> Mapping[str, Any]:
        """How the questions came: `tuner.load.LoadReport` as plain JSON."""
        ...

    @property
    def servers(self) -> Mapping[str, Mapping[str, Any]]:
        """What each model's server said of itself."""
        ...


def load_point(load: Load, runs: Sequence[ExampleRun], record: Seen) -> LoadPoint:
    """One open load as a point of a sweep; extra runs among `runs` are left out. Raises ValueError for no others."""
    measured = [run for run in runs if not run.edge]
    if load.rate is None or not measured:
        raise ValueError("a point takes an open load, and runs that were measured under it")
    latencies = [run.latency_s for run in measured]
    said: dict[str, Any] = dict(record.load)
    waits = [server.get("queue_time_mean_s") for server in record.servers.values()]
    known = [wait for wait in waits if wait is not None]
    return LoadPoint(
        rate=load.rate,
        n=len(measured),
        failed=sum(run.error is not None for run in measured),
        offered_per_s=said["offered_per_s"],
        achieved_per_s=said["achieved_per_s"],
        under_way_mean=said["under_way_mean"],
        span_s=said["span_s"],
        mean_s=float(np.mean(latencies)),
        p50_s=float(np.median(latencies)),
        p95_s=quantile(latencies, 0.95),
        p99_s=quantile(latencies, 0.99),
        energy_wh=_energy_wh(measured),
        queue_s=max(known, default=None),
        client_limited=said["client_limited"],
        reason=said["reason"],
    )


def _judge(point: LoadPoint, lowest: LoadPoint, slowdown: float) -> tuple[Verdict, str]:
    if point.p95_s is None or lowest.p95_s is None:
        raise ValueError(f"a knee takes points with a p95, of {P95_NEEDS} questions or more")
    if point.client_limited:
        return "client-limited", point.reason or "the client was the limit"
    if point.failed / point.n > lowest.failed / lowest.n + FAILURES:
        return "saturated", f"{point.failed} of {point.n} questions failed"
    if point.p95_s > slowdown * lowest.p95_s:
        times = point.p95_s / lowest.p95_s
        return "saturated", f"p95 is {times:.2g} times that at the lowest rate"
    unanswered = (_offered(point) - (point.achieved_per_s or 0.0)) * point.span_s
    if unanswered > _allowed(point, lowest):
        return "saturated", f"{unanswered:.0f} of {point.n} questions were left over"
    return "sustained", ""


def _allowed(point: LoadPoint, lowest: LoadPoint) -> float:
    """How many questions may be left over at the end of a span without a backlog to show for it."""
    if point == lowest:
        return LOWEST_SHORTFALL * point.n
    if point.p50_s <= QUEUED * lowest.p50_s:
        return math.inf
    return max(SHORTFALL * point.n, CHANCE * math.sqrt(point.under_way_mean or 0.0))


def _next_rate(points: Sequence[LoadPoint], *, slowdown: float, resolution: float) -> float | None:
    """The rate to try next, None once the knee is known."""
    ordered = sorted(points, key=lambda point: point.rate)
    verdicts = [verdict for verdict, _ in judge(ordered, slowdown=slowdown)]
    sustained = next((k for k, v in enumerate(verdicts) if v != "sustained"), len(ordered))
    if sustained == 0:
        return ordered[0].rate / 2 if len(points) <= LOWEST_TRIES else None
    good = ordered[sustained - 1].rate
    if sustained == len(ordered):
        return 2 * good
    # A point at which the client was the limit bounds the search as well: above it, it would be again.
    bad = ordered[sustained].rate
    return math.sqrt(good * bad) if bad > (1 + resolution) * good else None


def _filled(rate: float, points: Sequence[LoadPoint], latency_s: float, slowdown: float) -> Load:
    """An open load that fills the server first, and keeps it full for as long as a sustained rate lets the last question take."""
    mean_s, p95_s = latency_s, latency_s
    below = [point for point in points if point.rate < rate]
    if below:
        nearest = max(below, key=lambda point: point.rate)
        mean_s, p95_s = nearest.mean_s, nearest.p95_s or nearest.mean_s
    return Load(
        rate=rate,
        warm_up=math.ceil(FILLED * rate * mean_s),
        cool_down=math.ceil(slowdown * rate * p95_s),
    )


def _energy_wh(runs: Sequence[ExampleRun]) -> float | None:
    joules = [run.energy_j for run in runs if run.energy_j is not None]
    return sum(joules) / len(joules) / JOULES_PER_WH if len(joules) == len(runs) else None


def _offered(point: LoadPoint) -> float:
    return point.rate if point.offered_per_s is None else point.offered_per_s
