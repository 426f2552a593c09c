import ctypes
import gc
import json
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest


@dataclass(frozen=True)
class Load:
    """A power over time, and its integral since 0 in closed form."""

    watts: Callable[[float], float]
    joules: Callable[[float], float]


def constant(watts: float) -> Load:
    return Load(lambda t: watts, lambda t: watts * t)


def rising(watts: float, slope: float) -> Load:
    return Load(lambda t: watts + slope * t, lambda t: watts * t + slope * t * t / 2)


def square(low: float, high: float, period_s: float) -> Load:
    """Low for the first half of each period, high for the second."""

    def joules(t: float) -> float:
        whole, rest_s = divmod(t, period_s)
        half_s = period_s / 2
        return (
            whole * half_s * (low + high)
            + low * min(rest_s, half_s)
            + high * max(rest_s - half_s, 0.0)
        )

    return Load(lambda t: high if t % period_s >= period_s / 2 else low, joules)


@dataclass
class ScriptedGpu:
    """A GPU whose power is a function of the time; `fault` is an NVML error code that it answers with."""

    uuid: str
    load: Load
    tick_s: float = 0.02
    fault: int = pynvml.NVML_SUCCESS
    slices: tuple[str, ...] = ()
    """UUIDs of its MIG slices."""
    counts: bool = True
    """Whether it has an energy counter."""
    instant: bool = True
    average: bool = True
    """Whether it tells its power, by either way."""
    average_w: float | None = None
    """What the average says, where that differs."""
    pids: list[int] | None = field(default_factory=list)
    """Who computes there; None where it does not say."""
    temperature_c: int | None = 60

    def refusal(self, supported: bool) -> int:
        if self.fault != pynvml.NVML_SUCCESS:
            return self.fault
        return pynvml.NVML_SUCCESS if supported else pynvml.NVML_ERROR_NOT_SUPPORTED


@dataclass
class ScriptedNvml:
    """Stands where pynvml has the driver's library, so that pynvml's own marshalling is exercised."""

    gpus: list[ScriptedGpu] = field(default_factory=list)
    now_s: float = 1000.0
    users: int = 0
    power_asked_s: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def _gpu(self, handle: Any) -> ScriptedGpu:
        return self.gpus[ctypes.cast(handle, ctypes.c_void_p).value % 100 - 1]

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

    def nvmlDeviceGetHandleByUUID(self, uuid: Any, handle: Any) -> int:  # noqa: N802
        for number, gpu in enumerate(self.gpus, 1):
            if uuid.value.decode() in gpu.slices:
                ctypes.c_void_p.from_buffer(handle._obj).value = 100 + number
                return pynvml.NVML_SUCCESS
        return pynvml.NVML_ERROR_NOT_FOUND

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: Any, whole: Any) -> int:  # noqa: N802
        number = ctypes.cast(handle, ctypes.c_void_p).value - 100
        ctypes.c_void_p.from_buffer(whole._obj).value = number
        return pynvml.NVML_SUCCESS

    def nvmlDeviceGetUUID(self, handle: Any, buffer: Any, size: Any) -> int:  # noqa: N802
        buffer.value = self._gpu(handle).uuid.encode()
        return pynvml.NVML_SUCCESS

    def nvmlDeviceGetName(self, handle: Any, buffer: Any, size: Any) -> int:  # noqa: N802
        buffer.value = b"Scripted GPU"
        return pynvml.NVML_SUCCESS

    def nvmlDeviceGetMigMode(self, handle: Any, current: Any, pending: Any) -> int:  # noqa: N802
        if not self._gpu(handle).slices:
            return pynvml.NVML_ERROR_NOT_SUPPORTED
        current._obj.value = 1
        return pynvml.NVML_SUCCESS

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, count: Any) -> int:  # noqa: N802
        gpu = self._gpu(handle)
        ticked_s = self.now_s // gpu.tick_s * gpu.tick_s
        count._obj.value = int(1000 * gpu.load.joules(ticked_s))
        return gpu.refusal(gpu.counts)

    def nvmlDeviceGetFieldValues(self, handle: Any, count: Any, values: Any) -> int:  # noqa: N802
        gpu = self._gpu(handle)
        self.power_asked_s.append(self.now_s)
        for value in values._obj:
            assert value.fieldId == pynvml.NVML_FI_DEV_POWER_INSTANT
            value.nvmlReturn = gpu.refusal(gpu.instant)
            value.value.uiVal = int(1000 * gpu.load.watts(self.now_s))
        return pynvml.NVML_SUCCESS

    def nvmlDeviceGetPowerUsage(self, handle: Any, milliwatts: Any) -> int:  # noqa: N802
        gpu = self._gpu(handle)
        watts = gpu.load.watts(self.now_s) if gpu.average_w is None else gpu.average_w
        milliwatts._obj.value = int(1000 * watts)
        return gpu.refusal(gpu.average)

    def nvmlDeviceGetTemperature(self, handle: Any, sensor: Any, celsius: Any) -> int:  # noqa: N802
        gpu = self._gpu(handle)
        celsius._obj.value = gpu.temperature_c or 0
        return gpu.refusal(gpu.temperature_c is not None)

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Any, count: Any, found: Any) -> int:  # noqa: N802
        gpu = self._gpu(handle)
        refusal = gpu.refusal(gpu.pids is not None)
        if refusal != pynvml.NVML_SUCCESS or not gpu.pids:
            count._obj.value = 0
            return refusal
        count._obj.value = len(gpu.pids)
        if found is None:
            return pynvml.NVML_ERROR_INSUFFICIENT_SIZE
        for process, pid in zip(found, gpu.pids, strict=False):
            process.pid = pid
        return pynvml.NVML_SUCCESS


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedNvml]:
    """Two GPUs, of 300 W and of 50 W + 1 W more each second, under a clock that the test moves."""
    scripted = ScriptedNvml(
        [ScriptedGpu("GPU-steady", constant(300)), ScriptedGpu("GPU-rising", rising(50, 1))]
    )
    monkeypatch.setattr(pynvml, "nvmlLib", scripted)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    clock = SimpleNamespace(perf_counter=lambda: scripted.now_s, sleep=scripted.sleep)
    for module in ("nvml", "total"):
        monkeypatch.setattr(f"tuner.measure.{module}.time", clock)
    yield scripted
    if (
        scripted.users
    ):  # a meter that lives on in a cycle lets go of its library now, not of a later test's
        gc.collect()


