"""llama.cpp servers that we start and stop: the parent's side, llama_server.py is the child's."""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import IO
from typing import TYPE_CHECKING
from typing import Any
from typing import cast

from tuner.errors import ServingError
from tuner.serving.endpoint import Endpoint
from tuner.serving.models import Served
from tuner.serving.weights import is_published
from tuner.serving.weights import sha256_of
from workflows.config import ModelSettings

if TYPE_CHECKING:
    import httpx

HOST = "127.0.0.1"
START_TIMEOUT_S = 300.0
"""Large weights from a slow disk take minutes."""
HEALTH_TIMEOUT_S = 10.0
ERASE_TIMEOUT_S = 60.0
"""A slot is erased once it is idle, and a call that was given up may still be in it."""
LOG_TAIL_LINES = 15


class LlamaCppServer(Endpoint):
    """A llama.cpp server in a child process, which ends with this process, whatever ends it."""

    serve: dict[str, Any]

    def __init__(
        self, name: str, spec: Served, weights: Path, *, start_timeout_s: float = START_TIMEOUT_S
    ) -> None:
        """Start it and wait until it listens. Raises ServingError, with the end of its log."""
        _require_engine(name)
        if spec.port:
            _require_free(name, spec.port)
        self._name = name
        self.serve = {
            "engine": "llama.cpp",
            "engine_version": f"xllamacpp {version('xllamacpp')}",
            "weights": spec.weights if is_published(spec.weights) else str(weights),
            "sha256": sha256_of(weights),
            "threads": spec.threads,
            "slots": spec.slots,
            "context": spec.context,
            "prefix_cache": spec.prefix_cache,
        }
        self._folder = Path(tempfile.mkdtemp(prefix="tuner-llama-cpp-"))
        options = {
            **self.serve,
            "name": name,
            "weights": str(weights),
            "host": HOST,
            "port": spec.port,
            "folder": str(self._folder),
        }
        self._process = _spawn(options, self._folder / "log")
        self.pid = self._process.pid
        try:
            self._address = self._wait(start_timeout_s)
        except BaseException:
            self.close()
            raise
        self.settings = ModelSettings(
            model=f"hosted_vllm/{name}",
            api_base=f"{self._address}/v1",
            endpoint="completion",
            grammar="llama.cpp",
            json_schema=True,
            reuse_connections=False,
            timeout_s=spec.timeout_s,
            max_retries=spec.max_retries,
        )

    def fingerprint(self) -> dict[str, Any]:
        """Engine, weights by their content, and what changes answers or speed; no port, no path."""
        return {key: value for key, value in self.serve.items() if key != "weights"}

    def check(self) -> None:
        """Return if the process lives and says that it is healthy; raises ServingError."""
        self._require_alive(within_s=0)
        self._ask("GET", "/health", timeout_s=HEALTH_TIMEOUT_S)

    def clear_cache(self) -> bool:
        """Erase every slot, once it is idle; True. Raises ServingError.

        With one slot, the same calls in the same order then get the same greedy replies. In another order
        they may not: what is read after a cached prefix rounds differently from what is read at once.
        """
        for slot in range(self.serve["slots"]):
            self._ask("POST", f"/slots/{slot}?action=erase", timeout_s=ERASE_TIMEOUT_S)
        return True

    def close(self) -> None:
        """Stop the server and delete its log; twice does no harm."""
        with self._process:
            self._process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait(self, timeout_s: float) -> str:
        """The address, once the server listens there."""
        timer = threading.Timer(timeout_s, self._process.kill)
        timer.start()
        try:
            line = cast(IO[bytes], self._process.stdout).readline()
        finally:
            expired = not timer.is_alive()
            timer.cancel()
        if line:
            return str(json.loads(line)["address"])
        code = self._process.wait()
        if expired:
            raise self._failure(f"did not come up within {timeout_s:g} s")
        raise self._failure(f"stopped while starting ({_describe_exit(code)})")

    def _require_alive(self, *, within_s: float) -> None:
        try:
            code = self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return
        raise self._failure(f"has stopped ({_describe_exit(code)})")

    def _ask(self, method: str, path: str, *, timeout_s: float) -> "httpx.Response":
        import httpx

        try:
            # The server is on this machine: no proxy of the environment's is asked.
            with httpx.Client(trust_env=False, timeout=timeout_s) as client:
                reply = client.request(method, self._address + path)
        except httpx.TransportError as error:
            self._require_alive(within_s=0.5)  # its sockets close before the process has ended
            raise self._failure(f"does not answer {path}: {type(error).__name__}") from None
        if not reply.is_success:
            raise self._failure(f"answers {path} with {reply.status_code}: {reply.text.strip()}")
        return reply

    def _failure(self, what: str) -> ServingError:
        return ServingError(f"models.{self._name}: the llama.cpp server {what}{self._log_tail()}")

    def _log_tail(self) -> str:
        try:
            lines = (self._folder / "log").read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(["; the end of its log:", *lines[-LOG_TAIL_LINES:]]) if lines else ""


def _spawn(options: dict[str, Any], log: Path) -> subprocess.Popen[bytes]:
    # -P: the script's folder holds modules of ours, which must not stand before installed ones.
    # A session of its own: signals of the terminal go to us alone. The open stdin tells the child
    # that we live.
    script = Path(__file__).with_name("llama_server.py")
    with log.open("wb") as stderr:
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", str(script), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )


def _require_engine(name: str) -> None:
    if find_spec("xllamacpp") is None:
        raise ServingError(
            f"models.{name}: `serve: llama.cpp` needs the package xllamacpp",
            hint="pip install 'tuner[local]'",
        )


def _require_free(name: str, port: int) -> None:
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        raise ServingError(
            f"models.{name}: port {port} of {HOST} cannot be used: {error.strerror}",
            hint="choose another, or leave `port` out: then any free one is taken",
        ) from None


def _describe_exit(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
