"""Meters: cumulative energy of what serves a model, read at the edges of a window.

A meter has one method; what makes a reading valid or not is decided once, in `meter.between`. One file a
source, whose library is imported when a study asks for it, so that a machine without its driver can still use
the others. A new meter is one file and one name in `Kind`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from typing import Any
from typing import Literal
from typing import get_args

from pydantic import BeforeValidator
from pydantic import ConfigDict
from pydantic import RootModel
from pydantic_core import PydanticCustomError

from tuner.measure.cpu import WATTS_PER_CORE
from tuner.measure.cpu import CpuEstimate
from tuner.measure.cpu import CpuEstimateSpec
from tuner.measure.dcgm import DcgmSpec
from tuner.measure.meter import Meter
from tuner.measure.meter import NoMeter
from tuner.measure.meter import Sample
from tuner.measure.meter import between
from tuner.measure.nvml import NvmlSpec
from tuner.measure.rapl import RaplSpec
from tuner.measure.replay import ReplaySpec
from tuner.measure.tensorrt_llm import TensorRtLlmSpec

__all__ = [
    "WATTS_PER_CORE",
    "CpuEstimate",
    "CpuEstimateSpec",
    "Kind",
    "Meter",
    "MeterSpec",
    "NoMeter",
    "Sample",
    "between",
    "make_meter",
]

Kind = NvmlSpec | RaplSpec | DcgmSpec | TensorRtLlmSpec | CpuEstimateSpec | ReplaySpec
"""What energy can be measured with; each is named in a study file by its only field."""

_KINDS = {key: kind for kind in get_args(Kind) for key in kind.model_fields}


def _pick(value: Any) -> Any:
    # A union would answer a mistake in one kind with complaints about all.
    if value == "none" or isinstance(value, Kind):
        return value
    for key, kind in _KINDS.items():
        if isinstance(value, Mapping) and key in value:
            return kind.model_validate(value)
    names = ", ".join(f"{{{key}: …}}" for key in _KINDS)
    raise PydanticCustomError("meter", "Input should be none or one of {names}", {"names": names})


class MeterSpec(RootModel[Annotated[Literal["none"] | Kind, BeforeValidator(_pick)]]):
    """How a model's energy is measured: `none`, `{nvml: all}`, `{cpu_estimate: {}}`, …"""

    model_config = ConfigDict(frozen=True, strict=True)


def make_meter(spec: MeterSpec | None, *, pid: int | None, base: Path = Path()) -> Meter:
    """The meter that a model's `meter:` names; `pid` is its server's when the study started it.

    Relative paths start from `base`. Without a spec: the CPU estimate of a server that we started, else none.
    Raises UserError when the meter cannot work here, so that it shows before the first trial.
    """
    if spec is None and pid is not None:
        return CpuEstimateSpec(cpu_estimate=CpuEstimate()).open(pid=pid, base=base)
    if spec is None or spec.root == "none":
        return NoMeter()
    return spec.root.open(pid=pid, base=base)
