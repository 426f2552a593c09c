"""Servers that we start and stop, whatever their engine: the child process, its log, and what is asked of it over HTTP.

Apart from the engines, which say how a server is started and when it is up.
"""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import cast

from tuner.errors import ServingError
from tuner.measure.server.scraper import authorities
from tuner.serving.endpoint import Endpoint

if TYPE_CHECKING:
    import httpx

HOST = "127.0.0.1"
HEALTH_TIMEOUT_S = 10.0
LOG_TAIL_LINES = 15


class ServerProcess(Endpoint):
    """A server in a child process, which ends with this process, whatever ends it.

    The child is a script beside this file, which takes its options as one JSON argument, lives as long as its
    stdin is open, and deletes the folder of its log when it ends.
    """

    pid: int
    serve: dict[str, Any]
    engine: str
    _address: str

    def __init__(self, name: str, engine: str, script: str, options: Mapping[str, Any]) -> None:
        self._name = name
        self.engine = engine
        self._folder = Path(tempfile.mkdtemp(prefix=f"tuner-{engine}-"))
        # -P: the script's folder holds modules of ours, which must not stand before installed ones.
        # A session of its own: signals of the terminal go to us alone.
        with (self._folder / "log").open("wb") as stderr:
            self._process = subprocess.Popen(  # noqa: S603
                [
                    sys.executable,
                    "-P",
                    str(Path(__file__).with_name(script)),
                    json.dumps({**options, "folder": str(self._folder)}),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def check(self) -> None:
        """Return if the process lives and says that it is healthy; raises ServingError."""
        self._require_alive(within_s=0)
        self._ask("GET", "/health", timeout_s=HEALTH_TIMEOUT_S)

    def close(self) -> None:
        """Stop the server and delete its log; twice does no harm."""
        with self._process:
            self._process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _require_alive(self, *, within_s: float, doing: str = "has stopped") -> None:
        try:
            code = self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return
        raise self._failure(f"{doing} ({_describe_exit(code)})")

    def _ask(self, method: str, path: str, *, timeout_s: float) -> "httpx.Response":
        import httpx

        try:
            # The server is on this machine: no proxy of the environment's is asked.
            with httpx.Client(trust_env=False, verify=authorities(), timeout=timeout_s) as client:
                reply = client.request(method, self._address + path)
        except httpx.TransportError as error:
            self._require_alive(within_s=0.5)  # its sockets close before the process has ended
            raise self._failure(f"does not answer {path}: {type(error).__name__}") from None
        if not reply.is_success:
            raise self._failure(f"answers {path} with {reply.status_code}: {reply.text.strip()}")
        return reply

    def _failure(self, what: str) -> ServingError:
        lines = self._log_tail()
        tail = "\n".join(["; the end of its log:", *lines]) if lines else ""
        return ServingError(
            f"models.{self._name}: the {self.engine} server {what}{tail}",
            hint="mend what the log says: out of memory asks for a smaller model, context or cache; tuner doctor shows what is here",
        )

    def _log_tail(self) -> list[str]:
        try:
            text = (self._folder / "log").read_text(errors="replace")
        except OSError:
            return []
        return text.splitlines()[-LOG_TAIL_LINES:]


def choose_port(name: str, port: int) -> int:
    """The port itself, or any free one for 0. Raises ServingError when it cannot be used."""
    try:
        with socket.create_server((HOST, port)) as free:
            return cast(int, free.getsockname()[1])
    except OSError as error:
        raise ServingError(
            f"models.{name}: port {port} of {HOST} cannot be used: {error.strerror}",
            hint="choose another, or leave `port` out: then any free one is taken",
        ) from None


def _describe_exit(code: int) -> str:
    # A shell, and the watcher of a program, give 128 + N for a program that signal N ended.
    number = -code if code < 0 else code - 128
    return f"signal {number}" if number > 0 else f"exit code {code}"
