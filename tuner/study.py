"""The only ask/tell loop: runs or resumes a study, and ends every trial in a state.

resume trials that were interrupted, from their next example on
until the budget is spent:
    ask for a config, or for a batch of them where a server may have to be restarted between two
    of each, those that the running servers can answer first:
        replay it if it was evaluated before, else evaluate it, keeping every example as it
        finishes; keep its values, then tell them
measure the configs on the front once more, on the holdout questions
"""

import asyncio
import platform
import socket
import time
import warnings
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import ExitStack
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace
from importlib.metadata import version
from itertools import count
from typing import Any
from typing import Literal

import optuna
import psutil

from tuner.condition import Condition
from tuner.errors import StoreError
from tuner.errors import TrialError
from tuner.errors import UserError
from tuner.errors import VariantError
from tuner.events import ExampleFinished
from tuner.events import PassStarted
from tuner.events import Report
from tuner.events import StudyEnded
from tuner.events import Talk
from tuner.events import TrialEnded
from tuner.executors import Executor
from tuner.executors.fleet import Running
from tuner.executors.fleet import open_fleet
from tuner.executors.local import LocalExecutor
from tuner.measure.machine import machine
from tuner.measure.window import total
from tuner.objectives import OBJECTIVES
from tuner.proposals import Proposals
from tuner.records import ExampleRun
from tuner.results import LEFT_OUT
from tuner.results import Front
from tuner.results import counted
from tuner.results import evaluated
from tuner.reuse import evidence
from tuner.samplers import make_sampler
from tuner.spec import LoadedStudy
from tuner.spec import fingerprint_of
from tuner.store import EDGE
from tuner.store import Store
from tuner.store.schema import open_optuna_storage
from tuner.tasks import SPLITS
from tuner.tasks import Split
from tuner.tasks import Task
from workflows.config import AgentConfig

FAILURES_IN_A_ROW = 3
"""After so many failed trials the cause is not the config."""

MOST_ENERGY_ERROR = 0.05
"""Standard error of a pass's energy above which it is refused: configs that differ by less could not be told apart."""

OWNER_SILENT_S = 600.0
"""How long an owner on another machine may go without finishing an example before it counts as gone."""


