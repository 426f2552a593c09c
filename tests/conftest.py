"""The real model, started once for all tests that want it, and a server that answers a fixed text."""

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from tuner import serving
from tuner.errors import ServingError

CLUSTER = Path(__file__).resolve().parents[1] / "benchmarks" / "cluster.py"


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


class Cluster:
    """A Ray cluster on loopback: a head, and machines that are added and removed."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(CLUSTER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.address = self._answer()["address"]

    def add(self, **resources: Any) -> int:
        """A machine's number, once it is part of the cluster."""
        self._say({"add": resources})
        return int(self._answer()["machine"])

    def remove(self, machine: int) -> None:
        """Switch it off."""
        self._say({"remove": machine})
        self._answer()

    def workers(self) -> list[psutil.Process]:
        """The processes that evaluate, on all machines."""
        found = []
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::Worker"):
                    found.append(process)
        return found

    def close(self) -> None:
        """End all of it."""
        self._process.communicate(timeout=60)

    def _say(self, command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One for all tests of a file, each of which leaves it with the one machine that it has."""
    made = Cluster()
    made.add(num_cpus=2, num_gpus=2)
    yield made
    made.close()


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


@pytest.fixture
def listen() -> Iterator[Callable[[type[BaseHTTPRequestHandler]], str]]:
    """Has a handler answer on loopback, without a log, until the test is over; gives the server's root."""
    running: list[ThreadingHTTPServer] = []

    def begin(handler: type[BaseHTTPRequestHandler]) -> str:
        quiet = type("Quiet", (handler,), {"log_message": lambda *args: None})
        running.append(ThreadingHTTPServer(("127.0.0.1", 0), quiet))
        threading.Thread(target=running[-1].serve_forever, args=[0.01]).start()
        return f"http://127.0.0.1:{running[-1].server_port}"

    yield begin
    for each in running:
        each.shutdown()
        each.server_close()
