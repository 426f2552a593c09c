import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows import AgentConfig
from workflows import AgentPack
from workflows import Document
from workflows import ModelError
from workflows import Outcome
from workflows import Request
from workflows import ScriptedLLM
from workflows import build
from workflows.react import parse_action

SYSTEM = (
    "Answer about the villages. Actions: search[title] opens the page of that title; "
    "lookup[word] finds that word on the open page; calculate[expression] gives its value; "
    "finish[answer] ends with the answer."
)


async def run(llm: ScriptedLLM, pack: AgentPack, **params: bool | int | float | str) -> Outcome:
    config = AgentConfig(workflow="react", model="m", params=params)
    return await build(config, llm=llm, pack=pack).run("Where does Anna live?", seed=3)


async def test_thought_and_action_come_in_one_call(pack: AgentPack) -> None:
    llm = ScriptedLLM(
        [" I look.\nAction 1: search[Bert]", " I know.\nAction 2: finish[Elm]"],
    )
    outcome = await run(llm, pack)
    assert outcome.answer == "Elm"
    first, second = llm.requests
    assert first.system == second.system == SYSTEM
    assert first.prompt == "Question: Where does Anna live?\nThought 1:"
    assert second.prompt == (
        "Question: Where does Anna live?\n"
        "Thought 1: I look.\n"
        "Action 1: search[Bert]\n"
        "Observation 1: Bert is a baker. He lives in Elm.\n"
        "Thought 2:"
    )
    assert first.stop == ("\nObservation 1:",)
    assert second.stop == ("\nObservation 2:",)
    assert (first.max_tokens, first.temperature, first.seed) == (100, 0.0, 3)
    assert [span.name for span in outcome.spans] == ["scripted", "search", "scripted"]


@pytest.mark.parametrize("reply", [" I look.\nAnd more.", " I look.\nMore.\nAction 1:"])
async def test_a_thought_without_action_is_kept_to_its_first_line_and_asked_on(
    pack: AgentPack, reply: str
) -> None:
    llm = ScriptedLLM([reply, " finish[Oak]"])
    outcome = await run(llm, pack)
    assert outcome.answer == "Oak"
    assert llm.requests[1].prompt == (
        "Question: Where does Anna live?\nThought 1: I look.\nAction 1:"
    )
    assert llm.requests[1].stop == ("\nObservation 1:",)
    assert outcome.checkpoints[0].span_count == 2


async def test_a_thought_with_action_is_kept_whole(pack: AgentPack) -> None:
    llm = ScriptedLLM([" One.\nTwo.\nAction 1: search[Bert]", "\nAction 2: finish[x]"])
    await run(llm, pack)
    assert "Thought 1: One.\nTwo.\nAction 1: search[Bert]\n" in llm.requests[1].prompt


async def test_a_chat_model_may_repeat_the_markers(pack: AgentPack) -> None:
    llm = ScriptedLLM(["Thought 1: I know.\nAction 1: Action 1: Finish[Oak]"])
    assert (await run(llm, pack)).answer == "Oak"


async def test_without_thoughts_only_actions_are_asked_for(pack: AgentPack) -> None:
    llm = ScriptedLLM([" search[Bert]\nnoise", "Action 2: finish[Elm]"])
    outcome = await run(llm, pack, thoughts=False, few_shot=1)
    assert outcome.answer == "Elm"
    assert [request.prompt for request in llm.requests] == [
        "Question: Where does the smith live?\n"
        "Action 1: search[smith]\n"
        "Observation 1: Anna is the smith.\n"
        "Action 2: finish[Oak]\n"
        "\n"
        "Question: Where does Anna live?\n"
        "Action 1:",
        llm.requests[0].prompt + " search[Bert]\n"
        "Observation 1: Bert is a baker. He lives in Elm.\n"
        "Action 2:",
    ]


async def test_demonstrations_are_laid_out_as_the_run_itself(pack: AgentPack) -> None:
    llm = ScriptedLLM([" x\nAction 1: finish[y]"])
    await run(llm, pack, few_shot=2)
    assert llm.requests[0].prompt == (
        "Question: Where does the smith live?\n"
        "Thought 1: I look for the smith.\n"
        "Action 1: search[smith]\n"
        "Observation 1: Anna is the smith.\n"
        "Thought 2: I know.\n"
        "Action 2: finish[Oak]\n"
        "\n"
        "Question: Who bakes bread in Elm?\n"
        "Thought 1: Bert does.\n"
        "Action 1: finish[Bert]\n"
        "\n"
        "Question: Where does Anna live?\n"
        "Thought 1:"
    )


async def test_the_nearest_demonstration_stands_next_to_the_question(pack: AgentPack) -> None:
    llm = ScriptedLLM([" x\nAction 1: finish[y]"])
    await run(llm, pack, few_shot=2, demonstrations="nearest")
    prompt = llm.requests[0].prompt
    assert prompt.index("Who bakes") < prompt.index("Where does the smith")


@pytest.mark.parametrize(
    ("action", "shown"),
    [
        ("google[Anna]", "'google[Anna]'"),
        ("I do not know", "'I do not know'"),
        ("search", "'search'"),
        ("finish", "'finish'"),
        ("search[Anna", "'search[Anna'"),
    ],
)
async def test_an_invalid_action_is_an_observation_and_uses_a_step(
    pack: AgentPack, action: str, shown: str
) -> None:
    llm = ScriptedLLM([f" t\nAction 1: {action}", " u\nAction 2: search[Bert]"])
    outcome = await run(llm, pack, max_steps=2)
    assert outcome.answer == ""
    assert len(llm.requests) == 2
    assert (
        f"Action 1: {action}\nObservation 1: Invalid action {shown}. "
        "Known: search, lookup, calculate, finish.\n"
    ) in llm.requests[1].prompt
    assert outcome.spans[1].error is not None


