"""What every workflow must do, whatever its method; a new one proves itself by its entry in WORKFLOWS."""

import asyncio
import zlib
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping

import pytest

from workflows import LLM
from workflows import WORKFLOWS
from workflows import AgentConfig
from workflows import AgentPack
from workflows import Document
from workflows import ModelError
from workflows import ModelTimeout
from workflows import Outcome
from workflows import Params
from workflows import Request
from workflows import ScriptedLLM
from workflows import Session
from workflows import Span
from workflows import ToolError
from workflows import Trace
from workflows import build
from workflows.agent import Agent
from workflows.llm import OnText
from workflows.resume import PastRun
from workflows.table import workflow_kind
from workflows.tools import Tool
from workflows.tools import Toolbox

GARBAGE = [
    "",
    " ",
    "\n\n",
    "[",
    "]]]",
    "Action",
    "Answer",
    "Thought 1:",
    "finish[",
    "\x00�",
    "x" * 9000,
]


SMALL: Mapping[str, Mapping[str, int]] = {"lats": {"iterations": 3, "children": 3}}
"""Budgets that are enough to show what a workflow does."""

ACTING = ("cascade", "lats", "llmcompiler", "react", "reflexion")
"""Those that call tools; of a cascade, the costly way."""


def agent(name: str, llm: LLM, pack: AgentPack) -> Agent:
    config = AgentConfig(workflow=name, model="m", params=dict(SMALL.get(name, {})))
    return build(config, llms={"m": llm}, pack=pack)


Started = tuple[Agent, Session]


