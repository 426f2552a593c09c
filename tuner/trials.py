"""Trials of a study while this process runs them: opened, given questions, kept, told; every one ends in a state.

Apart from `search`, which decides which config gets how many questions: here is what happens to any trial, and what
is kept of it before Optuna hears of it.
"""

import warnings
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace
from itertools import count

import optuna

from tuner.condition import Condition
from tuner.derive import Key
from tuner.derive import budget_of
from tuner.derive import larger
from tuner.derive import smaller
from tuner.errors import TrialError
from tuner.errors import UserError
from tuner.errors import VariantError
from tuner.evaluate import NO_PAST
from tuner.evaluate import Enough
from tuner.evaluate import Past
from tuner.evaluate import never_enough
from tuner.events import ExampleFinished
from tuner.events import PassEnded
from tuner.events import PassStarted
from tuner.events import Report
from tuner.events import Talk
from tuner.events import TrialEnded
from tuner.executors import Executor
from tuner.measure.window import total
from tuner.objectives import OBJECTIVES
from tuner.proposals import DERIVED_FROM
from tuner.records import ExampleRun
from tuner.results import evaluated
from tuner.seen import COST
from tuner.seen import Seen
from tuner.spec import LoadedStudy
from tuner.store import EDGE
from tuner.store import Store
from tuner.tasks import SPLITS
from tuner.tasks import Example
from tuner.tasks import Split
from tuner.tasks import Task
from workflows.config import AgentConfig
from workflows.config import Knob

FAILURES_IN_A_ROW = 3
"""After so many failed trials the cause is not the config."""

MOST_ENERGY_ERROR = 0.05
"""Standard error of a pass's energy above which it is refused: configs that differ by less could not be told apart."""


@dataclass(slots=True)
class Asked:
    """A trial that Optuna opened, and what it is to try, once that is settled."""

    trial: optuna.Trial
    trial_id: int
    config: AgentConfig | None = None
    """None where there is nothing to run: it has failed, or is known."""
    is_told: bool = False

    @property
    def number(self) -> int:
        """As tables have it."""
        return self.trial.number


