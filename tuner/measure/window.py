"""A window of a meter: sampled in a thread while questions are answered, split into stretches that add up to it.

Apart from the meters, which only know how much was used so far, and from attribution, which is arithmetic on what
was sampled here.
"""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np

from tuner.measure import Meter
from tuner.measure import Sample
from tuner.measure import between
from tuner.records import Reading

PERIOD_S = 0.1
"""Between two samples: about as often as GPUs count."""

DIVERGENCE = 0.05
"""A count and an integral of power that differ by more than this share do not confirm each other."""

CHECKED_S = 5.0
"""A shorter window says nothing of how well count and power agree: both are late by a tick or two."""

IDLE_S = 2.0
"""How long idle power is looked at, at the least."""

IDLE_TICKS = 20
"""And how many ticks of the count at the least: 1 / (20·√6), 2 % of error."""

IDLE_LIMIT_S = 10.0
"""A source too slow to be seen idling in this time leaves idle power unknown."""

Stretch = tuple[Reading, tuple[tuple[float, float], ...]]
"""A reading, and the samples behind it: (seconds, joules), both since the window was opened."""


class Window:
    """What a meter counts from `__enter__` to `__exit__`; `idle_w` is what its devices draw anyway."""

    def __init__(
        self, meter: Meter, *, idle_w: float | None = None, period_s: float = PERIOD_S
    ) -> None:
        self._meter = meter
        self._idle_w = idle_w
        self._period_s = period_s
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="tuner-meter", daemon=True)

    def __enter__(self) -> Self:
        self._meter.read()  # what was used while nobody read may be unknown: this is where that is said
        first = self._meter.read()
        self.opened_s = first.t_s
        """time.perf_counter() when the window was opened."""
        self._samples = [first]
        self._split = 0  # where the stretch under way began
        if first.joules is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def stretch(self) -> Stretch:
        """What was counted since the last call, or since the window was opened."""
        with self._lock:
            self._samples.append(self._meter.read())
            samples = self._samples[self._split :]
            self._split = len(self._samples) - 1
        reading = between(
            self._meter, samples[0], samples[-1], inside=samples[1:-1], idle_w=self._idle_w
        )
        return reading, tuple(self._since_opened(samples[1:]))

    def whole(self) -> Reading:
        """What was counted since the window was opened; with a warning where power measured otherwise says something else."""
        with self._lock:
            self._samples.append(self._meter.read())
            samples = list(self._samples)
        reading = between(
            self._meter, samples[0], samples[-1], inside=samples[1:-1], idle_w=self._idle_w
        )
        return _cross_checked(reading, samples)

    def _sample(self) -> None:
        while not self._stop.wait(self._period_s):
            with self._lock:
                self._samples.append(self._meter.read())

    def _since_opened(self, samples: Sequence[Sample]) -> list[tuple[float, float]]:
        origin_j = self._samples[0].joules
        if origin_j is None:
            return []
        return [
            (each.t_s - self.opened_s, each.joules - origin_j)
            for each in samples
            if each.joules is not None
        ]


def _cross_checked(reading: Reading, samples: Sequence[Sample]) -> Reading:
    """The reading, with a warning when the power samples integrate to something else than the count."""
    known = [(each.t_s, each.power_w) for each in samples if each.power_w is not None]
    if not reading.gross_j or len(known) < 2:
        return reading
    times, watts = np.array(known).T
    covered_s, seconds = times[-1] - times[0], samples[-1].t_s - samples[0].t_s
    if seconds < CHECKED_S or covered_s < 0.9 * seconds:
        return reading
    # Over the part that power was seen for, at the mean power of the count.
    integrated_j = float((watts[1:] + watts[:-1]) @ np.diff(times)) / 2 * seconds / covered_s
    apart = abs(integrated_j - reading.gross_j) / reading.gross_j
    if apart <= DIVERGENCE:
        return reading
    return replace(
        reading,
        warning=f"the count says {reading.gross_j:.4g} J, power integrates to {integrated_j:.4g} J: "
        f"{100 * apart:.0f} % apart",
    )


async def idle_power_w(meter: Meter) -> float | None:
    """Watts that the devices draw with nothing to do, which the caller sees to; None where it cannot be known.

    Takes IDLE_S, or longer for a slow count.
    """
    wait_s = max(IDLE_S, IDLE_TICKS * meter.tick_s)
    if wait_s > IDLE_LIMIT_S:
        return None
    with Window(meter) as window:
        reading, _ = window.stretch()
        if reading.problem is not None:
            return None
        await asyncio.sleep(wait_s)
        reading, _ = window.stretch()
    return None if reading.gross_j is None else reading.gross_j / reading.seconds


def total(readings: Sequence[Reading]) -> Reading:
    """Readings of one meter over adjoining stretches as one: joules add up, and one that is missing leaves none.

    Adjoining stretches share their ends, whose errors cancel: the error of the whole is that of one stretch as
    long and at the mean power. Raises ValueError for no readings.
    """
    if not readings:
        raise ValueError("no readings to add up")
    lacking = next((each for each in readings if each.gross_j is None), None)
    if lacking is not None:
        return Reading(None, lacking.source, lacking.scope, lacking.problem)
    seconds = sum(each.seconds for each in readings)
    weighed = [each.stderr_j * each.seconds for each in readings if each.stderr_j is not None]
    temperatures = [each.temperature_c for each in readings if each.temperature_c is not None]
    idle = [each.idle_j for each in readings]
    return Reading(
        sum(each.gross_j or 0.0 for each in readings),
        readings[0].source,
        readings[0].scope,
        seconds=seconds,
        idle_j=None if None in idle else sum(each or 0.0 for each in idle),
        stderr_j=sum(weighed) / seconds if weighed else None,
        temperature_c=max(temperatures, default=None),
        warning=next((each.warning for each in readings if each.warning), None),
    )
