"""One config on many examples: answers, scores, costs; no Optuna, no storage.

extra questions, the examples, extra questions: each asked when the load says so
    answer it, score it, read the meter, hand the record over at once
once the last example is answered, break off the extra questions under way
"""

import asyncio
import zlib
from collections import Counter
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Coroutine
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import replace
from time import perf_counter
from types import MappingProxyType
from typing import Any

from tuner.load import Asked
from tuner.load import ClientWatch
from tuner.load import Load
from tuner.load import LoadReport
from tuner.load import arrivals_s
from tuner.load import report
from tuner.measure import Meter
from tuner.measure.usage import add_up
from tuner.measure.window import Window
from tuner.measure.window import total
from tuner.records import NOT_REUSED
from tuner.records import ExampleRun
from tuner.records import Reading
from tuner.tasks import SPLITS
from tuner.tasks import Example
from tuner.tasks import Task
from workflows.agent import Agent
from workflows.resume import PastRun
from workflows.trace import Trace
from workflows.trace import keepable

Record = Callable[[ExampleRun], None]

Past = Mapping[str, ExampleRun]
"""Runs to go on from, by the id of their example: as `tuner.derive.begun` has them."""

NO_PAST: Past = MappingProxyType({})

Enough = Callable[[], bool]
"""Whether what was recorded so far will do."""


def never_enough() -> bool:
    """Never."""
    return False


Vouch = Callable[[ExampleRun], Awaitable[None]]
"""Returns where a question that failed did so by the config's own doing; raises where its servers are to blame."""


async def vouch_for_all(run: ExampleRun) -> None:
    """Every failure is the config's."""


BROKEN_OFF = "cancelled: the last measured question was answered"


@dataclass(frozen=True, slots=True)
class Sitting:
    """What holds for one evaluation as a whole."""

    energy: Reading
    load: LoadReport


async def evaluate(
    agent: Agent,
    examples: Iterable[Example],
    *,
    task: Task,
    meter: Meter,
    load: Load,
    record: Record,
    repeat: int = 0,
    window: int = 0,
    idle_w: float | None = None,
    past: Past = NO_PAST,
    enough: Enough = never_enough,
    vouch: Vouch = vouch_for_all,
) -> Sitting:
    """Run the agent on each example as the load has it, and give `record` each one as it ends.

    Extra questions of the load's warm-up and cool-down are recorded as well, marked `edge`; their repeats count
    on from `repeat`. `window` numbers this sitting in the records, `idle_w` is what the metered devices draw
    anyway. An example with a `past` goes on from there, if it does what that run did, and is asked anew otherwise; what
    it has from there counts in its cost, and as reused. `enough` is asked before each further example: once it says so,
    none is begun, and those under way are answered to their end. An example that fails is a record with score 0, the
    reason and its real cost, unless `vouch` raises: then it is an extra one, so that its cost is kept, and its question is
    still to be asked. Raises only what `record`, `enough` and `vouch` raise.
    """
    questions = _questions(tuple(examples), task, load, repeat)
    with Window(meter, idle_w=idle_w) as metered:
        async with ClientWatch() as watch:
            asking = _Asking(agent, task, metered, record, window, questions, past, enough, vouch)
            await asking.run(load, seed=repeat)
        return Sitting(metered.whole(), report(load, asking.asked, watch))


@dataclass(frozen=True, slots=True)
class _Question:
    example: Example
    repeat: int
    edge: bool = False


def _questions(examples: Sequence[Example], task: Task, load: Load, repeat: int) -> list[_Question]:
    """The examples, between extra ones.

    Those are what comes before and after in the examples' split, taken as a circle: so as many questions as
    can be lie between two that are the same, of which the later would find its prompts in the server's cache.
    """
    if not examples:
        return []
    circle = next((s for s in map(task.examples, SPLITS) if {*examples} <= {*s}), examples)
    first, last = circle.index(examples[0]), circle.index(examples[-1])
    before = [circle[(first - k) % len(circle)] for k in range(load.warm_up, 0, -1)]
    after = [circle[(last + k) % len(circle)] for k in range(1, load.cool_down + 1)]
    repeats = Counter({example.id: repeat for example in circle})

    def extra(example: Example) -> _Question:
        repeats[example.id] += 1
        return _Question(example, repeats[example.id], edge=True)

    measured = [_Question(example, repeat) for example in examples]
    return [*map(extra, before), *measured, *map(extra, after)]