def run_study(study: LoadedStudy, *, report: Report = lambda event: None) -> None:
    """Run or resume a study to the end of its budget, then measure its front on the holdout questions.

    Everything lands in the study's storage; `report` hears of it as it happens. Raises UserError for
    what only shows when servers, meters and storage are touched, before the first trial where it can.
    """
    _conduct([(study, None)], report)


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
) -> None:
    """The search of each study, or these configs only, with everything that they need opened and closed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    main = parts[0][0]
    task = main.load_task()
    with ExitStack() as stack:
        kept = [_Kept.open(study, task, stack) for study, _ in parts]

        def started(name: str, running: Running) -> None:
            for each in kept:
                each.register_server(name, running)

        wanted = [config for each in kept for config in each.interrupted()]
        wanted += [config for _, configs in parts for config in configs or ()]
        fleet = open_fleet(
            main, stack, report=report, started=started, first=[each.model for each in wanted]
        )
        executor = LocalExecutor(fleet=fleet, task=task, load=main.spec.load, cache=main.spec.cache)
        report(Talk("warming up"))

        def search(each: _Kept) -> _Search:
            return _Search(each, task, executor.under(each.study.spec.load), report)

        def search_more(study: LoadedStudy) -> _Search:
            kept.append(_Kept.open(study, task, stack))
            for name, running in fleet.running.items():
                kept[-1].register_server(name, running)
            return search(kept[-1])

        searches = [(search(each), configs) for each, (_, configs) in zip(kept, parts, strict=True)]

        async def run() -> None:
            nonlocal searches
            try:
                await fleet.warm_up()
                while searches:
                    await _run_all(searches, executor)
                    searches = [(search_more(study), configs) for study, configs in then()]
            finally:
                await fleet.disconnect()

        asyncio.run(run())


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
        optuna_study = _open_optuna_study(study)
        store = Store.create(study.storage_url, study.spec.name)
        stack.callback(store.close)
        spec = study.spec.model_dump(mode="json")
        fingerprint = study.fingerprint(task)
        store.register(fingerprint, spec=spec, provenance={})
        owner = _claim(store)
        stack.callback(store.release, owner)
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


async def _run_all(
    searches: Sequence[tuple["_Search", Sequence[AgentConfig] | None]], executor: Executor
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
            await search.run()


@dataclass(slots=True)
class _Asked:
    """A trial that Optuna opened, and what it is to try, once that is settled."""

    trial: optuna.Trial
    trial_id: int
    config: AgentConfig | None = None
    """None where there is nothing to run: it has failed, or is known."""


class _Search:
    """One run of a study: what the loop's steps share."""

    def __init__(self, kept: _Kept, task: Task, executor: Executor, report: Report) -> None:
        self._study = kept.study
        self._spec = kept.study.spec
        self._task = task
        self._optuna = kept.optuna_study
        self._store = kept.store
        self._owner = kept.owner
        self._executor = executor
        self._report = report
        self._proposals = Proposals(kept.study, kept.optuna_study, kept.store)
        self._failures = 0
        self._in_batches = False

    async def run(self) -> None:
        """The search, then the holdout pass."""
        self._in_batches = any(self._study.models.values())
        await self._run_all([*self._interrupted(), *self._rest_of_batch()])
        while (reason := self._end()) is None:
            await self._run_all([self._open(self._proposals.ask()), *self._rest_of_batch()])
        self._report(StudyEnded(reason))
        await self._confirm()

    async def measure(self, configs: Sequence[AgentConfig]) -> None:
        """Each of these configs that is not complete, once."""
        await self._run_all(self._interrupted())
        tried: set[str] = set()
        while True:
            trials = self._store.trials()
            done = tried | {
                trial.config.hash()
                for trial in trials
                if trial.config is not None and trial.state == "complete"
            }
            left = [config for config in configs if config.hash() not in done]
            if not left:
                return
            # One that waits was enqueued by a run that was killed before it asked.
            if not any(trial.state == "waiting" for trial in trials):
                self._optuna.enqueue_trial(self._study.space.flat(left[0], self._study.models))
            asked = self._open(self._optuna.ask())
            await self._run_all([asked])
            tried |= set() if asked.config is None else {asked.config.hash()}

    def _end(self) -> str | None:
        """Why the search is over, None while it is not."""
        ended = counted(self._store.trials())
        budget = self._spec.budget
        if len(ended) >= budget.trials:
            return f"all {budget.trials} trials are done"
        if budget.wall_clock is not None and self._search_s() >= budget.wall_clock:
            return f"{self._search_s():.0f} s of {budget.wall_clock:.0f} s are spent"
        tried = {trial.config.hash() for trial in ended if trial.config is not None}
        size = self._study.space.size(self._study.models)
        if size is not None and len(tried) >= size:
            return f"all {size} configs of the search space are evaluated"
        return None

    def _search_s(self) -> float:
        row = self._store.row()
        return 0.0 if row is None else row.search_s

    def _interrupted(self) -> list[_Asked]:
        """The trials that an earlier run has left."""
        return [
            self._open(self._proposals.interrupted(record))
            for record in self._store.trials()
            if record.state == "running"
        ]

    def _rest_of_batch(self) -> list[_Asked]:
        """What is still to be asked for of the last batch; nothing where no server has to be restarted between trials."""
        asked: list[_Asked] = []
        while self._in_batches and self._proposals.batch_lacks_configs():
            asked.append(self._open(self._proposals.ask()))
        return asked

    def _open(self, trial: optuna.Trial) -> _Asked:
        """What a trial is to try, kept before anything is run; told at once where that was evaluated before."""
        asked = _Asked(trial, self._store.trial_id(trial.number))
        if self._in_batches:
            left = self._spec.budget.trials - len(counted(self._store.trials()))
            self._proposals.open_batch(trial, left=left)
        with self._told(asked):
            config = self._study.space.sample(trial, self._study.models)
            self._store.save_config(asked.trial_id, config)
            if not self._replayed(asked, config):
                asked.config = config
        return asked

    async def _run_all(self, asked: Sequence[_Asked]) -> None:
        """Run what was asked for: first what needs no server to be started, then what has its server in common."""
        opened = [(each, each.config) for each in asked if each.config is not None]
        for each, config in sorted(opened, key=lambda pair: self._by_server(pair[1])):
            if self._is_left_out(each):
                self._fail(each, LEFT_OUT)
                continue
            with self._told(each):
                if not self._replayed(each, config):
                    self._complete(each, config, await self._values(each, config))

    def _by_server(self, config: AgentConfig) -> tuple[bool, str]:
        """What configs are sorted by to start as few servers as can be; equal where no model has serving knobs."""
        ready = self._executor.is_ready(config)
        return (not ready, config.model if not ready or self._in_batches else "")

    def _is_left_out(self, asked: _Asked) -> bool:
        """Whether the time is up for a trial of a batch of which nothing has run."""
        limit_s = self._spec.budget.wall_clock
        if not self._in_batches or limit_s is None or self._search_s() < limit_s:
            return False
        return not self._store.finished(asked.trial_id, "search")

    @contextmanager
    def _told(self, asked: _Asked) -> Iterator[None]:
        """Tell a trial that fails, in whatever way; only UserError and cancellation leave it open."""
        try:
            yield
        except UserError:
            raise
        except Exception as failure:  # a trial may fail in any way; the study goes on
            reason = str(failure) if isinstance(failure, TrialError) else repr(failure)
            self._fail(asked, reason)
            self._failures += not isinstance(failure, VariantError)
            if self._failures >= FAILURES_IN_A_ROW:
                raise UserError(
                    f"{FAILURES_IN_A_ROW} trials in a row failed; the last one: {reason}",
                    hint="mend the cause, then run the same command again",
                ) from None

    def _replayed(self, asked: _Asked, config: AgentConfig) -> bool:
        """Tell what an earlier trial of the same config found; whether there is one."""
        for record in evaluated(self._store.trials()):
            if record.config is not None and record.config.hash() == config.hash():
                assert record.values is not None
                self._complete(asked, config, record.values, replay_of=record.number)
                return True
        return False

    async def _values(self, asked: _Asked, config: AgentConfig) -> dict[str, float]:
        runs = await self._pass(asked.trial.number, asked.trial_id, config, "search")
        failed = [run for run in runs if run.error is not None]
        if len(failed) > self._spec.max_failure_rate * len(runs):
            raise TrialError(f"{len(failed)} of {len(runs)} examples failed: {failed[-1].error}")
        values: dict[str, float] = {}
        for name in self._study.measured():
            objective = OBJECTIVES[name]
            value = objective.value(runs)
            if value is None:
                lacking = next(run for run in runs if objective.value([run]) is None)
                metered = objective.needs == "meter"
                why = lacking.energy.problem if metered else "the server reported no token counts"
                raise TrialError(f"{name} was not measured on example {lacking.example_id}: {why}")
            if objective.needs == "meter":
                _require_sure(name, runs)
            values[name] = value
        return values

    async def _pass(
        self, number: int, trial_id: int, config: AgentConfig, split: Split
    ) -> tuple[ExampleRun, ...]:
        """All runs of a config on a split, those that an earlier pass has left included."""
        examples = self._task.examples(split)
        finished = self._store.finished(trial_id, split)
        waiting = [example for example in examples if (example.id, 0) not in finished]
        self._report(PassStarted(number, config, split, len(examples), len(finished)))
        extras = self._store.finished(trial_id, EDGE)
        last_s = time.perf_counter()

        def record(run: ExampleRun) -> None:
            nonlocal last_s
            now_s = time.perf_counter()
            spent_s = now_s - last_s if split == "search" else 0.0
            last_s = now_s
            if run.edge:
                run = _numbered(run, extras)
            place = EDGE if run.edge else split
            self._store.save_run(trial_id, place, run, owner=self._owner, search_s=spent_s)
            if not run.edge:
                self._report(ExampleFinished(number, run))

        if waiting:
            # One count for all: extra questions of both splits lie together, and the window tells whose they are.
            window = max(self._store.next_window(trial_id, place) for place in (*SPLITS, EDGE))
            sitting = await self._executor.run(config, waiting, record, window=window)
            self._store.save_pass(trial_id, split, sitting)
            if sitting.energy.warning is not None:
                self._report(Talk(f"trial {number}: energy: {sitting.energy.warning}"))
            if sitting.load.get("client_limited"):
                reason = sitting.load["reason"]
                self._report(Talk(f"trial {number}: the client was the limit: {reason}"))
        return self._store.runs(trial_id, split)

    def _complete(
        self,
        asked: _Asked,
        config: AgentConfig,
        values: Mapping[str, float],
        *,
        replay_of: int | None = None,
    ) -> None:
        trial, feasible = asked.trial, True
        with warnings.catch_warnings():
            # A trial that was interrupted between here and `tell` has its constraints already.
            warnings.filterwarnings("ignore", message=".*is already set.*")
            for name, text in self._spec.constraints.items():
                excess = _excess(Condition.parse(text), values[name])
                feasible = feasible and excess <= 0
                trial.set_constraint(name, excess)
        self._store.finish(asked.trial_id, values=values, feasible=feasible, replay_of=replay_of)
        if replay_of is not None:
            trial.set_user_attr("replay_of", replay_of)
        if config.oracle:
            trial.set_user_attr("feedback", "oracle")
        self._optuna.tell(trial, [values[name] for name in self._spec.objectives])
        self._failures = 0
        self._report(TrialEnded(trial.number, config, values, replay_of, None))

    def _fail(self, asked: _Asked, reason: str) -> None:
        trial = asked.trial
        self._store.finish(asked.trial_id, failure=reason)
        trial.set_user_attr("failure", reason[:2000])
        self._optuna.tell(trial, state=optuna.trial.TrialState.FAIL)
        self._report(TrialEnded(trial.number, asked.config, None, None, reason))

    async def _confirm(self) -> None:
        if not self._task.holdout:
            return
        trials = [point.trial for point in Front.read(self._study, self._store).search]
        known = [(trial, trial.config) for trial in trials if trial.config is not None]
        for trial, config in sorted(known, key=lambda pair: self._by_server(pair[1])):
            try:
                await self._pass(trial.number, trial.trial_id, config, "holdout")
            except VariantError as error:
                self._report(Talk(f"trial {trial.number} is not confirmed: {error}"))


