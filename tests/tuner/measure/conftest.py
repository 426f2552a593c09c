import ctypes
import gc
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest


@dataclass
class ScriptedGpu:
    """A GPU whose counter is a function of the time; `fault` is an NVML error code that it answers with."""

    uuid: str
    energy_j: Callable[[float], float]
    tick_s: float = 0.001
    fault: int = pynvml.NVML_SUCCESS
    mig: bool = False


@dataclass
class ScriptedNvml:
    """Stands where pynvml has the driver's library, so that pynvml's own marshalling is exercised."""

    gpus: list[ScriptedGpu] = field(default_factory=list)
    now_s: float = 1000.0
    users: int = 0

    def _gpu(self, handle: Any) -> ScriptedGpu:
        return self.gpus[ctypes.cast(handle, ctypes.c_void_p).value - 1]

    def nvmlInitWithFlags(self, flags: int) -> int:  # noqa: N802
        self.users += 1
        return pynvml.NVML_SUCCESS

    def nvmlShutdown(self) -> int:  # noqa: N802
        self.users -= 1
        return pynvml.NVML_SUCCESS

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self.gpus)
        return pynvml.NVML_SUCCESS

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:  # noqa: N802
        ctypes.c_void_p.from_buffer(handle._obj).value = index.value + 1
        fault = self.gpus[index.value].fault
        return fault if fault == pynvml.NVML_ERROR_NO_PERMISSION else pynvml.NVML_SUCCESS

    def nvmlDeviceGetUUID(self, handle: Any, buffer: Any, size: Any) -> int:  # noqa: N802
        buffer.value = self._gpu(handle).uuid.encode()
        return pynvml.NVML_SUCCESS

    def nvmlDeviceGetName(self, handle: Any, buffer: Any, size: Any) -> int:  # noqa: N802
        buffer.value = b"Scripted GPU"
        return pynvml.NVML_SUCCESS

    def nvmlDeviceGetMigMode(self, handle: Any, current: Any, pending: Any) -> int:  # noqa: N802
        if not self._gpu(handle).mig:
            return pynvml.NVML_ERROR_NOT_SUPPORTED
        current._obj.value = 1
        return pynvml.NVML_SUCCESS

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, count: Any) -> int:  # noqa: N802
        gpu = self._gpu(handle)
        if gpu.fault == pynvml.NVML_SUCCESS:
            ticked_s = self.now_s // gpu.tick_s * gpu.tick_s
            count._obj.value = int(1000 * gpu.energy_j(ticked_s))
        return gpu.fault


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> ScriptedNvml:
    """Two GPUs, of 300 W and of 50 W + 1 W more each second, under a clock that the test moves."""
    gc.collect()  # meters of earlier tests let go of their library, not of this one
    scripted = ScriptedNvml(
        [
            ScriptedGpu("GPU-steady", lambda t: 300 * t),
            ScriptedGpu("GPU-rising", lambda t: 50 * t + t * t / 2),
        ]
    )
    monkeypatch.setattr(pynvml, "nvmlLib", scripted)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.setattr(
        "tuner.measure.nvml.time", SimpleNamespace(perf_counter=lambda: scripted.now_s)
    )
    return scripted
