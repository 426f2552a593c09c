"""One config on many examples: answers, scores, costs; no Optuna, no storage.

one worker a slot of the load; each takes the next example, answers it, scores it, reads the meter,
and hands the record over at once
"""

import asyncio
import zlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import TypeVar

from tuner.measure import Meter
from tuner.measure.window import Window
from tuner.records import ExampleRun
from tuner.records import Reading
from tuner.tasks import Example
from tuner.tasks import Task
from workflows.agent import Agent
from workflows.trace import union_s

Record = Callable[[ExampleRun], None]


async def evaluate(
    agent: Agent,
    examples: Iterable[Example],
    *,
    task: Task,
    meter: Meter,
    concurrency: int,
    record: Record,
    repeat: int = 0,
    window: int = 0,
    idle_w: float | None = None,
) -> Reading:
    """Run the agent on each example, `concurrency` at a time, and give `record` each one as it ends.

    `window` numbers this sitting in the records, `idle_w` is what the metered devices draw anyway. Gives
    the energy of the sitting as a whole. An example that fails is a record with score 0, the reason and
    its real cost. Raises only what `record` raises.
    """
    waiting = iter(examples)

    async def work(metered: Window) -> None:
        for example in waiting:
            run = await _answer(agent, example, task=task, metered=metered, repeat=repeat)
            record(replace(run, window=window))

    with Window(meter, idle_w=idle_w) as metered:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(work(metered))
        except BaseExceptionGroup as failures:
            raise _first(failures) from None
        return metered.whole()


async def _answer(
    agent: Agent, example: Example, *, task: Task, metered: Window, repeat: int
) -> ExampleRun:
    started_s = perf_counter() - metered.opened_s
    told = False

    async def oracle(answer: str) -> float:
        nonlocal told
        told = True
        return await task.score(example, answer)

    session = agent.open_session(seed=_seed(example, repeat), oracle=oracle)
    outcome, score, error = None, 0.0, None
    try:
        outcome = await agent.run_session(example.question, session)
        score = await task.score(example, outcome.answer)
    except Exception as failure:  # an example may fail in any way; its cost still counts
        cause = _first(failure)
        error = f"{type(cause).__name__}: {cause}"
        outcome = outcome or session.outcome("")
    calls = [span for span in outcome.spans if span.kind == "llm"]
    thinking = [(span.start_s, span.end_s) for span in calls]
    acting = [(span.start_s, span.end_s) for span in outcome.spans if span.kind == "tool"]
    llm_s = union_s(thinking)
    # A try that failed before anything arrived used no tokens; one that broke off used an unknown number.
    priced = [span for span in calls if span.error is None or span.output]
    energy, samples = metered.stretch()
    return ExampleRun(
        example_id=example.id,
        repeat=repeat,
        answer=outcome.answer,
        score=score,
        error=error,
        latency_s=outcome.latency_s,
        energy=energy,
        tokens_in=_total([span.tokens_in for span in priced]),
        tokens_out=_total([span.tokens_out for span in priced]),
        tokens_cached=_total([span.tokens_cached for span in priced]),
        cost_usd=_total([span.cost_usd for span in priced]),
        llm_calls=len(calls),
        tool_calls=len(acting),
        llm_s=llm_s,
        tool_only_s=union_s(thinking + acting) - llm_s,
        started_s=started_s,
        checkpoints=outcome.checkpoints,
        spans=outcome.spans,
        oracle=told,
        samples=samples,
    )


def _seed(example: Example, repeat: int) -> int:
    """The same for every config, so that configs are compared on the same draws; another for each repeat."""
    return zlib.crc32(f"{example.id}/{repeat}".encode()) & 0x7FFFFFFF


def _first(failure: BaseException) -> BaseException:
    """The first cause of a failure; concurrent tasks fail in groups."""
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


Number = TypeVar("Number", int, float)


def _total(amounts: Sequence[Number | None]) -> Number | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None
