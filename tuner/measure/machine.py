"""What this machine computes with, in one line: seconds and joules hold for it alone."""

import os
import platform
from collections import Counter
from pathlib import Path

from tuner.errors import UserError
from tuner.measure.nvml import gpu_names

CPUINFO = Path("/proc/cpuinfo")


def machine() -> str:
    """System, processors and GPUs by name: "Linux x86_64, 16 × AMD EPYC 9354, 1 × NVIDIA H100 80GB HBM3"."""
    parts = [f"{platform.system()} {platform.machine()}", f"{os.cpu_count()} × {_processor()}"]
    parts += [f"{count} × {name}" for name, count in Counter(_gpus()).items()]
    return ", ".join(parts)


def _processor() -> str:
    """The processor's name; where Linux has none, which is so on ARM, that of its architecture."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or f"CPU ({platform.machine()})"


def _gpus() -> list[str]:
    try:
        return gpu_names()
    except UserError:  # no driver, hence none that could be used
        return []
