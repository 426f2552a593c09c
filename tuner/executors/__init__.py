"""Where an evaluation runs; one file a place, behind one method."""

from collections.abc import Collection
from collections.abc import Coroutine
from collections.abc import Sequence
from typing import Any
from typing import Protocol
from typing import Self

from tuner.evaluate import NO_PAST
from tuner.evaluate import Enough
from tuner.evaluate import Past
from tuner.evaluate import Record
from tuner.evaluate import never_enough
from tuner.load import Load
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
    ) -> tuple[PassRecord, ...]:
        """Evaluate the config on each example and give `record` each run as it ends; then what held for each sitting.

        `window` numbers the first sitting among those over the same examples, later ones count on; `repeat` numbers the
        answers to each of them. An example in `past` goes on from that run, which another budget made, as if it had
        been asked anew. `enough` is asked before each further example: once it says so, none is begun.

        Raises what `record` and `enough` raise, and ServingError when a server of ours does not stay up; while one at an
        address is away, it waits.
        """
        ...

    async def open(self, first: Collection[str] = ()) -> None:
        """Have everything ready, so that no trial pays for it: of models with serving knobs the variants among `first`.

        Raises UserError for what cannot be used.
        """
        ...

    async def close(self) -> None:
        """Let go of everything; on the loop that used it."""
        ...

    def has_room(self, under_way: int) -> bool:
        """Whether another evaluation may be begun beside so many of the study's."""
        ...

    @property
    def capacity(self) -> int:
        """How many evaluations may be under way at once, as things are."""
        ...

    def change(self) -> Coroutine[Any, Any, object]:
        """Until there may be room where there is none now."""
        ...

    def stop(self) -> None:
        """Begin nothing more; what is under way comes to its end, and whoever waits for more waits for ever."""
        ...

    def is_busy(self) -> bool:
        """Whether an evaluation is under way."""
        ...

    def busy_s(self) -> float:
        """Seconds so far during which at least one evaluation was under way: what a study has spent searching."""
        ...

    def under(self, load: Load) -> Self:
        """This executor, servers and all, under another load. Raises UserError where it has none but one."""
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
