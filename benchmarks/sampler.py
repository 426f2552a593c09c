"""CPU time that sampling a meter ten times a second takes: of the sampler's thread, and of a thread that asks other hosts.

By the threads' own CPU clocks, in a process that does nothing else. The cpu-estimate reads a real llama.cpp server;
NVML is a library in C that answers at once, so that a real driver's own time comes on top; counters of processors are
a folder of files, exporters are on loopback. Goal: at most 0.5 % of one core.
"""

import argparse
import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import ExitStack
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tuner.measure import Meter
from tuner.measure import MeterSpec
from tuner.measure import Sample
from tuner.measure import make_meter
from tuner.measure import rapl
from tuner.measure.replay import record
from tuner.measure.total import Total
from tuner.measure.window import PERIOD_S
from tuner.measure.window import Window

NVML_SOURCE = Path(__file__).resolve().parents[1] / "tests" / "tuner" / "measure" / "nvml.c"
GPUS = 8
GOAL = 0.005
THREADS = ("tuner-meter", "tuner-meter-poll")


def main() -> None:
    """Sample each meter for some time, print and record what that took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 s a meter; a minute at most")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    arguments = parser.parse_args()
    seconds = 3.0 if arguments.quick else 30.0
    shares: dict[str, float] = {}
    left_out: dict[str, str] = {}
    for name, open_meter in METERS.items():
        with ExitStack() as stack:
            try:
                meter = open_meter(stack)
            except LeftOut as left:
                left_out[name] = str(left)
                continue
            shares[name] = share_of_core(meter, seconds)
            del meter
            for thread in sampling():  # who asks for a meter's sake ends with it
                thread.join()
    result = {
        "benchmark": "sampler",
        "reads_per_s": 1 / PERIOD_S,
        "seconds": seconds,
        "share_of_core": {name: round(share, 5) for name, share in shares.items()},
        "goal": GOAL,
        "met": all(share <= GOAL for share in shares.values()),
        "left_out": left_out,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
    }
    text = json.dumps(result, indent=2)
    if not arguments.quick:
        (Path(__file__).parent / "results" / "sampler.json").write_text(text + "\n")
    if arguments.json:
        print(text)
        return
    for name, share in shares.items():
        print(f"{name:24} {100 * share:6.3f} % of a core")
    for name, reason in left_out.items():
        print(f"{name:24} left out: {reason}")
    print(f"goal: at most {100 * GOAL:g} % each: {'met' if result['met'] else 'missed'}")


class LeftOut(Exception):  # noqa: N818
    """A meter cannot be had here; says why."""


def share_of_core(meter: Meter, seconds: float) -> float:
    """CPU seconds a second of the threads that sample the meter."""
    with Window(meter) as window:
        threads = sampling()
        before_s, cpu_before_s = time.perf_counter(), cpu_s(threads)
        time.sleep(seconds)
        share = (cpu_s(threads) - cpu_before_s) / (time.perf_counter() - before_s)
        reading, _ = window.stretch()
    if reading.problem is not None:
        sys.exit(f"{meter.source}: {reading.problem}")
    return share


def sampling() -> list[threading.Thread]:
    """The threads that sample something now."""
    return [thread for thread in threading.enumerate() if thread.name in THREADS]


def cpu_s(threads: list[threading.Thread]) -> float:
    """CPU seconds that these threads have taken so far."""
    return sum(
        time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        for thread in threads
        if thread.ident is not None
    )


def meter_of(content: Any, *, pid: int | None = None, base: Path = Path()) -> Meter:
    """The meter that a study would name so."""
    return make_meter(MeterSpec.model_validate(content), pid=pid, base=base)


def folder_of(stack: ExitStack) -> Path:
    """A folder that goes with the stack."""
    return Path(stack.enter_context(tempfile.TemporaryDirectory()))


def llama_cpp(stack: ExitStack) -> Meter:
    """The CPU estimate of a real server."""
    from tuner.errors import ServingError
    from tuner.serving import LlamaCpp
    from tuner.serving import start

    spec = LlamaCpp(serve="llama.cpp", weights="smollm2-135m-instruct")
    try:
        endpoint = stack.enter_context(start("smollm2", spec))
    except ServingError as error:
        raise LeftOut(str(error)) from None
    return meter_of({"cpu_estimate": {}}, pid=endpoint.pid)


def nvml(gpus: int) -> Callable[[ExitStack], Meter]:
    """So many GPUs of a library in C, by way of the real pynvml."""

    def open_meter(stack: ExitStack) -> Meter:
        compiler = shutil.which("cc")
        if compiler is None:
            raise LeftOut("no C compiler (cc)")
        name = "libnvidia-ml.so.1"
        library = str(folder_of(stack) / name)
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", library]
        subprocess.run([*command, str(NVML_SOURCE)], check=True)
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)  # found by its name when pynvml asks for it
        whole = meter_of({"nvml": "all"})
        assert isinstance(whole, Total)
        return whole if gpus == GPUS else whole.parts[0]

    return open_meter


def processors(stack: ExitStack) -> Meter:
    """Two packages with their memory."""
    folder = folder_of(stack)
    for zone, name in (
        ("0", "package-0"),
        ("0:0", "dram"),
        ("1", "package-1"),
        ("1:0", "dram"),
    ):
        path = folder / f"intel-rapl:{zone}"
        path.mkdir()
        for file, content in (("name", name), ("energy_uj", 5), ("max_energy_range_uj", 2**38)):
            (path / file).write_text(f"{content}\n")
    return rapl.RaplMeter("all", folder=folder)


def replayed(stack: ExitStack) -> Meter:
    """An hour's recording."""
    folder = folder_of(stack)
    samples = [Sample(t / 10, 5.0 * t, power_w=50.0) for t in range(36_000)]
    record(samples, meter_of("none"), folder / "power.csv")
    return meter_of({"replay": "power.csv"}, base=folder)


