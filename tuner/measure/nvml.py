"""Energy of NVIDIA GPUs of this machine from their driver (NVML), by UUID.

A GPU's counter holds millijoules since the driver was loaded and moves every 10 to 100 ms, so a window is off by
about power × tick; how long a tick is here is found out when a meter is made. Where there is no counter, power is
integrated. Both are called and their refusal caught, because no table of architectures is right.
"""

import math
import os
import time
import weakref
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated
from typing import Any
from typing import Literal

from pydantic import Field
from pydantic import field_validator

from tuner.errors import UserError
from tuner.measure.count import Count
from tuner.measure.count import CountError
from tuner.measure.integral import Integral
from tuner.measure.meter import Meter
from tuner.measure.meter import MeterKind
from tuner.measure.meter import Sample
from tuner.measure.processes import Processes
from tuner.measure.processes import UnseenError
from tuner.measure.processes import named
from tuner.measure.processes import require_alone
from tuner.measure.total import total

STUCK_S = 1.0
"""Ten times the slowest tick that is known."""

TICK_S = 0.1
"""The slowest tick that is known: taken for a counter that does not move while it is watched."""

CALIBRATED_S = 1.5
"""How long a counter is watched at the most."""

CALIBRATED_TICKS = 10
"""As many are enough."""

CALIBRATION_STEP_S = 0.002

POLL_S = 0.05
"""Asked for power more often, drivers may answer 0 or nothing."""

LOOK_S = 1.0
"""How often processes and temperatures are looked at."""

AVERAGED_S = 1.0
"""What nvmlDeviceGetPowerUsage averages over on most recent cards."""


Wanted = Literal["all", "visible"] | Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
"""GPUs as a study names them."""


