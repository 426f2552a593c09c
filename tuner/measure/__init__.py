"""Meters: cumulative energy of what serves a model, read at the edges of a window.

A meter has one method; what makes it valid or not is decided here, once, in `between`. One file a source,
imported when a study asks for it, so that a machine without its driver can still use the others.
"""

import math
import time
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from typing import Any
from typing import Literal
from typing import Protocol

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Discriminator
from pydantic import Field
from pydantic import RootModel
from pydantic import Tag
from pydantic import field_validator

from tuner.errors import UserError
from tuner.records import Reading

# A busy server core takes some 4 to 8 W (200 to 350 W over 32 to 64 of them), a busy desktop core 8 to 15 W (65 to
# 125 W over 8). 10 is the middle, memory included: right to a factor of two, and the same factor for every config.
WATTS_PER_CORE = 10.0


class NvmlSpec(BaseModel):
    """The energy counter of NVIDIA GPUs: `nvml: all`, or those of the server by UUID."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    nvml: Literal["all"] | Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = Field(
        description="UUIDs of the server's GPUs (nvidia-smi -L), or `all` of this machine"
    )

    @field_validator("nvml")
    @classmethod
    def _once_each(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if len(set(value)) < len(value) and value != "all":
            raise ValueError("names a GPU twice, whose energy would be counted twice")
        return value


class CpuEstimate(BaseModel):
    """What a busy core is taken to draw."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    watts_per_core: float = Field(
        default=WATTS_PER_CORE, gt=0, allow_inf_nan=False, description="for one busy core"
    )


class CpuEstimateSpec(BaseModel):
    """CPU-seconds of a server that the study starts itself × watts: `cpu_estimate: {watts_per_core: 10.0}`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    cpu_estimate: CpuEstimate


def _kind(value: Any) -> str | None:
    if value == "none":
        return "none"
    for key in ("nvml", "cpu_estimate"):
        if (isinstance(value, Mapping) and key in value) or hasattr(value, key):
            return key
    return None


class MeterSpec(
    RootModel[
        Annotated[
            Annotated[Literal["none"], Tag("none")]
            | Annotated[NvmlSpec, Tag("nvml")]
            | Annotated[CpuEstimateSpec, Tag("cpu_estimate")],
            Discriminator(
                _kind,
                custom_error_type="meter",
                custom_error_message="Input should be none, {nvml: …} or {cpu_estimate: …}",
            ),
        ]
    ]
):
    """How a model's energy is measured: `none`, `{nvml: all}`, `{nvml: [GPU-…]}` or `{cpu_estimate: {}}`."""

    model_config = ConfigDict(frozen=True, strict=True)


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
        """nvml-counter, cpu-estimate or none; stands beside every figure."""
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
        """The energy so far. Never raises: what fails is a sample without joules that says why."""
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


def make_meter(spec: MeterSpec | None, *, pid: int | None) -> Meter:
    """The meter that a model's `meter:` names; `pid` is its server's when the study started it.

    Without a spec: the CPU estimate of a server that we started, else none. Raises UserError when the
    meter cannot work here, so that it shows before the first trial.
    """
    chosen = spec.root if spec is not None else None
    if isinstance(chosen, NvmlSpec):
        from tuner.measure.nvml import NvmlMeter  # pynvml only where GPUs are metered

        return NvmlMeter(chosen.nvml)
    if chosen == "none" or (chosen is None and pid is None):
        return NoMeter()
    if pid is None:
        raise UserError(
            "meter: cpu_estimate needs a server that the study starts, and this model's is reached by address",
            hint="use `serve:` for the model, or meter its GPUs with `nvml:`, or set `meter: none`",
        )
    from tuner.measure.cpu import CpuMeter

    watts = chosen.cpu_estimate.watts_per_core if chosen is not None else WATTS_PER_CORE
    return CpuMeter(pid, watts_per_core=watts)
