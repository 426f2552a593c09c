"""Evaluation in this process, against servers that it started or was given the address of.

Apart from `crew`, which decides where and when an evaluation runs: here it runs.
"""

import asyncio
import math
import time
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import asdict
from typing import Literal
from typing import Protocol
from typing import Self

from tuner.errors import ServingError
from tuner.evaluate import NO_PAST
from tuner.evaluate import Enough
from tuner.evaluate import Past
from tuner.evaluate import Record
from tuner.evaluate import evaluate
from tuner.evaluate import never_enough
from tuner.executors.fleet import NOWHERE_ELSE
from tuner.executors.fleet import Fleet
from tuner.executors.fleet import Running
from tuner.executors.fleet import greet
from tuner.executors.workers import GoneError
from tuner.executors.workers import Sitting
from tuner.load import Load
from tuner.measure import Meter
from tuner.measure.server import Scraper
from tuner.measure.server import with_analytic_kv
from tuner.measure.total import total
from tuner.measure.window import idle_power_w
from tuner.records import ExampleRun
from tuner.records import PassRecord
from tuner.serving.isolation import fresh_tags
from tuner.serving.kv_size import kv_bytes_of
from tuner.tasks import Example
from tuner.tasks import Task
from workflows.agent import build
from workflows.config import AgentConfig
from workflows.errors import ModelError
from workflows.llm import ChatClient

PROBE_S = 30.0
"""How long a server may take for a short call before it counts as gone."""


class Servers(Protocol):
    """What serves the models: as `executors.fleet.Fleet` does."""

    @property
    def running(self) -> Mapping[str, Running]:
        """What can be called now, by the names that configs have for it."""
        ...

    async def bring_up(
        self, names: Sequence[str], places: Mapping[str, int] = NOWHERE_ELSE
    ) -> dict[str, Running]:
        """What serves these, each at its place, started as need be. Raises ServingError."""
        ...


class LocalExecutor:
    """One config on examples, wherever its models are served."""

    def __init__(
        self,
        *,
        fleet: Servers,
        task: Task,
        load: Load,
        cache: Literal["isolated", "shared"],
    ) -> None:
        self._fleet = fleet
        self._task = task
        self._load = load
        self._cache = cache
        self._tags = fresh_tags()
        self._idle_w: dict[tuple[str, ...], float | None] = {}
        self._sizes: dict[str, float | None] = {}

    def under(self, load: Load) -> Self:
        """This executor, connections and all, under another load."""
        other = copy(self)
        other._load = load
        return other

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
        places: Mapping[str, int] = NOWHERE_ELSE,
    ) -> PassRecord:
        """Evaluate the config here; unless caches are shared, its servers have none of the prompts so far.

        Gives `record` each run as it ends, then what held for all of them. Raises GoneError when a server has gone.
        """
        servers: dict[str, Running] = {}
        for name in config.models():
            try:
                servers |= await self._fleet.bring_up([name], places)
            except ServingError as error:
                raise GoneError(name, error) from None
            await _require_healthy(name, servers[name])
        # Drawn here, not in the thread: another evaluation may draw its own meanwhile.
        tags = {name: next(self._tags) for name in servers}
        clients, isolation = await asyncio.to_thread(self._isolate, servers, tags)

        runs: list[ExampleRun] = []

        def keep(run: ExampleRun) -> None:
            runs.append(run)
            record(run)

        vouch = _Witness(servers)

        meter = total([each.meter for each in servers.values()])
        idle_w = await self._idle_power_w(config.models(), meter)
        sizes = {name: self._kv_bytes(name, each) for name, each in servers.items()}
        with ExitStack() as stack:
            scrapers = {
                name: stack.enter_context(Scraper(each.endpoint.root, bytes_per_token=sizes[name]))
                for name, each in servers.items()
                if each.endpoint.root is not None
            }
            sitting = await evaluate(
                build(
                    config,
                    llms=clients,
                    pack=self._task.pack,
                    tool_delay_s=self._task.tool_delay_s,
                ),
                examples,
                task=self._task,
                meter=meter,
                load=self._load,
                record=keep,
                vouch=vouch,
                repeat=repeat,
                window=window,
                idle_w=idle_w,
                past=past,
                enough=enough,
            )
        said = {
            name: with_analytic_kv(
                scraper.reading(), runs, sizes[name], model=servers[name].endpoint.settings.model
            )
            for name, scraper in scrapers.items()
        }
        return PassRecord(
            window,
            sitting.energy,
            idle_w,
            servers={name: asdict(reading) for name, reading in said.items()},
            isolation=isolation,
            load=asdict(sitting.load),
        )

    def _isolate(
        self, servers: Mapping[str, Running], tags: Mapping[str, str]
    ) -> tuple[dict[str, ChatClient], dict[str, str]]:
        """Clients of these models whose calls find no earlier prompts cached, and how that was brought about."""
        clients = {name: each.client for name, each in servers.items()}
        if self._cache == "shared":
            return clients, dict.fromkeys(servers, "shared")
        isolation = {}
        for name, each in servers.items():
            try:
                done = each.endpoint.isolate(tags[name])
            except ServingError as error:
                raise GoneError(name, error) from None
            isolation[name] = f"{done.label} ({done.by})"
            if done.salt is not None and done.salting is not None:
                clients[name] = clients[name].salted(done.salt, done.salting)
        return clients, isolation

    def _kv_bytes(self, name: str, server: Running) -> float | None:
        if name not in self._sizes:
            self._sizes[name] = kv_bytes_of(server.endpoint)
        return self._sizes[name]

    async def _idle_power_w(self, models: tuple[str, ...], meter: Meter) -> float | None:
        """What these models' devices draw with nothing to do; looked at once, before their first examples."""
        if models not in self._idle_w:
            self._idle_w[models] = await idle_power_w(meter)
        return self._idle_w[models]