def _numbered(run: ExampleRun, taken: set[tuple[str, int]]) -> ExampleRun:
    """An extra run under the next repeat of its question that is free, which is then taken."""
    repeats = (n for n in count(run.repeat) if (run.example_id, n) not in taken)
    run = replace(run, repeat=next(repeats))
    taken.add((run.example_id, run.repeat))
    return run


def _require_sure(objective: str, runs: Sequence[ExampleRun]) -> None:
    """Raise TrialError for energy of a pass too short for how often its meter counts."""
    energy = total([run.energy for run in runs])
    if not energy.gross_j:
        raise TrialError(f"{objective}: the meter's count never moved during the pass")
    error = (energy.stderr_j or 0.0) / energy.gross_j
    if error > MOST_ENERGY_ERROR:
        needed_s = energy.seconds * error / MOST_ENERGY_ERROR
        raise TrialError(
            f"{objective}: a pass of {energy.seconds:.2g} s is too short for a meter that counts so seldom: "
            f"± {100 * error:.0f} %, and {100 * MOST_ENERGY_ERROR:.0f} % is allowed; "
            f"ask questions for {needed_s:.2g} s or more (task: examples)"
        )


def _excess(bound: Condition, value: float) -> float:
    """By how much a value breaks its bound; 0 or less when it does not."""
    limit = float(bound.value)
    return value - limit if bound.sign == "<=" else limit - value


