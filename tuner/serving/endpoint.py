"""What the rest of the tuner sees of a model: where it answers, and what can be asked of its server."""

from abc import ABC
from abc import abstractmethod
from types import TracebackType
from typing import Any
from typing import Self

from workflows.config import ModelSettings


class Endpoint(ABC):
    """A model that can be called until `close`."""

    settings: ModelSettings
    """How a ChatClient reaches it."""
    pid: int | None = None
    """The server's process, where it is ours; what a CPU meter reads."""
    serve: dict[str, Any] | None = None
    """How we started the server, as an export records it; None where we did not."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Plain JSON that must be equal for two results to be comparable."""

    @abstractmethod
    def check(self) -> None:
        """Return if the server answers; raises ServingError."""

    @abstractmethod
    def clear_cache(self) -> bool:
        """Put the prompts so far out of the prefix cache's reach; False where that cannot be done."""

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
