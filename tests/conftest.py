"""The real model, started once for all tests that want it, and a server that answers a fixed text."""

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tuner import serving
from tuner.errors import ServingError


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Let Ctrl-C through: a shell starts what runs in its background with SIGINT ignored, and children inherit it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def smollm2() -> Iterator[serving.Endpoint]:
    """SmolLM2-135M-Instruct on a llama.cpp server with one slot; its weights stay in the cache folder."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp is not installed: pip install 'tuner[local]'")
    spec = serving.LlamaCpp(weights="smollm2-135m-instruct")
    try:
        serving.find_weights(spec.weights)
    except ServingError as error:
        pytest.skip(f"the weights cannot be had: {error}")
    with serving.start("smollm2", spec) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def chromium() -> dict[str, Any]:
    """How playwright is to launch the system's Chromium; nothing is fetched where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"none of {', '.join(names)} is installed")
    flags = "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update disable-sync"
    return {"executable_path": found, "args": [f"--{flag}" for flag in flags.split()]}


@pytest.fixture
def loopback() -> Iterator[str]:
    """The address of a server that answers every prompt alike."""
    script = Path(__file__).resolve().parents[1] / "benchmarks" / "loopback.py"
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["api_base"]
        process.terminate()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A real PostgreSQL on loopback (benchmarks/postgres.py), which tests may kill if they start it again."""
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed: pip install 'tuner[postgres]'")
    path = Path(__file__).resolve().parents[1] / "benchmarks" / "postgres.py"
    loading = importlib.util.spec_from_file_location("loopback_postgres", path)
    assert loading is not None
    assert loading.loader is not None
    module = importlib.util.module_from_spec(loading)
    loading.loader.exec_module(module)
    if module.binaries() is None:
        pytest.skip("PostgreSQL's programs are not installed (apt-get install postgresql)")
    with module.postgres() as server:
        yield server
