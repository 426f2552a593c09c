"""Energy that was recorded once, played again from the moment a meter is made, and how it is recorded.

For tests, demonstrations and analyses without the machine; its source says so beside every figure.
"""

import bisect
import csv
import io
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from pydantic import Field

from tuner.errors import UserError
from tuner.measure.meter import Meter
from tuner.measure.meter import MeterKind
from tuner.measure.meter import Sample

COLUMNS = ("t_s", "joules", "power_w", "temperature_c", "problem")


class ReplaySpec(MeterKind):
    """A recording: `replay: power.csv`, from the study file's folder."""

    replay: str = Field(min_length=1, description="a file that `tuner profile` wrote")

    def open(self, *, pid: int | None, base: Path) -> Meter:
        """A meter that plays it. Raises UserError for what is no recording."""
        return ReplayMeter(base / self.replay)


class ReplayMeter:
    """Plays a recording from now on; joules between two samples lie on a line. Raises UserError for what is none."""

    def __init__(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"meter: replay: {path} cannot be read: {error}",
                hint="is the path right? A relative path starts from the study file's folder",
            ) from None
        try:
            told, self._samples = _parse(text)
            self.source = f"replay({told['source']})"
            self.scope = told["scope"]
            self.tick_s = float(told["tick_s"])
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"meter: replay: {path} is no recording: {error}",
                hint=f"lines `# source: …`, `# scope: …`, `# tick_s: …`, then {','.join(COLUMNS)}",
            ) from None
        self.devices = tuple(told.get("devices", "").split())
        self._times = [sample.t_s for sample in self._samples]
        self._began_s = time.perf_counter() - self._times[0]

    def read(self) -> Sample:
        """The joules that had been counted at this time of the recording."""
        now_s = time.perf_counter()
        at_s = now_s - self._began_s
        index = bisect.bisect_right(self._times, at_s) - 1
        if index >= len(self._samples) - 1:
            length_s = self._times[-1] - self._times[0]
            return Sample(now_s, None, f"the recording of {length_s:.0f} s has ended")
        this, after = self._samples[index : index + 2]
        if this.joules is None or after.joules is None:
            return Sample(now_s, None, this.problem or after.problem or "not recorded")
        share = (at_s - this.t_s) / (after.t_s - this.t_s)
        joules = this.joules + share * (after.joules - this.joules)
        return Sample(now_s, joules, this.problem, this.power_w, this.temperature_c)


def record(samples: Sequence[Sample], meter: Meter, path: Path) -> None:
    """Write what a meter said, so that it can be played: times since the first sample."""
    text = io.StringIO()
    for key, value in (
        ("source", meter.source),
        ("scope", meter.scope),
        ("tick_s", f"{meter.tick_s:g}"),
        ("devices", " ".join(meter.devices)),
    ):
        text.write(f"# {key}: {value}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in samples:
        writer.writerow(
            [
                f"{each.t_s - samples[0].t_s:.6f}",
                *("" if x is None else x for x in (each.joules, each.power_w, each.temperature_c)),
                each.problem or "",
            ]
        )
    path.write_text(text.getvalue(), encoding="utf-8")


def _parse(text: str) -> tuple[dict[str, str], list[Sample]]:
    """What the leading lines tell, and the samples. Raises ValueError, TypeError or KeyError."""
    lines = text.splitlines()
    told = dict(line[2:].split(": ", 1) for line in lines if line.startswith("# ") and ": " in line)
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    samples = [
        Sample(
            float(row["t_s"]),
            _number(row["joules"]),
            row.get("problem") or None,
            _number(row.get("power_w")),
            _number(row.get("temperature_c")),
        )
        for row in rows
    ]
    if len(samples) < 2:
        raise ValueError("it holds fewer than two samples")
    if any(after.t_s <= this.t_s for this, after in pairwise(samples)):
        raise ValueError("its times do not rise")
    return told, samples


def _number(text: str | None) -> float | None:
    return float(text) if text else None
