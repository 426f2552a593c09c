"""What a meter is, and what two of its samples say: the one place where it is decided whether a reading is valid.

Apart from the table of meters in `__init__`, because each of them is made from this.
"""

import math
import time
from abc import ABC
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel
from pydantic import ConfigDict

from tuner.records import Reading


@dataclass(frozen=True, slots=True)
class Sample:
    """Gross joules since an origin that a meter keeps for its life, read at one moment."""

    t_s: float
    """time.perf_counter() when it was read."""
    joules: float | None
    problem: str | None = None
    """Why there are no joules; beside joules, why those of any stretch that holds this moment are not the study's own."""
    power_w: float | None = None
    """Drawn at this moment, where the source says so by other means than its count: a cross-check."""
    temperature_c: float | None = None
    """Of the hottest device."""


class Meter(Protocol):
    """Something that knows how much energy its devices have used so far. Conformance: tests/tuner/measure/test_meters.py."""

    @property
    def source(self) -> str:
        """nvml-counter, rapl, cpu-estimate, none, …; stands beside every figure."""
        ...

    @property
    def scope(self) -> str:
        """What is metered, in words."""
        ...

    @property
    def tick_s(self) -> float:
        """How often the count moves; what has happened since is not in it yet. 0 where it always moves."""
        ...

    @property
    def devices(self) -> tuple[str, ...]:
        """UUIDs of the GPUs that are metered; none for what is no GPU."""
        ...

    def read(self) -> Sample:
        """The energy so far. Never raises: what fails is a sample without joules that says why.

        What was used while nobody read may be unknown: the first sample after that then says so, beside its joules.
        """
        ...


@dataclass(frozen=True, slots=True)
class NoMeter:
    """Absence as an object: nothing is metered, and every sample says so."""

    source: str = "none"
    scope: str = "nothing"
    tick_s: float = 0.0
    devices: tuple[str, ...] = ()

    def read(self) -> Sample:
        """A sample without joules."""
        return Sample(time.perf_counter(), None, "no energy is metered for this model")


def between(
    meter: Meter,
    first: Sample,
    last: Sample,
    *,
    inside: Sequence[Sample] = (),
    idle_w: float | None = None,
) -> Reading:
    """What `meter` counted from one of its samples to a later one, gross.

    Joules are None, with the reason, when either sample has none, the count went back, or a sample at the ends
    or `inside` says that what was counted is not the study's own. 0 joules mean that the count did not move:
    readings of adjoining windows add up to the reading of both. The standard error is that of two ends, each
    late by up to a tick: power × tick / √6; None where the count did not move, as the power is then unknown.
    """
    spoilt = next(
        (
            each.problem
            for each in (first, *inside, last)
            if each.problem and each.joules is not None
        ),
        None,
    )
    problem = first.problem or last.problem or spoilt
    if first.joules is None or last.joules is None or problem:
        return Reading(None, meter.source, meter.scope, problem or "a sample has no joules")
    joules = last.joules - first.joules
    if joules < 0:
        problem = f"the count went back by {-joules:.6g} J"
        return Reading(None, meter.source, meter.scope, problem)
    seconds = last.t_s - first.t_s
    moved = joules > 0 and seconds > 0
    return Reading(
        joules,
        meter.source,
        meter.scope,
        seconds=seconds,
        idle_j=None if idle_w is None else idle_w * seconds,
        stderr_j=joules / seconds * meter.tick_s / math.sqrt(6) if moved else None,
        temperature_c=last.temperature_c,
    )


class MeterKind(BaseModel, ABC):
    """A kind of meter as a study file names it, by its only field: `{nvml: all}`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @abstractmethod
    def open(self, *, pid: int | None, base: Path) -> Meter:
        """The meter. `pid` is the server's when the study started it, `base` the study file's folder.

        Raises UserError when it cannot work here, so that it shows before the first trial.
        """
