"""Engines that are programs of their own, with a command line and HTTP: what vLLM and SGLang have in common.

Apart from their files, which know the names of their flags. The program usually lives in another environment, so
nothing of it is imported; watcher.py is between it and us.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Annotated
from typing import Any
from typing import ClassVar
from typing import Literal

from pydantic import Field
from pydantic import field_validator

from tuner.errors import ServingError
from tuner.measure.server.scraper import authorities
from tuner.serving.isolation import Isolation
from tuner.serving.isolation import isolate
from tuner.serving.models import Say
from tuner.serving.models import Served
from tuner.serving.models import ServingKnob
from tuner.serving.process import HOST
from tuner.serving.process import ServerProcess
from tuner.serving.process import choose_port
from workflows.config import ModelSettings

if TYPE_CHECKING:
    import httpx

POLL_S = 0.25
POLL_TIMEOUT_S = 5.0
TELL_S = 15.0
"""How often one hears that a server is still starting."""
CLOSE_S = 30.0
"""More than watcher.py takes for asking and killing."""

_SECRET = re.compile(r"(token|secret|password|key)$", re.IGNORECASE)


class Program(Served):
    """A model of the Hugging Face hub, or a folder like one, on an engine with a command line of its own."""

    model: str = Field(min_length=1, description="a name on the hub, or a folder")
    command: tuple[str, ...] = Field(
        strict=False, min_length=1, description="the program, and what stands before its arguments"
    )
    arguments: tuple[str, ...] = Field(
        default=(), strict=False, description="for the program, after those that are made here"
    )
    environment: dict[str, str] = Field(
        default_factory=dict, description="variables for the program, beside the tuner's own"
    )
    gpus: tuple[int | str, ...] = Field(
        default=(),
        strict=False,
        description="numbers as in nvidia-smi, or UUIDs; left out, those that the tuner sees",
    )
    endpoint: Literal["chat", "completion"] = "chat"
    seed: int = Field(default=0, ge=0)
    tensor_parallel: ServingKnob[Annotated[int, Field(ge=1)]] = Field(
        default=1, description="GPUs that share each layer"
    )
    context: ServingKnob[Annotated[int, Field(ge=0)]] = Field(
        default=0, description="tokens of a prompt and its reply; 0: as many as the model allows"
    )
    prefix_cache: ServingKnob[bool] = Field(
        default=True, description="whether a prompt's known beginning is taken from the cache"
    )
    kv_cache_dtype: ServingKnob[str] = Field(
        default="auto", description="how keys and values are kept; auto: like the model"
    )
    quantization: ServingKnob[str] = Field(
        default="auto", description="auto: as the model's files say"
    )

    flags: ClassVar[Mapping[str, str]]
    """Flags that are made here, to the keys that set them; `arguments` may hold no others' doubles."""
    variables: ClassVar[Mapping[str, str]] = {}
    """What the engine needs in its environment to be measured."""
    version_paths: ClassVar[tuple[str, ...]]
    """Where the server says its version, as `{"version": …}`; the first that answers counts."""

    @field_validator("arguments")
    @classmethod
    def _leave_our_flags(cls, arguments: tuple[str, ...]) -> tuple[str, ...]:
        for argument in arguments:
            flag = argument.partition("=")[0]
            if flag in cls.flags:
                raise ValueError(f"{flag} is not for `arguments`: {cls.flags[flag]}")
            if flag.startswith("-"):
                _refuse_secret(flag)
        return arguments

    @field_validator("environment")
    @classmethod
    def _hold_no_secrets(cls, environment: dict[str, str]) -> dict[str, str]:
        for name in environment:
            _refuse_secret(name)
        return environment

    @abstractmethod
    def command_line(self, name: str, model: str, port: int) -> list[str]:
        """The whole command, less where the program lies; `name` is what requests call the model."""

    def understood_grammar(self) -> Literal["none", "vllm"]:
        """Whose way of asking for a GBNF grammar the server understands."""
        return "none"

    def identity(self, *, base: Path, say: Say) -> dict[str, Any]:
        """The model's name on the hub, or its folder with a digest of its files' names, sizes and JSON.

        Not of the weights' bytes: reading 140 GB takes minutes.
        """
        folder = self._folder(base)
        if folder is None:
            return {"model": self.model, "digest": None}
        return {"model": str(folder), "digest": _digest(folder)}

    def launch(self, name: str, *, base: Path, say: Say) -> "ProgramServer":
        """A server that is loading the model."""
        identity = self.identity(base=base, say=say)
        program = self._program(name, base)
        port = choose_port(name, self.port)
        say(f"starting {self.serve} with {self.model}")
        line = self.command_line(name, identity["model"], port)
        return ProgramServer(name, self, identity, [program, *line[1:]], port, say)

    def process_environment(self) -> dict[str, str]:
        """Variables that the program gets beside the tuner's own."""
        visible = {}
        if self.gpus:
            # Without the order, CUDA numbers the fastest first, and nvidia-smi does not.
            numbers = ",".join(map(str, self.gpus))
            visible = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": numbers}
        return {**self.variables, **visible, **self.environment}

    def _folder(self, base: Path) -> Path | None:
        """Where the model lies, None for one of the hub. Raises ServingError for a path that leads nowhere."""
        path = (base / Path(self.model).expanduser()).resolve()
        if path.is_dir():
            return path
        if self.model.startswith((".", "/", "~")):
            raise ServingError(
                f"model: no folder {path}",
                hint="a relative path starts from the study file's folder",
            )
        return None

    def _program(self, name: str, base: Path) -> str:
        given = self.command[0]
        if "/" in given:
            path = base / Path(given).expanduser()
            found = str(path.absolute()) if os.access(path, os.X_OK) else None
        else:
            found = find_program(given)
        if found is None:
            raise ServingError(
                f"models.{name}: `serve: {self.serve}` needs the program {given!r}, which is not there",
                hint=f"install it, or say where it is: command: [/path/to/{Path(given).name}, …]",
            )
        return found


