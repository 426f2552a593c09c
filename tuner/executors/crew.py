"""Evaluations side by side: each where there is room for it, elsewhere or later where its server or its worker is lost.

Apart from `slots`, which lends names, and from the workers, which run what they are given: here an evaluation is
given what it needs, and what was lost is asked again.

    until every question is answered, or it is enough
        wait until the config's servers, their metered devices and a worker are free
        ask what is left there; several of a model's servers at once where only answers count
        a server that has gone is waited for, a worker that has gone is replaced: neither is a failure of the config's
"""

import asyncio
from collections.abc import Collection
from collections.abc import Coroutine
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from dataclasses import replace
from typing import Any
from typing import Self
from urllib.parse import urlsplit

from tuner.derive import begun
from tuner.derive import derive
from tuner.errors import ServingError
from tuner.errors import TunerError
from tuner.evaluate import NO_PAST
from tuner.evaluate import Enough
from tuner.evaluate import Past
from tuner.evaluate import Record
from tuner.evaluate import never_enough
from tuner.events import Report
from tuner.events import Talk
from tuner.executors.fleet import Started
from tuner.executors.slots import Choose
from tuner.executors.slots import IsFree
from tuner.executors.slots import Share
from tuner.executors.slots import Slots
from tuner.executors.workers import GoneError
from tuner.executors.workers import Sitting
from tuner.executors.workers import WorkerLostError
from tuner.executors.workers import Workers
from tuner.load import Load
from tuner.objectives import OBJECTIVES
from tuner.records import ExampleRun
from tuner.records import PassRecord
from tuner.serving import Addressed
from tuner.serving import model_name
from tuner.spec import LoadedStudy
from tuner.tasks import Example
from tuner.tasks import Task
from workflows.config import AgentConfig

OURS = "the servers of this process"
"""What is lent to whoever needs a server that this process has started: they share this machine."""

LOSSES_IN_A_ROW = 3
"""After so many without an answer in between, a server that we start is not started again."""

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 30.0
"""Between two looks whether a server is back."""

_WITHOUT_TIME = frozenset(
    {"score", "tokens_in", "tokens_out", "tokens_cached", "cost_usd", "llm_calls", "tool_calls"}
)
"""Fields of a run that are the same wherever and beside whatever else it is made."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What an evaluation was lent."""

    keys: frozenset[str]
    places: Mapping[str, int]
    worker: str