class NvmlSpec(MeterKind):
    """The driver's energy counter of NVIDIA GPUs: `nvml: all`, or those of the server by UUID."""

    nvml: Wanted = Field(
        description="UUIDs of the server's GPUs (nvidia-smi -L), `all` of this machine, or `visible`: those that "
        "CUDA_VISIBLE_DEVICES leaves to a server that is started here, as on a worker"
    )

    @field_validator("nvml")
    @classmethod
    def _once_each(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if len(set(value)) < len(value) and not isinstance(value, str):
            raise ValueError("names a GPU twice, whose energy would be counted twice")
        return value

    def open(self, *, pid: int | None, base: Path) -> Meter:
        """A meter of these GPUs. Raises UserError as `gpu_meters` does."""
        return total(gpu_meters(self.nvml, pid=pid))


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of this machine, as `tuner doctor` shows it."""

    uuid: str
    name: str
    problem: str | None
    """Why its energy counter cannot be read; None where it can."""
    tick_s: float | None
    """How often the counter moves; None without one."""
    power: str | None
    """What its power is: instantaneous, or a 1 s average; None where it cannot be read."""
    processes: tuple[str, ...] | None
    """Who computes on it, "4711 (python)"; None where that cannot be seen."""


def list_gpus() -> tuple[Gpu, ...]:
    """The GPUs that this process can see. Takes up to CALIBRATED_S. Raises UserError without an NVIDIA driver."""
    import pynvml

    with _nvml():
        devices = _devices()
        problems = {uuid: _counter_problem(handle) for uuid, handle in devices.items()}
        ticks = _ticks({uuid: devices[uuid] for uuid in devices if problems[uuid] is None})
        found = []
        for uuid, handle in devices.items():
            power = _Power.of(handle)
            processes = _processes(uuid, handle, None)
            found.append(
                Gpu(
                    uuid=uuid,
                    name=pynvml.nvmlDeviceGetName(handle),
                    problem=problems[uuid],
                    tick_s=ticks.get(uuid),
                    power=power.kind if power is not None else None,
                    processes=None
                    if processes is None
                    else tuple(named(pid) for pid in sorted(processes.at_start)),
                )
            )
        return tuple(found)


def gpu_names() -> list[str]:
    """The names of the GPUs that this process can see, one for each. Raises UserError without an NVIDIA driver."""
    import pynvml

    with _nvml():
        return [str(pynvml.nvmlDeviceGetName(handle)) for handle in _devices().values()]


def gpu_meters(wanted: Wanted, *, pid: int | None = None) -> list["GpuMeter"]:
    """A meter for each of some GPUs, or of all; `pid` is their server's when we started it.

    Takes up to CALIBRATED_S, in which the counters are watched. A MIG slice has no counter of its own: its whole
    GPU is metered, and the scope says so. Raises UserError without a driver, for a GPU that is not here, for one
    that tells neither energy nor power, and for one on which others compute beside the server.
    """
    with _nvml():
        chosen = _choose(_devices(), wanted)
        counted = {uuid: _counter_problem(handle) is None for uuid, handle in chosen.items()}
        powers = {uuid: _Power.of(handle) for uuid, handle in chosen.items()}
        for uuid, handle in chosen.items():
            if not counted[uuid] and powers[uuid] is None:
                raise UserError(
                    f"meter: nvml: {uuid} tells neither its energy ({_counter_problem(handle)}) nor its power",
                    hint="name GPUs that do (tuner doctor lists them), or set `meter: none`",
                )
        processes = {uuid: _processes(uuid, handle, pid) for uuid, handle in chosen.items()}
        require_alone([each for each in processes.values() if each is not None], pid)
        ticks = _ticks({uuid: chosen[uuid] for uuid in chosen if counted[uuid]})
        return [
            GpuMeter(
                uuid,
                handle,
                tick_s=ticks.get(uuid),
                power=powers[uuid],
                processes=processes[uuid],
            )
            for uuid, handle in chosen.items()
        ]


class GpuMeter:
    """One GPU: its energy counter, or without a tick its power, integrated."""

    def __init__(
        self,
        uuid: str,
        handle: Any,
        *,
        tick_s: float | None,
        power: "_Power | None",
        processes: Processes | None,
    ) -> None:
        self.devices = (uuid,)
        self.scope = uuid + _mig_note(handle)
        self._handle = handle
        self._power = power
        self._processes = processes
        self._foreign: str | None = None
        self._temperature_c: float | None = None
        self._looked_s = -math.inf
        if tick_s is not None:
            self.source = "nvml-counter"
            self.tick_s = tick_s
            self._integral = None
            self._count = Count(stuck_s=STUCK_S)
        else:
            assert power is not None
            self.source = "nvml-power"
            self.tick_s = power.tick_s
            self._integral = Integral(time.perf_counter(), power.first_w)
        _init()  # one more user of the library, for the meter's own life
        weakref.finalize(self, _shutdown)

    def read(self) -> Sample:
        """Joules since the driver was loaded, or since the meter was made."""
        import pynvml

        now_s = time.perf_counter()
        watts = self._power.watts(now_s) if self._power is not None else None
        gap = None
        try:
            if self._integral is not None:
                gap = self._integral.extend(now_s, watts)
                joules = self._integral.joules
            else:
                millijoules = pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
                joules = self._count.believed(millijoules, now_s) / 1000
        except pynvml.NVMLError as error:
            return Sample(now_s, None, f"{self.devices[0]}: {error}")
        except CountError as error:
            what = "the energy counter " if self._integral is None else ""
            return Sample(now_s, None, f"{self.devices[0]}: {what}{error}")
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            self._temperature_c = _temperature_c(self._handle)
            self._foreign = self._processes.foreign() if self._processes is not None else None
        return Sample(now_s, joules, self._foreign or gap, watts, self._temperature_c)


class _Power:
    """The power of one GPU, by the better of two ways."""

    def __init__(
        self, kind: str, tick_s: float, ask: Callable[[], float | None], first_w: float
    ) -> None:
        self.kind = kind
        self.tick_s = tick_s
        self.first_w = first_w
        self._ask = ask
        self._asked_s = time.perf_counter()

    @classmethod
    def of(cls, handle: Any) -> "_Power | None":
        """None for a GPU that does not tell."""
        for kind, tick_s, ask in (
            ("instantaneous", TICK_S, partial(_instant_w, handle)),
            ("1 s average", AVERAGED_S, partial(_average_w, handle)),
        ):
            first_w = ask()
            if first_w is not None:
                return cls(kind, tick_s, ask, first_w)
        return None

    def watts(self, now_s: float) -> float | None:
        """None where there is no answer to be believed: too soon after the last, refused, or 0."""
        if now_s - self._asked_s < POLL_S:
            return None
        self._asked_s = now_s
        return self._ask()


def _instant_w(handle: Any) -> float | None:
    import pynvml

    try:
        (field,) = pynvml.nvmlDeviceGetFieldValues(handle, [pynvml.NVML_FI_DEV_POWER_INSTANT])
    except pynvml.NVMLError:
        return None
    if field.nvmlReturn != pynvml.NVML_SUCCESS:
        return None
    return field.value.uiVal / 1000 or None


def _average_w(handle: Any) -> float | None:
    import pynvml

    try:
        return pynvml.nvmlDeviceGetPowerUsage(handle) / 1000 or None
    except pynvml.NVMLError:
        return None


def _temperature_c(handle: Any) -> float | None:
    import pynvml

    # The first is what the second is to be replaced by; older drivers have the second only.
    for name in ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"):
        try:
            return float(getattr(pynvml, name)(handle, pynvml.NVML_TEMPERATURE_GPU))
        except (AttributeError, pynvml.NVMLError):
            continue
    return None


def _ticks(counted: Mapping[str, Any]) -> dict[str, float]:
    """How often each counter moves: the median time between changes, all watched at once."""
    import pynvml

    last = dict.fromkeys(counted, -1)
    moved_s: dict[str, list[float]] = {uuid: [] for uuid in counted}
    end_s = time.perf_counter() + CALIBRATED_S
    while (now_s := time.perf_counter()) < end_s:
        for uuid, handle in counted.items():
            try:
                count = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            except pynvml.NVMLError:
                continue
            if count != last[uuid]:
                moved_s[uuid].append(now_s)
                last[uuid] = count
        # The first look is a change from nothing, within a tick: two more than the ticks wanted.
        if all(len(times) >= CALIBRATED_TICKS + 2 for times in moved_s.values()):
            break
        time.sleep(CALIBRATION_STEP_S)
    return {uuid: _median_step(times[1:]) for uuid, times in moved_s.items()}


def _median_step(times: Sequence[float]) -> float:
    steps = sorted(later - sooner for sooner, later in pairwise(times))
    return steps[len(steps) // 2] if steps else TICK_S


def _processes(uuid: str, handle: Any, pid: int | None) -> Processes | None:
    try:
        return Processes(uuid, handle, pid=pid)
    except UnseenError:
        return None


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


def _choose(devices: dict[str, Any], wanted: Wanted) -> dict[str, Any]:
    uuids = _visible(list(devices)) if wanted == "visible" else wanted
    if uuids == "all":
        if not devices:
            raise UserError(
                f"meter: nvml: {wanted}: the NVIDIA driver sees no GPU",
                hint="does nvidia-smi show one? Without a GPU here, use dcgm of the machine that has it, or none",
            )
        return devices
    chosen = {}
    for uuid in uuids:
        whole = _whole(uuid) if uuid.startswith("MIG-") else uuid
        if whole not in devices:
            known = ", ".join(devices) or "none"
            raise UserError(f"meter: nvml: no GPU {uuid!r} on this machine", hint=f"known: {known}")
        chosen[whole] = devices[whole]
    return chosen


def _visible(known: Sequence[str]) -> Wanted:
    """What CUDA_VISIBLE_DEVICES names, of these in the driver's order. Raises UserError where that cannot be told."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return "all"
    names = [name.strip() for name in visible.split(",") if name.strip()]
    if not names:
        raise UserError(
            "meter: nvml: visible: CUDA_VISIBLE_DEVICES leaves no GPU",
            hint="ask for one (on Ray: num_gpus), or measure with another meter",
        )
    if any(map(str.isdecimal, names)) and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        raise UserError(
            f"meter: nvml: visible: CUDA_VISIBLE_DEVICES={visible} has numbers, which CUDA gives to the fastest GPU first "
            "and the driver by place",
            hint="set CUDA_DEVICE_ORDER=PCI_BUS_ID as well, or name the GPUs by UUID",
        )
    return tuple(_named(name, known, visible) for name in names)


def _named(name: str, known: Sequence[str], visible: str) -> str:
    """The UUID that a number, the beginning of a UUID or a UUID means."""
    if not name.isdecimal():
        found = [uuid for uuid in known if uuid.startswith(name)]
        return found[0] if len(found) == 1 else name
    if int(name) >= len(known):
        raise UserError(
            f"meter: nvml: visible: CUDA_VISIBLE_DEVICES={visible}: there is no GPU {name}",
            hint=f"known: {', '.join(known) or 'none'}",
        )
    return known[int(name)]


def _whole(uuid: str) -> str | None:
    """The GPU that a MIG slice is part of; None where there is no such slice."""
    import pynvml

    try:
        mig = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        whole = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(mig)
        return str(pynvml.nvmlDeviceGetUUID(whole))
    except pynvml.NVMLError:
        return None


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
