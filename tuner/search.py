"""One run of a study's search, and of the passes that follow it: which config gets how many questions.

Apart from `trials`, which runs and tells them, and from `study`, which opens and closes what all of it needs.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from collections.abc import Coroutine
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import optuna

from tuner.blocks import Blocks
from tuner.budget import Ledger
from tuner.derive import smaller
from tuner.errors import VariantError
from tuner.evaluate import never_enough
from tuner.events import FrontExpected
from tuner.events import StudyEnded
from tuner.events import Talk
from tuner.proposals import Proposals
from tuner.racing import Race
from tuner.records import ExampleRun
from tuner.records import TrialRecord
from tuner.replication import to_replicate
from tuner.results import LEFT_OUT
from tuner.results import Front
from tuner.results import counted
from tuner.results import evaluated
from tuner.reuse import Source
from tuner.reuse import reusable
from tuner.samplers import POOLED
from tuner.samplers.pooled import BLOCK
from tuner.spec import LoadedStudy
from tuner.spec import Racing
from tuner.store import EDGE
from tuner.store import Store
from tuner.tasks import Example
from tuner.trials import Asked
from tuner.trials import Trials
from workflows.config import AgentConfig

BLOCKS_A_SERVER = 8
"""Blocks for which a server is kept before another may be started in its place; docs/decisions/0018 has what fewer cost."""

FINISHING = 0.5
"""Share of the budget that is kept for what the front lacks, at most: what was not asked everything is not confirmed."""


Work = Coroutine[Any, Any, None]

Given = tuple[AgentConfig, Sequence[Example]]
"""A config, and the questions that it is given."""


class Search:
    """What can be done with the trials of a study."""

    def __init__(self, trials: Trials, sources: Sequence[Source] = ()) -> None:
        """`sources` are studies whose evaluations may be taken over."""
        self._trials = trials
        self._sources = sources
        self._study = trials.study
        self._spec = trials.study.spec
        self._store = trials.store
        self._proposals = Proposals(trials.study, trials.optuna, trials.store)
        self._executor = trials.executor
        self._ledger = Ledger(trials.study, trials.store, under_way=trials.under_way)
        self._in_batches = False
        self._is_limited = False
        self._races = False
        self._busy: dict[str, Given] = {}
        """What the pooled sampler has given out and not got back, by config."""
        self._is_spent = False
        """Whether the budget had nothing left for another answer."""
        self._answering: dict[str, asyncio.Lock] = {}
        """By config: of two trials of one, the later waits for what the first finds."""
        self._refusal: str | None = None
        """Why what was to be run next does not fit into what is left of the budget."""

    async def run(self) -> None:
        """The search, then the holdout pass."""
        self._in_batches = any(self._study.models.values())
        self._is_limited = True
        search = self._run_blocks if self._spec.sampler.name == POOLED else self._run_trials
        self._trials.report(StudyEnded(await search()))
        await self._replicate()
        await self.confirm()

    async def measure(self, configs: Sequence[AgentConfig]) -> None:
        """Each of these configs that is not complete, once."""
        await self._run_all(self._interrupted())
        left = deque(configs)
        tried: set[str] = set()

        def begin() -> Work | None:
            trials = self._store.trials()
            done = tried | {
                trial.config_hash
                for trial in trials
                if trial.config is not None and trial.state == "complete" and trial.stopped is None
            }
            while left:
                config = left.popleft()
                if config.hash() in done:
                    continue
                # One that waits was enqueued by a run that was killed before it asked.
                if any(trial.state == "waiting" for trial in trials):
                    left.appendleft(config)
                else:
                    flat = self._study.space.flat(config, self._study.models)
                    self._trials.optuna.enqueue_trial(flat)
                asked = self._trials.open(self._trials.optuna.ask())
                if asked.config is not None:
                    tried.add(asked.config.hash())
                    return self._run_one(asked, asked.config)
                trials = self._store.trials()
            return None

        await self._side_by_side(begin)

    async def confirm(self) -> None:
        """The holdout pass."""
        records = to_confirm(self._study, self._store)
        known = [(record, record.config) for record in records if record.config is not None]
        waiting = deque(sorted(known, key=lambda pair: self._order(pair[1])))

        def begin() -> Work | None:
            return self._confirm(*waiting.popleft()) if waiting else None

        await self._side_by_side(begin)

    async def _confirm(self, record: TrialRecord, config: AgentConfig) -> None:
        questions = len(self._trials.task.holdout)
        questions -= len(self._store.finished(record.trial_id, "holdout"))
        refusal = self._ledger.affords(config, questions, split="holdout")
        try:
            if refusal is None:
                await self._trials.give(self._asked(record), config, "holdout")
        except VariantError as error:
            refusal = str(error)
        if refusal is not None:
            self._trials.report(Talk(f"trial {record.number} is not confirmed: {refusal}"))

    async def _side_by_side(self, begin: Callable[[], Work | None]) -> None:
        """Do what `begin` gives, as much at once as there is room for, until it gives nothing and all is done.

        It is asked again whenever something is done. What one raises ends the others.
        """
        under_way: set[asyncio.Task[None]] = set()
        change = asyncio.create_task(self._executor.change())
        try:
            while True:
                has_room = self._executor.has_room(len(under_way))
                work = begin() if has_room else None
                if work is not None:
                    under_way.add(asyncio.create_task(work))
                    await asyncio.sleep(0)  # it takes its place
                    continue
                if has_room and not under_way:
                    return
                done, _ = await asyncio.wait(
                    {*under_way, change}, return_when=asyncio.FIRST_COMPLETED
                )
                if change in done:
                    change = asyncio.create_task(self._executor.change())
                for each in done & under_way:
                    under_way.discard(each)
                    each.result()
        finally:
            for each in {*under_way, change}:
                each.cancel()
            await asyncio.gather(*under_way, change, return_exceptions=True)

    async def _replicate(self) -> None:
        """Ask once more what configs were asked whose place on the front is uncertain, as far as `repeats` and the budget go."""
        while self._spec.repeats > 1:
            found = Front.read(self._study, self._store)
            records = {point.trial.number: point.trial for point in found.candidates}
            numbers = to_replicate(
                self._store,
                found.candidates,
                repeats=self._spec.repeats,
                most=max(1, self._executor.capacity),
            )
            waiting = deque(records[number] for number in numbers)
            asked = len(waiting)

            def begin(waiting: deque[TrialRecord] = waiting) -> Work | None:
                questions = len(self._trials.task.search)
                while waiting:
                    record = waiting.popleft()
                    assert record.config is not None
                    if self._ledger.affords(record.config, questions) is None:
                        return self._ask_once_more(record, record.config)
                    self._is_spent = True
                return None

            await self._side_by_side(begin)
            if not asked or self._is_spent:
                return

    async def _ask_once_more(self, record: TrialRecord, config: AgentConfig) -> None:
        asked = self._store.finished(record.trial_id, "search")
        repeat = min(
            sum((example.id, number) in asked for number in range(self._spec.repeats))
            for example in self._trials.task.search
        )
        self._trials.report(
            Talk(f"trial {record.number} is asked once more: its place on the front is uncertain")
        )
        await self._trials.give(self._asked(record), config, "search", repeat=repeat)

    def _take_over_sources(self, *, partial: bool) -> list[tuple[Asked, AgentConfig]]:
        """Make trials of what earlier studies have measured; those that lack questions are left open, or left out."""
        reusables, refused = reusable(self._study, self._trials.task, self._store, self._sources)
        for line in refused:
            self._trials.report(Talk(f"warm start: {line}"))
        open_, left = [], 0
        for each in reusables:
            answered = sum(repeat == 0 for _, repeat in each.answers)
            is_whole = answered == len(self._trials.task.search)
            if not is_whole and not partial:
                left += 1
                continue
            asked = self._trials.open_as(each.config, reused_from=each.name)
            for run in each.runs():
                self._trials.keep(asked.trial_id, EDGE if run.edge else "search", run)
            if not is_whole:
                open_.append((asked, each.config))
                continue
            with self._trials.told(asked):
                runs = self._store.runs(asked.trial_id, "search")
                self._trials.complete(asked, each.config, self._trials.values(runs))
        if len(reusables) > left:
            taken = len(reusables) - left
            count = f"{taken} evaluation{'' if taken == 1 else 's'}"
            self._trials.report(Talk(f"warm start: {count} of earlier studies taken over"))
        if left:
            self._trials.report(
                Talk(
                    f"warm start: {left} with answers to some of the questions only left out: "
                    f"sampler {self._spec.sampler.name} gives whole trials"
                )
            )
        return open_

    # Trials as Optuna proposes them

    async def _run_trials(self) -> str:
        """Trials as Optuna proposes them, to the end of the budget; why it is over."""
        self._races = bool(self._spec.racing)
        self._take_over_sources(partial=False)
        await self._tell_left()
        await self._run_all([*self._interrupted(), *self._rest_of_batch()])
        waiting: deque[tuple[Asked, AgentConfig]] = deque()

        def begin() -> Work | None:
            while not waiting:
                if self._end() is not None:
                    return None
                waiting.extend(
                    self._runnable([self._open(self._proposals.ask()), *self._rest_of_batch()])
                )
            return self._run_one(*waiting.popleft())

        await self._side_by_side(begin)
        # What a database that was away for a moment has opened twice.
        await self._run_all(self._interrupted())
        return self._end() or "nothing is left to be asked"

    def _end(self) -> str | None:
        """Why no more is asked for, None while it is; what is under way counts as if it were done."""
        if self._refusal is not None:
            return self._refusal
        trials = self._store.trials()
        under_way = [trial for trial in trials if trial.state == "running"]
        budget = self._spec.budget
        if len(counted(trials)) + len(under_way) >= budget.trials:
            return f"all {budget.trials} trials are done"
        tried = {
            trial.config_hash
            for trial in trials
            if trial.config is not None and trial.state in ("complete", "failed", "running")
            if trial.failure != LEFT_OUT
        }
        size = self._study.space.size(self._study.models)
        if size is not None and len(tried) >= size:
            return f"all {size} configs of the search space are evaluated"
        return self._ledger.end_reason()

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
        waiting = deque(self._runnable(asked))

        def begin() -> Work | None:
            return self._run_one(*waiting.popleft()) if waiting else None

        await self._side_by_side(begin)

    def _runnable(self, asked: Sequence[Asked]) -> list[tuple[Asked, AgentConfig]]:
        """Those that are to be run, in the order in which they are."""
        opened = [(each, each.config) for each in asked if each.config is not None]
        return sorted(opened, key=lambda pair: self._order(pair[1]))

    async def _run_one(self, asked: Asked, config: AgentConfig) -> None:
        """Run a trial, unless there is no budget left for it, or the same config is found to have been evaluated meanwhile."""
        async with self._answering.setdefault(config.hash(), asyncio.Lock()):
            if self._is_left_out(asked, config):
                self._trials.fail(asked, LEFT_OUT)
                return
            with self._trials.told(asked):
                if not self._trials.replayed(asked, config):
                    await self._evaluate(asked, config)

    async def _evaluate(self, asked: Asked, config: AgentConfig) -> None:
        """All questions, unless the config is beaten for sure before; then what its checkpoints say of smaller budgets."""
        racing = self._spec.racing if self._races else False
        runner = _Runner(self._trials, asked, config, racing) if racing else None
        enough = never_enough if runner is None else runner.is_over
        runs = await self._trials.give(asked, config, "search", enough=enough)
        stopped = None if runner is None else runner.verdict
        values = self._trials.values(runs, sure=stopped is None)
        self._trials.complete(asked, config, values, stopped=stopped)
        if self._is_limited and stopped is None:
            await self._tell_smaller(asked, config, runs)

    async def _tell_left(self) -> None:
        """Tell what an earlier run had not come to: smaller budgets of trials that it told."""
        trials, derived = self._store.trials(), self._store.derived()
        parents = [
            (trial, trial.config)
            for trial in trials
            if trial.state == "complete" and trial.stopped is None and not trial.is_free
            if trial.config is not None and trial.trial_id not in derived
            if smaller(self._study.space, self._study.models, trial.config)
        ]
        left = {
            trial.config.hash(): Asked(
                self._proposals.interrupted(trial), trial.trial_id, trial.config
            )
            for trial in trials
            if trial.state == "running" and trial.config is not None
            if trial.derived_from is not None
        }
        for trial, config in parents:
            runs = self._store.runs(trial.trial_id, "search")
            await self._tell_smaller(self._asked(trial), config, runs, left)

    def _asked(self, record: TrialRecord) -> Asked:
        """A trial that an earlier run opened."""
        trial = optuna.trial.Trial(self._trials.optuna, record.trial_id)
        return Asked(trial, record.trial_id, record.config)

    async def _tell_smaller(
        self,
        asked: Asked,
        config: AgentConfig,
        runs: Sequence[ExampleRun],
        left: Mapping[str, Asked] | None = None,
    ) -> None:
        """Trials of the smaller budgets that these runs say everything of; some may be `left` open, by config."""
        if not smaller(self._study.space, self._study.models, config):
            return
        known = {
            trial.config_hash
            for trial in self._store.trials()
            if trial.config is not None and trial.failure != LEFT_OUT
        }

        def child_of(child: AgentConfig) -> Asked | None:
            if left is not None and child.hash() in left:
                return left[child.hash()]
            if child.hash() in known:
                return None
            return self._trials.open_as(child, derived_from=asked.number)

        for child, own in await self._trials.derive(asked, config, runs, child_of, whole=True):
            with self._trials.told(child):
                values = self._trials.values(self._store.runs(child.trial_id, "search"))
                self._trials.complete(child, own, values)
        self._store.save_derived(asked.trial_id)

    def _by_server(self, config: AgentConfig) -> tuple[bool, str]:
        """What configs are sorted by to start as few servers as can be; equal where no model has serving knobs."""
        ready = self._executor.is_ready(config)
        return (not ready, config.model if not ready or self._in_batches else "")

    def _order(self, config: AgentConfig) -> tuple[bool, str, float]:
        """What configs are sorted by to be run: servers as they are, and beside each other what takes longest first."""
        longest = -self._ledger.expected_s(config) if self._executor.capacity > 1 else 0.0
        return (*self._by_server(config), longest)

    def _is_left_out(self, asked: Asked, config: AgentConfig) -> bool:
        """Whether a trial of which nothing has run does not fit into what is left of the budget; what was begun is ended."""
        if not self._is_limited or self._store.finished(asked.trial_id, "search"):
            return False
        questions = len(self._trials.task.search)
        self._refusal = self._ledger.end_reason() or self._ledger.affords(config, questions)
        return self._refusal is not None

    # Questions as the pooled sampler gives them

    async def _run_blocks(self) -> str:
        """Questions as the pooled sampler gives them, to the end of the budget; why it is over."""
        taken = self._take_over_sources(partial=True)
        blocks = Blocks(self._study, self._trials.task, self._store, self._trials.seen)
        self._ledger = Ledger(
            self._study,
            self._store,
            front=blocks.front,
            under_way=self._trials.under_way,
        )
        running = [trial for trial in self._store.trials() if trial.state == "running"]
        resumed = [
            self._trials.open(self._proposals.interrupted(trial), replays=False)
            for trial in running
        ]
        open_ = {each.config.hash(): each for each in resumed if each.config is not None}
        open_ |= {config.hash(): asked for asked, config in taken}
        reason = ""

        def begin() -> Work | None:
            nonlocal reason
            given, reason = self._next_affordable(blocks)
            if given is None:
                return None
            self._busy[given[0].hash()] = given
            return self._give(blocks, open_, *given)

        await self._side_by_side(begin)
        self._settle(open_, reason)
        return reason

    def _next_affordable(self, blocks: Blocks) -> tuple[Given | None, str]:
        """The config to be given questions next, and which; or None, and why."""
        over = self._end_of_blocks()
        if over is not None:
            return None, over
        given = self._next_block(blocks)
        if given is None:
            return None, "no config is left that may be on the front"
        if self._refusal_of(given[0], blocks.left(given[0])) is not None:
            # It could not be completed any more: what the front lacks comes before it.
            given = self._affordable(self._lacking(blocks)) or given
        config, questions = given[0], given[1][: self._questions_left()]
        refusal = self._ledger.affords(config, len(questions))
        return ((config, questions), "") if refusal is None else (None, refusal)

    def _end_of_blocks(self) -> str | None:
        """Why the pooled search is over, None while it is not."""
        if self._questions_left() <= 0:
            trials = self._spec.budget.trials
            return f"all questions of {trials} trials ({self._questions()}) are asked"
        return self._ledger.end_reason()

    def _questions(self) -> int:
        """How many the trials of the budget come to."""
        return self._spec.budget.trials * len(self._trials.task.search)

    def _questions_left(self) -> int:
        return self._questions() - self._questions_asked()

    def _questions_asked(self) -> int:
        """On the search questions, those that are under way among them."""
        under_way = sum(questions for _, questions in self._trials.under_way())
        return self._store.asked_count("search") + under_way

    def _lacking(self, blocks: Blocks) -> list[Given]:
        """Questions that the front lacks, by config, less those of whom some are under way."""
        return [each for each in blocks.lacking() if each[0].hash() not in self._busy]

    def _refusal_of(self, config: AgentConfig, questions: int) -> str | None:
        """Why a config cannot answer so many more questions within the budget; None where it can."""
        left = self._questions_left()
        if questions > left:
            return f"{left} of the questions of {self._spec.budget.trials} trials are left"
        return self._ledger.affords(config, questions)

    def _next_block(self, blocks: Blocks) -> Given | None:
        """The config to be given questions next, and which.

        The published defaults come first. In the end those that hold the front are given what they lack: what was not
        asked everything cannot be confirmed.
        """
        defaults = self._study.space.defaults(self._study.models)
        untried = blocks.untried([each for each in defaults if each.hash() not in self._busy])
        if untried is not None:
            return untried
        finishing = self._finishing(blocks)
        if finishing is not None:
            return finishing
        step = self._questions_asked()
        stays = self._in_batches and step // BLOCK % BLOCKS_A_SERVER
        found = (
            blocks.next(step, self._busy.values(), among=self._executor.is_ready) if stays else None
        )
        return found or blocks.next(step, self._busy.values())

    def _finishing(self, blocks: Blocks) -> Given | None:
        """Questions that the front lacks, once it may take all that is left of the budget, FINISHING of it at most."""
        left = self._questions_left()
        if min(left / self._questions(), self._ledger.left()) > FINISHING:
            return None
        lacking = self._lacking(blocks)
        plan = [(config, len(questions)) for config, questions in lacking]
        if sum(questions for _, questions in plan) < left and self._ledger.allows(plan):
            return None
        return self._affordable(lacking)

    def _affordable(self, lacking: Sequence[Given]) -> Given | None:
        """Questions that the front lacks, of the first config of which all fit into what is left of the budget."""
        for config, questions in lacking:
            if self._refusal_of(config, len(questions)) is None:
                return config, questions[:BLOCK]
        return None

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
        try:
            with self._trials.told(asked):
                runs = await self._trials.give(asked, config, "search", questions)
                self._trials.values(runs, sure=False)
                new = [run for run in runs if (run.example_id, run.repeat) not in before]
                changed += await self._trials.derive(
                    asked, config, new, lambda child: opened(child, asked.number)
                )
        finally:
            del self._busy[config.hash()]
        if asked.is_told:
            blocks.exclude(config)
            del open_[config.hash()]
            return
        for each, wanted in changed:
            blocks.learn(wanted, each.trial_id)
        self._trials.report(FrontExpected(blocks.expected()))
        for each, wanted in changed:
            if wanted.hash() in self._busy:
                continue  # it is told when it has had what it is being asked
            if blocks.is_complete(wanted) and wanted.hash() in open_:
                with self._trials.told(each):
                    runs = self._store.runs(each.trial_id, "search")
                    self._trials.complete(each, wanted, self._trials.values(runs))
                del open_[wanted.hash()]

    def _take_over(self, asked: Asked, config: AgentConfig) -> None:
        """Give a new trial the runs of one that was stopped when an earlier search ended."""
        key = config.hash()
        for trial in self._store.trials():
            same = trial.config_hash == key
            if same and trial.trial_id != asked.trial_id and trial.stopped is not None:
                known = self._store.finished(asked.trial_id, "search")
                for run in self._store.runs(trial.trial_id, "search"):
                    if (run.example_id, run.repeat) not in known:
                        self._trials.keep(asked.trial_id, "search", run.taken_over())

    def _settle(self, open_: dict[str, Asked], reason: str) -> None:
        """Tell the trials that have not had every question: with what they have had, or as left out."""
        self._trials.end_waiting(LEFT_OUT)
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


class _Runner:
    """A trial in a race: whether it is beaten for sure, looked at after each block of questions."""

    def __init__(self, trials: Trials, asked: Asked, config: AgentConfig, racing: Racing) -> None:
        self.verdict: str | None = None
        """Why the trial is to be stopped; None while it is not."""
        self._seen = trials.seen
        self._asked = asked
        self._block = racing.block
        self._questions = len(trials.task.search)
        self._count = len(trials.study.spec.objectives)
        measured = {
            trial.number: trials.seen.of(trial.trial_id)[:, : self._count]
            for trial in evaluated(trials.store.trials())
            if trial.feasible and trial.stopped is None and trial.config is not None
            # One that was told when it was right cannot be deployed: it stops none that can.
            if config.oracle or not trial.config.oracle
        }
        objectives = trials.seen.objectives[: self._count]
        self._race = Race(objectives, measured, confidence=racing.confidence)
        self._looked_at = 0

    def is_over(self) -> bool:
        """Whether the trial is to be given no more questions."""
        seen = self._seen.of(self._asked.trial_id)[:, : self._count]
        count = int(self._seen.answered(self._asked.trial_id).sum())
        if self.verdict is None and count - self._looked_at >= self._block:
            self._looked_at = count
            beater = self._race.beaten_by(seen)
            if beater is not None:
                self.verdict = (
                    f"trial {beater} beats it, as {count} of {self._questions} questions show"
                )
        return self.verdict is not None


def to_confirm(study: LoadedStudy, store: Store) -> list[TrialRecord]:
    """The trials that have a place on the front, or may have one, and lack holdout questions.

    Agents that were told when they were right are not among them: nobody can tell them in deployment, so there is
    nothing to recommend, and those that are left are confirmed as if these were not there.
    """
    questions = study.task_options.holdout
    return [
        point.trial
        for point in Front.read(study, store, deployable=True).candidates
        if len(store.finished(point.trial.trial_id, "holdout")) < questions
    ]