class _Asking:
    """The questions of one sitting while they are asked."""

    def __init__(
        self,
        agent: Agent,
        task: Task,
        metered: Window,
        record: Record,
        window: int,
        questions: Sequence[_Question],
        past: Past,
        enough: Enough,
        vouch: Vouch,
    ) -> None:
        self.asked: list[Asked] = []
        self._agent = agent
        self._task = task
        self._metered = metered
        self._record = record
        self._window = window
        self._questions = questions
        self._past = past
        self._enough = enough
        self._vouch = vouch
        self._left = sum(not question.edge for question in questions)
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self, load: Load, *, seed: int) -> None:
        """Ask all questions; `seed` draws the arrivals of an open loop."""
        if not self._left:
            return
        try:
            async with asyncio.TaskGroup() as self._group:
                if load.rate is not None:
                    self._start(self._let_arrive(load, load.rate, seed))
                else:
                    waiting = self._waiting()
                    for _ in range(load.concurrency or 1):
                        self._start(self._work(waiting))
        except BaseExceptionGroup as failures:
            raise _first(failures) from None

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._group.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def _waiting(self) -> Iterator[_Question]:
        """The questions, each when there is room for it; once it is enough, extra ones while others are under way."""
        measured = sum(not question.edge for question in self._questions)
        over = False
        for question in self._questions:
            if not self._left:
                return
            if not question.edge and not over and self._enough():
                over = True
                self._left -= measured
                self._end_if_done()
            if question.edge:
                yield question
            elif not over:
                measured -= 1
                yield question

    def _end_if_done(self) -> None:
        """Break off whoever is still at work with an extra question, or waits for the next one to arrive."""
        if not self._left:
            for task in self._under_way - {asyncio.current_task()}:
                task.cancel()

    async def _work(self, waiting: Iterator[_Question]) -> None:
        for question in waiting:
            await self._ask(question, perf_counter())

    async def _let_arrive(self, load: Load, rate: float, seed: int) -> None:
        times_s = arrivals_s(
            rate,
            len(self._questions) - load.warm_up - load.cool_down,
            warm_up=load.warm_up,
            cool_down=load.cool_down,
            seed=seed,
        )
        began_s = perf_counter()
        waiting = self._waiting()
        for time_s in times_s:
            await asyncio.sleep(began_s + time_s - perf_counter())
            question = next(waiting, None)
            if question is None:
                return
            self._start(self._ask(question, began_s + time_s))

    async def _ask(self, question: _Question, arrived_s: float) -> None:
        began_s = perf_counter()
        past = None if question.edge else self._past.get(question.example.id)
        read_again: list[ExampleRun] = []
        run = None
        if past is not None:
            run = await self._answer(question, arrived_s, past, read_again.append)
        if run is None:
            run = await self._answer(question, arrived_s)
        assert run is not None
        self.asked.append(
            Asked(
                arrived_s,
                began_s,
                self._metered.opened_s + run.started_s + run.latency_s,
                calls=len(run.new_spans),
                edge=run.edge,
                answered=run.error != BROKEN_OFF,
            )
        )
        for each in read_again:
            self._record(each)
        if run.error not in (None, BROKEN_OFF):
            await self._require_own_failure(run)
        self._record(run)
        if not question.edge:
            self._left -= 1
            self._end_if_done()

    async def _require_own_failure(self, run: ExampleRun) -> None:
        try:
            await self._vouch(run)
        except BaseException:
            self._record(replace(run, edge=True, repeat=run.repeat + (not run.edge)))
            raise

    async def _answer(
        self,
        question: _Question,
        arrived_s: float,
        past: ExampleRun | None = None,
        record: Record = lambda run: None,
    ) -> ExampleRun | None:
        """The run; None where it does not do what the past one did, and has made no call.

        What it takes that servers read the past one's prompts again goes to `record`.
        """
        example, told = question.example, False

        async def oracle(answer: str) -> float:
            nonlocal told
            told = True
            return await self._task.score(example, answer)

        session = self._agent.open_session(
            seed=_seed(example, question.repeat),
            oracle=oracle,
            past=None if past is None else _as_begun(past),
            on_read_again=lambda trace: record(self._read_again(question, trace)),
        )
        session.trace.origin_s = arrived_s  # waiting to be asked is part of the latency
        outcome, score, error = None, 0.0, None
        try:
            outcome = await self._agent.run_session(example.question, session)
            score = await self._task.score(example, outcome.answer)
        except Exception as failure:  # an example may fail in any way; its cost still counts
            if not session.on_its_own:
                return None
            cause = _first(failure)
            error = keepable(f"{type(cause).__name__}: {cause}")
            outcome = outcome or session.outcome("")
        except asyncio.CancelledError:
            if self._left:
                raise
            error = BROKEN_OFF
            outcome = outcome or session.outcome("")
        energy, samples = self._metered.stretch()
        return ExampleRun(
            example_id=example.id,
            repeat=question.repeat,
            answer=outcome.answer,
            score=score,
            error=error,
            latency_s=outcome.latency_s,
            energy=energy if past is None else total((energy, past.energy)),
            **asdict(add_up(outcome.spans)),
            started_s=session.trace.origin_s - self._metered.opened_s,
            checkpoints=outcome.checkpoints,
            spans=outcome.spans,
            oracle=told,
            window=self._window,
            samples=samples,
            edge=question.edge,
            reused=NOT_REUSED if past is None else past.taken_over().reused,
        )

    def _read_again(self, question: _Question, trace: Trace) -> ExampleRun:
        """What it took that servers read prompts of a past run again: an extra run, so that it counts in no other."""
        latency_s = trace.now_s()
        energy, samples = self._metered.stretch()
        return ExampleRun(
            example_id=question.example.id,
            repeat=question.repeat + 1,
            answer="",
            score=0.0,
            error=None,
            latency_s=latency_s,
            energy=energy,
            **asdict(add_up(trace.spans)),
            started_s=trace.origin_s - self._metered.opened_s,
            checkpoints=(),
            spans=tuple(trace.spans),
            window=self._window,
            samples=samples,
            edge=True,
        )


def _as_begun(run: ExampleRun) -> PastRun:
    return PastRun(run.spans, run.checkpoints, run.latency_s)


def _seed(example: Example, repeat: int) -> int:
    """The same for every config, so that configs are compared on the same draws; another for each repeat."""
    return zlib.crc32(f"{example.id}/{repeat}".encode()) & 0x7FFFFFFF


def _first(failure: BaseException) -> BaseException:
    """The first cause of a failure; concurrent tasks fail in groups."""
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
