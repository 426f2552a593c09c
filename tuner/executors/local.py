"""Evaluation in this process, against servers that it started or was given the address of."""

from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import asdict
from typing import Literal
from typing import Protocol
from typing import Self

from tuner.derive import begun
from tuner.derive import derive
from tuner.evaluate import NO_PAST
from tuner.evaluate import Enough
from tuner.evaluate import Past
from tuner.evaluate import Record
from tuner.evaluate import evaluate
from tuner.evaluate import never_enough
from tuner.executors.fleet import Running
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
from workflows.llm import ChatClient


class Servers(Protocol):
    """What serves the models: as `executors.fleet.Fleet` does."""

    @property
    def running(self) -> Mapping[str, Running]:
        """What can be called now, by the names that configs have for it."""
        ...

    async def bring_up(self, names: Sequence[str]) -> dict[str, Running]:
        """What serves these, started as need be. Raises ServingError."""
        ...


class LocalExecutor:
    """One evaluation at a time, so that a metered device serves one config only."""

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

    def is_ready(self, config: AgentConfig) -> bool:
        """Whether what the config needs runs, so that no server has to be started for it."""
        return self._fleet.running.keys() >= set(config.models())

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
        """Evaluate the config here; unless caches are shared, its servers have none of the prompts so far."""
        servers = await self._fleet.bring_up(config.models())
        for each in servers.values():
            each.endpoint.check()
        clients, isolation = self._isolate(servers)

        runs: list[ExampleRun] = []

        def record_if_served(run: ExampleRun) -> None:
            if run.error is not None:
                for each in servers.values():
                    each.endpoint.check()  # a dead server is no failure of the config's
            runs.append(run)
            record(run)

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
                record=record_if_served,
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

    def _isolate(
        self, servers: Mapping[str, Running]
    ) -> tuple[dict[str, ChatClient], dict[str, str]]:
        """Clients of these models whose calls find no earlier prompts cached, and how that was brought about."""
        clients = {name: each.client for name, each in servers.items()}
        if self._cache == "shared":
            return clients, dict.fromkeys(servers, "shared")
        isolation = {}
        for name, each in servers.items():
            done = each.endpoint.isolate(next(self._tags))
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