@pytest.fixture(params=sorted(WORKFLOWS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_declares_its_params_and_its_budget(name: str) -> None:
    params = workflow_kind(name).params
    assert issubclass(params, Params)
    assert params.anytime is None or params.anytime in params.model_fields
    assert params() == params.model_validate({})


@pytest.mark.parametrize("reply", GARBAGE)
async def test_malformed_output_is_an_answer(name: str, pack: AgentPack, reply: str) -> None:
    llm = ScriptedLLM(lambda _: reply)
    outcome = await agent(name, llm, pack).run("Where?")
    assert isinstance(outcome.answer, str)
    assert "\n" not in outcome.answer
    assert sum(span.kind == "llm" for span in outcome.spans) == len(llm.requests) >= 1


@pytest.mark.parametrize("error", [ModelError("down"), ModelTimeout("slow")])
async def test_an_error_of_the_model_goes_to_the_caller(
    name: str, pack: AgentPack, error: ModelError
) -> None:
    one = agent(name, ScriptedLLM(lambda _: error), pack)
    session = one.open_session()
    with pytest.raises(type(error)) as caught:
        await one.run_session("Where?", session)
    assert caught.value is error
    assert {span.error for span in session.trace.spans} <= {str(error), "cancelled"}
    assert str(error) in {span.error for span in session.trace.spans}


async def test_cancelled_in_mid_call_it_leaves_its_spans_and_no_task(
    name: str, pack: AgentPack
) -> None:
    one = agent(name, ScriptedLLM(lambda _: " no marker", delay_s=0.15), pack)
    session = one.open_session()
    task = asyncio.create_task(one.run_session("Where?", session))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert session.trace.spans
    assert {span.error for span in session.trace.spans} == {"cancelled"}


async def test_cancelled_in_its_second_call_it_keeps_the_first(pack: AgentPack) -> None:
    one = agent("react", ScriptedLLM(lambda _: " no action", delay_s=0.1), pack)
    session = one.open_session()
    task = asyncio.create_task(one.run_session("Where?", session))
    await asyncio.sleep(0.15)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [span.error for span in session.trace.spans] == [None, "cancelled"]


class OneTool:
    """A kit of `search` alone, which does what it is told to."""

    def __init__(self, call: Callable[[str], Awaitable[str]]) -> None:
        self._call = call

    def tools(self) -> Iterable[Tool]:
        return (Tool("search", "search[title] opens the page of that title", self._call),)


def acting(request: Request) -> str:
    """A reply that asks for a search, in the form that the request wants."""
    plan = "1. search[Anna]\njoin[]\n"
    asked = f" {request.seed}\nAction 1: search[Anna]\nAnswer: Oak"
    return plan if "join" in request.system else asked


def with_tool(name: str, pack: AgentPack, call: Callable[[str], Awaitable[str]]) -> Started:
    """An agent whose model asks for a search, and a session in which that does what `call` does."""
    one = agent(name, ScriptedLLM(acting), pack)
    session = one.open_session()
    session.tools = Toolbox([OneTool(call)])
    return one, session


async def test_a_tool_that_fails_does_not_end_the_run(name: str, pack: AgentPack) -> None:
    calls: list[str] = []

    async def fail(argument: str) -> str:
        calls.append(argument)
        raise ToolError("the shop is closed")

    one, session = with_tool(name, pack, fail)
    outcome = await one.run_session("Where?", session)
    assert isinstance(outcome.answer, str)
    observed = [span for span in outcome.spans if span.kind == "tool" and span.name == "search"]
    assert len(observed) == len(calls)
    assert bool(calls) == (name in ACTING)
    assert all(span.error == span.output == "the shop is closed" for span in observed)


@pytest.mark.parametrize("name", ACTING)
async def test_what_a_tool_raises_by_mistake_goes_to_the_caller(name: str, pack: AgentPack) -> None:
    async def fail(argument: str) -> str:
        raise LookupError("a defect")

    one, session = with_tool(name, pack, fail)
    with pytest.raises(LookupError, match="a defect"):
        await one.run_session("Where?", session)
    assert "LookupError: a defect" in {span.error for span in session.trace.spans}
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("name", ACTING)
async def test_a_tool_that_hangs_can_be_cancelled(name: str, pack: AgentPack) -> None:
    called = asyncio.Event()

    async def hang(argument: str) -> str:
        called.set()
        await asyncio.sleep(60)
        return ""

    one, session = with_tool(name, pack, hang)
    task = asyncio.create_task(one.run_session("Where?", session))
    async with asyncio.timeout(5):
        await called.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert {span.error for span in session.trace.spans if span.kind == "tool"} == {"cancelled"}
    assert asyncio.all_tasks() == {asyncio.current_task()}


class Uneven:
    """A model that answers requests in another order than that in which they came, so many at a time."""

    def __init__(self, slots: int, salt: int) -> None:
        self.most = 0
        self._in_flight = 0
        self._slots = asyncio.Semaphore(slots)
        self._salt = salt
        self._llm = ScriptedLLM(self._reply)

    @property
    def requests(self) -> list[Request]:
        return sorted(self._llm.requests, key=repr)

    async def complete(self, request: Request, trace: Trace, on_text: OnText | None = None) -> str:
        async with self._slots:
            self._in_flight += 1
            self.most = max(self.most, self._in_flight)
            await asyncio.sleep(zlib.crc32(f"{request}{self._salt}".encode()) % 4 / 1000)
            try:
                return await self._llm.complete(request, trace, on_text)
            finally:
                self._in_flight -= 1

    def _reply(self, request: Request) -> str:
        number = zlib.crc32(f"{request.text()}{request.seed}".encode()) % 7
        title = ("Anna", "Bert", "Old Bert")[number % 3]
        if "join" in request.system:
            return f"1. search[{title}]\n2. search[Bert]\njoin[]\n"
        action = f"search[{title}]" if number else f"finish[{title}]"
        return f" {number}\nAction 1: {action}\nAnswer: {title}"


async def test_neither_timing_nor_a_limit_on_calls_changes_what_is_done(
    name: str, pack: AgentPack
) -> None:
    runs = []
    for slots, salt in ((64, 1), (64, 2), (2, 3), (1, 4)):
        llm = Uneven(slots, salt)
        async with asyncio.timeout(20):
            outcome = await agent(name, llm, pack).run("Where?", seed=4)
        assert llm.most <= slots
        checkpoints = [(c.budget, c.answer, c.span_count) for c in outcome.checkpoints]
        runs.append((outcome.answer, checkpoints, llm.requests))
    assert all(run == runs[0] for run in runs)


def by_question(replies: dict[str, Callable[[int], str]]) -> ScriptedLLM:
    def reply(request: Request) -> str:
        question = request.prompt.rpartition("Question: ")[2].partition("\n")[0]
        return replies[question](request.prompt.count("Observation ") + 1)

    return ScriptedLLM(reply, delay_s=0.005)


@pytest.mark.slow
async def test_two_questions_at_once_share_nothing(name: str, pack: AgentPack) -> None:
    def walk(title: str) -> Callable[[int], str]:
        actions = [f"search[{title}]", "lookup[dog]", "lookup[dog]", "lookup[dog]"]

        def reply(step: int) -> str:
            action = actions[step - 1] if step <= len(actions) else f"finish[{title}]"
            return f" t\nAction {step}: {action}\nAnswer: {title}"

        return reply

    pages = tuple(
        Document(title=title, sentences=tuple(f"{title} dog {i}." for i in (1, 2)))
        for title in ("Anna", "Bert")
    )
    pack = pack.model_copy(update={"documents": pages})
    llm = by_question({"Anna?": walk("Anna"), "Bert?": walk("Bert")})
    one = agent(name, llm, pack)
    together = await asyncio.gather(one.run("Anna?"), one.run("Bert?"), one.run("Anna?"))
    for outcome, title in zip(together, ("Anna", "Bert", "Anna"), strict=True):
        alone = await one.run(f"{title}?")
        assert outcome.answer == alone.answer
        assert [(s.input, s.output) for s in outcome.spans] == [
            (s.input, s.output) for s in alone.spans
        ]
        if name == "react":
            assert [span.output for span in outcome.spans if span.name == "lookup"] == [
                f"(Result 1 / 2) {title} dog 1.",
                f"(Result 2 / 2) {title} dog 2.",
                "No more results.",
            ]


async def test_the_same_question_and_seed_give_the_same_calls(name: str, pack: AgentPack) -> None:
    def reply(request: Request) -> str:
        return f" {len(request.prompt)}\nAction 1: search[{request.seed}]\nAnswer: {request.seed}"

    runs = []
    for _ in range(2):
        llm = ScriptedLLM(reply)
        outcome = await agent(name, llm, pack).run("Where?", seed=4)
        runs.append((outcome.answer, sorted(llm.requests, key=repr)))
    assert runs[0] == runs[1]


def calls(spans: Iterable[Span]) -> list[tuple[str, str, str, int | None, int | None]]:
    """What was asked and answered, and its tokens, in an order that no timing changes."""
    return sorted((s.kind, s.input, s.output, s.tokens_in, s.tokens_out) for s in spans)


ANYTIME = [(name, kind) for name in WORKFLOWS if (kind := workflow_kind(name).params.anytime)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("name", "budget"), ANYTIME)
async def test_a_checkpoint_stands_for_a_run_of_that_budget(
    name: str, budget: str, seed: int, pack: AgentPack
) -> None:
    async def run(rounds: int) -> Outcome:
        params = {**SMALL.get(name, {}), budget: rounds}
        config = AgentConfig(workflow=name, model="m", params=params)
        return await build(config, llms={"m": Uneven(64, 1)}, pack=pack).run("Where?", seed=seed)

    most = await run(5)
    for checkpoint in most.checkpoints:
        at_budget = await run(checkpoint.budget)
        before = calls(most.spans[: checkpoint.span_count])
        if checkpoint.answer is None:  # it takes a call more, made once the budget is spent
            own = at_budget.checkpoints[-1].span_count
            assert calls(at_budget.spans[:own]) == before
            assert len(at_budget.spans) > own
        else:
            assert at_budget.answer == checkpoint.answer
            assert calls(at_budget.spans) == before


def until(outcome: Outcome, budget: int) -> PastRun:
    """The run as it was when that budget ended; as it is where it ended before."""
    for checkpoint in outcome.checkpoints:
        if checkpoint.budget == budget:
            checkpoints = tuple(each for each in outcome.checkpoints if each.budget <= budget)
            return PastRun(
                outcome.spans[: checkpoint.span_count], checkpoints, checkpoint.elapsed_s
            )
    return PastRun(outcome.spans, outcome.checkpoints, outcome.latency_s)


RESUMABLE = [(name, kind) for name, kind in ANYTIME if workflow_kind(name).params.resumable]


def test_every_workflow_of_ours_goes_on_from_other_budgets() -> None:
    assert RESUMABLE == ANYTIME


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("budgets", [(1, 2), (2, 5), (5, 3)], ids=lambda b: f"{b[0]}→{b[1]}")
@pytest.mark.parametrize(("name", "budget"), RESUMABLE)
async def test_a_run_goes_on_from_another_budget_as_if_it_had_never_ended(
    name: str, budget: str, budgets: tuple[int, int], seed: int, pack: AgentPack
) -> None:
    async def run(rounds: int, past: PastRun | None = None) -> tuple[Outcome, list[Request]]:
        llm = Uneven(64, salt=2 if past else 1)
        params = {**SMALL.get(name, {}), budget: rounds}
        config = AgentConfig(workflow=name, model="m", params=params)
        one = build(config, llms={"m": llm}, pack=pack)
        outcome = await one.run_session("Where?", one.open_session(seed=seed, past=past))
        return outcome, llm.requests

    first, then = budgets
    earlier, _ = await run(first)
    past = until(earlier, min(first, then))
    whole, asked = await run(then)
    went_on, asked_anew = await run(then, past)

    assert went_on.answer == whole.answer
    assert [(c.budget, c.answer, c.span_count) for c in went_on.checkpoints] == [
        (c.budget, c.answer, c.span_count) for c in whole.checkpoints
    ]
    assert calls(went_on.spans) == calls(whole.spans)
    known = len(past.spans)
    assert went_on.spans[:known] == past.spans
    assert went_on.checkpoints[: len(past.checkpoints)] == past.checkpoints
    assert len(asked_anew) == len(asked) - sum(span.kind == "llm" for span in past.spans)
    assert all(span.start_s >= past.elapsed_s for span in went_on.spans[known:])
    assert went_on.latency_s >= past.elapsed_s


@pytest.mark.parametrize(("name", "budget"), ANYTIME)
async def test_no_prompt_tells_the_budget(name: str, budget: str, pack: AgentPack) -> None:
    async def requests(rounds: int) -> list[Request]:
        llm = ScriptedLLM(lambda _: " nothing")
        params = {**SMALL.get(name, {}), budget: rounds}
        config = AgentConfig(workflow=name, model="m", params=params)
        outcome = await build(config, llms={"m": llm}, pack=pack).run("Where?")
        last = outcome.checkpoints[-1]  # what comes after it is asked because the budget is spent
        return llm.requests[: sum(span.kind == "llm" for span in outcome.spans[: last.span_count])]

    fewer, more = await requests(3), await requests(5)
    assert len(fewer) < len(more)
    assert fewer == more[: len(fewer)]


async def test_every_call_has_a_span(name: str, pack: AgentPack) -> None:
    llm = ScriptedLLM(lambda _: " t\nAction 1: search[Anna]")
    outcome = await agent(name, llm, pack).run("Where?")
    spans = [span for span in outcome.spans if span.kind == "llm"]
    assert sorted(span.input for span in spans) == sorted(r.text() for r in llm.requests)
    for span in outcome.spans:
        assert 0 <= span.start_s <= span.end_s <= outcome.latency_s
