"""Several meters as one, for several GPUs and for configs whose roles are played by several models; no device is counted twice."""

import time
from collections.abc import Iterator
from collections.abc import Sequence

from tuner.measure.meter import Meter
from tuner.measure.meter import Sample


def total(meters: Sequence[Meter]) -> Meter:
    """What these meters count together: each GPU once, whatever meters it; meters of one source and scope are the same.

    Where one of them counts nothing, there is no total.
    """
    seen: set[str] = set()
    parts: dict[tuple[str, str], Meter] = {}
    for meter in _single(meters):
        if not meter.devices or not seen.issuperset(meter.devices):
            parts.setdefault((meter.source, meter.scope), meter)
            seen.update(meter.devices)
    distinct = list(parts.values())
    return distinct[0] if len(distinct) == 1 else Total(distinct)


def _single(meters: Sequence[Meter]) -> Iterator[Meter]:
    for meter in meters:
        if isinstance(meter, Total):
            yield from meter.parts
        else:
            yield meter


class Total:
    """The sum of meters that have no device in common."""

    def __init__(self, parts: Sequence[Meter]) -> None:
        self.parts = parts
        self.source = "+".join(dict.fromkeys(meter.source for meter in parts))
        self.scope = "; ".join(meter.scope for meter in parts)
        self.tick_s = max(meter.tick_s for meter in parts)
        self.devices = tuple(device for meter in parts for device in meter.devices)

    def read(self) -> Sample:
        """The joules of all, none where one has none; power likewise, and the highest temperature."""
        now_s = time.perf_counter()
        samples = [meter.read() for meter in self.parts]
        joules = [sample.joules for sample in samples if sample.joules is not None]
        # A part without joules says why there is no sum; what else is wrong comes after that.
        lacking = next((sample.problem for sample in samples if sample.joules is None), None)
        spoilt = next((sample.problem for sample in samples if sample.problem is not None), None)
        watts = [sample.power_w for sample in samples if sample.power_w is not None]
        temperatures = [each.temperature_c for each in samples if each.temperature_c is not None]
        return Sample(
            now_s,
            sum(joules) if len(joules) == len(samples) else None,
            lacking or spoilt,
            power_w=sum(watts) if len(watts) == len(samples) else None,
            temperature_c=max(temperatures, default=None),
        )