def exporter(stack: ExitStack) -> Meter:
    """A DCGM exporter of eight GPUs and its usual fields, which looks every second."""
    fields = ("TOTAL_ENERGY_CONSUMPTION", "POWER_USAGE", "GPU_TEMP", *(f"F{n}" for n in range(22)))

    def page() -> str:
        now_s = time.perf_counter()
        return "".join(
            f'DCGM_FI_DEV_{field}{{gpu="{n}",UUID="GPU-{n}",device="nvidia{n}",modelName="H100",'
            f'Hostname="gpu1",DCGM_FI_DRIVER_VERSION="570.1"}} {100 + 1000 * now_s:.0f}\n'
            for field in fields
            for n in range(GPUS)
        )

    url = stack.enter_context(served(page))
    return meter_of({"dcgm": {"url": f"{url}/metrics", "interval_s": 1}})


def trtllm(stack: ExitStack) -> Meter:
    """A TensorRT-LLM server's own count."""

    def page() -> str:
        return json.dumps({"total_energy_j": 100 * time.perf_counter(), "query_time": 1.0})

    url = stack.enter_context(served(page))
    return meter_of({"tensorrt_llm": {"url": f"{url}/energy_metrics"}})


@contextmanager
def served(page: Callable[[], str]) -> Iterator[str]:
    """An HTTP server on loopback that answers everything with this page."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = page().encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


METERS: dict[str, Callable[[ExitStack], Meter]] = {
    "cpu-estimate": llama_cpp,
    "nvml-counter, 1 GPU": nvml(1),
    f"nvml-counter, {GPUS} GPUs": nvml(GPUS),
    "rapl": processors,
    f"dcgm, {GPUS} GPUs": exporter,
    "trtllm": trtllm,
    "replay": replayed,
}


if __name__ == "__main__":
    os.environ["NVML_GPUS"] = str(GPUS)
    main()