class Trials:
    """The trials of one study, whose owner this process is."""

    def __init__(
        self,
        study: LoadedStudy,
        task: Task,
        optuna_study: optuna.Study,
        store: Store,
        *,
        owner: str,
        executor: Executor,
        report: Report,
    ) -> None:
        self.study = study
        self.task = task
        self.optuna = optuna_study
        self.store = store
        self.executor = executor
        self.report = report
        # What a question takes is needed by whoever spends, whether it is an objective or not.
        self.seen = Seen(store, task, list(dict.fromkeys([*study.measured(), COST])))
        self._owner = owner
        self._failures = 0
        self._under_way: dict[int, _UnderWay] = {}
        self._counted_s = executor.busy_s()
        """What of the executor's time is accounted for."""

    def open(self, trial: optuna.Trial, *, replays: bool = True) -> Asked:
        """What a trial is to try, kept before anything is run; told at once where that was evaluated before and it `replays`."""
        asked = Asked(trial, self.store.trial_id(trial.number))
        with self.told(asked):
            config = self.study.space.sample(trial, self.study.models)
            self.store.save_config(asked.trial_id, config)
            if not (replays and self.replayed(asked, config)):
                asked.config = config
        return asked

    def open_as(
        self,
        config: AgentConfig,
        *,
        derived_from: int | None = None,
        reused_from: str | None = None,
    ) -> Asked:
        """A trial of this config, which has the runs of others where it says so."""
        trial = self._asked_with(self.study.space.flat(config, self.study.models))
        asked = Asked(trial, self.store.trial_id(trial.number), config)
        self.study.space.sample(trial, self.study.models)  # Optuna keeps the knobs as they are read
        if derived_from is not None:
            trial.set_user_attr(DERIVED_FROM, derived_from)
        self.store.save_config(
            asked.trial_id, config, derived_from=derived_from, reused_from=reused_from
        )
        return asked

    def _asked_with(self, knobs: Mapping[str, Knob]) -> optuna.Trial:
        """A trial of these knobs: one that a run asked for, or enqueued, and was killed before it kept its config; or a new one."""
        waiting = []
        for record in self.store.trials():
            is_unsettled = record.state == "running" and record.config is None
            if is_unsettled and self.store.enqueued_knobs(record.trial_id) == knobs:
                self.optuna.get_trials(deepcopy=False)  # as for `Proposals.interrupted`
                return optuna.Trial(self.optuna, record.trial_id)
            if record.state == "waiting":
                waiting.append(record.trial_id)
        if not waiting or self.store.enqueued_knobs(waiting[0]) != knobs:
            self.end_waiting("was waiting when the study was interrupted")
            self.optuna.enqueue_trial(dict(knobs))
        return self.optuna.ask()

    def end_waiting(self, reason: str) -> None:
        """Tell as failed what a run enqueued that was killed before it asked, and that is of no use now."""
        while any(trial.state == "waiting" for trial in self.store.trials()):
            trial = self.optuna.ask()
            config = self.study.space.sample(trial, self.study.models)
            asked = Asked(trial, self.store.trial_id(trial.number), config)
            self.store.save_config(asked.trial_id, config)
            self.fail(asked, reason)

    @contextmanager
    def told(self, asked: Asked) -> Iterator[None]:
        """Tell a trial that fails, in whatever way; only UserError and cancellation leave it open."""
        try:
            yield
        except UserError:
            raise
        except Exception as failure:  # a trial may fail in any way; the study goes on
            reason = str(failure) if isinstance(failure, TrialError) else repr(failure)
            self.fail(asked, reason)
            self._failures += not isinstance(failure, VariantError)
            if self._failures >= FAILURES_IN_A_ROW:
                raise UserError(
                    f"{FAILURES_IN_A_ROW} trials in a row failed; the last one: {reason}",
                    hint="mend the cause, then run the same command again",
                ) from None

    def replayed(self, asked: Asked, config: AgentConfig) -> bool:
        """Tell what an earlier trial of the same config found; whether there is one."""
        key = config.hash()
        for record in evaluated(self.store.trials()):
            if record.config_hash == key:
                assert record.values is not None
                self.complete(
                    asked,
                    config,
                    record.values,
                    replay_of=record.number,
                    stopped=record.stopped,
                )
                return True
        return False

    async def give(
        self,
        asked: Asked,
        config: AgentConfig,
        split: Split,
        examples: Sequence[Example] | None = None,
        *,
        repeat: int = 0,
        enough: Enough = never_enough,
    ) -> tuple[ExampleRun, ...]:
        """Ask a config these examples, or all of a split, less those that it has answered; all its runs on the split."""
        record = _Recording(self, asked, config, split)
        chosen = self.task.examples(split) if examples is None else examples
        finished = self.store.finished(asked.trial_id, split)
        waiting = [example for example in chosen if (example.id, repeat) not in finished]
        self.report(
            PassStarted(asked.number, config, split, len(chosen), len(chosen) - len(waiting))
        )
        if waiting:
            # One count for all: extra questions of both splits lie together, and the window tells whose they are.
            window = max(self.store.next_window(asked.trial_id, p) for p in (*SPLITS, EDGE))
            past = self._past(asked, config) if split == "search" and repeat == 0 else NO_PAST
            self._under_way[asked.trial_id] = record.under_way = _UnderWay(
                config, {(example.id, repeat) for example in waiting}
            )
            try:
                sittings = await self.executor.run(
                    config,
                    waiting,
                    record.keep,
                    window=window,
                    repeat=repeat,
                    past=past,
                    enough=enough,
                )
            finally:
                del self._under_way[asked.trial_id]
                self.report(PassEnded(asked.number, split))
            for sitting in sittings:
                self.store.save_pass(asked.trial_id, split, sitting)
                if sitting.energy.warning is not None:
                    self.report(Talk(f"trial {asked.number}: energy: {sitting.energy.warning}"))
                if sitting.load.get("client_limited"):
                    reason = sitting.load["reason"]
                    self.report(Talk(f"trial {asked.number}: the client was the limit: {reason}"))
        return self.store.runs(asked.trial_id, split)

    def under_way(self) -> list[tuple[AgentConfig, int]]:
        """The configs that are answering, and how many questions each has before it."""
        return [(each.config, len(each.left)) for each in self._under_way.values() if each.left]

    def lap_s(self) -> float:
        """Seconds during which anything was under way since this was asked last: beside each other, they count once."""
        before_s, self._counted_s = self._counted_s, self.executor.busy_s()
        return self._counted_s - before_s

    def keep(self, trial_id: int, split: str, run: ExampleRun, *, search_s: float = 0.0) -> None:
        """Keep a finished run. Raises StoreError when this process no longer owns the study."""
        self.store.save_run(trial_id, split, run, owner=self._owner, search_s=search_s)
        if split == "search":
            self.seen.add(trial_id, run)

    def _past(self, asked: Asked, config: AgentConfig) -> Past:
        """What trials of the same config with other budgets have done of its questions, the nearest larger budget's first."""
        space, models = self.study.space, self.study.models
        family = [*larger(space, models, config), *smaller(space, models, config)]
        if not family:
            return NO_PAST
        by_hash = {
            trial.config_hash: trial
            for trial in self.store.trials()
            if trial.config is not None and trial.derived_from is None and trial.replay_of is None
        }
        past: dict[str, ExampleRun] = {}
        for other in reversed(family):
            trial = by_hash.get(other.hash())
            if trial is not None and trial.trial_id != asked.trial_id and trial.state != "failed":
                runs = [run for run in self.store.runs(trial.trial_id, "search") if not run.repeat]
                extras = self.store.extras(trial.trial_id, "search")
                past |= self.executor.begun(config, other, runs, extras)
        return past

    def values(self, runs: Sequence[ExampleRun], *, sure: bool = True) -> dict[str, float]:
        """What is optimised or constrained, over these runs.

        Raises TrialError when too many failed, or one was not measured, or the energy is not `sure` enough.
        """
        failed = [run for run in runs if run.error is not None]
        if len(failed) > self.study.spec.max_failure_rate * len(runs):
            raise TrialError(f"{len(failed)} of {len(runs)} examples failed: {failed[-1].error}")
        values: dict[str, float] = {}
        for name in self.study.measured():
            objective = OBJECTIVES[name]
            value = objective.value(runs)
            if value is None:
                lacking = next(run for run in runs if objective.value([run]) is None)
                metered = objective.needs == "meter"
                why = lacking.energy.problem if metered else "the server reported no token counts"
                raise TrialError(f"{name} was not measured on example {lacking.example_id}: {why}")
            if objective.needs == "meter" and sure:
                _require_sure(name, runs)
            values[name] = value
        return values

    def complete(
        self,
        asked: Asked,
        config: AgentConfig,
        values: Mapping[str, float],
        *,
        replay_of: int | None = None,
        stopped: str | None = None,
    ) -> None:
        """Keep a trial's values, then tell them; `stopped` says why they are those of some questions only."""
        trial, feasible = asked.trial, True
        with warnings.catch_warnings():
            # A trial that was interrupted between here and `tell` has its constraints already.
            warnings.filterwarnings("ignore", message=".*is already set.*")
            for name, text in self.study.spec.constraints.items():
                excess = _excess(Condition.parse(text), values[name])
                feasible = feasible and excess <= 0
                trial.set_constraint(name, excess)
            # Every trial has it, or Optuna takes those without for infeasible.
            trial.set_constraint("stopped", 0.0 if stopped is None else 1.0)
        self.store.finish(
            asked.trial_id, values=values, feasible=feasible, replay_of=replay_of, stopped=stopped
        )
        if replay_of is not None:
            trial.set_user_attr("replay_of", replay_of)
        if stopped is not None:
            trial.set_user_attr("stopped", stopped)
        if config.oracle:
            trial.set_user_attr("feedback", "oracle")
        self.optuna.tell(trial, [values[name] for name in self.study.spec.objectives])
        asked.is_told = True
        self._failures = 0
        self.report(TrialEnded(asked.number, config, values, replay_of, None, stopped))

    def fail(self, asked: Asked, reason: str) -> None:
        """Tell that a trial failed, and why."""
        self.store.finish(asked.trial_id, failure=reason)
        asked.trial.set_user_attr("failure", reason[:2000])
        self.optuna.tell(asked.trial, state=optuna.trial.TrialState.FAIL)
        asked.is_told = True
        self.report(TrialEnded(asked.number, asked.config, None, None, reason))

    async def derive(
        self,
        asked: Asked,
        config: AgentConfig,
        runs: Sequence[ExampleRun],
        child_of: Callable[[AgentConfig], Asked | None],
        *,
        whole: bool = False,
    ) -> list[tuple[Asked, AgentConfig]]:
        """Keep what runs say of smaller budgets as runs of other trials: those that `child_of` gives for their configs.

        With `whole` only of budgets of which every run says what they would have come to. What such a trial is being
        asked is left to it. Gives those trials.
        """
        if any(run.repeat for run in runs):
            runs = [run for run in runs if run.repeat == 0]
        extras = self.store.extras(asked.trial_id, "search")
        changed = []
        for config_ in smaller(self.study.space, self.study.models, config):
            budget = budget_of(config_)
            found = await self.executor.derive(config, runs, extras, budget)
            derived = [run for run in found if run is not None]
            is_enough = len(derived) == len(runs) if whole else bool(derived)
            child = child_of(config_) if is_enough else None
            if child is None:
                continue
            known = self.store.finished(child.trial_id, "search")
            if child.trial_id in self._under_way:
                known |= self._under_way[child.trial_id].left
            new = [run for run in derived if (run.example_id, run.repeat) not in known]
            for run in new:
                self.keep(child.trial_id, "search", run)
            changed.append((child, config_))
        return changed


