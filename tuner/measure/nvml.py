"""Energy of NVIDIA GPUs from the driver's own counter (NVML), by UUID.

The counter holds millijoules since the driver was loaded and moves every 10 to 100 ms, so a window is off
by about power × tick. It is called and its refusal caught, because no table of architectures is right.
"""

import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from typing import Literal

from tuner.errors import UserError
from tuner.measure import Sample

# No GPU draws so little that a counter in millijoules could stand still for this long: one that does is stuck, and
# its zero must not be taken for thrift. Ten times the slowest tick that is known.
STUCK_S = 1.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of this machine, as `tuner doctor` shows it."""

    uuid: str
    name: str
    problem: str | None
    """Why its energy counter cannot be read; None where it can."""


def list_gpus() -> tuple[Gpu, ...]:
    """The GPUs that this process can see. Raises UserError when there is no NVIDIA driver."""
    import pynvml

    with _nvml():
        return tuple(
            Gpu(uuid, pynvml.nvmlDeviceGetName(handle), _counter_problem(handle))
            for uuid, handle in _devices().items()
        )


class NvmlMeter:
    """The sum of the energy counters of some GPUs, or of all.

    A MIG slice has no counter of its own: its whole GPU is metered, and the scope says so. Raises UserError
    without a driver, for a GPU that is not here, and for one whose counter cannot be read.
    """

    source = "nvml-counter"
    tick_s = 0.1

    def __init__(self, uuids: Literal["all"] | tuple[str, ...]) -> None:
        with _nvml():
            devices = _devices()
            chosen = _choose(devices, uuids)
            for uuid, handle in chosen.items():
                problem = _counter_problem(handle)
                if problem is not None:
                    raise UserError(
                        f"meter: nvml: {uuid} has no energy counter: {problem}",
                        hint="name GPUs that have one (tuner doctor lists them), or set `meter: none`",
                    )
            self.devices = tuple(chosen)
            self.scope = ", ".join(uuid + _mig_note(handle) for uuid, handle in chosen.items())
            self._counters = [_Counter(uuid, handle) for uuid, handle in chosen.items()]
            _init()  # one more, for the meter's own life
        weakref.finalize(self, _shutdown)

    def read(self) -> Sample:
        """Joules since the driver was loaded."""
        import pynvml

        now_s = time.perf_counter()
        joules = 0.0
        for counter in self._counters:
            try:
                joules += counter.millijoules(now_s) / 1000
            except pynvml.NVMLError as error:
                return Sample(now_s, None, f"{counter.uuid}: {error}")
            except _CounterError as error:
                return Sample(now_s, None, f"{counter.uuid}: the energy counter {error}")
        return Sample(now_s, joules)


class _CounterError(Exception):
    """What a counter says cannot be true."""


class _Counter:
    """One GPU's counter, and what of its past shows that it cannot be believed."""

    def __init__(self, uuid: str, handle: Any) -> None:
        self.uuid = uuid
        self._handle = handle
        self._last = -1
        self._moved_s = 0.0
        self._was_reset = False

    def millijoules(self, now_s: float) -> int:
        """The count. Raises pynvml.NVMLError, or _CounterError.

        After a reset there is no count any more: among several GPUs, the growth of the others would hide
        what was lost.
        """
        import pynvml

        count: int = pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        self._was_reset |= count < self._last
        if self._was_reset:
            raise _CounterError("went back: the GPU or its driver was reset since the start")
        if count > self._last:
            self._last = count
            self._moved_s = now_s
        elif now_s - self._moved_s > STUCK_S:
            raise _CounterError(f"has not moved for {now_s - self._moved_s:.1f} s")
        return count


def _init() -> None:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise _unusable(error) from None


def _unusable(error: Exception) -> UserError:
    return UserError(
        f"meter: nvml: the NVIDIA driver cannot be used on this machine: {error}",
        hint="check with nvidia-smi; for a server on another machine, or without a GPU, set `meter: none`",
    )


def _shutdown() -> None:
    import pynvml

    try:
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:  # the driver went first: there is nothing left to release
        return


@contextmanager
def _nvml() -> Iterator[None]:
    """NVML for the length of a block; NVML counts its users, so blocks nest. What it refuses is a UserError."""
    import pynvml

    _init()
    try:
        yield
    except pynvml.NVMLError as error:
        raise _unusable(error) from None
    finally:
        _shutdown()


def _devices() -> dict[str, Any]:
    """Handles by UUID of the GPUs that this process may use."""
    import pynvml

    devices = {}
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        except (pynvml.NVMLError_NoPermission, pynvml.NVMLError_GpuIsLost):
            continue  # another container's, or fallen off the bus
        devices[pynvml.nvmlDeviceGetUUID(handle)] = handle
    return devices


def _choose(devices: dict[str, Any], uuids: Literal["all"] | tuple[str, ...]) -> dict[str, Any]:
    known = ", ".join(devices) or "none"
    if uuids == "all":
        if not devices:
            raise UserError("meter: nvml: all: the NVIDIA driver sees no GPU")
        return devices
    missing = [uuid for uuid in uuids if uuid not in devices]
    if missing:
        hint = "a MIG slice has no counter: name its GPU" if missing[0].startswith("MIG-") else None
        raise UserError(
            f"meter: nvml: no GPU {missing[0]!r} on this machine; known: {known}", hint=hint
        )
    return {uuid: devices[uuid] for uuid in uuids}


def _counter_problem(handle: Any) -> str | None:
    import pynvml

    try:
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError as error:
        return str(error)
    return None


def _mig_note(handle: Any) -> str:
    import pynvml

    try:
        current, _ = pynvml.nvmlDeviceGetMigMode(handle)
    except pynvml.NVMLError:  # NotSupported: a GPU without MIG
        return ""
    return " (the whole GPU, all its MIG slices)" if current else ""
