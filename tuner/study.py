"""A study run or resumed: everything that it needs opened, its search and holdout pass made, everything closed again.

Apart from `search`, which is what happens in between: here is what a study shares with nobody else meanwhile (its
owner, its servers), and in which order several are gone through.
"""

import asyncio
import platform
import warnings
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any
from typing import Literal
from typing import Protocol

import optuna

from tuner.events import Report
from tuner.events import Talk
from tuner.executors import Executor
from tuner.executors.fleet import Fleet
from tuner.executors.fleet import Running
from tuner.executors.fleet import open_fleet
from tuner.executors.local import LocalExecutor
from tuner.executors.replay import ReplayExecutor
from tuner.lease import Lease
from tuner.measure.machine import machine
from tuner.objectives import OBJECTIVES
from tuner.proposals import Told
from tuner.reuse import evidence
from tuner.reuse import open_sources
from tuner.samplers import make_sampler
from tuner.search import Search
from tuner.spec import LoadedStudy
from tuner.spec import fingerprint_of
from tuner.store import Store
from tuner.store.optuna_storage import PatientStorage
from tuner.store.schema import open_optuna_storage
from tuner.table import Table
from tuner.tasks import Task
from tuner.trials import Trials
from workflows.config import AgentConfig


def run_study(study: LoadedStudy, *, report: Report = lambda event: None) -> None:
    """Run or resume a study to the end of its budget, then measure its front on the holdout questions.

    Everything lands in the study's storage; `report` hears of it as it happens. Raises UserError for
    what only shows when servers, meters and storage are touched, before the first trial where it can.
    """
    _conduct([(study, None)], report)


def confirm_study(study: LoadedStudy, *, report: Report = lambda event: None) -> None:
    """Measure on the holdout questions what `to_confirm` has left: what `run_study` ends with, without the search.

    Resumes and raises as `run_study` does.
    """
    _conduct([(study, None)], report, whole=lambda search: search.confirm())


Parts = Sequence[tuple[LoadedStudy, Sequence[AgentConfig]]]
"""Configs, and the study under whose name and load they are measured."""


def measure_configs(
    parts: Parts,
    *,
    then: Callable[[], Parts] = lambda: (),
    report: Report = lambda event: None,
) -> None:
    """Measure configs on the search questions of the study beside them, in this order, and nothing else.

    The studies have the same file, hence the same models, task and space; names, loads and configs may differ.
    What needs the same servers runs in a row. `then` is asked for more once all of it is measured, until it has
    none. Resumes as `run_study` does; a config whose trial failed in an earlier call is tried again. Raises
    UserError as `run_study` does.
    """
    _conduct(parts, report, then)


def _conduct(
    parts: Sequence[tuple[LoadedStudy, Sequence[AgentConfig] | None]],
    report: Report,
    then: Callable[[], Parts] = lambda: (),
    whole: "Whole" = lambda search: search.run(),
) -> None:
    """The search of each study, or what else `whole` does, or these configs only, with everything that they need opened and closed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    main = parts[0][0]
    task = main.load_task()
    with ExitStack() as stack:
        kept = [_Kept.open(study, task, stack) for study, _ in parts]
        sources = open_sources(main, stack)
        if main.table_path is not None:
            servers: _Servers = _Replayed(main, task)
        else:
            wanted = [config for each in kept for config in each.interrupted()]
            wanted += [config for _, configs in parts for config in configs or ()]

            def started(name: str, running: Running) -> None:
                for each in kept:
                    each.register_server(name, running)

            first = [each.model for each in wanted]
            fleet = open_fleet(main, stack, report=report, started=started, first=first)
            servers = _Served(main, task, fleet)
            report(Talk("warming up"))

        def search(each: _Kept) -> Search:
            trials = Trials(
                each.study,
                task,
                each.optuna_study,
                each.store,
                owner=each.owner,
                executor=servers.executor.under(each.study.spec.load),
                report=report,
            )
            return Search(trials, sources)

        def search_more(study: LoadedStudy) -> Search:
            kept.append(_Kept.open(study, task, stack))
            servers.register(kept[-1])
            return search(kept[-1])

        for each in kept:
            servers.register(each)
        searches = [(search(each), configs) for each, (_, configs) in zip(kept, parts, strict=True)]

        async def run() -> None:
            nonlocal searches
            try:
                await servers.warm_up()
                while searches:
                    await _run_all(searches, servers.executor, whole)
                    searches = [(search_more(study), configs) for study, configs in then()]
            finally:
                await servers.disconnect()

        asyncio.run(run())


class _Servers(Protocol):
    """What answers a study's questions."""

    @property
    def executor(self) -> LocalExecutor | ReplayExecutor:
        """Where evaluations run."""
        ...

    def register(self, kept: "_Kept") -> None:
        """Keep with a study what answers it. Raises StoreError where that is another than before."""
        ...

    async def warm_up(self) -> None:
        """Have everything ready, so that no trial pays for it."""
        ...

    async def disconnect(self) -> None:
        """Close connections, on the loop that made them."""
        ...


