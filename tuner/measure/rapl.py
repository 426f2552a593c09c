"""Energy of this machine's processors and memory from the counters in the processor (RAPL), as Linux shows them.

The counters hold microjoules and start again from 0 at `max_energy_range_uj`, some minutes to an hour at full load.
Most machines let root alone read them, because they tell what other people's programs do.
"""

import time
from pathlib import Path
from typing import Annotated
from typing import Literal

from pydantic import Field

from tuner.errors import UserError
from tuner.measure.meter import Meter
from tuner.measure.meter import MeterKind
from tuner.measure.meter import Sample

FOLDER = Path("/sys/class/powercap")

TICK_S = 0.001
"""How often the processor counts."""

HIGHEST_W = 1000.0
"""No package draws more: in less time than this takes through a counter's range, it cannot have gone round unseen."""


class RaplSpec(MeterKind):
    """The processors' own counters: `rapl: all` (packages and their memory), or zones by name."""

    rapl: Literal["all"] | Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = Field(
        description="`all`, or zones: package-0, package-0/dram, …"
    )

    def open(self, *, pid: int | None, base: Path) -> Meter:
        """A meter of these zones. Raises UserError where there are none, or they cannot be read."""
        return RaplMeter(self.rapl, folder=FOLDER)


def list_zones() -> dict[str, str | None]:
    """What this machine counts, by name: None where it can be read, else why not."""
    problems: dict[str, str | None] = {}
    for name, path in _zones(FOLDER).items():
        try:
            (path / "energy_uj").read_text()
            problems[name] = None
        except OSError as error:
            problems[name] = f"{error.filename}: {error.strerror}"
    return problems


class RaplMeter:
    """The sum of some zones. Raises UserError for zones that are not there, overlap, or cannot be read."""

    source = "rapl"
    tick_s = TICK_S
    devices = ()

    def __init__(self, zones: Literal["all"] | tuple[str, ...], *, folder: Path) -> None:
        found = _zones(folder)
        chosen = _choose(found, zones) if found else {}
        if not chosen:
            raise UserError(
                f"meter: rapl: this machine shows no energy counters of processors in {folder}",
                hint="virtual machines have none; use cpu_estimate, or `meter: none`",
            )
        self.scope = ", ".join(chosen)
        try:
            self._zones = [_Zone(path) for path in chosen.values()]
        except PermissionError as error:
            raise UserError(
                f"meter: rapl: {error.filename} can be read by root only",
                hint=f"sudo chmod a+r {folder}/intel-rapl:*/energy_uj (until the next start of the machine), "
                "or use cpu_estimate",
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(
                f"meter: rapl: {error}",
                hint="use cpu_estimate, or a machine whose counters can be read: tuner doctor says",
            ) from None
        self._longest_s = min(zone.range_j for zone in self._zones) / HIGHEST_W
        self._read_s = time.perf_counter()

    def read(self) -> Sample:
        """Joules since the meter was made."""
        now_s = time.perf_counter()
        try:
            joules = sum([zone.joules() for zone in self._zones])
        except (OSError, ValueError) as error:
            return Sample(now_s, None, f"the processors' counters cannot be read: {error}")
        unread_s, self._read_s = now_s - self._read_s, now_s
        problem = None
        if unread_s > self._longest_s:
            problem = f"the processors' counters were not read for {unread_s:.0f} s, and may have gone round unseen"
        return Sample(now_s, joules, problem)


class _Zone:
    """One counter, unrolled."""

    def __init__(self, path: Path) -> None:
        self._path = path / "energy_uj"
        self._range = int((path / "max_energy_range_uj").read_text())
        self.range_j = self._range / 1e6
        self._last = int(self._path.read_text())
        self._total = 0

    def joules(self) -> float:
        """Since it was first read. Raises OSError."""
        count = int(self._path.read_text())
        self._total += (
            count - self._last if count >= self._last else count + self._range - self._last
        )
        self._last = count
        return self._total / 1e6


def _zones(folder: Path) -> dict[str, Path]:
    """Folders of zones by name: package-0, and package-0/dram below it."""
    names: dict[str, str] = {}
    # intel-rapl:0 stands before intel-rapl:0:0, which is a part of it.
    for path in sorted(folder.glob("intel-rapl:*")):
        name = (path / "name").read_text().strip()
        above = names.get(path.name.rpartition(":")[0])
        names[path.name] = name if above is None else f"{above}/{name}"
    return {name: folder / zone for zone, name in names.items()}


def _choose(found: dict[str, Path], zones: Literal["all"] | tuple[str, ...]) -> dict[str, Path]:
    if zones == "all":
        # What else there is lies within a package (core, uncore), or around all (psys).
        return {
            name: path
            for name, path in found.items()
            if name.startswith("package-") and ("/" not in name or name.endswith("/dram"))
        }
    for zone in zones:
        if zone not in found:
            raise UserError(
                f"meter: rapl: no zone {zone!r} here", hint=f"known: {', '.join(found)}"
            )
        above, _, part = zone.partition("/")
        twice = zones.count(zone) > 1 or (part not in ("", "dram") and above in zones)
        if twice or (zone == "psys" and len(zones) > 1):
            raise UserError(
                f"meter: rapl: zones {', '.join(zones)}: {zone} would be counted twice",
                hint="name a package, or its parts, or psys, but nothing within another",
            )
    return {zone: found[zone] for zone in zones}