class _Witness:
    """Says of a question that failed whether the servers were well: then the failure is the config's."""

    def __init__(self, servers: Mapping[str, Running]) -> None:
        self._servers = servers
        self._lock = asyncio.Lock()
        self._were_well_s = -math.inf

    async def __call__(self, run: ExampleRun) -> None:
        """Return if they answer a short call. Raises GoneError."""
        if not any(span.kind == "llm" and span.error for span in run.new_spans):
            return
        failed_s = time.perf_counter()
        async with self._lock:
            if self._were_well_s > failed_s:  # another that failed meanwhile has asked
                return
            began_s = time.perf_counter()
            for name, each in self._servers.items():
                await require_well(name, each)
            self._were_well_s = began_s


async def require_well(name: str, server: Running) -> None:
    """Return if a model's server answers a short call. Raises GoneError."""
    await _require_healthy(name, server)
    try:
        async with asyncio.timeout(PROBE_S):
            await greet(name, server)
    except ServingError as error:
        raise GoneError(name, error) from None
    except TimeoutError:
        silent = ModelError(
            f"{server.endpoint.settings.model}: no reply to a short call within {PROBE_S:g} s"
        )
        raise GoneError(name, silent) from None


async def _require_healthy(name: str, server: Running) -> None:
    try:
        await asyncio.to_thread(server.endpoint.check)
    except ServingError as error:
        raise GoneError(name, error) from None


class InThisProcess:
    """The workers of a study that needs none: evaluations run in this process, beside each other where there are several."""

    is_here = True

    def __init__(self, fleet: Fleet, task: Task, cache: Literal["isolated", "shared"]) -> None:
        self._fleet = fleet
        self._executor = LocalExecutor(fleet=fleet, task=task, load=Load(), cache=cache)

    async def open(self, first: Collection[str]) -> None:
        """Start or find every model's server."""
        await self._fleet.open(first)

    def names(self) -> Sequence[str]:
        """None."""
        return ()

    def is_ready(self, name: str, models: Collection[str]) -> bool:
        """Whether what serves these models runs."""
        return self._fleet.running.keys() >= set(models)

    async def run(self, name: str, sitting: Sitting, record: Record, enough: Enough) -> PassRecord:
        """Run it here."""
        return await self._executor.under(sitting.load).run(
            sitting.config,
            sitting.examples,
            record,
            window=sitting.window,
            repeat=sitting.repeat,
            past=sitting.past,
            enough=enough,
            places=sitting.places,
        )

    async def probe(self, model: str, place: int) -> None:
        """Ask the model something short."""
        servers = await self._fleet.bring_up([model], {model: place})
        await require_well(model, servers[model])

    async def close(self) -> None:
        """Close connections and stop servers."""
        try:
            await self._fleet.disconnect()
        finally:
            self._fleet.close()
