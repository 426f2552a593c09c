"""Roles of a prompt's tokens: of prompts that real workflows make, and that nothing is lost."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.evaluate import evaluate
from tuner.load import Load
from tuner.measure import NoMeter
from tuner.measure.tokens import ROLES
from tuner.measure.tokens import role_tokens
from tuner.records import ExampleRun
from tuner.tasks import Example
from tuner.tasks import Task
from workflows import AgentConfig
from workflows import AgentPack
from workflows import Demonstration
from workflows import Document
from workflows import ScriptedLLM
from workflows import Step
from workflows import build

QUESTION = "What is the village of Anna?"
PACK = AgentPack(
    instruction="Answer the question with one word.",
    toolkits=("browser",),
    documents=(Document(title="Anna", sentences=("village: Oak, which is far from here.",)),),
    demonstrations=(
        Demonstration(
            question="What is the pet of Bob?",
            answer="cat",
            reasoning="Bob has a cat.",
            steps=(
                Step(thought="Look.", tool="search", argument="Bob", observation="pet: cat."),
                Step(thought="Done.", tool="finish", argument="cat"),
            ),
        ),
    ),
)


def answered(llm: ScriptedLLM, workflow: str, **params: object) -> ExampleRun:
    async def score(example: Example, answer: str) -> float:
        return float(answer == "Oak")

    example = Example("e", QUESTION, ("Oak",))
    config = AgentConfig(workflow=workflow, model="m", params=params)
    runs: list[ExampleRun] = []
    asyncio.run(
        evaluate(
            build(config, llms={"m": llm}, pack=PACK),
            [example],
            task=Task("test", PACK, (example,), (), score),
            meter=NoMeter(),
            load=Load(),
            record=runs.append,
        )
    )
    return runs[0]


def share(text: str, prompt: str, tokens: int) -> float:
    return tokens * len(text) / len(prompt)


def test_the_history_of_an_agent_grows_and_the_rest_stays() -> None:
    llm = ScriptedLLM([" search[Anna]", " lookup[village]", " finish[Oak]"])
    run = answered(llm, "react", thoughts=False, few_shot=1)
    calls = role_tokens(run, QUESTION, PACK)
    assert calls is not None
    spans = [span for span in run.spans if span.kind == "llm"]
    seen = [span.output for span in run.spans if span.kind == "tool"]
    for number, (call, span) in enumerate(zip(calls, spans, strict=True)):
        assert span.tokens_in is not None
        assert call.user == pytest.approx(share(QUESTION, span.input, span.tokens_in))
        said = "".join(earlier.output.strip() for earlier in spans[:number])
        assert call.llm_history == pytest.approx(share(said, span.input, span.tokens_in))
        observed = "".join(seen[:number])
        assert call.tool_history == pytest.approx(share(observed, span.input, span.tokens_in))
        assert call.few_shot > 0
        assert call.instruction > 0
        assert call.output == span.tokens_out


def test_without_demonstrations_there_are_no_tokens_of_them() -> None:
    run = answered(ScriptedLLM(["Oak"]), "direct")
    (call,) = role_tokens(run, QUESTION, PACK) or ()
    assert (call.few_shot, call.llm_history, call.tool_history) == (0, 0, 0)
    assert call.user > 0


def test_what_a_reflection_taught_is_history_before_the_question() -> None:
    lesson = "I should have looked the village up on the page of Anna."
    replies = [" finish[Elm]", " no", f" {lesson}\n", " finish[Oak]", " yes"]
    run = answered(ScriptedLLM(replies), "reflexion", thoughts=False, max_trials=2, few_shot=1)
    calls = role_tokens(run, QUESTION, PACK)
    assert calls is not None
    assert calls[3].llm_history > calls[0].llm_history == 0


def test_an_observation_that_was_cut_counts_as_far_as_it_stands() -> None:
    llm = ScriptedLLM([" search[Anna]", " finish[Oak]"])
    run = answered(llm, "react", thoughts=False, observation_chars=30)
    (_, second) = role_tokens(run, QUESTION, PACK) or ()
    span = [span for span in run.spans if span.kind == "llm"][1]
    assert span.tokens_in is not None
    assert second.tool_history == pytest.approx(29 * span.tokens_in / len(span.input))


@given(st.lists(st.text(max_size=40), min_size=1, max_size=4), st.text(max_size=20))
def test_no_token_of_a_prompt_is_lost_or_counted_twice(replies: list[str], asked: str) -> None:
    run = answered(ScriptedLLM(lambda request: replies[0]), "react", max_steps=3)
    calls = role_tokens(run, asked, PACK)
    assert calls is not None
    spans = [span for span in run.spans if span.kind == "llm"]
    for call, span in zip(calls, spans, strict=False):
        total = sum(getattr(call, role) for role in ROLES if role != "output")
        assert total == pytest.approx(span.tokens_in)
