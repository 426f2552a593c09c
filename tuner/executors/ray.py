"""Workers on the machines of a Ray cluster: actors, each of which runs one evaluation at a time. The only importer of ray.

Apart from `local`, whose workers are this process: here a study and its task travel once to each worker, and
every answered question travels back as it is answered, so that a worker that is lost takes with it what it
was about to answer, and nothing else. Workers know neither Optuna nor the database: the driver alone asks and tells.
"""

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.exceptions import RayError
from ray.exceptions import RayTaskError

from tuner.errors import UserError
from tuner.evaluate import Enough
from tuner.evaluate import Record
from tuner.events import Event
from tuner.events import Report
from tuner.events import Talk
from tuner.executors.fleet import Fleet
from tuner.executors.fleet import OnStarted
from tuner.executors.fleet import Started
from tuner.executors.local import InThisProcess
from tuner.executors.slots import Slots
from tuner.executors.workers import Sitting
from tuner.executors.workers import WorkerLostError
from tuner.records import ExampleRun
from tuner.records import PassRecord
from tuner.serving import Addressed
from tuner.serving.program import Program
from tuner.spec import LoadedStudy
from tuner.spec import Ray
from tuner.tasks import Task

CONNECT_S = 10.0

LOOK_S = 2.0
"""Between two looks at what the cluster has."""

HELLO_S = 60.0
"""Between two looks whether the cluster has room for the first worker."""

_connecting = threading.Lock()


class Worker:
    """What runs on a machine of the cluster; to be made an actor of. Knows several studies, one at a time is asked of it."""

    def __init__(self) -> None:
        # Ray numbers GPUs as the driver does; without this, CUDA counts the fastest first.
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        self._studies: dict[int, InThisProcess] = {}
        self._waiting: list[Event | Started] = []
        self._enough: set[int] = set()

    async def hello(self) -> dict[str, str]:
        """What of this machine must be as on the driver's."""
        return _versions()

    async def get_to_know(self, number: int, study: LoadedStudy, task: Task) -> None:
        """A study that sittings will be of."""
        if number not in self._studies:
            fleet = Fleet(study, report=self._waiting.append, started=self._waiting.append)
            self._studies[number] = InThisProcess(fleet, task, study.spec.cache)

    async def open(self, number: int, first: Collection[str]) -> list[Event | Started]:
        """Start or find a server of every model of a study; what there is to say of it."""
        await self._studies[number].open(first)
        return self._said()

    async def run(
        self, number: int, ticket: int, sitting: Sitting
    ) -> AsyncIterator[Event | Started | ExampleRun | PassRecord]:
        """Run a sitting: every run as it ends, and at last what held for all."""
        runs: asyncio.Queue[ExampleRun | None] = asyncio.Queue()

        async def sit() -> PassRecord:
            try:
                return await self._studies[number].run(
                    "", sitting, runs.put_nowait, lambda: ticket in self._enough
                )
            finally:
                runs.put_nowait(None)

        sitting_ = asyncio.create_task(sit())
        try:
            while (run := await runs.get()) is not None:
                for each in self._said():
                    yield each
                yield run
            for each in self._said():
                yield each
            yield await sitting_
        finally:
            sitting_.cancel()
            self._enough.discard(ticket)

    async def stop(self, ticket: int) -> None:
        """Begin no further question of a sitting."""
        self._enough.add(ticket)

    async def probe(self, number: int, model: str, place: int) -> None:
        """Return if a model answers."""
        await self._studies[number].probe(model, place)

    async def forget(self, number: int) -> None:
        """Let go of what a study has here."""
        workers = self._studies.pop(number, None)
        if workers is not None:
            await workers.close()

    def _said(self) -> list[Event | Started]:
        said, self._waiting[:] = list(self._waiting), []
        return said


@dataclass(slots=True)
class _Actor:
    """A worker as the driver knows it."""

    handle: Any
    node: str
    is_up: bool = False
    has: frozenset[str] = frozenset()
    """The models whose servers it has started."""