class ProgramServer(ServerProcess):
    """An engine's server, as the child of watcher.py."""

    def __init__(
        self,
        name: str,
        spec: Program,
        identity: dict[str, Any],
        command: list[str],
        port: int,
        say: Say,
    ) -> None:
        self.serve = spec.record(identity, None)
        self.serve["command"] = [command[0], *spec.command[1:]]
        self._spec = spec
        self._say = say
        self._address = f"http://{HOST}:{port}"
        options = {"command": command, "environment": spec.process_environment()}
        super().__init__(name, spec.serve, "watcher.py", options)
        self.settings = ModelSettings(
            model=f"hosted_vllm/{name}",
            api_base=f"{self._address}/v1",
            endpoint=spec.endpoint,
            grammar=spec.understood_grammar(),
            json_schema=True,
            timeout_s=spec.timeout_s,
            max_retries=spec.max_retries,
        )

    def wait(self) -> None:
        """Until the server says that it is healthy and serves this model."""
        import httpx

        began_s = time.monotonic()
        with httpx.Client(trust_env=False, verify=authorities(), timeout=POLL_TIMEOUT_S) as client:
            self._wait_for_health(client, began_s)
        self._require_ours()
        self.serve["engine_version"] = self._version()
        self._say(f"{self._name}: {self.engine} is up after {time.monotonic() - began_s:.0f} s")

    def fingerprint(self) -> dict[str, Any]:
        """Engine, model by its content, and what changes answers or speed; no port, no path."""
        left_out = {"command", "model"} if self.serve["digest"] else {"command"}
        return {key: value for key, value in self.serve.items() if key not in left_out}

    def isolate(self, tag: str) -> Isolation:
        """Empty the prefix cache, or else tell the trial's prompts apart by its tag. Raises ServingError."""
        self._require_alive(within_s=0)
        return isolate(str(self.root), self.engine, tag)

    def close(self) -> None:
        """Have the program end, by force after a while, and delete its log; twice does no harm."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            super().close()

    def _wait_for_health(self, client: "httpx.Client", began_s: float) -> None:
        import httpx

        told_s, limit_s = began_s, self._spec.start_timeout_s
        while True:
            try:
                if client.get(f"{self._address}/health").is_success:
                    return
            except httpx.TransportError:
                pass
            self._require_alive(within_s=POLL_S, doing="stopped while starting")
            now_s = time.monotonic()
            if now_s - began_s > limit_s:
                raise self._failure(f"did not come up within {limit_s:g} s")
            if now_s - told_s > TELL_S:
                told_s = now_s
                last = (self._log_tail() or [""])[-1][:100]
                self._say(
                    f"{self._name}: {self.engine} has been starting for {now_s - began_s:.0f} s of at "
                    f"most {limit_s:.0f} s: {last}"
                )

    def _require_ours(self) -> None:
        """What answers must be what we started: another program may have taken the port meanwhile."""
        reply = self._ask("GET", "/v1/models", timeout_s=POLL_TIMEOUT_S)
        try:
            served = [str(model["id"]) for model in reply.json()["data"]]
        except (ValueError, KeyError, TypeError):
            served = []
        if self._name not in served:
            raise self._failure(
                f"is not what answers at {self._address}, which serves: {', '.join(served) or 'nothing'}"
            )

    def _version(self) -> str | None:
        for path in self._spec.version_paths:
            try:
                return str(self._ask("GET", path, timeout_s=POLL_TIMEOUT_S).json()["version"])
            except (ServingError, ValueError, KeyError, TypeError):
                continue
        return None


def _refuse_secret(name: str) -> None:
    if _SECRET.search(name):
        raise ValueError(
            f"{name} looks like a secret, which belongs in no file: set it in the environment that tuner is "
            "started in, and the program has it too"
        )


def find_program(name: str) -> str | None:
    """Where a program lies: beside the tuner, whose environment need not be activated, or on the PATH."""
    beside = Path(sys.executable).parent
    return shutil.which(name, path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")


def _digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts):
            continue  # what tools leave behind
        content = path.read_bytes() if path.suffix == ".json" else b""
        entry = [str(name), path.stat().st_size, hashlib.sha256(content).hexdigest()]
        found.update(json.dumps(entry).encode())
    return found.hexdigest()


def flag(name: str, value: Any, *, unless: Any) -> list[str]:
    """A flag with its value, nothing where the value says that the engine is to decide."""
    return [] if value == unless else [name, str(value)]
