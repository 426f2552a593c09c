import pytest

from workflows import AgentConfig
from workflows import AgentPack
from workflows import ScriptedLLM
from workflows import build


@pytest.mark.parametrize("reply", ["Oak", "  Oak \nmore", "Answer: Oak"])
async def test_one_call_and_its_first_line(pack: AgentPack, reply: str) -> None:
    llm = ScriptedLLM([reply])
    config = AgentConfig(workflow="direct", model="m", params={"few_shot": 1, "max_tokens": 7})
    outcome = await build(config, llms={"m": llm}, pack=pack).run("Where does Anna live?", seed=5)
    assert outcome.answer == "Oak"
    assert outcome.checkpoints == ()
    (request,) = llm.requests
    assert request.system == "Answer about the villages. Give the answer alone."
    assert request.prompt == (
        "Question: Where does the smith live?\nAnswer: Oak\n\n"
        "Question: Where does Anna live?\nAnswer:"
    )
    assert (request.max_tokens, request.stop, request.seed) == (7, ("\n",), 5)
