"""What the rest of the tuner sees of a model: where it answers, and what can be asked of its server."""

from abc import ABC
from abc import abstractmethod
from types import TracebackType
from typing import Any
from typing import Self

from tuner.serving.isolation import Isolation
from workflows.config import ModelSettings


class Endpoint(ABC):
    """A model that can be called until `close`."""

    settings: ModelSettings
    """How a ChatClient reaches it."""
    pid: int | None = None
    """The server's process, where it is ours; what a CPU meter reads."""
    serve: dict[str, Any] | None = None
    """How we started the server, as an export records it; None where we did not."""

    engine: str | None = None
    """What serves it: vllm, llama.cpp, …; None where the server has not said."""

    @property
    def root(self) -> str | None:
        """The server's address without /v1: what its metrics and caches are asked under; None for a hosted provider."""
        base = self.settings.api_base
        return None if base is None else base.rstrip("/").removesuffix("/v1")

    @abstractmethod
    def wait(self) -> None:
        """Until it can be called; its settings and `serve` are complete then. Raises ServingError."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Plain JSON that must be equal for two results to be comparable."""

    @abstractmethod
    def check(self) -> None:
        """Return if the server answers; raises ServingError."""

    @abstractmethod
    def isolate(self, tag: str) -> Isolation:
        """Put the prompts so far out of reach of the calls to come, by emptying the prefix cache or by a salt.

        The tag is the trial's own (`isolation.fresh_tags`). Raises ServingError where a server of ours fails.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop what was started; twice does no harm."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
