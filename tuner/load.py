"""How questions come: the load that a study declares, when its questions arrive, and whether whoever asked them kept up.

Apart from `evaluate`, which asks the questions, and from `knee`, which compares loads: both, and the study
file, need the same words for it.
"""

import asyncio
import time
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from typing import Self

import numpy as np
from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import model_validator

P95_NEEDS = 20
"""Samples under which no 95th percentile is claimed: fewer than one of them lies above it."""

P99_NEEDS = 100

LATE_SHARE = 0.05
"""Lateness of the client's own above this share of what is measured is the client's limit: no figure of ours is
surer than that, and one that lateness spoils by more would be told as the server's."""

LATE_S = 0.01
"""But never less than this: timers of an event loop are a millisecond late as it is, and on a machine that is
shared a few more, which says nothing of the client's limit."""

BUSY_SHARE = 0.8
"""Of one core: an event loop is one thread. What comes to a server that is busy for a share ρ of the time waits
ρ / (2·(1 − ρ)) services in the mean (M/D/1); at 0.8 that is two, and from there it explodes."""

WATCH_PERIOD_S = 0.1
"""Between two looks at how late the event loop is; costs some 0.3 % of a core."""


class Load(BaseModel):
    """Closed loop: so many agents, each asking its next question once it has answered. Open loop: questions come when they come."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    concurrency: int | None = Field(
        default=None, ge=1, le=1024, description="closed loop: questions under way at once (1)"
    )
    rate: float | None = Field(
        default=None, gt=0, description="open loop: questions a second, arriving at random"
    )
    warm_up: int = Field(
        default=0, ge=0, description="extra questions before the measured ones, to fill the server"
    )
    cool_down: int = Field(
        default=0, ge=0, description="extra questions after them, while the last are answered"
    )

    @model_validator(mode="before")
    @classmethod
    def _is_one_of_two(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        given = [name for name in ("concurrency", "rate") if content.get(name) is not None]
        if len(given) == 2:
            raise ValueError("is closed (concurrency) or open (rate), not both")
        return content if given else {**content, "concurrency": 1}

    def without_extras(self) -> "Load":
        """The same load on an empty server, for a few questions."""
        return self.model_copy(update={"warm_up": 0, "cool_down": 0})


def arrivals_s(
    rate: float, count: int, *, warm_up: int = 0, cool_down: int = 0, seed: int = 0
) -> list[float]:
    """When questions arrive, in seconds since the first: a Poisson process, whose gaps are exponential with mean 1 / rate.

    The `count` measured ones have gaps of their own, whatever comes before and after, and another rate only
    stretches them: the same draw for every config and every rate, so that what differs is not luck.
    """
    parts = (warm_up, count, cool_down)
    gaps = [np.random.default_rng([seed, k]).exponential(size=n) for k, n in enumerate(parts)]
    times = np.cumsum(np.concatenate(gaps)) / rate
    return [float(each) for each in times - times[:1]]


@dataclass(frozen=True, slots=True)
class Asked:
    """One question as its load saw it; times are time.perf_counter()."""

    arrived_s: float
    """When it was to be asked."""
    began_s: float
    """When it was."""
    ended_s: float
    calls: int
    """Of models and tools."""
    edge: bool = False
    """Whether it was an extra one, asked only to keep the server full."""
    answered: bool = True
    """Whether it came to its end by itself."""


@dataclass(frozen=True, slots=True)
class Lag:
    """How late something was."""

    n: int
    p50_s: float
    p95_s: float | None
    """None where there are too few to claim one."""
    max_s: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Lag | None":
        """The summary, None for nothing."""
        if not seconds:
            return None
        p50_s = float(np.median(seconds))
        return cls(len(seconds), p50_s, quantile(seconds, 0.95), float(max(seconds)))

    @property
    def high_s(self) -> float:
        """The 95th percentile; the maximum, where there are too few for one."""
        return self.max_s if self.p95_s is None else self.p95_s


def quantile(values: Sequence[float], share: float) -> float | None:
    """The quantile, None where fewer than one value is expected above it; interpolated as numpy does."""
    needed = {0.5: 1, 0.95: P95_NEEDS, 0.99: P99_NEEDS}[share]
    return None if len(values) < needed else float(np.quantile(values, share))


@dataclass(frozen=True, slots=True)
class LoadReport:
    """How the questions of one sitting came, and whether whoever asked them kept up.

    Rates are counted over a span: from the first measured question's arrival to the last one's in an open
    loop, to the last one's end in a closed one. All questions that end in it count, so that with a warm-up as
    many are under way at its start as at its end, but for chance.
    """

    declared: Mapping[str, Any]
    questions: int
    """Measured ones."""
    extras: int
    """Asked to keep the server full, those that were broken off included."""
    span_s: float
    offered_per_s: float | None
    """Measured questions that arrived; None in a closed loop, which offers what it gets done."""
    achieved_per_s: float | None
    """Questions that came to their end."""
    under_way_mean: float | None
    """Questions under way at once, averaged over the span."""
    start_lag_s: Lag | None
    """Between when a question was to be asked and when it was; None in a closed loop."""
    loop_lag_s: Lag | None
    """How late the client's event loop woke up; None for a sitting too short to see."""
    cpu_share: float
    """CPU time of the event loop's thread, in cores."""
    client_limited: bool
    """Whether the client was the limit, so that times and rates are not the server's."""
    reason: str | None
    """Why it was."""


