from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows import AgentConfig
from workflows import AgentPack
from workflows import ConfigError
from workflows import ModelError
from workflows import Outcome
from workflows import Request
from workflows import ScriptedLLM
from workflows import build
from workflows.cascade import CascadeParams


async def run(
    pack: AgentPack, small: ScriptedLLM, large: ScriptedLLM, seed: int = 3, **params: Any
) -> Outcome:
    """A cascade of two direct calls, the first on the small model."""
    knobs = {"cheap": "direct", "costly": "direct", "cheap_model": "small", **params}
    config = AgentConfig(workflow="cascade", model="large", params=knobs)
    agent = build(config, llms={"large": large, "small": small}, pack=pack)
    return await agent.run("Where?", seed=seed)


def saying(*answers: str) -> ScriptedLLM:
    return ScriptedLLM([f" {answer}" for answer in answers])


async def test_answers_that_agree_are_trusted(pack: AgentPack) -> None:
    small, large = saying("Oak", "the oak.", "Elm"), saying()
    outcome = await run(pack, small, large, threshold=0.6)
    assert outcome.answer == "Oak"
    assert [request.seed for request in small.requests] == [3, 4, 5]
    assert {request.temperature for request in small.requests} == {0.7}
    assert large.requests == []


async def test_answers_that_do_not_are_doubted(pack: AgentPack) -> None:
    small, large = saying("Oak", "Ash", "Elm"), saying("Yew")
    outcome = await run(pack, small, large, threshold=0.6)
    assert outcome.answer == "Yew"
    assert len(outcome.spans) == 4
    assert large.requests[0].temperature == 0


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=5), st.sampled_from([0, 0.4, 0.5, 1]))
async def test_the_costly_way_is_taken_exactly_below_the_threshold(
    votes: list[str], threshold: float
) -> None:
    pack = AgentPack(instruction="Answer.")
    share = max(votes.count(vote) for vote in votes) / len(votes)
    outcome = await run(
        pack, saying(*votes), saying("dear"), samples=len(votes), threshold=float(threshold)
    )
    assert (outcome.answer == "dear") == (share < threshold)


async def test_silence_is_never_trusted(pack: AgentPack) -> None:
    outcome = await run(pack, saying("", "", ""), saying("Yew"), threshold=0.0)
    assert outcome.answer == "Yew"


@pytest.mark.parametrize(("said", "answer"), [(" yes", "Oak"), (" no", "Yew"), ("", "Yew")])
async def test_a_judge_may_doubt(pack: AgentPack, said: str, answer: str) -> None:
    small = saying("Oak")
    judge = ScriptedLLM([said])
    config = AgentConfig(
        workflow="cascade",
        model="large",
        params={
            "costly": "direct",
            "cheap_model": "small",
            "samples": 1,
            "doubt": "judge",
            "judge_model": "judge",
        },
    )
    llms = {"large": saying("Yew"), "small": small, "judge": judge}
    assert (await build(config, llms=llms, pack=pack).run("Where?")).answer == answer
    assert "Oak" in judge.requests[0].prompt
    assert config.models() == ("large", "small", "judge")


async def test_both_ask_the_judge_only_about_what_agrees(pack: AgentPack) -> None:
    doubted = await run(pack, saying("a", "b"), saying("Yew"), samples=2, doubt="both")
    assert doubted.answer == "Yew"
    assert len(doubted.spans) == 3
    agreed = await run(pack, saying("a", "a"), saying(" no", "Yew"), samples=2, doubt="both")
    assert agreed.answer == "Yew"
    assert len(agreed.spans) == 4


async def test_the_knobs_within_are_those_of_the_two_workflows(pack: AgentPack) -> None:
    def reply(request: Request) -> str:
        return " t\nAction 1: search[Anna]" if "Action" in request.system else " Oak"

    outcome = await run(
        pack,
        ScriptedLLM(reply),
        ScriptedLLM(reply),
        samples=1,
        threshold=1.0,
        doubt="judge",
        costly="react",
        **{"cheap.max_tokens": 5, "costly.max_steps": 1, "costly.few_shot": 1},
    )
    assert [span.kind for span in outcome.spans] == ["llm", "llm", "llm", "tool"]
    assert "Anna is the smith." in outcome.spans[2].input


async def test_each_sample_has_tools_of_its_own(pack: AgentPack) -> None:
    llm = ScriptedLLM(
        lambda request: (
            " t\nAction 2: lookup[dog]"
            if "Observation 1" in request.prompt
            else " t\nAction 1: search[Anna]"
        )
    )
    config = AgentConfig(
        workflow="cascade",
        model="m",
        params={"cheap": "react", "costly": "direct", "cheap.max_steps": 2, "samples": 3},
    )
    outcome = await build(config, llms={"m": llm}, pack=pack).run("Where?")
    found = [span.output for span in outcome.spans if span.name == "lookup"]
    assert found == ["(Result 1 / 3) She has a dog."] * 3


async def test_an_error_of_the_cheap_way_is_the_runs(pack: AgentPack) -> None:
    small = ScriptedLLM(lambda _: ModelError("down"))
    with pytest.raises(ModelError, match="down"):
        await run(pack, small, saying("Yew"))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"cheap": "magic"}, "cheap: unknown workflow 'magic'"),
        ({"cheap.max_steps": 3}, r"cheap\.max_steps: Extra inputs are not permitted \(given: 3\)"),
        ({"costly.max_steps": 0}, r"costly\.max_steps: .*\(given: 0\)"),
        ({"dear.max_steps": 3}, r"unknown knob 'dear\.max_steps'"),
        ({"colour": "red"}, "unknown knob 'colour'"),
        ({"threshold": 2.0}, "threshold"),
    ],
)
def test_a_knob_that_cannot_be_used_is_named(
    pack: AgentPack, params: dict[str, Any], message: str
) -> None:
    config = AgentConfig(workflow="cascade", model="m", params=params)
    with pytest.raises(ConfigError, match=message):
        build(config, llms={"m": saying()}, pack=pack)


def test_its_params_are_whole_and_survive_being_written() -> None:
    params = CascadeParams.model_validate({"cheap": "cot", "cheap.max_tokens": 9})
    content = params.model_dump()
    assert content["cheap.max_tokens"] == 9
    assert content["costly.max_steps"] == 7
    assert CascadeParams.model_validate(content).model_dump() == content


def test_it_suits_a_task_when_both_workflows_do(pack: AgentPack) -> None:
    program = pack.model_copy(update={"answer": "program"})
    config = AgentConfig(workflow="cascade", model="m", params={"costly": "self_consistency"})
    with pytest.raises(ConfigError, match="costly: self_consistency: the task's answer is a prog"):
        build(config, llms={"m": saying()}, pack=program)
    build(AgentConfig(workflow="cascade", model="m"), llms={"m": saying()}, pack=program)