class OnRayWorkers:
    """The workers of a study: as many as it has use for and the cluster has room for, replaced when they are lost."""

    is_here = False
    _numbers = count(1)

    def __init__(
        self,
        where: Ray,
        study: LoadedStudy,
        task: Task,
        *,
        slots: Slots,
        report: Report,
        started: OnStarted,
    ) -> None:
        self._where = where
        self._study = study
        self._slots = slots
        self._report = report
        self._started = started
        self._number = next(self._numbers)
        self._task = task
        self._actors: dict[str, _Actor] = {}
        self._tickets = count()
        self._gpus = _gpus(where, study)
        self._watching: asyncio.Task[None] | None = None
        self._content: tuple[Any, Any] | None = None

    async def open(self, first: Collection[str]) -> None:
        """Connect, have a first worker open what the study needs, and keep as many workers as there is use for."""
        await asyncio.to_thread(self._connect)
        _take_back_sigterm()
        # Once for the whole cluster: a task may hold a hundred thousand documents.
        self._content = (ray.put(self._study), ray.put(self._task))
        name = self._hire()
        rising = asyncio.create_task(self._bring_up(name))
        try:
            while not (await asyncio.wait({rising}, timeout=HELLO_S))[0]:
                self._require_room()
                self._report(Talk(f"waiting for room for a worker ({self._wanted()})"))
            await rising
        except RayError as error:
            raise UserError(
                f"{self._study.path}: executor: ray: a worker could not be started: {_first_line(error)}",
                hint="is tuner installed on every machine of the cluster, in the version that is here?",
            ) from None
        for each in await _of(self._actors[name].handle.open.remote(self._number, tuple(first))):
            self._hear(name, each)
        self._watching = asyncio.create_task(self._watch())

    def names(self) -> Sequence[str]:
        """The workers that are up."""
        return [name for name, actor in self._actors.items() if actor.is_up]

    def is_ready(self, name: str, models: Collection[str]) -> bool:
        """Whether what the worker would have to start for these models runs there."""
        served = {
            model for model in models if not isinstance(self._study.variants[model], Addressed)
        }
        return name in self._actors and served <= self._actors[name].has

    async def run(self, name: str, sitting: Sitting, record: Record, enough: Enough) -> PassRecord:
        """Run a sitting there, and hear of every answer as it comes."""
        ticket, told = next(self._tickets), False
        actor = self._actors[name]
        answers = actor.handle.run.options(num_returns="streaming").remote(
            self._number, ticket, sitting
        )
        try:
            async for answer in answers:
                each = await answer
                if isinstance(each, PassRecord):
                    return each
                if isinstance(each, ExampleRun):
                    record(each)
                    if not told and enough():
                        told = True
                        actor.handle.stop.remote(ticket)
                else:
                    self._hear(name, each)
        except RayActorError as error:
            raise self._lose(name, error) from None
        except RayTaskError as error:
            raise error.cause from None
        except asyncio.CancelledError:
            ray.cancel(answers)
            raise
        raise self._lose(name, RayActorError())

    async def probe(self, model: str, place: int) -> None:
        """From whichever worker there is."""
        names = self.names()
        if not names:
            raise WorkerLostError("there is no worker to look from")
        try:
            await _of(self._actors[names[0]].handle.probe.remote(self._number, model, place))
        except RayActorError as error:
            raise self._lose(names[0], error) from None
        except RayTaskError as error:
            raise error.cause from None

    async def close(self) -> None:
        """Dismiss the workers, whose servers end with them."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if not ray.is_initialized():
            return
        forgotten = [
            actor.handle.forget.remote(self._number)
            for actor in self._actors.values()
            if actor.is_up
        ]
        await asyncio.gather(*map(_of, forgotten), return_exceptions=True)
        for name in list(self._actors):
            self._dismiss(name)

    # The cluster

    def _connect(self) -> None:
        with _connecting:  # several studies of one process may begin at once
            if not ray.is_initialized():
                self._initialise()

    def _initialise(self) -> None:
        # What it warns of, the driver says in words of its own.
        logging.getLogger("ray").setLevel(logging.ERROR)
        how: dict[str, Any] = {"address": self._where.address}
        if self._where.address == "local":
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            how |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        try:
            if ":" in self._where.address:
                # Ray itself tries for minutes, in a thread that cannot be interrupted.
                host, _, port = self._where.address.removeprefix("ray://").rpartition(":")
                socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
            ray.init(log_to_driver=False, configure_logging=False, **how)
            keep_stdout_for_data()
        except (OSError, RuntimeError, ValueError, RayError) as error:
            raise UserError(
                f"{self._study.path}: executor: ray: address {self._where.address!r}: {_first_line(error)}",
                hint="start a cluster (ray start --head), or write `address: local` to have one started here",
            ) from None

    def _hire(self) -> str:
        """Ask the cluster for another worker; it may come up at once, later or never."""
        number = len(self._actors) + 1
        while f"worker {self._number}.{number}" in self._actors:
            number += 1
        name = f"worker {self._number}.{number}"
        handle = (
            ray.remote(Worker)
            .options(
                num_cpus=self._where.num_cpus,
                num_gpus=self._gpus,
                resources=self._where.resources,
                max_restarts=0,
                max_task_retries=0,
            )
            .remote()
        )
        self._actors[name] = _Actor(handle, node="")
        return name

    async def _bring_up(self, name: str) -> None:
        """Wait for a worker, and tell it what the study is. Raises RayError, and UserError for one of another version."""
        actor = self._actors[name]
        theirs, ours = await _of(actor.handle.hello.remote()), _versions()
        other = [what for what in ours if theirs.get(what) != ours[what]]
        if other:
            named = ", ".join(f"{what} {theirs.get(what)} (here {ours[what]})" for what in other)
            raise UserError(
                f"{self._study.path}: executor: ray: a machine of the cluster has {named}",
                hint="install the same versions on every machine",
            )
        assert self._content is not None
        await _of(actor.handle.get_to_know.remote(self._number, *self._content))
        actor.is_up = True
        self._slots.add(name)

    async def _watch(self) -> None:
        """Hire workers where the cluster has room for them: machines come and go."""
        rising: dict[str, asyncio.Task[None]] = {}
        while True:
            for name, task in list(rising.items()):
                if task.done():
                    del rising[name]
                    if task.exception() is not None:
                        self._report(
                            Talk(f"{name} did not come up: {_first_line(task.exception())}")
                        )
                        self._dismiss(name)
            wanted = await asyncio.to_thread(self._room)
            while len(self._actors) < wanted:
                name = self._hire()
                rising[name] = asyncio.create_task(self._bring_up(name))
            await asyncio.sleep(LOOK_S)

    def _room(self) -> int:
        """How many workers the study has use for and the cluster has room for."""
        places = [
            len(spec.places()) if isinstance(spec, Addressed) else None
            for spec in self._study.spec.models.values()
        ]
        # A worker that starts a server can do so on every machine that has what it takes.
        wanted = None if None in places else sum(each or 0 for each in places)
        total = ray.cluster_resources()
        fits = [
            int(total.get(name, 0.0) / amount) for name, amount in self._each().items() if amount
        ]
        limits = [wanted, self._where.workers, min(fits, default=None)]
        return min((limit for limit in limits if limit is not None), default=1)

    def _require_room(self) -> None:
        """Raise UserError where the cluster has no room for a worker even with nothing else on it."""
        total = ray.cluster_resources()
        if any(total.get(name, 0.0) < amount for name, amount in self._each().items()):
            raise UserError(
                f"{self._study.path}: executor: ray: no machine of the cluster has room for a worker: "
                f"{self._wanted()}; there is {_shown(total)}",
                hint="ask for less, or add a machine that has it: ray start --address HOST:PORT",
            )

    def _each(self) -> dict[str, float]:
        """What a worker takes."""
        return {"CPU": self._where.num_cpus, "GPU": self._gpus, **self._where.resources}

    def _wanted(self) -> str:
        return _shown(self._each())

    def _hear(self, name: str, said: Event | Started) -> None:
        if isinstance(said, Started):
            actor = self._actors[name]
            actor.has |= {said.model}
            self._started(said)
        else:
            self._report(said)

    def _lose(self, name: str, error: BaseException) -> WorkerLostError:
        self._dismiss(name)
        return WorkerLostError(f"{name} was lost ({_first_line(error)})")

    def _dismiss(self, name: str) -> None:
        self._slots.withdraw(name)
        actor = self._actors.pop(name, None)
        if actor is not None:
            ray.kill(actor.handle)


def keep_stdout_for_data() -> None:
    """Have what the cluster's machines warn of on stderr: Ray prints it on the driver's stdout, whatever it is told."""
    from ray._private import worker

    speak = worker.print_to_stdstream

    def speak_up(data: Mapping[str, Any], ignore_prefix: bool) -> None:
        speak({**data, "is_err": True}, ignore_prefix)

    worker.print_to_stdstream = speak_up


def _take_back_sigterm() -> None:
    """Have Python handle SIGTERM again as before: Ray takes it as it starts, and aborts the process 3 seconds after it."""
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _gpus(where: Ray, study: LoadedStudy) -> float:
    """GPUs of a worker: what is asked for, or what the servers that it starts need beside each other."""
    if where.num_gpus is not None:
        return where.num_gpus
    needed: dict[str, int] = {}
    for name, spec in study.variants.items():
        if isinstance(spec, Program):
            model = name.partition("@")[0]
            tensor_parallel = spec.tensor_parallel
            needed[model] = max(
                needed.get(model, 0), tensor_parallel if isinstance(tensor_parallel, int) else 1
            )
    return float(sum(needed.values()))


async def _of(reference: Any) -> Any:
    try:
        return await reference
    except RayTaskError as error:
        raise error.cause from None


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("tuner", "litellm")}


def _shown(resources: Mapping[str, float]) -> str:
    """Resources in words, less those that Ray keeps for itself."""
    own = {
        name: amount
        for name, amount in resources.items()
        if amount and not name.startswith("node:") and "memory" not in name
    }
    return ", ".join(f"{amount:g} {name}" for name, amount in own.items()) or "nothing"


def _first_line(error: BaseException | None) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__).rstrip(".")
