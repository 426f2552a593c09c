"""Where an evaluation runs; one file a place, behind one method."""

from collections.abc import Sequence
from typing import Protocol

from tuner.evaluate import NO_PAST
from tuner.evaluate import Enough
from tuner.evaluate import Past
from tuner.evaluate import Record
from tuner.evaluate import never_enough
from tuner.records import ExampleRun
from tuner.records import PassRecord
from tuner.tasks import Example
from workflows.config import AgentConfig


class Executor(Protocol):
    """Runs configs on examples."""

    async def run(
        self,
        config: AgentConfig,
        examples: Sequence[Example],
        record: Record,
        *,
        window: int,
        repeat: int = 0,
        past: Past = NO_PAST,
        enough: Enough = never_enough,
    ) -> PassRecord:
        """Evaluate the config on each example and give `record` each run as it ends; then what held for all of them.

        `window` numbers this sitting among those over the same examples, `repeat` the answers to each of them. An example in `past` goes on from that
        run, which another budget made, as if it had been asked anew. `enough` is asked before each further example:
        once it says so, none is begun.

        Raises ServingError when the model's server is gone, and what `record` and `enough` raise.
        """
        ...

    def is_ready(self, config: AgentConfig) -> bool:
        """Whether the config can be run as things are, without a server being started for it."""
        ...

    async def derive(
        self,
        config: AgentConfig,
        runs: Sequence[ExampleRun],
        extras: Sequence[ExampleRun],
        budget: int,
    ) -> tuple[ExampleRun | None, ...]:
        """These runs of a config as a smaller budget would have left them: as `tuner.derive.derive` has them."""
        ...

    def begun(
        self,
        config: AgentConfig,
        earlier: AgentConfig,
        runs: Sequence[ExampleRun],
        extras: Sequence[ExampleRun],
    ) -> dict[str, ExampleRun]:
        """What runs of an earlier config have done of this one's: as `tuner.derive.begun` has it."""
        ...