class ClientWatch:
    """How late this event loop runs and how busy its thread is, from `__aenter__` to `__aexit__`."""

    def __init__(self) -> None:
        self.lags_s: list[float] = []
        self.cpu_share = 0.0

    async def __aenter__(self) -> Self:
        self._began_s, self._cpu_s = time.perf_counter(), time.thread_time()
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._task.cancel()
        seconds = time.perf_counter() - self._began_s
        self.cpu_share = (time.thread_time() - self._cpu_s) / seconds if seconds > 0 else 0.0
        await asyncio.wait([self._task])

    async def _look(self) -> None:
        while True:
            due_s = time.perf_counter() + WATCH_PERIOD_S
            await asyncio.sleep(WATCH_PERIOD_S)
            self.lags_s.append(max(0.0, time.perf_counter() - due_s))


def report(load: Load, asked: Sequence[Asked], watch: ClientWatch) -> LoadReport:
    """What became of the load."""
    measured = [each for each in asked if not each.edge]
    start_s = min((each.arrived_s for each in measured), default=0.0)
    is_open = load.rate is not None
    ends = [each.arrived_s if is_open else each.ended_s for each in measured]
    span_s = max(ends, default=start_s) - start_s
    done = sum(each.answered and 0 < each.ended_s - start_s <= span_s for each in asked)
    under_way_s = sum(
        max(0.0, min(each.ended_s, start_s + span_s) - max(each.arrived_s, start_s))
        for each in asked
    )
    start_lag = Lag.of([max(0.0, each.began_s - each.arrived_s) for each in asked])
    start_lag = start_lag if is_open else None
    loop_lag = Lag.of(watch.lags_s)
    reason = _limit(measured, start_lag, loop_lag, watch.cpu_share)
    return LoadReport(
        declared=load.model_dump(exclude_defaults=True),
        questions=len(measured),
        extras=len(asked) - len(measured),
        span_s=span_s,
        offered_per_s=(len(measured) - 1) / span_s if is_open and span_s > 0 else None,
        achieved_per_s=done / span_s if span_s > 0 else None,
        under_way_mean=under_way_s / span_s if span_s > 0 else None,
        start_lag_s=start_lag,
        loop_lag_s=loop_lag,
        cpu_share=watch.cpu_share,
        client_limited=reason is not None,
        reason=reason,
    )


def _limit(
    measured: Sequence[Asked], start: Lag | None, loop: Lag | None, cpu_share: float
) -> str | None:
    """Why the client was the limit, None where it was not.

    A question that is asked late is late once; within it the event loop may be late whenever a call returns,
    so that it is held against the time of a call.
    """
    if not measured:
        return None
    question_s = float(np.median([each.ended_s - each.arrived_s for each in measured]))
    call_s = float(
        np.median([(each.ended_s - each.arrived_s) / max(1, each.calls) for each in measured])
    )
    if cpu_share > BUSY_SHARE:
        return f"its event loop was busy for {100 * cpu_share:.0f} % of the time"
    for lag, of_s, text in (
        (start, question_s, "questions were asked {} late, and take {}"),
        (loop, call_s, "its event loop was {} late, and a call takes {}"),
    ):
        if lag is not None and lag.high_s > max(LATE_S, LATE_SHARE * of_s):
            return text.format(f"{lag.high_s:.3g} s", f"{of_s:.3g} s")
    return None
