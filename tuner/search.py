"""One run of a study's search, and of the passes that follow it: which config gets how many questions.

Apart from `trials`, which runs and tells them, and from `study`, which opens and closes what all of it needs.
"""

from collections.abc import Sequence

import optuna

from tuner.blocks import Blocks
from tuner.errors import VariantError
from tuner.events import StudyEnded
from tuner.events import Talk
from tuner.proposals import Proposals
from tuner.records import ExampleRun
from tuner.records import TrialRecord
from tuner.results import LEFT_OUT
from tuner.results import Front
from tuner.results import counted
from tuner.samplers.pooled import BLOCK
from tuner.spec import LoadedStudy
from tuner.store import Store
from tuner.tasks import Example
from tuner.trials import Asked
from tuner.trials import Trials
from workflows.config import AgentConfig

POOLED = "pooled"

BLOCKS_A_SERVER = 8
"""Blocks for which a server is kept before another may be started in its place; docs/decisions/0018 has what fewer cost."""


class Search:
    """What can be done with the trials of a study."""

    def __init__(self, trials: Trials) -> None:
        self._trials = trials
        self._study = trials.study
        self._spec = trials.study.spec
        self._store = trials.store
        self._proposals = Proposals(trials.study, trials.optuna, trials.store)
        self._in_batches = False
        self._races = False

    async def run(self) -> None:
        """The search, then the holdout pass."""
        self._in_batches = any(self._study.models.values())
        search = self._run_blocks if self._spec.sampler.name == POOLED else self._run_trials
        self._trials.report(StudyEnded(await search()))
        await self.confirm()

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
                flat = self._study.space.flat(left[0], self._study.models)
                self._trials.optuna.enqueue_trial(flat)
            asked = self._trials.open(self._trials.optuna.ask())
            await self._run_all([asked])
            tried |= set() if asked.config is None else {asked.config.hash()}

    async def confirm(self) -> None:
        """The holdout pass."""
        records = to_confirm(self._study, self._store)
        known = [(record, record.config) for record in records if record.config is not None]
        for record, config in sorted(known, key=lambda pair: self._by_server(pair[1])):
            try:
                await self._trials.give(self._asked(record), config, "holdout")
            except VariantError as error:
                self._trials.report(Talk(f"trial {record.number} is not confirmed: {error}"))

    # Trials as Optuna proposes them

    async def _run_trials(self) -> str:
        """Trials as Optuna proposes them, to the end of the budget; why it is over."""
        self._races = bool(self._spec.racing)
        self._enqueue_defaults()
        await self._tell_left()
        await self._run_all([*self._interrupted(), *self._rest_of_batch()])
        while (reason := self._end()) is None:
            await self._run_all([self._open(self._proposals.ask()), *self._rest_of_batch()])
        return reason

    def _enqueue_defaults(self) -> None:
        """Have the published defaults tried first; they take half of the trials at most."""
        if self._store.trials():
            return
        configs = self._study.space.defaults(self._study.models)
        for config in configs[: self._spec.budget.trials // 2]:
            flat = self._study.space.flat(config, self._study.models)
            self._trials.optuna.enqueue_trial(flat)

    def _end(self) -> str | None:
        """Why the search is over, None while it is not."""
        ended = counted(self._store.trials())
        budget = self._spec.budget
        if len(ended) >= budget.trials:
            return f"all {budget.trials} trials are done"
        tried = {trial.config.hash() for trial in ended if trial.config is not None}
        size = self._study.space.size(self._study.models)
        if size is not None and len(tried) >= size:
            return f"all {size} configs of the search space are evaluated"
        return self._spent()

    def _spent(self) -> str | None:
        limit_s = self._spec.budget.wall_clock
        if limit_s is not None and self._search_s() >= limit_s:
            return f"{self._search_s():.0f} s of {limit_s:.0f} s are spent"
        return None

    def _search_s(self) -> float:
        row = self._store.row()
        return 0.0 if row is None else row.search_s

    def _interrupted(self) -> list[Asked]:
        """The trials that an earlier run has left."""
        return [
            self._open(self._proposals.interrupted(record))
            for record in self._store.trials()
            if record.state == "running"
        ]

    def _rest_of_batch(self) -> list[Asked]:
        """What is still to be asked for of the last batch; nothing where no server has to be restarted between trials."""
        asked: list[Asked] = []
        while self._in_batches and self._proposals.batch_lacks_configs():
            asked.append(self._open(self._proposals.ask()))
        return asked

    def _open(self, trial: optuna.Trial) -> Asked:
        if self._in_batches:
            left = self._spec.budget.trials - len(counted(self._store.trials()))
            self._proposals.open_batch(trial, left=left)
        return self._trials.open(trial)

    async def _run_all(self, asked: Sequence[Asked]) -> None:
        """Run what was asked for: first what needs no server to be started, then what has its server in common."""
        opened = [(each, each.config) for each in asked if each.config is not None]
        for each, config in sorted(opened, key=lambda pair: self._by_server(pair[1])):
            if self._is_left_out(each):
                self._trials.fail(each, LEFT_OUT)
                continue
            with self._trials.told(each):
                if not self._trials.replayed(each, config):
                    await self._evaluate(each, config)

    async def _evaluate(self, asked: Asked, config: AgentConfig) -> None:
        """All questions, unless the config is beaten for sure before; then what its checkpoints say of smaller budgets."""
        race = _Race(self._trials, asked) if self._races else None
        enough = race.is_over if race is not None else (lambda: False)
        runs = await self._trials.give(asked, config, "search", enough=enough)
        stopped = None if race is None else race.verdict
        values = self._trials.values(runs, sure=stopped is None)
        self._trials.complete(asked, config, values, stopped=stopped)
        if self._races and stopped is None:
            await self._tell_smaller(asked, config, runs)

    async def _tell_left(self) -> None:
        """Tell what an earlier run had not come to: the smaller budgets of the last trial that it told."""
        trials = self._store.trials()
        for left in trials:
            if left.state == "running" and left.derived_from is not None:
                self._trials.fail(self._asked(left), LEFT_OUT)
        own = [each for each in trials if each.state == "complete" and not each.is_free]
        if self._races and own and own[-1].stopped is None and own[-1].config is not None:
            runs = self._store.runs(own[-1].trial_id, "search")
            await self._tell_smaller(self._asked(own[-1]), own[-1].config, runs)

    def _asked(self, record: TrialRecord) -> Asked:
        """A trial that an earlier run opened."""
        trial = optuna.trial.Trial(self._trials.optuna, record.trial_id)
        return Asked(trial, record.trial_id, record.config)

    async def _tell_smaller(
        self, asked: Asked, config: AgentConfig, runs: Sequence[ExampleRun]
    ) -> None:
        """Trials of the smaller budgets that these runs say everything of."""
        known = {
            trial.config.hash()
            for trial in self._store.trials()
            if trial.config is not None and trial.failure != LEFT_OUT
        }

        def child_of(child: AgentConfig) -> Asked | None:
            if child.hash() in known:
                return None
            return self._trials.open_as(child, derived_from=asked.number)

        for child, smaller in await self._trials.derive(asked, config, runs, child_of, whole=True):
            with self._trials.told(child):
                values = self._trials.values(self._store.runs(child.trial_id, "search"))
                self._trials.complete(child, smaller, values)

    def _by_server(self, config: AgentConfig) -> tuple[bool, str]:
        """What configs are sorted by to start as few servers as can be; equal where no model has serving knobs."""
        ready = self._trials.executor.is_ready(config)
        return (not ready, config.model if not ready or self._in_batches else "")

    def _is_left_out(self, asked: Asked) -> bool:
        """Whether the time is up for a trial of a batch of which nothing has run."""
        limit_s = self._spec.budget.wall_clock
        if not self._in_batches or limit_s is None or self._search_s() < limit_s:
            return False
        return not self._store.finished(asked.trial_id, "search")

    # Questions as the pooled sampler gives them

    async def _run_blocks(self) -> str:
        """Questions as the pooled sampler gives them, to the end of the budget; why it is over."""
        blocks = Blocks(self._study, self._trials.task, self._store, self._trials.seen)
        running = [trial for trial in self._store.trials() if trial.state == "running"]
        resumed = [self._trials.open(self._proposals.interrupted(trial)) for trial in running]
        open_ = {each.config.hash(): each for each in resumed if each.config is not None}
        while (reason := self._end_of_blocks()) is None:
            given = self._next_block(blocks)
            if given is None:
                reason = "no config is left that may be on the front"
                break
            await self._give(blocks, open_, *given)
        self._settle(open_, reason)
        return reason

    def _end_of_blocks(self) -> str | None:
        """Why the pooled search is over, None while it is not."""
        questions = self._spec.budget.trials * len(self._trials.task.search)
        if self._store.asked_count("search") >= questions:
            return f"all questions of {self._spec.budget.trials} trials ({questions}) are asked"
        return self._spent()

    def _questions_left(self) -> float:
        """How many questions the budget still allows."""
        budget, given = self._spec.budget, self._store.asked_count("search")
        left = float(budget.trials * len(self._trials.task.search) - given)
        if budget.wall_clock is not None and given:
            left = min(left, given * (budget.wall_clock / max(self._search_s(), 1e-9) - 1))
        return left

    def _next_block(self, blocks: Blocks) -> tuple[AgentConfig, Sequence[Example]] | None:
        """The config to be given questions next, and which.

        The published defaults come first. In the end those on the front are given what they lack: what was not asked
        everything cannot be confirmed.
        """
        untried = blocks.untried(self._study.space.defaults(self._study.models))
        if untried is not None:
            return untried
        lacking = blocks.lacking()
        if lacking and self._questions_left() <= sum(len(questions) for _, questions in lacking):
            config, questions = lacking[0]
            return config, questions[:BLOCK]
        step = self._store.asked_count("search")
        stays = self._in_batches and step // BLOCK % BLOCKS_A_SERVER
        found = blocks.next(step, among=self._trials.executor.is_ready) if stays else None
        return found or blocks.next(step)

    async def _give(
        self,
        blocks: Blocks,
        open_: dict[str, Asked],
        config: AgentConfig,
        questions: Sequence[Example],
    ) -> None:
        """Give a config questions, and its smaller budgets what its checkpoints say of them."""

        def opened(wanted: AgentConfig, parent: int | None = None) -> Asked | None:
            if wanted.hash() not in open_:
                if blocks.is_complete(wanted):
                    return None
                open_[wanted.hash()] = self._trials.open_as(wanted, derived_from=parent)
                self._take_over(open_[wanted.hash()], wanted)
            return open_[wanted.hash()]

        asked = opened(config)
        assert asked is not None
        before = self._store.finished(asked.trial_id, "search")
        changed = [(asked, config)]
        with self._trials.told(asked):
            runs = await self._trials.give(asked, config, "search", questions)
            self._trials.values(runs, sure=False)
            new = [run for run in runs if (run.example_id, run.repeat) not in before]
            changed += await self._trials.derive(
                asked, config, new, lambda child: opened(child, asked.number)
            )
        if asked.is_told:
            blocks.exclude(config)
            del open_[config.hash()]
            return
        for each, wanted in changed:
            blocks.learn(wanted, each.trial_id)
            if blocks.is_complete(wanted):
                with self._trials.told(each):
                    runs = self._store.runs(each.trial_id, "search")
                    self._trials.complete(each, wanted, self._trials.values(runs))
                del open_[wanted.hash()]

    def _take_over(self, asked: Asked, config: AgentConfig) -> None:
        """Give a new trial the runs of one that was stopped when an earlier search ended."""
        for trial in self._store.trials():
            same = trial.config is not None and trial.config.hash() == config.hash()
            if same and trial.trial_id != asked.trial_id and trial.stopped is not None:
                known = self._store.finished(asked.trial_id, "search")
                for run in self._store.runs(trial.trial_id, "search"):
                    if (run.example_id, run.repeat) not in known:
                        self._trials.keep(asked.trial_id, "search", run.taken_over())

    def _settle(self, open_: dict[str, Asked], reason: str) -> None:
        """Tell the trials that have not had every question: with what they have had, or as left out."""
        for asked in list(open_.values()):
            assert asked.config is not None
            runs = self._store.runs(asked.trial_id, "search")
            if not runs:
                self._trials.fail(asked, LEFT_OUT)
                continue
            questions = len(self._trials.task.search)
            with self._trials.told(asked):
                self._trials.complete(
                    asked,
                    asked.config,
                    self._trials.values(runs, sure=False),
                    stopped=f"the search ended after {len(runs)} of its {questions} questions: {reason}",
                )


class _Race:
    """Whether a trial under way is beaten for sure; looked at after each block of questions."""

    def __init__(self, trials: Trials, asked: Asked) -> None:
        self.verdict: str | None = None
        """Why the trial is to be stopped; None while it is not."""

    def is_over(self) -> bool:
        """Whether the trial is to be given no more questions."""
        return self.verdict is not None


def to_confirm(study: LoadedStudy, store: Store) -> list[TrialRecord]:
    """The trials that have a place on the front, or may have one, and lack holdout questions.

    Agents that were told when they were right are not among them: nobody can tell them in deployment, so there is
    nothing to recommend, and those that are left are confirmed as if these were not there.
    """
    questions = study.task_options.holdout
    return [
        point.trial
        for point in Front.read(study, store, deployable=True).search
        if len(store.finished(point.trial.trial_id, "holdout")) < questions
    ]
