"""Meters: cumulative energy of what serves a model, read at the edges of a window.

A meter has one method; what makes it valid or not is decided here, once, in `between`. One file a source,
imported when a study asks for it, so that a machine without its driver can still use the others.
"""

import time
from collections.abc import Mapping
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
    """Why there are no joules."""


class Meter(Protocol):
    """Something that knows how much energy its devices have used so far."""

    @property
    def source(self) -> str:
        """nvml-counter, cpu-estimate or none; stands beside every figure."""
        ...

    @property
    def scope(self) -> str:
        """What is metered, in words."""
        ...

    def read(self) -> Sample:
        """The energy so far. Never raises: what fails is a sample without joules that says why."""
        ...


@dataclass(frozen=True, slots=True)
class NoMeter:
    """Absence as an object: nothing is metered, and every sample says so."""

    source: str = "none"
    scope: str = "nothing"

    def read(self) -> Sample:
        """A sample without joules."""
        return Sample(time.perf_counter(), None, "no energy is metered for this model")


def between(meter: Meter, first: Sample, last: Sample) -> Reading:
    """What `meter` counted from one of its samples to a later one, gross.

    Joules are None, with the reason, when either sample has none or the count went back. 0 joules mean
    that the count did not move: readings of adjoining windows add up to the reading of both.
    """
    problem = first.problem or last.problem
    if first.joules is None or last.joules is None:
        return Reading(None, meter.source, meter.scope, problem or "a sample has no joules")
    joules = last.joules - first.joules
    if joules < 0:
        problem = f"the count went back by {-joules:.6g} J"
        return Reading(None, meter.source, meter.scope, problem)
    return Reading(joules, meter.source, meter.scope)


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
