"""`tuner doctor`: what this machine offers."""

from typing import TYPE_CHECKING

from tuner.cli.arguments import AsJson

if TYPE_CHECKING:
    from tuner.measure.nvml import Gpu


def doctor(as_json: AsJson = False) -> None:
    """Show what this machine offers: GPUs, meters, engines, weights, versions, the sandbox."""
    from tuner.cli.output import print_json
    from tuner.cli.output import print_table

    rows = [*_machine(), *_gpus(), *_processors(), *_engines(), *_weights(), *_sandbox()]
    if as_json:
        print_json([{"what": what, "usable": ok, "detail": detail} for what, ok, detail in rows])
        return
    print_table(
        "This machine", ["", "", ""], [[what, "yes" if ok else "no", why] for what, ok, why in rows]
    )


Finding = tuple[str, bool, str]
"""What was looked at, whether it can be used, and the detail."""


def _machine() -> list[Finding]:
    import os
    import platform
    from importlib.metadata import version

    import psutil

    memory_gib = psutil.virtual_memory().total / 2**30
    names = ("tuner", "optuna", "litellm", "optuna-dashboard")
    return [
        ("python", True, platform.python_version()),
        (
            "machine",
            True,
            f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, {memory_gib:.0f} GiB",
        ),
        *((name, True, version(name)) for name in names),
        (
            "meter cpu_estimate",
            True,
            "CPU-seconds of a server that the study starts, times watts per core",
        ),
    ]


def _gpus() -> list[Finding]:
    from tuner.errors import UserError
    from tuner.measure.nvml import list_gpus

    try:
        gpus = list_gpus()
    except UserError as error:
        return [("meter nvml", False, str(error))]
    if not gpus:
        return [("meter nvml", False, "the NVIDIA driver sees no GPU")]
    return [
        (
            f"meter nvml: {gpu.uuid}",
            gpu.problem is None or gpu.power is not None,
            "; ".join([gpu.name, *_abilities(gpu)]),
        )
        for gpu in gpus
    ]


def _abilities(gpu: "Gpu") -> list[str]:
    """What a GPU tells of its energy, and who computes there meanwhile."""
    ticks = f"{1000 * gpu.tick_s:.0f}" if gpu.tick_s is not None else "?"
    counter = f"counts every {ticks} ms" if gpu.problem is None else f"no counter ({gpu.problem})"
    power = f"power: {gpu.power}" if gpu.power is not None else "no power"
    if gpu.processes is None:
        return [counter, power, "processes cannot be seen"]
    return [counter, power, f"computing: {', '.join(gpu.processes) or 'nobody'}"]


def _processors() -> list[Finding]:
    from tuner.measure.rapl import FOLDER
    from tuner.measure.rapl import list_zones

    zones = list_zones()
    if not zones:
        return [("meter rapl", False, f"no energy counters of processors in {FOLDER}")]
    return [
        (f"meter rapl: {name}", problem is None, problem or "can be read")
        for name, problem in zones.items()
    ]


def _engines() -> list[Finding]:
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version
    from importlib.util import find_spec

    from tuner.serving.program import find_program

    try:
        llama_cpp = ("engine llama.cpp", True, f"xllamacpp {version('xllamacpp')}")
    except PackageNotFoundError:
        llama_cpp = ("engine llama.cpp", False, "pip install 'tuner[local]'")
    elsewhere = "not here; a study may say where it is: command: [/path/to/…, …]"
    vllm, sglang = find_program("vllm"), find_spec("sglang")
    return [
        llama_cpp,
        ("engine vllm", vllm is not None, vllm or elsewhere),
        ("engine sglang", sglang is not None, elsewhere if sglang is None else str(sglang.origin)),
    ]


def _weights() -> list[Finding]:
    from tuner.serving.weights import PINNED
    from tuner.serving.weights import cached_path

    return [
        (
            f"weights {name}",
            cached_path(name).is_file(),
            str(cached_path(name))
            if cached_path(name).is_file()
            else "fetched when a study asks for it",
        )
        for name in PINNED
    ]


def _sandbox() -> list[Finding]:
    """What programs written by a model are kept from: one line for what holds, and one with the reason for each that does not."""
    from dataclasses import asdict

    from workflows.tools.sandbox import SandboxError
    from workflows.tools.sandbox import isolation

    try:
        reasons = asdict(isolation())
    except SandboxError as error:
        return [("sandbox", False, str(error))]
    held = [name for name, reason in reasons.items() if reason is None]
    lines = [("sandbox", True, f"holds for {', '.join(held)}")] if held else []
    return lines + [
        (f"sandbox: {name}", False, reason)
        for name, reason in reasons.items()
        if reason is not None
    ]
