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

import optuna

from tuner.events import Report
from tuner.executors import Executor
from tuner.executors.fleet import Started
from tuner.executors.replay import ReplayExecutor
from tuner.executors.slots import Share
from tuner.executors.slots import Slots
from tuner.executors.table import open_executor
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
from tuner.store.own_trials import OwnersStorage
from tuner.store.schema import open_optuna_storage
from tuner.tasks import Task
from tuner.termination import Termination
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


Part = tuple[LoadedStudy, Sequence[AgentConfig] | None]
"""A study, and the configs of it that are measured; None for a search."""

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


async def run_study_among(
    study: LoadedStudy, slots: Slots, *, weight: float = 1.0, report: Report = lambda event: None
) -> None:
    """Run or resume a study beside others that share these slots, of which it is due so much; on the slots' event loop.

    Cancelled, it leaves what `run_study` leaves when it is interrupted. Raises UserError as `run_study` does.
    """
    await _go_through([(study, None)], slots, Share(weight), report)


def _conduct(
    parts: "Sequence[Part]",
    report: Report,
    then: Callable[[], Parts] = lambda: (),
    whole: "Whole" = lambda search: search.run(),
) -> None:
    """The search of each study, or what else `whole` does, or these configs only, alone on this process's slots."""
    with Termination(report) as termination:
        asyncio.run(
            _go_through(parts, Slots(), Share(), report, then, whole, termination=termination)
        )


async def _go_through(
    parts: "Sequence[Part]",
    slots: Slots,
    share: Share,
    report: Report,
    then: Callable[[], Parts] = lambda: (),
    whole: "Whole" = lambda search: search.run(),
    *,
    termination: "Termination | None" = None,
) -> None:
    """The same with everything that it needs opened and closed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    main = parts[0][0]
    task = await asyncio.to_thread(main.load_task)
    with ExitStack() as stack:
        kept = [_Kept.open(study, task, stack) for study, _ in parts]
        sources = open_sources(main, stack)
        known: list[Started] = []

        def started(server: Started) -> None:
            known.append(server)
            for each in kept:
                each.register_server(server)

        executor = open_executor(
            main, task, slots=slots, share=share, report=report, started=started
        )

        def search(each: _Kept) -> Search:
            trials = Trials(
                each.study,
                task,
                each.optuna_study,
                each.store,
                owner=each.owner,
                executor=executor.under(each.study.spec.load),
                report=report,
            )
            return Search(trials, sources)

        def search_more(study: LoadedStudy) -> Search:
            kept.append(_Kept.open(study, task, stack))
            for server in known:
                kept[-1].register_server(server)
            return search(kept[-1])

        for each in kept:
            if isinstance(executor, ReplayExecutor):
                each.register_table(executor)
        if termination is not None:
            termination.watch(executor)
        slots.join(share)
        try:
            wanted = [config for each in kept for config in each.interrupted()]
            wanted += [config for _, configs in parts for config in configs or ()]
            await executor.open([config.model for config in wanted])
            searches = [
                (search(each), configs) for each, (_, configs) in zip(kept, parts, strict=True)
            ]
            while searches:
                await _run_all(searches, executor, whole)
                searches = [(search_more(study), configs) for study, configs in then()]
        finally:
            slots.leave(share)
            await executor.close()


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

    def register_server(self, server: Started) -> None:
        """Keep what answers for a model. Raises StoreError where that is another than before."""
        self.store.register(
            {f"server of {server.model}": fingerprint_of(server.fingerprint)},
            spec=self.study.spec.model_dump(mode="json"),
            provenance={"models": {server.model: server.provenance}},
        )

    def register_table(self, executor: ReplayExecutor) -> None:
        """Keep which table answers, in the place of servers."""
        self.store.register(
            executor.fingerprint(),
            spec=self.study.spec.model_dump(mode="json"),
            provenance=executor.provenance(),
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


def _open_optuna_study(study: LoadedStudy) -> tuple[optuna.Study, OwnersStorage]:
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
