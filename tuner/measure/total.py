"""Several meters as one, for configs whose roles are played by several models; no device is counted twice."""

import time
from collections.abc import Sequence

from tuner.measure import Meter
from tuner.measure import Sample


def total(meters: Sequence[Meter]) -> Meter:
    """What these meters count together: one meter of the union of their GPUs, and the others beside it.

    Meters of one source and scope are the same. Where one of them counts nothing, there is no total.
    """
    from tuner.measure.nvml import NvmlMeter

    gpus = [meter for meter in meters if isinstance(meter, NvmlMeter)]
    parts: dict[tuple[str, str], Meter] = {}
    if gpus:
        uuids = tuple(dict.fromkeys(uuid for meter in gpus for uuid in meter.devices))
        whole = next((meter for meter in gpus if meter.devices == uuids), None)
        union = whole if whole is not None else NvmlMeter(uuids)
        parts[union.source, union.scope] = union
    for meter in meters:
        if not isinstance(meter, NvmlMeter):
            parts[meter.source, meter.scope] = meter
    distinct = list(parts.values())
    return distinct[0] if len(distinct) == 1 else Total(distinct)


class Total:
    """The sum of meters that have no device in common."""

    def __init__(self, meters: Sequence[Meter]) -> None:
        self._meters = meters
        self.source = "+".join(dict.fromkeys(meter.source for meter in meters))
        self.scope = "; ".join(meter.scope for meter in meters)
        self.tick_s = max(meter.tick_s for meter in meters)
        self.devices = tuple(device for meter in meters for device in meter.devices)

    def read(self) -> Sample:
        """The joules of all, none where one has none."""
        samples = [meter.read() for meter in self._meters]
        now_s = time.perf_counter()
        joules = 0.0
        for sample in samples:
            if sample.joules is None:
                return Sample(now_s, None, sample.problem)
            joules += sample.joules
        return Sample(now_s, joules)
