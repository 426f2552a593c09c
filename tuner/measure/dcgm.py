"""Energy of NVIDIA GPUs of another host, from its DCGM exporter; of this one, NVML says it sooner.

The exporter looks at its GPUs every 30 s unless told otherwise (`dcgm-exporter --collect-interval 1000`, in
milliseconds), and a window is off by about power × interval: short ones need a short interval.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

from tuner.errors import UserError
from tuner.measure.count import Count
from tuner.measure.count import CountError
from tuner.measure.latest import Latest
from tuner.measure.latest import ReplyError
from tuner.measure.meter import Meter
from tuner.measure.meter import MeterKind
from tuner.measure.meter import Sample
from tuner.measure.total import total
from workflows.config import Address

ENERGY = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
"""Millijoules since the driver was loaded."""

POWER = "DCGM_FI_DEV_POWER_USAGE"
TEMPERATURE = "DCGM_FI_DEV_GPU_TEMP"

INTERVAL_S = 30.0
"""The exporter's own default."""

SHORTEST_PERIOD_S = 1.0
"""Each look costs us some milliseconds."""

STUCK_INTERVALS = 3
"""A count that stands still for so long is not looked at as often as was said."""


class Dcgm(BaseModel):
    """Where the exporter answers, and how often it looks."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    url: Address = Field(pattern=r"^https?://[^/\s]+", description="http://HOST:9400/metrics")
    gpus: Literal["all"] | Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = Field(
        default="all", description="UUIDs of the server's GPUs, or `all` that the exporter shows"
    )
    interval_s: float = Field(
        default=INTERVAL_S,
        gt=0,
        allow_inf_nan=False,
        description="the exporter's --collect-interval, in seconds; 30 is its default",
    )


class DcgmSpec(MeterKind):
    """A DCGM exporter's count of a host's GPUs: `dcgm: {url: "http://gpu1:9400/metrics", interval_s: 1}`."""

    dcgm: Dcgm

    def open(self, *, pid: int | None, base: Path) -> Meter:
        """A meter of these GPUs. Raises UserError where the exporter does not answer, or not for one of them."""
        spec = self.dcgm
        latest = Latest(
            spec.url,
            _parse,
            period_s=max(SHORTEST_PERIOD_S, spec.interval_s / 10),
            meter="dcgm",
            hint="start dcgm-exporter there with a counters file that has "
            f"{ENERGY} (-f), or correct `url`: it usually ends in :9400/metrics",
        )
        shown = latest.reply(time.perf_counter()).said or {}
        gpus = tuple(shown) if spec.gpus == "all" else spec.gpus
        for uuid in gpus:
            if uuid not in shown:
                raise UserError(
                    f"meter: dcgm: {spec.url} shows no GPU {uuid!r}",
                    hint=f"known: {', '.join(shown)}",
                )
        return total([DcgmMeter(uuid, spec, latest) for uuid in gpus])


@dataclass(frozen=True, slots=True)
class Shown:
    """What the exporter shows of one GPU."""

    millijoules: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None


class DcgmMeter:
    """One GPU of the exporter's host."""

    source = "dcgm"

    def __init__(self, uuid: str, spec: Dcgm, latest: Latest[Mapping[str, Shown]]) -> None:
        self.devices = (uuid,)
        host = spec.url.split("/")[2]
        self.scope = f"{uuid} at {host}, every {spec.interval_s:g} s"
        period_s = max(SHORTEST_PERIOD_S, spec.interval_s / 10)
        self.tick_s = spec.interval_s + period_s  # the exporter's look, then ours
        self._latest = latest
        self._count = Count(stuck_s=STUCK_INTERVALS * self.tick_s)

    def read(self) -> Sample:
        """Joules since the driver was loaded."""
        now_s = time.perf_counter()
        (uuid,) = self.devices
        reply = self._latest.reply(now_s)
        if reply.said is None:
            return Sample(now_s, None, reply.problem)
        shown = reply.said.get(uuid)
        if shown is None or shown.millijoules is None:
            return Sample(now_s, None, f"the exporter shows no energy of {uuid} any more")
        try:
            joules = self._count.believed(shown.millijoules, now_s) / 1000
        except CountError as error:
            return Sample(now_s, None, f"{uuid}: the exporter's count {error}")
        return Sample(now_s, joules, None, shown.power_w, shown.temperature_c)


def _parse(text: str) -> Mapping[str, Shown]:
    """What is shown of each GPU by UUID. With slices or shared GPUs, it stands there once for each who uses it."""
    from prometheus_client.parser import text_string_to_metric_families

    wanted = {ENERGY: "millijoules", POWER: "power_w", TEMPERATURE: "temperature_c"}
    lines = [line for line in text.splitlines() if line.startswith(tuple(wanted))]
    found: dict[str, dict[str, float]] = {}
    try:
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for sample in family.samples:
                field, uuid = wanted.get(sample.name), sample.labels.get("UUID")
                if field is not None and uuid is not None and math.isfinite(sample.value):
                    found.setdefault(uuid, {})[field] = sample.value
    except ValueError as error:
        raise ReplyError(f"not in Prometheus' text format: {error}") from None
    shown = {uuid: Shown(**fields) for uuid, fields in found.items() if "millijoules" in fields}
    if not shown:
        raise ReplyError(f"shows no {ENERGY}")
    return shown
