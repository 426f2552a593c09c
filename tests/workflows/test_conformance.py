"""What every workflow must do, whatever its method; a new one proves itself by its entry in WORKFLOWS."""

import asyncio
from collections.abc import Callable

import pytest

from workflows import WORKFLOWS
from workflows import AgentConfig
from workflows import AgentPack
from workflows import Document
from workflows import ModelError
from workflows import ModelTimeout
from workflows import Params
from workflows import Request
from workflows import ScriptedLLM
from workflows import ToolError
from workflows import build
from workflows.agent import Agent
from workflows.agent import workflow_kind
from workflows.tools import Tool

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


def agent(name: str, llm: object, pack: AgentPack) -> Agent:
    return build(AgentConfig(workflow=name, model="m"), llm=llm, pack=pack)  # type: ignore[arg-type]


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


async def test_a_tool_that_fails_does_not_end_the_run(name: str, pack: AgentPack) -> None:
    calls: list[str] = []

    async def fail(argument: str) -> str:
        calls.append(argument)
        raise ToolError("the shop is closed")

    llm = ScriptedLLM(lambda _: " t\nAction 1: search[Anna]\nAnswer: Oak")
    one = agent(name, llm, pack)
    session = one.open_session()
    session.tools = {"search": Tool("search", "search[title]", fail)}
    outcome = await one.run_session("Where?", session)
    assert isinstance(outcome.answer, str)
    observed = [span for span in outcome.spans if span.kind == "tool" and span.name == "search"]
    assert len(observed) == len(calls)
    assert bool(calls) == (name == "react")
    assert all(span.error == span.output == "the shop is closed" for span in observed)


def by_question(replies: dict[str, Callable[[int], str]]) -> ScriptedLLM:
    def reply(request: Request) -> str:
        question = request.prompt.rpartition("Question: ")[2].partition("\n")[0]
        return replies[question](request.prompt.count("Observation ") + 1)

    return ScriptedLLM(reply, delay_s=0.005)


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


@pytest.mark.parametrize(
    ("name", "budget"),
    [(name, kind) for name in WORKFLOWS if (kind := workflow_kind(name).params.anytime)],
)
async def test_no_prompt_tells_the_budget(name: str, budget: str, pack: AgentPack) -> None:
    seen = []
    for rounds in (3, 5):
        llm = ScriptedLLM(lambda _: " nothing")
        config = AgentConfig(workflow=name, model="m", params={budget: rounds})
        await build(config, llm=llm, pack=pack).run("Where?")
        seen.append(llm.requests)
    assert len(seen[0]) < len(seen[1])
    assert seen[0] == seen[1][: len(seen[0])]


async def test_every_call_has_a_span(name: str, pack: AgentPack) -> None:
    llm = ScriptedLLM(lambda _: " t\nAction 1: search[Anna]")
    outcome = await agent(name, llm, pack).run("Where?")
    spans = [span for span in outcome.spans if span.kind == "llm"]
    assert sorted(span.input for span in spans) == sorted(r.text() for r in llm.requests)
    for span in outcome.spans:
        assert 0 <= span.start_s <= span.end_s <= outcome.latency_s
