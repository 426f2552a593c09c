"""The only ask/tell loop: runs or resumes a study, and ends every trial in a state.

resume trials that were interrupted, from their next example on
until the budget is spent:
    ask for a config; replay it if it was evaluated before, else evaluate it, keeping every example
    as it finishes; keep its values, then tell them
measure the configs on the front once more, on the holdout questions
"""

import asyncio
import os
import platform
import socket
import time
import warnings
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from itertools import count
from typing import Any
from typing import Literal

import numpy as np
import optuna
import psutil

from tuner.condition import Condition
from tuner.errors import StoreError
from tuner.errors import TrialError
from tuner.errors import UserError
from tuner.events import ExampleFinished
from tuner.events import PassStarted
from tuner.events import Report
from tuner.events import StudyEnded
from tuner.events import Talk
from tuner.events import TrialEnded
from tuner.executors import Executor
from tuner.executors.local import LocalExecutor
from tuner.measure import Meter
from tuner.measure import make_meter
from tuner.measure.window import total
from tuner.objectives import OBJECTIVES
from tuner.records import ExampleRun
from tuner.results import Front
from tuner.results import evaluated
from tuner.samplers import make_sampler
from tuner.serving import Endpoint
from tuner.serving import start
from tuner.spec import LoadedStudy
from tuner.spec import fingerprint_of
from tuner.store import EDGE
from tuner.store import Store
from tuner.store.schema import open_optuna_storage
from tuner.tasks import Split
from tuner.tasks import Task
from workflows.config import AgentConfig

REPLAYS_IN_A_ROW = 10
"""After so many proposals that were evaluated before, an untried config is drawn instead."""

LISTED_CONFIGS = 5000
"""Spaces up to this size are listed to find an untried config, larger ones are sampled so often."""

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
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    task = study.load_task()
    with ExitStack() as stack:
        optuna_study = _open_optuna_study(study)
        store = Store.create(study.storage_url, study.spec.name)
        stack.callback(store.close)
        spec = study.spec.model_dump(mode="json")
        fingerprint = study.fingerprint(task)
        store.register(fingerprint, spec=spec, provenance={})
        owner = _claim(store)
        stack.callback(store.release, owner)
        endpoints, meters = open_models(study, stack, report=report)
        servers = {
            f"server of {name}": fingerprint_of(end.fingerprint())
            for name, end in endpoints.items()
        }
        store.register(
            {**fingerprint, **servers},
            spec=spec,
            provenance=_provenance(endpoints, meters, study.spec.cache),
        )
        executor = LocalExecutor(
            endpoints=endpoints,
            meters=meters,
            task=task,
            load=study.spec.load,
            cache=study.spec.cache,
        )
        report(Talk("warming up"))
        search = _Search(study, task, optuna_study, store, owner, executor, report)

        async def run() -> None:
            try:
                await executor.warm_up()
                await search.run()
            finally:
                await executor.close()

        asyncio.run(run())


def open_models(
    study: LoadedStudy, stack: ExitStack, *, report: Report = lambda event: None
) -> tuple[dict[str, Endpoint], dict[str, Meter]]:
    """Every model's endpoint and meter, started and closed with the stack.

    Raises UserError when a server does not come up, a meter does not work, or an objective has
    nothing to be measured with.
    """
    endpoints: dict[str, Endpoint] = {}
    meters: dict[str, Meter] = {}
    for name, spec in study.spec.models.items():
        endpoint = start(name, spec, base=study.path.parent, say=lambda text: report(Talk(text)))
        stack.callback(endpoint.close)
        endpoints[name] = endpoint
        if study.spec.cache == "isolated" and not endpoint.clear_cache():
            report(
                Talk(
                    f"model {name}: the prefix cache of a server by address cannot be cleared, "
                    "so trials share it"
                )
            )
        meters[name] = make_meter(spec.meter, pid=endpoint.pid)
    for objective in study.measured():
        for name, endpoint in endpoints.items():
            _require(study, objective, name, endpoint, meters[name])
    return endpoints, meters