class Crew:
    """The executor of a study whose questions go to servers."""

    def __init__(
        self,
        study: LoadedStudy,
        task: Task,
        workers: Workers,
        *,
        slots: Slots,
        share: Share,
        report: Report,
        waits: bool,
    ) -> None:
        self._study = study
        self._task = task
        self._workers = workers
        self._slots = slots
        self._share = share
        self._report = report
        self._waits = waits
        self._load = study.spec.load
        self._variants = study.variants
        # A worker elsewhere has servers of its own.
        ours: tuple[str, ...] = (OURS,) if workers.is_here else ()
        self._keys = {
            name: keys_of(spec) if isinstance(spec, Addressed) else [ours]
            for name, spec in self._variants.items()
        }
        self._stopping = asyncio.Event()
        self._losses: dict[str, int] = {}
        self._watching: dict[str, asyncio.Task[None]] = {}
        measured = [OBJECTIVES[name] for name in study.measured()]
        self._spreads = all(_WITHOUT_TIME.issuperset(each.fields) for each in measured)

    def under(self, load: Load) -> Self:
        """This executor, servers and all, under another load."""
        other = copy(self)
        other._load = load
        return other

    def take_note(self, started: Started) -> None:
        """Of the devices of a server that has come up: while they are busy with it, no other server's work is measured."""
        keys = self._keys[started.model]
        if started.devices and keys[started.place]:
            devices = [f"GPU {device}" for device in started.devices]
            keys[started.place] = (keys[started.place][0], *devices)
            self._slots.add(*devices)

    async def open(self, first: Collection[str] = ()) -> None:
        """Have everything ready, so that no trial pays for it. Raises UserError."""
        await self._workers.open(first)
        self._slots.add(*(key for keys in self._keys.values() for place in keys for key in place))
        self._slots.add(*self._workers.names())

    async def close(self) -> None:
        """Let go of everything; on the loop that used it."""
        for watch in self._watching.values():
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
        await self._workers.close()

    # Room

    @property
    def capacity(self) -> int:
        """How many evaluations may be under way at once, as things are."""
        taken: set[str] = set()
        count = 0

        def is_left(key: str) -> bool:
            return self._slots.is_there(key) and key not in taken

        for name in self._variants:
            while chosen := self._choose((name,))(is_left):
                count += 1
                taken.update(chosen.keys)
        return count

    def stop(self) -> None:
        """Begin nothing more; what is under way comes to its end, and whoever waits for more waits for ever."""
        self._stopping.set()

    def has_room(self, under_way: int) -> bool:
        """Whether another evaluation may be begun beside so many of this study's."""
        if self._stopping.is_set():
            return False
        capacity = self.capacity
        if under_way < capacity:
            return True
        if under_way == capacity and self._slots.is_waited_for_beside(self._share):
            return True  # else it would have its next evaluation to ask for whenever its turn came
        # What is under way may wait for one model while the servers of another are idle.
        return under_way < 2 * capacity and any(
            self._choose((name,))(self._slots.is_free) for name in self._variants
        )

    def change(self) -> Coroutine[Any, Any, object]:
        """Until there may be room where there is none now."""
        return self._slots.change()

    def is_busy(self) -> bool:
        """Whether an evaluation is under way."""
        return self._share.running > 0

    def busy_s(self) -> float:
        """Seconds during which at least one evaluation was under way."""
        return self._share.busy_s()

    def is_ready(self, config: AgentConfig) -> bool:
        """Whether what the config needs runs, so that no server has to be started for it."""
        names = [""] if self._workers.is_here else self._workers.names()
        return any(self._workers.is_ready(name, config.models()) for name in names)

    # Evaluations

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
        """Evaluate the config on each example, as `Executor.run` says."""
        left = {example.id: example for example in examples}
        passes: list[PassRecord] = []
        sittings = window

        def keep(run: ExampleRun) -> None:
            record(run)
            if not run.edge:
                left.pop(run.example_id, None)
                self._losses.clear()

        def is_enough() -> bool:
            return self._stopping.is_set() or enough()

        choose = self._choose(config.models())
        while left and not (passes and is_enough()):
            async with self._slots.lend(self._share, choose) as chosen:
                sitting = Sitting(
                    config,
                    tuple(left.values()),
                    self._load,
                    sittings,
                    repeat,
                    dict(past),
                    chosen.places,
                )
                with self._spread(sitting, chosen) as parts:
                    sittings += len(parts)
                    ended = await asyncio.gather(
                        *(self._sit(worker, part, keep, is_enough) for worker, part in parts),
                        return_exceptions=True,
                    )
            passes += [each for each in ended if isinstance(each, PassRecord)]
            lost = [each for each in ended if isinstance(each, BaseException)]
            for each in lost:
                self._require_loss(each)
            if not lost:
                break
        if self._stopping.is_set():
            await (
                asyncio.Event().wait()
            )  # until this is cancelled: what was answered is kept, and is not all
        return tuple(passes)

    async def _sit(
        self, worker: str, sitting: Sitting, record: Record, enough: Enough
    ) -> PassRecord:
        """One sitting; what is lost in it is told to the slots before they lend it to anyone else."""
        try:
            return await self._workers.run(worker, sitting, record, enough)
        except GoneError as gone:
            self._lose(gone, sitting.places)
            raise
        except WorkerLostError as lost:
            self._count_loss("worker", lost)
            self._report(Talk(f"{lost}; its question is asked again"))
            raise

    def _require_loss(self, error: BaseException) -> None:
        """Raise what is to be mended by others."""
        if not isinstance(error, GoneError | WorkerLostError) or not self._waits:
            raise error

    @contextmanager
    def _spread(self, sitting: Sitting, chosen: Chosen) -> Iterator[list[tuple[str, Sitting]]]:
        """The sitting in as many parts as there are idle servers, where neither time nor energy is measured."""
        more: list[Chosen] = []
        choose = self._choose(sitting.config.models())
        while self._spreads and len(more) + 1 < len(sitting.examples):
            found = self._slots.lend_now(self._share, choose)
            if found is None:
                break
            more.append(found)
        began_s = self._share.busy_s()
        try:
            every = [chosen, *more]
            yield [
                (
                    each.worker,
                    replace(
                        sitting,
                        examples=sitting.examples[number :: len(every)],
                        window=sitting.window + number,
                        places=each.places,
                    ),
                )
                for number, each in enumerate(every)
            ]
        finally:
            for each in more:
                self._slots.give_back(self._share, each, self._share.busy_s() - began_s)

    def _choose(self, models: Collection[str]) -> Choose[Chosen]:
        """What an evaluation that calls these models takes of what is free."""

        def choose(is_free: IsFree) -> Chosen | None:
            own: set[str] = set()
            places = {}
            for name in models:
                for place, keys in enumerate(self._keys[name]):
                    if all(key in own or is_free(key) for key in keys):
                        own.update(keys)
                        places[name] = place
                        break
                else:
                    return None
            worker = ""
            if not self._workers.is_here:
                free = [name for name in self._workers.names() if is_free(name)]
                if not free:
                    return None
                ready = (name for name in free if self._workers.is_ready(name, models))
                worker = next(ready, free[0])
                own.add(worker)
            return Chosen(frozenset(own), places, worker)

        return choose

    # Losses

    def _count_loss(self, what: str, error: TunerError) -> None:
        """Raise the error once the same has been lost again and again, without an answer in between."""
        self._losses[what] = self._losses.get(what, 0) + 1
        if self._losses[what] > LOSSES_IN_A_ROW:
            hint = error.hint or "mend the cause, then run the same command again"
            raise ServingError(str(error), hint)

    def _lose(self, gone: GoneError, places: Mapping[str, int]) -> None:
        """Leave a server alone until it is back; one of ours is started again by whoever needs it next."""
        spec = self._variants[gone.model]
        if not isinstance(spec, Addressed):
            self._count_loss(gone.model, gone)
            self._report(Talk(f"{gone}; it is started again"))
            return
        if not self._waits:
            raise gone
        place = places.get(gone.model, 0)
        key = self._keys[gone.model][place][0]
        self._slots.withdraw(key)
        others = [keys[0] for keys in self._keys[gone.model] if self._slots.is_there(keys[0])]
        goes_on = (
            f"the study goes on with {len(others)} of {len(self._keys[gone.model])} servers"
            if others
            else "the study waits, and goes on by itself once it answers; waiting costs nothing of its budget"
        )
        self._report(Talk(f"{gone}; {goes_on}"))
        if key not in self._watching or self._watching[key].done():
            watch = self._await_return(gone.model, place, key)
            self._watching[key] = asyncio.create_task(watch)

    async def _await_return(self, model: str, place: int, key: str) -> None:
        loop = asyncio.get_running_loop()
        began_s, wait_s, said = loop.time(), FIRST_WAIT_S, ""
        while True:
            await asyncio.sleep(wait_s)
            try:
                await self._workers.probe(model, place)
                break
            except (ServingError, WorkerLostError):
                pass
            except Exception as error:
                # Whatever it is: a watch that ended would leave the study waiting for ever.
                if str(error) != said:
                    said = str(error)
                    self._report(Talk(f"model {model_name(model)}: {key}: {said or repr(error)}"))
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        waited_s = loop.time() - began_s
        self._report(
            Talk(f"model {model_name(model)}: {key} answers again, after {waited_s:.0f} s")
        )
        self._slots.add(key)

    # What is made of runs

    async def derive(
        self,
        config: AgentConfig,
        runs: Sequence[ExampleRun],
        extras: Sequence[ExampleRun],
        budget: int,
    ) -> tuple[ExampleRun | None, ...]:
        """From the runs' checkpoints."""
        return await derive(self._task, runs, extras, budget)

    def begun(
        self,
        config: AgentConfig,
        earlier: AgentConfig,
        runs: Sequence[ExampleRun],
        extras: Sequence[ExampleRun],
    ) -> dict[str, ExampleRun]:
        """From the runs' calls."""
        return begun(config, earlier, runs, extras)


def keys_of(spec: Addressed) -> list[tuple[str, ...]]:
    """What has to be free for a model to be called, at each of its addresses.

    A model at one address shares its host with others at theirs: nobody knows whether they share a GPU. Where a study
    lists several for a model, it says that they do not.
    """
    if spec.endpoints:
        return [(each.api_base,) for each in spec.endpoints]
    host = urlsplit(spec.api_base).hostname if spec.api_base else "a provider"
    return [(spec.api_base or spec.model, f"host {host}")]
