"""What it takes to run an evaluation somewhere: what is handed over, what may be lost, and the protocol of those who run it.

Apart from `crew`, which decides who runs what, and from the places themselves, `local` and `ray`.
"""

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tuner.errors import ServingError
from tuner.errors import TunerError
from tuner.evaluate import Enough
from tuner.evaluate import Past
from tuner.evaluate import Record
from tuner.load import Load
from tuner.records import PassRecord
from tuner.tasks import Example
from workflows.config import AgentConfig
from workflows.errors import WorkflowsError


@dataclass(frozen=True, slots=True)
class Sitting:
    """An evaluation, as a worker is given it."""

    config: AgentConfig
    examples: Sequence[Example]
    load: Load
    window: int
    repeat: int
    past: Past
    places: Mapping[str, int]
    """Which of its addresses each model is to be asked at."""


class GoneError(ServingError):
    """A model's server does not answer any more: what was asked of it meanwhile is no failure of the config's."""

    def __init__(self, model: str, error: TunerError | WorkflowsError) -> None:
        hint = error.hint or "is the server healthy? The same command goes on from here"
        super().__init__(str(error), hint)
        self.model = model


class WorkerLostError(TunerError):
    """A worker has ended in the middle of an evaluation."""


class Workers(Protocol):
    """Where sittings run. Conformance: tests/tuner/executors/test_workers.py."""

    is_here: bool
    """Whether it is this process, which runs as many as it is given."""

    async def open(self, first: Collection[str]) -> None:
        """Have a server of every model found or started, of one with serving knobs the variant among `first`, if any.

        Raises UserError for what cannot be used.
        """
        ...

    def names(self) -> Sequence[str]:
        """Those that are there, each of which runs one sitting at a time; none where `is_here`."""
        ...

    def is_ready(self, name: str, models: Collection[str]) -> bool:
        """Whether this one (`""`: this process) has what serves these models, so that nothing has to be started."""
        ...

    async def run(self, name: str, sitting: Sitting, record: Record, enough: Enough) -> PassRecord:
        """Run a sitting there. Raises GoneError for a server and WorkerLostError for a worker that went, and as LocalExecutor does."""
        ...

    async def probe(self, model: str, place: int) -> None:
        """Return if the model answers there. Raises ServingError."""
        ...

    async def close(self) -> None:
        """Let go of everything; on the loop that used it."""
        ...