async def test_a_tool_that_fails_is_an_observation(pack: AgentPack) -> None:
    llm = ScriptedLLM([" t\nAction 1: calculate[1/0]", " u\nAction 2: finish[x]"])
    outcome = await run(llm, pack)
    assert "Observation 1: Cannot calculate 1/0: " in llm.requests[1].prompt
    assert outcome.answer == "x"
    assert outcome.spans[1].error is not None


async def test_at_budget_empty_makes_no_further_call(pack: AgentPack) -> None:
    llm = ScriptedLLM(lambda _: " t\nsearch[Anna]")
    outcome = await run(llm, pack, max_steps=3)
    assert outcome.answer == ""
    assert [checkpoint.answer for checkpoint in outcome.checkpoints] == ["", "", ""]


@pytest.mark.parametrize("reply", ["Oak", " Oak ", "Action 2: finish[Oak", "finish[Oak"])
async def test_at_budget_answer_asks_once_more(pack: AgentPack, reply: str) -> None:
    llm = ScriptedLLM([" t\nAction 1: search[Bert]", reply])
    outcome = await run(llm, pack, max_steps=1, at_budget="answer")
    assert outcome.answer == "Oak"
    assert llm.requests[1].prompt == (
        "Question: Where does Anna live?\nThought 1: t\nAction 1: search[Bert]\n"
        "Observation 1: Bert is a baker. He lives in Elm.\nAction 2: finish["
    )
    assert llm.requests[1].stop == ("]", "\n")
    assert llm.requests[1].grammar is None
    assert [checkpoint.answer for checkpoint in outcome.checkpoints] == [None]


async def test_the_grammar_names_the_actions(pack: AgentPack) -> None:
    llm = ScriptedLLM(["no action", " finish[x]"])
    await run(llm, pack)
    action = '" "? ("search" | "lookup" | "calculate" | "finish") "[" [^\\[\\]\\n]{1,200} "]"'
    assert llm.requests[0].grammar == (f'root ::= " " [^\\n]{{1,400}} "\\nAction 1:" {action}')
    assert llm.requests[1].grammar == f"root ::= {action}"


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        ("search[Anna]", ("search", "Anna")),
        ("  Search [ Anna ] trailing", ("search", "Anna")),
        ("finish[f[1] and g[2]]", ("finish", "f[1] and g[2]")),
        ("lookup[]", ("lookup", "")),
        ("finish", ("", "finish")),
        ("finish[x", ("", "finish[x")),
        ("I think search[x]", ("", "I think search[x]")),
        ("", ("", "")),
    ],
)
def test_parse_action(line: str, parsed: tuple[str, str]) -> None:
    assert parse_action(line) == parsed


REPLIES = (
    " t\nAction {i}: search[Anna]",
    " t\nAction {i}: lookup[dog]",
    " t\nAction {i}: finish[Oak]",
    " t\nAction {i}: nonsense",
    " t\nAction {i}: calculate[1/0]",
    " only a thought",
    " finish[Elm]",
    "",
)


def scripted(script: int) -> ScriptedLLM:
    """A model whose reply is a function of the request, finishing now and then."""

    def reply(request: Request) -> str:
        rng = random.Random(f"{script} {request.text()}")
        step = request.prompt.count("Observation ") + 1
        return rng.choices(REPLIES, weights=(4, 4, 1, 3, 3, 4, 2, 1))[0].format(i=step)

    return ScriptedLLM(reply)


DOGS = AgentPack(
    instruction="Answer.",
    toolkits=("browser", "calculator"),
    documents=(Document(title="Anna", sentences=("A dog.", "No cat.", "Two dogs.")),),
)


@given(
    script=st.integers(0, 10**6),
    budget=st.integers(2, 7),
    thoughts=st.booleans(),
    at_budget=st.sampled_from(["empty", "answer"]),
)
async def test_a_checkpoint_is_the_run_at_that_budget(
    script: int, budget: int, thoughts: bool, at_budget: str
) -> None:
    llm = scripted(script)
    whole = await run(llm, DOGS, max_steps=budget, thoughts=thoughts, at_budget=at_budget)
    assert [c.budget for c in whole.checkpoints] == list(range(1, len(whole.checkpoints) + 1))
    assert len(whole.checkpoints) <= budget
    for smaller in range(1, budget):
        own = scripted(script)
        short = await run(own, DOGS, max_steps=smaller, thoughts=thoughts, at_budget=at_budget)
        if smaller >= len(whole.checkpoints):  # finished by then: the two runs are one
            assert short.answer == whole.answer == whole.checkpoints[-1].answer
            assert own.requests == llm.requests
            continue
        checkpoint = whole.checkpoints[smaller - 1]
        spans = whole.spans[: checkpoint.span_count]
        # Where the answer would have taken a call that was not made, that call is all that is missing.
        expected = short.spans if checkpoint.answer is not None else short.spans[:-1]
        assert checkpoint.answer == (short.answer if at_budget == "empty" else None)
        assert [(s.name, s.input, s.output) for s in spans] == [
            (s.name, s.input, s.output) for s in expected
        ]
        assert sum(s.tokens_in or 0 for s in spans) == sum(s.tokens_in or 0 for s in expected)
        assert sum(s.tokens_out or 0 for s in spans) == sum(s.tokens_out or 0 for s in expected)
        assert checkpoint.elapsed_s <= whole.latency_s


async def test_a_failing_model_ends_the_run(pack: AgentPack) -> None:
    with pytest.raises(ModelError, match="down"):
        await run(ScriptedLLM([" t\nAction 1: search[Anna]", ModelError("down")]), pack)
