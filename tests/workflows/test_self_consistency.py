import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows import AgentConfig
from workflows import AgentPack
from workflows import ModelError
from workflows import Request
from workflows import ScriptedLLM
from workflows import build
from workflows.agent import Agent
from workflows.answer import normalise
from workflows.self_consistency import majority

ANSWERS = st.lists(
    st.sampled_from(["Oak", "the oak", "Oak.", "Elm", "an ELM", "Ash", ""]), min_size=1, max_size=9
)


def agent(llm: ScriptedLLM, pack: AgentPack, samples: int) -> Agent:
    config = AgentConfig(workflow="self_consistency", model="m", params={"samples": samples})
    return build(config, llms={"m": llm}, pack=pack)


async def test_chains_differ_in_their_seed_alone(pack: AgentPack) -> None:
    llm = ScriptedLLM(lambda request: f"Answer: {'Elm' if request.seed == 8 else 'Oak'}")
    outcome = await agent(llm, pack, 4).run("Where?", seed=7)
    assert outcome.answer == "Oak"
    assert sorted(request.seed for request in llm.requests) == [7, 8, 9, 10]
    assert len({(request.prompt, request.system) for request in llm.requests}) == 1
    assert {request.temperature for request in llm.requests} == {0.7}
    assert len(outcome.spans) == 4


async def test_chains_run_concurrently(pack: AgentPack) -> None:
    llm = ScriptedLLM(lambda _: "Answer: Oak", delay_s=0.2)
    started_s = time.perf_counter()
    await agent(llm, pack, 16).run("Where?")
    assert 0.2 <= time.perf_counter() - started_s < 0.8


async def test_a_chain_that_fails_cancels_the_others(pack: AgentPack) -> None:
    finished: list[int] = []

    class Model:
        async def complete(self, request: Request, trace: object, on_text: object = None) -> str:
            await asyncio.sleep(0.01 if request.seed == 2 else 30)
            if request.seed == 2:
                raise ModelError("down")
            finished.append(request.seed)
            return "Answer: Oak"

    config = AgentConfig(workflow="self_consistency", model="m", params={"samples": 4})
    with pytest.raises(ModelError, match="down"):
        await build(config, llms={"m": Model()}, pack=pack).run("Where?")
    assert finished == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


@given(ANSWERS)
def test_the_winner_has_the_most_votes_and_was_first_among_equals(answers: list[str]) -> None:
    winner = majority(answers)
    kinds = [normalise(answer) for answer in answers]
    assert winner == answers[kinds.index(normalise(winner))]
    votes = {kind: kinds.count(kind) for kind in kinds}
    best = [kind for kind in kinds if votes[kind] == max(votes.values())]
    assert normalise(winner) == best[0]


@given(ANSWERS, st.randoms())
def test_order_matters_only_to_break_ties(answers: list[str], rng: object) -> None:
    kinds = [normalise(answer) for answer in answers]
    top = sorted((kinds.count(kind) for kind in set(kinds)), reverse=True)
    shuffled = list(answers)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    if len(top) == 1 or top[0] > top[1]:
        assert normalise(majority(shuffled)) == normalise(majority(answers))
    else:
        assert kinds.count(normalise(majority(shuffled))) == top[0]