@dataclass
class Site:
    """What a small HTTP server answers: a status and a body, made anew for each request."""

    answer: Callable[[], tuple[int, str]]
    url: str = ""
    asked: int = 0
    delay_s: float = 0.0


@contextmanager
def serve_site(answer: Callable[[], tuple[int, str]]) -> Iterator[Site]:
    """A server on loopback for as long as the block lasts."""
    site = Site(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            site.asked += 1
            time.sleep(site.delay_s)
            status, text = site.answer()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        site.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def site() -> Callable[[Callable[[], tuple[int, str]]], Any]:
    """Serves pages from loopback."""
    return serve_site


DCGM_LINE = (
    '{name}{{gpu="0",UUID="{uuid}",pci_bus_id="00000000:01:00.0",device="nvidia0",'
    'modelName="NVIDIA H100 80GB HBM3",Hostname="gpu1",pod="{pod}"}} {value}\n'
)


def dcgm_page(
    gpus: dict[str, float], *, power_w: float = 300.0, pods: tuple[str, ...] = ("",)
) -> str:
    """What an exporter shows of GPUs that have used so many joules, once for each pod that shares them."""
    text = ""
    for name, kind, help_, value in (
        ("DCGM_FI_DEV_SM_CLOCK", "gauge", "SM clock frequency (in MHz).", None),
        ("DCGM_FI_DEV_GPU_TEMP", "gauge", "GPU temperature (in C).", 55),
        ("DCGM_FI_DEV_POWER_USAGE", "gauge", "Power draw (in W).", power_w),
        ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "counter", "Total energy (in mJ).", "energy"),
    ):
        text += f"# HELP {name} {help_}\n# TYPE {name} {kind}\n"
        for uuid, joules in gpus.items():
            shown = 1000 * joules if value == "energy" else (value or 1980)
            text += "".join(
                DCGM_LINE.format(name=name, uuid=uuid, pod=pod, value=shown) for pod in pods
            )
    return text


@pytest.fixture
def dcgm_text() -> Callable[..., str]:
    return dcgm_page


def trtllm_page(joules: float) -> str:
    return json.dumps(
        {"total_energy_j": round(joules, 4), "query_time": round(time.perf_counter(), 4)}
    )


@pytest.fixture
def trtllm_text() -> Callable[[float], str]:
    return trtllm_page


@dataclass
class Sysfs:
    """A folder that looks like /sys/class/powercap."""

    folder: Path

    def zone(self, id_: str, name: str, count_uj: int, *, range_uj: int = 262_143_328_850) -> None:
        path = self.folder / id_
        path.mkdir(exist_ok=True)
        (path / "name").write_text(f"{name}\n")
        (path / "max_energy_range_uj").write_text(f"{range_uj}\n")
        (path / "energy_uj").write_text(f"{count_uj}\n")

    def count(self, id_: str, count_uj: int) -> None:
        (self.folder / id_ / "energy_uj").write_text(f"{count_uj}\n")


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sysfs:
    """Two packages; the first with its cores and its memory, and with the whole platform around them."""
    folder = tmp_path / "powercap"
    folder.mkdir()
    fake = Sysfs(folder)
    fake.zone("intel-rapl:0", "package-0", 5_000_000)
    fake.zone("intel-rapl:0:0", "core", 1_000_000)
    fake.zone("intel-rapl:0:1", "dram", 2_000_000)
    fake.zone("intel-rapl:1", "package-1", 7_000_000)
    fake.zone("intel-rapl:2", "psys", 9_000_000)
    (folder / "intel-rapl").mkdir()
    monkeypatch.setattr("tuner.measure.rapl.FOLDER", folder)
    return fake


@pytest.fixture
def loads() -> SimpleNamespace:
    """Powers over time with their integrals."""
    return SimpleNamespace(of=Load, constant=constant, rising=rising, square=square)