def _open_optuna_study(study: LoadedStudy) -> optuna.Study:
    objectives = [OBJECTIVES[name] for name in study.spec.objectives]
    optuna_study = optuna.create_study(
        study_name=study.spec.name,
        storage=open_optuna_storage(study.storage_url),
        directions=[objective.direction for objective in objectives],
        sampler=make_sampler(study.spec.sampler.name, seed=study.spec.sampler.seed, trial=0),
        load_if_exists=True,
    )
    if len(optuna_study.directions) == len(objectives):  # else `register` refuses it below
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna_study.set_metric_names(
                [f"{objective.name} [{objective.unit}]" for objective in objectives]
            )
    return optuna_study


def _claim(store: Store) -> str:
    """Become the study's owner. Raises StoreError while another process runs it."""
    me = psutil.Process()
    owner = f"{socket.gethostname()}:{me.pid}:{me.create_time():.0f}"
    row = store.row()
    previous = row.owner if row is not None else None
    if row is not None and previous is not None and _lives(previous, row.owner_seen_at or 0.0):
        host, pid, _ = previous.rsplit(":", 2)
        raise StoreError(
            f"the study is being run by process {pid} on {host}",
            hint="wait for it, or stop it; tuner status shows how far it is",
        )
    if not store.claim(owner, previous):
        raise StoreError("the study was claimed by another process just now")
    return owner


def _lives(owner: str, seen_at: float) -> bool:
    host, pid, created = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return time.time() - seen_at < OWNER_SILENT_S
    try:
        return f"{psutil.Process(int(pid)).create_time():.0f}" == created
    except psutil.NoSuchProcess:
        return False


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
        "cache": "shared" if cache == "shared" else endpoint.isolate("provenance").label,
        "energy": {
            "source": meter.source,
            "scope": meter.scope,
            "tick_s": meter.tick_s,
            "gpus": len(meter.devices) or None,
        },
    }
