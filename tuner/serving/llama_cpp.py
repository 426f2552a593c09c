"""llama.cpp: models of one .gguf file, served on this machine's CPU; llama_server.py is the child's side."""

import json
import threading
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import IO
from typing import Annotated
from typing import Any
from typing import ClassVar
from typing import Literal
from typing import cast

from pydantic import Field

from tuner.errors import ServingError
from tuner.serving.isolation import Isolation
from tuner.serving.isolation import cleared
from tuner.serving.models import Say
from tuner.serving.models import Served
from tuner.serving.models import ServingKnob
from tuner.serving.process import HOST
from tuner.serving.process import ServerProcess
from tuner.serving.process import choose_port
from tuner.serving.weights import find_weights
from tuner.serving.weights import is_published
from tuner.serving.weights import sha256_of
from workflows.config import ModelSettings

ERASE_TIMEOUT_S = 60.0
"""A slot is erased once it is idle, and a call that was given up may still be in it."""

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]


class LlamaCpp(Served):
    """A .gguf file on a llama.cpp server: `{serve: llama.cpp, weights: smollm2-135m-instruct}`."""

    on_cpu: ClassVar[bool] = True

    serve: Literal["llama.cpp"] = "llama.cpp"
    weights: str = Field(
        min_length=1,
        description="smollm2-135m-instruct, a .gguf file, or hf:owner/repository/file.gguf",
    )
    # Threads of llama.cpp wait for each other in busy loops. On two idle cores two threads read prompts
    # twice and generate 1.3 times as fast as one; with one of the cores taken, they take up to 2.4 times
    # as long to read and 4 times to generate, and the waiting counts as CPU time, hence as energy. One
    # thread is not affected: what is measured does not depend on the neighbours.
    threads: ServingKnob[Annotated[int, Field(ge=1)]] = Field(
        default=1, description="more pay only on cores that nothing else uses meanwhile"
    )
    slots: ServingKnob[Annotated[int, Field(ge=1)]] = Field(
        default=1, description="calls answered at once; only one slot repeats exactly"
    )
    context: ServingKnob[Annotated[int, Field(ge=1)]] = Field(
        default=4096, description="tokens per slot"
    )
    prefix_cache: ServingKnob[bool] = Field(
        default=True, description="whether a prompt's known beginning is taken from the cache"
    )
    kv_cache_type: ServingKnob[CacheType] = Field(
        default="f16", description="how keys and values are kept"
    )

    def identity(self, *, base: Path, say: Say) -> dict[str, Any]:
        """The weights by name or path, and their SHA-256."""
        return self._identity(find_weights(self.weights, base=base, say=say))

    def _identity(self, path: Path) -> dict[str, Any]:
        known = self.weights if is_published(self.weights) else str(path)
        return {"weights": known, "sha256": sha256_of(path)}

    def launch(self, name: str, *, base: Path, say: Say) -> "LlamaCppServer":
        """A llama.cpp server that is loading the weights."""
        if find_spec("xllamacpp") is None:
            raise ServingError(
                f"models.{name}: `serve: llama.cpp` needs the package xllamacpp",
                hint="pip install 'tuner[local]'",
            )
        path = find_weights(self.weights, base=base, say=say)
        say(f"starting llama.cpp with {path.name}")
        return LlamaCppServer(name, self, path, self._identity(path))


class LlamaCppServer(ServerProcess):
    """A llama.cpp server in a child process."""

    def __init__(self, name: str, spec: LlamaCpp, weights: Path, identity: dict[str, Any]) -> None:
        self.serve = spec.record(identity, f"xllamacpp {version('xllamacpp')}")
        if spec.port:
            choose_port(name, spec.port)
        self._start_timeout_s = spec.start_timeout_s
        super().__init__(
            name,
            "llama.cpp",
            "llama_server.py",
            {
                **self.serve,
                "name": name,
                "weights": str(weights),
                "host": HOST,
                "port": spec.port,
            },
        )
        self.settings = ModelSettings(
            model=f"hosted_vllm/{name}",
            endpoint="completion",
            grammar="llama.cpp",
            json_schema=True,
            reuse_connections=False,
            timeout_s=spec.timeout_s,
            max_retries=spec.max_retries,
        )

    def wait(self) -> None:
        """Until the server listens, at the address that its settings then have."""
        timer = threading.Timer(self._start_timeout_s, self._process.kill)
        timer.start()
        try:
            line = cast(IO[bytes], self._process.stdout).readline()
        finally:
            expired = not timer.is_alive()
            timer.cancel()
        if not line and expired:
            self._process.wait()
            raise self._failure(f"did not come up within {self._start_timeout_s:g} s")
        if not line:
            self._require_alive(within_s=10, doing="stopped while starting")
        self._address = str(json.loads(line)["address"])
        self.settings = self.settings.model_copy(update={"api_base": f"{self._address}/v1"})

    def fingerprint(self) -> dict[str, Any]:
        """Engine, weights by their content, and what changes answers or speed; no port, no path."""
        return {key: value for key, value in self.serve.items() if key != "weights"}

    def isolate(self, tag: str) -> Isolation:
        """Erase every slot, once it is idle. Raises ServingError.

        With one slot, the same calls in the same order then get the same greedy replies. In another order
        they may not: what is read after a cached prefix rounds differently from what is read at once.
        """
        for slot in range(self.serve["slots"]):
            self._ask("POST", f"/slots/{slot}?action=erase", timeout_s=ERASE_TIMEOUT_S)
        return cleared("every slot was erased")