class _Served:
    """Servers that were started, or given the address of."""

    def __init__(self, study: LoadedStudy, task: Task, fleet: Fleet) -> None:
        self._fleet = fleet
        self.warm_up = fleet.warm_up
        self.disconnect = fleet.disconnect
        spec = study.spec
        self.executor = LocalExecutor(fleet=fleet, task=task, load=spec.load, cache=spec.cache)

    def register(self, kept: "_Kept") -> None:
        """Each server, once more where it was known."""
        for name, running in self._fleet.running.items():
            kept.register_server(name, running)


class _Replayed:
    """A recorded table."""

    def __init__(self, study: LoadedStudy, task: Task) -> None:
        assert study.table_path is not None
        self.executor = ReplayExecutor(Table.read(study.table_path), study=study, task=task)

    def register(self, kept: "_Kept") -> None:
        """The table, in the place of servers."""
        kept.store.register(
            self.executor.fingerprint(),
            spec=kept.study.spec.model_dump(mode="json"),
            provenance=self.executor.provenance(),
        )

    async def warm_up(self) -> None:
        """Nothing has to be started."""

    async def disconnect(self) -> None:
        """Nothing is connected."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """Where a study is kept, while this process is its owner."""

    study: LoadedStudy
    optuna_study: optuna.Study
    store: Store
    owner: str

    @classmethod
    def open(cls, study: LoadedStudy, task: Task, stack: ExitStack) -> "_Kept":
        """Make or open it; given up with the stack. Raises StoreError."""
        optuna_study, storage = _open_optuna_study(study)
        store = Store.create(study.storage_url, study.spec.name)
        stack.callback(store.close)
        spec = study.spec.model_dump(mode="json")
        fingerprint = study.fingerprint(task)
        store.register(fingerprint, spec=spec, provenance={})
        owner = stack.enter_context(Lease(store, storage)).owner
        provenance = {**_provenance(), **evidence(study, task, store.row())}
        store.register(fingerprint, spec=spec, provenance=provenance)
        return cls(study, optuna_study, store, owner)

    def register_server(self, name: str, running: Running) -> None:
        """Keep what answers for a model. Raises StoreError where that is another than before."""
        self.store.register(
            {f"server of {name}": fingerprint_of(running.endpoint.fingerprint())},
            spec=self.study.spec.model_dump(mode="json"),
            provenance={"models": {name: _provenance_of(running, self.study.spec.cache)}},
        )

    def interrupted(self) -> list[AgentConfig]:
        """The configs of trials that an earlier run has left."""
        return [
            trial.config
            for trial in self.store.trials()
            if trial.state == "running" and trial.config is not None
        ]


Whole = Callable[[Search], Awaitable[None]]
"""What is done with a study of which no configs are given."""


async def _run_all(
    searches: Sequence[tuple[Search, Sequence[AgentConfig] | None]],
    executor: Executor,
    whole: Whole,
) -> None:
    """Whole searches, or configs: those that running servers can answer first, then by what they need."""
    waiting = [config for _, configs in searches for config in configs or ()]
    while waiting:
        config = next(filter(executor.is_ready, waiting), waiting[0])
        for search, configs in searches:
            alike = [each for each in configs or () if each.models() == config.models()]
            await search.measure(alike)
        waiting = [each for each in waiting if each.models() != config.models()]
    for search, configs in searches:
        if configs is None:
            await whole(search)


def _open_optuna_study(study: LoadedStudy) -> tuple[optuna.Study, PatientStorage]:
    objectives = [OBJECTIVES[name] for name in study.spec.objectives]
    storage = open_optuna_storage(study.storage_url)
    sampler = make_sampler(study.spec.sampler.name, seed=study.spec.sampler.seed, trial=0)
    optuna.create_study(
        study_name=study.spec.name,
        storage=storage,
        directions=[objective.direction for objective in objectives],
        sampler=sampler,
        load_if_exists=True,
    )
    optuna_study = Told(study.spec.name, storage, sampler)
    if len(optuna_study.directions) == len(objectives):  # else `register` refuses it below
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna_study.set_metric_names(
                [f"{objective.name} [{objective.unit}]" for objective in objectives]
            )
    return optuna_study, storage


def _provenance() -> dict[str, Any]:
    return {
        "versions": {
            name: version(name) for name in ("tuner", "optuna", "litellm", "optuna-dashboard")
        },
        "python": platform.python_version(),
        "machine": machine(),
    }


def _provenance_of(running: Running, cache: Literal["isolated", "shared"]) -> dict[str, Any]:
    endpoint, meter = running.endpoint, running.meter
    return {
        "settings": endpoint.settings.model_dump(mode="json"),
        "serve": endpoint.serve,
        "server": endpoint.fingerprint(),
        "engine": endpoint.engine,
        "cache": "shared" if cache == "shared" else endpoint.isolate("provenance").label,
        "energy": {
            "source": meter.source,
            "scope": meter.scope,
            "tick_s": meter.tick_s,
            "gpus": len(meter.devices) or None,
        },
    }