@dataclass(slots=True)
class _UnderWay:
    """A pass while its questions are asked."""

    config: AgentConfig
    left: set[Key]
    """Questions, each with its repeat."""


class _Recording:
    """Keeps the runs of one pass as they finish, with the time that has passed meanwhile."""

    def __init__(self, trials: Trials, asked: Asked, config: AgentConfig, split: Split) -> None:
        self._trials = trials
        self._asked = asked
        self._split = split
        self._extras = trials.store.finished(asked.trial_id, EDGE)
        self.under_way = _UnderWay(config, set())

    def keep(self, run: ExampleRun) -> None:
        """Keep one run, and report it."""
        took_s = self._trials.lap_s()
        if run.edge:
            run = _numbered(run, self._extras)
        place = EDGE if run.edge else self._split
        spent_s = took_s if self._split == "search" else 0.0
        self._trials.keep(self._asked.trial_id, place, run, search_s=spent_s)
        if not run.edge:
            self.under_way.left.discard((run.example_id, run.repeat))
            self._trials.report(ExampleFinished(self._asked.number, run))


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
    """By how much a value breaks its bound, in parts of the bound; 0 or less when it does not.

    Samplers add up what constraints are broken by: thousands of tokens must not outweigh a share of accuracy.
    """
    limit = float(bound.value)
    over = value - limit if bound.sign == "<=" else limit - value
    return over / abs(limit) if limit else over