def _require(
    study: LoadedStudy, objective: str, model: str, endpoint: Endpoint, meter: Meter
) -> None:
    needs = OBJECTIVES[objective].needs
    if needs == "meter" and meter.source == "none":
        raise UserError(
            f"{study.path}: objectives: {objective} needs a meter, and model {model!r} has none",
            hint="give the model a meter (nvml: all, or cpu_estimate for a server that the study "
            "starts), or leave the objective out",
        )
    if needs == "prices":
        from workflows.llm import prices

        if prices(endpoint.settings) is None:
            raise UserError(
                f"{study.path}: objectives: {objective}: litellm has no price for model "
                f"{endpoint.settings.model!r}",
                hint="leave the objective out, or use tokens_total",
            )


class _Search:
    """One run of a study: what the loop's steps share."""

    def __init__(
        self,
        study: LoadedStudy,
        task: Task,
        optuna_study: optuna.Study,
        store: Store,
        owner: str,
        executor: Executor,
        report: Report,
    ) -> None:
        self._study = study
        self._spec = study.spec
        self._task = task
        self._optuna = optuna_study
        self._store = store
        self._owner = owner
        self._executor = executor
        self._report = report
        self._replays = 0
        self._failures = 0

    async def run(self) -> None:
        """The search, then the holdout pass."""
        for record in self._store.trials():
            if record.state == "running":
                self._seed_sampler(record.number)
                await self._run_trial(optuna.Trial(self._optuna, record.trial_id))
        while (reason := self._end()) is None:
            await self._run_trial(self._ask())
        self._report(StudyEnded(reason))
        await self._confirm()

    def _end(self) -> str | None:
        """Why the search is over, None while it is not."""
        trials = self._store.trials()
        ended = [
            trial
            for trial in trials
            if trial.state in ("complete", "failed") and trial.replay_of is None
        ]
        budget = self._spec.budget
        if len(ended) >= budget.trials:
            return f"all {budget.trials} trials are done"
        row = self._store.row()
        if row is not None and budget.wall_clock is not None and row.search_s >= budget.wall_clock:
            return f"{row.search_s:.0f} s of {budget.wall_clock:.0f} s are spent"
        tried = {trial.config.hash() for trial in ended if trial.config is not None}
        size = self._study.space.size(self._study.models)
        if size is not None and len(tried) >= size:
            return f"all {size} configs of the search space are evaluated"
        return None

    def _seed_sampler(self, number: int) -> None:
        sampler = self._spec.sampler
        self._optuna.sampler = make_sampler(sampler.name, seed=sampler.seed, trial=number)

    def _ask(self) -> optuna.Trial:
        number = len(self._store.trials())
        self._seed_sampler(number)
        if self._replays >= REPLAYS_IN_A_ROW:
            self._enqueue_untried(number)
        return self._optuna.ask()

    def _enqueue_untried(self, number: int) -> None:
        models = self._study.models
        tried = {trial.config.hash() for trial in self._store.trials() if trial.config is not None}
        rng = np.random.default_rng([self._spec.sampler.seed, number])
        space = self._study.space
        size = space.size(models)
        listed = space.configs(models) if size is not None and size <= LISTED_CONFIGS else None
        candidates = listed or (space.draw(models, rng) for _ in range(LISTED_CONFIGS))
        untried = [config for config in candidates if config.hash() not in tried]
        if untried:
            drawn = untried[rng.integers(len(untried))]
            self._optuna.enqueue_trial(space.flat(drawn, models))

    async def _run_trial(self, trial: optuna.Trial) -> None:
        """Evaluate or replay one trial and tell it, whatever happens; only UserError and cancellation leave it open."""
        trial_id = self._store.trial_id(trial.number)
        config = None
        try:
            config = self._study.space.sample(trial, self._study.models)
            self._store.save_config(trial_id, config)
            replayed = self._replayed(trial, trial_id, config)
            if not replayed:
                values = await self._values(trial.number, trial_id, config)
                self._complete(trial, trial_id, config, values)
        except UserError:
            raise
        except Exception as failure:  # a trial may fail in any way; the study goes on
            reason = str(failure) if isinstance(failure, TrialError) else repr(failure)
            self._fail(trial, trial_id, config, reason)

    def _replayed(self, trial: optuna.Trial, trial_id: int, config: AgentConfig) -> bool:
        """Tell what an earlier trial of the same config found; whether there is one."""
        for record in evaluated(self._store.trials()):
            if record.config is not None and record.config.hash() == config.hash():
                self._replays += 1
                assert record.values is not None
                self._complete(trial, trial_id, config, record.values, replay_of=record.number)
                return True
        self._replays = 0
        return False

    async def _values(self, number: int, trial_id: int, config: AgentConfig) -> dict[str, float]:
        runs = await self._pass(number, trial_id, config, "search")
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
            # Extra questions of both splits are kept together: the window tells whose they are.
            window = max(self._store.next_window(trial_id, place) for place in (split, EDGE))
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
        trial: optuna.Trial,
        trial_id: int,
        config: AgentConfig,
        values: Mapping[str, float],
        *,
        replay_of: int | None = None,
    ) -> None:
        feasible = True
        with warnings.catch_warnings():
            # A trial that was interrupted between here and `tell` has its constraints already.
            warnings.filterwarnings("ignore", message=".*is already set.*")
            for name, text in self._spec.constraints.items():
                excess = _excess(Condition.parse(text), values[name])
                feasible = feasible and excess <= 0
                trial.set_constraint(name, excess)
        self._store.finish(trial_id, values=values, feasible=feasible, replay_of=replay_of)
        if replay_of is not None:
            trial.set_user_attr("replay_of", replay_of)
        if config.oracle:
            trial.set_user_attr("feedback", "oracle")
        self._optuna.tell(trial, [values[name] for name in self._spec.objectives])
        self._failures = 0
        self._report(TrialEnded(trial.number, config, values, replay_of, None))

    def _fail(
        self, trial: optuna.Trial, trial_id: int, config: AgentConfig | None, reason: str
    ) -> None:
        self._store.finish(trial_id, failure=reason)
        trial.set_user_attr("failure", reason[:2000])
        self._optuna.tell(trial, state=optuna.trial.TrialState.FAIL)
        self._report(TrialEnded(trial.number, config, None, None, reason))
        self._failures += 1
        if self._failures >= FAILURES_IN_A_ROW:
            raise UserError(
                f"{FAILURES_IN_A_ROW} trials in a row failed; the last one: {reason}",
                hint=f"mend the cause, then run the same command again: tuner run {self._study.path}",
            )

    async def _confirm(self) -> None:
        if not self._task.holdout:
            return
        for point in Front.read(self._study, self._store).search:
            config = point.trial.config
            if config is not None:
                await self._pass(point.trial.number, point.trial.trial_id, config, "holdout")


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


def _provenance(
    endpoints: Mapping[str, Endpoint],
    meters: Mapping[str, Meter],
    cache: Literal["isolated", "shared"],
) -> dict[str, Any]:
    return {
        "versions": {
            name: version(name) for name in ("tuner", "optuna", "litellm", "optuna-dashboard")
        },
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "models": {
            name: {
                "settings": endpoint.settings.model_dump(mode="json"),
                "serve": endpoint.serve,
                "cache": cache if endpoint.clear_cache() else "shared",
                "energy": {
                    "source": meters[name].source,
                    "scope": meters[name].scope,
                    "tick_s": meters[name].tick_s,
                    "gpus": len(meters[name].devices) or None,
                },
            }
            for name, endpoint in endpoints.items()
        },
    }
