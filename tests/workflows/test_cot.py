import pytest

from workflows import AgentConfig
from workflows import AgentPack
from workflows import ScriptedLLM
from workflows import build


async def answer(llm: ScriptedLLM, pack: AgentPack) -> str:
    config = AgentConfig(workflow="cot", model="m", params={"few_shot": 1})
    return (
        await build(config, llms={"m": llm}, pack=pack).run("Where does Anna live?", seed=5)
    ).answer


@pytest.mark.parametrize(
    "reply",
    [
        " Anna is a smith. Answer: Oak",
        " Anna.\nAnswer: Oak\nAnd so on.",
        " Answer: Elm? No.\nAnswer:\nOak",
    ],
)
async def test_the_answer_follows_the_last_marker(pack: AgentPack, reply: str) -> None:
    llm = ScriptedLLM([reply])
    assert await answer(llm, pack) == "Oak"
    (request,) = llm.requests
    assert request.prompt == (
        "Question: Where does the smith live?\n"
        "Reasoning: The smith is Anna, and Anna lives in Oak.\nAnswer: Oak\n\n"
        "Question: Where does Anna live?\nReasoning:"
    )
    assert request.stop == ("\nQuestion:",)


@pytest.mark.parametrize("reply", [" Anna is a smith.", " Anna is a smith.\nAnswer:"])
@pytest.mark.parametrize("second", [" Oak\nmore", "Answer: Oak"])
async def test_a_second_call_asks_for_a_missing_answer(
    pack: AgentPack, reply: str, second: str
) -> None:
    llm = ScriptedLLM([reply, second])
    assert await answer(llm, pack) == "Oak"
    assert llm.requests[1].prompt == llm.requests[0].prompt + " Anna is a smith.\nAnswer:"
    assert llm.requests[1].seed == llm.requests[0].seed == 5
    assert llm.requests[1].stop == ("\n",)
    assert [request.grammar is None for request in llm.requests] == [True, False]


async def test_a_program_follows_the_reasoning(pack: AgentPack) -> None:
    pack = pack.model_copy(update={"answer": "program"})
    llm = ScriptedLLM([" It adds.", "def add(a, b):\n    return a + b\n```\nDone."])
    assert await answer(llm, pack) == "def add(a, b):\n    return a + b"
    first, second = llm.requests
    assert second.prompt == f"{first.prompt} It adds.\nAnswer:\n```python\n"
    assert second.grammar is None
    assert first.max_tokens == second.max_tokens
