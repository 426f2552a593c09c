"""One config on many examples: what a record holds, and that nothing is lost or counted twice."""

import asyncio
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.evaluate import evaluate
from tuner.load import Load
from tuner.measure import NoMeter
from tuner.measure import Sample
from tuner.records import ExampleRun
from tuner.tasks import Example
from tuner.tasks import Task
from workflows import LLM
from workflows import AgentConfig
from workflows import AgentPack
from workflows import Document
from workflows import ModelError
from workflows import Request
from workflows import ScriptedLLM
from workflows import Span
from workflows import Trace
from workflows import build
from workflows.llm import OnText

PACK = AgentPack(
    instruction="Answer.",
    toolkits=("browser",),
    documents=(Document(title="Anna", sentences=("village: Oak.",)),),
)


class TickingMeter:
    """One joule more at every reading."""

    source = "ticking"
    scope = "nothing real"
    tick_s = 0.0
    devices = ()

    def __init__(self) -> None:
        self.reads = 0

    def read(self) -> Sample:
        self.reads += 1
        return Sample(perf_counter(), float(self.reads))


def make_task(count: int) -> Task:
    examples = tuple(Example(f"e{n}", f"Question {n}?", ("yes",)) for n in range(count))

    async def score(example: Example, answer: str) -> float:
        return float(answer == "yes")

    return Task("test", PACK, examples, (), score)


async def run(
    llm: LLM, *, count: int = 4, concurrency: int = 1, workflow: str = "direct", **params: object
) -> list[ExampleRun]:
    task = make_task(count)
    agent = build(
        AgentConfig(workflow=workflow, model="m", params=params), llms={"m": llm}, pack=PACK
    )
    runs: list[ExampleRun] = []
    await evaluate(
        agent,
        task.search,
        task=task,
        meter=TickingMeter(),
        load=Load(concurrency=concurrency),
        record=runs.append,
    )
    return runs


async def test_a_record_holds_score_cost_and_energy() -> None:
    llm = ScriptedLLM([" search[Anna]", " finish[yes]"])
    (record,) = await run(llm, count=1, workflow="react", thoughts=False)
    assert (record.example_id, record.answer, record.score, record.error) == ("e0", "yes", 1, None)
    assert (record.llm_calls, record.tool_calls) == (2, 1)
    assert record.tokens_in == sum(len(request.text().split()) for request in llm.requests)
    assert record.tokens_out == 2
    assert record.energy.gross_j == 1
    assert record.energy.source == "ticking"
    assert [checkpoint.answer for checkpoint in record.checkpoints] == ["", "yes"]
    assert 0 <= record.llm_s + record.tool_only_s <= record.latency_s


async def test_a_failed_example_is_a_record_with_its_cost() -> None:
    llm = ScriptedLLM(["yes", ModelError("out of order"), "no"])
    runs = await run(llm, count=3)
    assert [record.score for record in runs] == [1, 0, 0]
    assert [record.error for record in runs] == [None, "ModelError: out of order", None]
    assert runs[1].latency_s > 0
    assert runs[1].llm_calls == 1
    assert runs[1].energy.gross_j == 1


async def test_a_run_that_fails_late_keeps_its_checkpoints_and_spans() -> None:
    llm = ScriptedLLM([" search[Anna]", ModelError("gone")])
    (record,) = await run(llm, count=1, workflow="react", thoughts=False)
    assert record.error is not None
    assert [checkpoint.budget for checkpoint in record.checkpoints] == [1]
    assert [span.kind for span in record.spans] == ["llm", "tool", "llm"]


async def test_a_scorer_that_fails_keeps_the_answer() -> None:
    async def score(example: Example, answer: str) -> float:
        raise ValueError("cannot compare")

    task = Task("test", PACK, make_task(1).search, (), score)
    agent = build(
        AgentConfig(workflow="direct", model="m"), llms={"m": ScriptedLLM(["yes"])}, pack=PACK
    )
    runs: list[ExampleRun] = []
    await evaluate(agent, task.search, task=task, meter=NoMeter(), load=Load(), record=runs.append)
    assert (runs[0].answer, runs[0].score) == ("yes", 0)
    assert runs[0].error == "ValueError: cannot compare"
    assert runs[0].energy.gross_j is None
    assert runs[0].energy.problem is not None


@given(count=st.integers(0, 20), concurrency=st.integers(1, 8))
def test_every_example_is_recorded_once_and_the_joules_add_up(count: int, concurrency: int) -> None:
    runs = asyncio.run(
        run(ScriptedLLM(lambda request: "yes"), count=count, concurrency=concurrency)
    )
    assert sorted(record.example_id for record in runs) == sorted(f"e{n}" for n in range(count))
    counted = max((joules for record in runs for _, joules in record.samples), default=0)
    assert sum(record.energy.gross_j or 0 for record in runs) == counted >= count


async def test_no_more_examples_are_under_way_than_the_load_allows() -> None:
    under_way, most = 0, 0

    class Counting:
        async def complete(
            self, request: Request, trace: Trace, on_text: OnText | None = None
        ) -> str:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.001)
            under_way -= 1
            return "yes"

    await run(Counting(), count=20, concurrency=5)
    assert most == 5


async def test_the_seed_is_the_examples_own_and_the_same_for_every_config() -> None:
    first, second = ScriptedLLM(lambda r: "yes"), ScriptedLLM(lambda r: "yes")
    await run(first, count=3)
    await run(second, count=3, few_shot=1)
    assert [r.seed for r in first.requests] == [r.seed for r in second.requests]
    assert len({r.seed for r in first.requests}) == 3


async def test_what_record_raises_ends_the_pass_as_it_is() -> None:
    task = make_task(3)
    agent = build(
        AgentConfig(workflow="direct", model="m"),
        llms={"m": ScriptedLLM(lambda r: "yes")},
        pack=PACK,
    )

    def refuse(run: ExampleRun) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        await evaluate(
            agent, task.search, task=task, meter=NoMeter(), load=Load(concurrency=2), record=refuse
        )


async def test_a_try_that_sent_nothing_leaves_the_token_counts_known() -> None:
    """A refused connection used no tokens; a reply that broke off used an unknown number."""

    class Flaky:
        def __init__(self, output: str) -> None:
            self._output = output

        async def complete(
            self, request: Request, trace: Trace, on_text: OnText | None = None
        ) -> str:
            trace.add(Span("llm", "m", 0, 0, "", self._output, error="refused", attempt=1))
            trace.add(Span("llm", "m", 0, 0, "", "yes", tokens_in=5, tokens_out=1, attempt=2))
            return "yes"

    (nothing,) = await run(Flaky(""), count=1)
    (partly,) = await run(Flaky("ye"), count=1)
    assert (nothing.tokens_in, nothing.tokens_out, nothing.llm_calls) == (5, 1, 2)
    assert (partly.tokens_in, partly.tokens_out) == (None, None)


async def oracle_asked(workflow: str, **params: object) -> ExampleRun:
    llm = ScriptedLLM(lambda request: " t\nAction 1: finish[no]\nAnswer: yes")
    (record,) = await run(llm, count=1, workflow=workflow, **params)
    return record


async def test_an_agent_that_was_told_when_it_was_right_is_marked() -> None:
    told = await oracle_asked("reflexion", feedback="oracle", max_trials=2)
    assert told.oracle
    assert told.error is None
    assert not (await oracle_asked("reflexion", feedback="self", max_trials=2)).oracle
    assert not (await oracle_asked("direct")).oracle
