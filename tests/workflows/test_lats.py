import asyncio
import math
import random
import re
import time
from collections.abc import Callable
from collections.abc import Iterable
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from workflows import AgentPack
from workflows import Document
from workflows import ModelError
from workflows import Outcome
from workflows import Request
from workflows import ScriptedLLM
from workflows import ToolError
from workflows import Trace
from workflows.agent import Agent
from workflows.lats import Lats
from workflows.lats import LatsParams
from workflows.lats import Node
from workflows.lats import Search
from workflows.lats import back_propagate
from workflows.lats import read_rating
from workflows.llm import OnText
from workflows.session import Oracle
from workflows.tools import Tool
from workflows.tools import Toolbox

QUESTION = "Where does Anna live?"


def agent(llm: object, pack: AgentPack, **params: float | str) -> Agent:
    workflow = Lats(LatsParams.model_validate(params))
    return Agent(workflow, llms={"m": llm}, actor="m", pack=pack)  # type: ignore[dict-item]


async def run(
    llm: object,
    pack: AgentPack,
    *,
    oracle: Oracle | None = None,
    tools: Toolbox | None = None,
    **params: float | str,
) -> Outcome:
    one = agent(llm, pack, **params)
    session = one.open_session(seed=3, oracle=oracle)
    session.tools = session.tools if tools is None else tools
    return await one.run_session(QUESTION, session)


async def wrong(_: str) -> float:
    return 0.0


def kind(request: Request) -> str:
    if "\nProposed answer: " in request.prompt:
        return "verdict"
    ends = {"Rating:": "rating", "What to do differently:": "lesson"}
    return next((name for end, name in ends.items() if request.prompt.endswith(end)), "sample")


def kinds(llm: ScriptedLLM) -> list[str]:
    return [kind(request) for request in llm.requests]


def of(name: str, llm: ScriptedLLM) -> list[Request]:
    return [request for request in llm.requests if kind(request) == name]


def thought(request: Request) -> str:
    """The last thought that a prompt shows."""
    return re.findall(r"Thought \d+: (.*)", request.prompt)[-1]


def step(request: Request) -> int:
    return int(re.findall(r"Thought (\d+):", request.prompt)[-1])


def script(
    samples: Callable[[Request, int], tuple[str, str]],
    *,
    rating: Callable[[Request], str] = lambda _: "5",
    verdict: str = "no",
    lesson: str = "Look closer.",
    delay_s: float = 0.0,
) -> ScriptedLLM:
    """A model; `samples` gives thought and action from the request and how many samples its prompt has had before it."""
    drawn: dict[str, int] = {}

    def reply(request: Request) -> str:
        name = kind(request)
        if name == "rating":
            return rating(request)
        if name != "sample":
            return verdict if name == "verdict" else lesson
        index = drawn.setdefault(request.prompt, 0)
        drawn[request.prompt] += 1
        thought, action = samples(request, index)
        return f" {thought}\nAction {step(request)}: {action}"

    return ScriptedLLM(reply, delay_s=delay_s)


class SlowKit:
    """A tool `wait[name]` that takes its time, and one that ends the run where asked for."""

    def __init__(self, delay_s: Callable[[str], float], *, ends: bool = False) -> None:
        self.delay_s = delay_s
        self.ends = ends

    def tools(self) -> Iterable[Tool]:
        return (Tool("wait", "wait[name] waits", self.wait, ends=self.ends),)

    async def wait(self, name: str) -> str:
        await asyncio.sleep(self.delay_s(name))
        if name == "never":
            raise ToolError("It is closed.")
        return f"waited for {name.rstrip('0123456789')}"


# The tree


def search(pack: AgentPack, **params: float | str) -> Search:
    session = agent(ScriptedLLM([]), pack).open_session()
    return Search(QUESTION, session, LatsParams.model_validate(params))


def grow(parent: Node, value: float, visits: int = 0, *, closed: bool = False) -> Node:
    """A child of that value, or before its first visit of that rating."""
    child = Node(parent, parent.tools, parent.depth + 1, visits=visits, closed=closed)
    child.value, child.rating = (value, 0.0) if visits else (0.0, value)
    parent.children.append(child)
    return child


@pytest.mark.parametrize(
    ("params", "chosen"),
    [
        # After 3 visits of the root, with ln 3 = 1.0986: 0.5 + sqrt(2 · 1.0986 / 2) = 1.548,
        # 0.1 + sqrt(2 · 1.0986 / 1) = 1.582, and the ratings 0.4 and 0.9.
        ({}, 1),
        # 0.5 + 0.5 · 1.048 = 1.024 against 0.1 + 0.5 · 1.482 = 0.841 and 0.9
        ({"exploration": 0.5}, 0),
        # 0.5 and 0.1 against 0.9
        ({"exploration": 0.0}, 3),
        ({"unvisited": "infinite"}, 3),
    ],
)
def test_the_child_of_highest_uct_is_selected(
    pack: AgentPack, params: dict[str, float | str], chosen: int
) -> None:
    one = search(pack, **params)
    one.root.visits = 3
    children = [grow(one.root, 0.5, 2), grow(one.root, 0.1, 1)]
    children += [grow(one.root, 0.4), grow(one.root, 0.9)]
    assert one.select() is children[chosen]


def test_selection_goes_down_to_a_node_without_children(pack: AgentPack) -> None:
    one = search(pack)
    assert one.select() is one.root
    one.root.visits = 2
    grow(one.root, 0.2)
    child = grow(one.root, 0.3, 1)
    grandchild = grow(child, 0.1)
    assert one.select() is grandchild


def test_a_node_whose_children_have_all_ended_is_dropped(pack: AgentPack) -> None:
    one = search(pack)
    one.root.visits = 3
    best, other = grow(one.root, 0.9, 1), grow(one.root, 0.1, 1)
    grow(best, 1.0, closed=True)
    grow(best, 0.8, closed=True)
    assert one.select() is other
    assert best.closed
    grow(other, 1.0, closed=True)
    assert one.select() is None
    assert one.select() is None


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=9))
def test_values_are_running_means_up_to_the_root(rewards: list[float]) -> None:
    root = Node(None, Toolbox())
    child, sibling = grow(root, 0.9), grow(root, 0.9)
    for index, reward in enumerate(rewards):
        back_propagate(child if index % 2 == 0 else sibling, reward)
    assert math.isclose(root.value, fmean(rewards), abs_tol=1e-9)
    assert math.isclose(child.value, fmean(rewards[::2]), abs_tol=1e-9)
    assert (root.visits, child.visits) == (len(rewards), len(rewards[::2]))
    if len(rewards) > 1:
        assert math.isclose(sibling.value, fmean(rewards[1::2]), abs_tol=1e-9)


@pytest.mark.parametrize(
    ("reply", "rating"),
    [
        (" 7", 7),
        ("10", 10),
        ("Rating: 8/10", 8),
        ("I give it a 3.", 3),
        ("0", 0),
        ("11", 0),
        ("100", 0),
        ("0.5", 0),
        ("good", 0),
        ("", 0),
    ],
)
def test_read_rating(reply: str, rating: int) -> None:
    assert read_rating(reply) == rating


# One iteration


async def test_an_iteration_expands_values_and_rolls_out_from_the_best(pack: AgentPack) -> None:
    def samples(request: Request, index: int) -> tuple[str, str]:
        if "Observation 2" in request.prompt:
            return "Done.", "finish[Oak]"
        return f"t{step(request)}{index}", "search[Bert]"

    llm = script(samples, rating=lambda r: "9" if thought(r).endswith("1") else "4", verdict="yes")
    outcome = await run(llm, pack, children=2)
    assert outcome.answer == "Oak"
    assert kinds(llm) == [
        *["sample"] * 2,
        *["rating"] * 2,  # of t10 and t11
        *["sample"] * 2,  # after t11
        *["rating"] * 2,
        *["sample"] * 2,  # after t21: twice the same
        "verdict",
    ]
    first, rated = of("sample", llm)[0], of("rating", llm)
    assert first.prompt == f"Question: {QUESTION}\nThought 1:"
    assert (first.temperature, first.max_tokens) == (1.0, 100)
    assert first.system.startswith("Answer about the villages. Actions: search[title] opens")
    steps = (
        "Thought 1: t11\nAction 1: search[Bert]\nObservation 1: Bert is a baker. He lives in Elm.\n"
    )
    assert rated[1].prompt.startswith(f"Question: {QUESTION}\n{steps}Rate these steps from 1 ")
    assert rated[1].system == first.system
    assert rated[1].grammar == 'root ::= " "? ("10" | [1-9])'
    assert "Thought 1: t11\n" in of("sample", llm)[2].prompt
    assert "Thought 2: t21\n" in of("sample", llm)[4].prompt
    assert f"Question: {QUESTION}\n{steps}Thought 2: t21\n" in of("verdict", llm)[0].prompt
    assert [checkpoint.answer for checkpoint in outcome.checkpoints] == ["Oak"]


async def test_equal_samples_are_one_child(pack: AgentPack) -> None:
    def samples(request: Request, index: int) -> tuple[str, str]:
        return ("same", "search[Anna]") if index in (0, 2) else ("other", "search[Anna]")

    llm = script(samples)
    outcome = await run(llm, pack, children=4, rollout_depth=0, iterations=1)
    assert kinds(llm) == ["sample"] * 4 + ["rating"] * 2
    assert [span.name for span in outcome.spans].count("search") == 2


@pytest.mark.parametrize("best", [1, 3])
async def test_values_stay_with_their_children_beside_an_ended_one(
    pack: AgentPack, best: int
) -> None:
    def samples(request: Request, index: int) -> tuple[str, str]:
        ended = step(request) == 1 and index in (0, 2)
        return f"t{step(request)}{index}", f"finish[{index}]" if ended else "search[Anna]"

    llm = script(samples, rating=lambda r: "9" if thought(r) == f"t1{best}" else "2")
    await run(llm, pack, oracle=wrong, feedback="oracle", children=4, rollout_depth=1, iterations=1)
    assert [thought(request) for request in of("rating", llm)[:2]] == ["t11", "t13"]
    (rolled,) = {request.prompt for request in of("sample", llm)[4:]}
    assert f"Thought 1: t1{best}\n" in rolled


async def test_one_child_does_not_branch(pack: AgentPack) -> None:
    llm = script(lambda request, index: (f"t{request.seed}", "search[Anna]"))
    await run(llm, pack, children=1, iterations=1)
    assert kinds(llm) == ["sample", "rating"] + ["sample"] * 4
    assert [step(request) for request in of("sample", llm)] == [1, 2, 3, 4, 5]


async def test_no_way_is_deeper_than_allowed(pack: AgentPack) -> None:
    llm = script(lambda request, index: (f"t{request.seed}", "search[Anna]"))
    outcome = await run(llm, pack, children=2, depth=3)
    assert max(step(request) for request in of("sample", llm)) == 3
    assert outcome.answer == ""
    # The root, its 2 children and their 4 are expanded, each once; then there is no way on.
    assert len(outcome.checkpoints) == 1 + 2 + 4


async def test_the_mean_of_several_ratings_counts(pack: AgentPack) -> None:
    ratings = {"t10": ["1", "9", "x"], "t11": ["4", "4", "4"]}  # means 1/3 and 0.4

    def samples(request: Request, index: int) -> tuple[str, str]:
        return f"t{step(request)}{index}", "search[Anna]"

    llm = script(samples, rating=lambda r: ratings.get(thought(r), ["2"] * 3).pop())
    await run(llm, pack, children=2, evaluations=3, rollout_depth=1, iterations=1)
    first = of("rating", llm)[:6]
    assert len({request.seed for request in first}) == 6
    assert "Thought 1: t11\n" in of("sample", llm)[2].prompt


async def test_a_thought_without_an_action_is_asked_on_with_the_same_seed(pack: AgentPack) -> None:
    replies = iter([" hm", " finish[Oak]", "yes"])
    llm = ScriptedLLM(lambda _: next(replies))
    outcome = await run(llm, pack, children=1)
    assert outcome.answer == "Oak"
    assert llm.requests[0].seed == llm.requests[1].seed


async def test_long_observations_are_cut(pack: AgentPack) -> None:
    llm = script(lambda request, index: ("t", "search[Anna]"))
    await run(llm, pack, children=1, iterations=1, rollout_depth=1, observation_chars=20)
    assert "Observation 1: Anna is a smith. Sh…\n" in of("rating", llm)[0].prompt
    assert "Observation 1: Anna is a smith. Sh…\n" in of("sample", llm)[1].prompt


async def test_demonstrations_come_first(pack: AgentPack) -> None:
    llm = script(lambda request, index: ("t", "finish[Oak]"), verdict="yes")
    await run(llm, pack, few_shot=1, children=1)
    assert llm.requests[0].prompt.startswith(
        "Question: Where does the smith live?\nThought 1: I look for the smith.\n"
    )
    assert llm.requests[0].prompt.endswith(f"\n\nQuestion: {QUESTION}\nThought 1:")


# Feedback, and what wrong answers lead to


async def test_a_search_whose_ways_have_all_ended_stops(pack: AgentPack) -> None:
    llm = script(lambda request, index: (f"t{index}", f"finish[{index}]"))
    outcome = await run(llm, pack, oracle=wrong, feedback="oracle", children=3)
    assert kinds(llm) == ["sample"] * 3
    assert [checkpoint.budget for checkpoint in outcome.checkpoints] == [1]
    assert outcome.answer == "0"


async def test_an_oracle_is_asked_instead_of_the_model(pack: AgentPack) -> None:
    asked = []

    async def oracle(answer: str) -> float:
        asked.append(answer)
        return float(answer == "Oak")

    def samples(request: Request, index: int) -> tuple[str, str]:
        return f"t{index}", f"finish[{['Elm', 'Oak', 'Elm'][index]}]"

    llm = script(samples, verdict="yes")
    outcome = await run(llm, pack, oracle=oracle, feedback="oracle", children=3)
    assert outcome.answer == "Oak"
    assert asked == ["Elm", "Oak"]
    assert kinds(llm) == ["sample"] * 3
    by_itself = script(samples, verdict="yes")
    assert (await run(by_itself, pack, oracle=oracle, children=3)).answer == "Elm"
    assert kinds(by_itself) == ["sample"] * 3 + ["verdict"] * 2
    assert [thought(request) for request in of("verdict", by_itself)] == ["t0", "t1"]


@pytest.mark.parametrize(
    ("rewards", "answer"),
    [
        ({"a": 0.2, "b": 0.6, "c": 0.4}, "b"),
        ({"a": 0.2, "b": 0.2, "c": 0.1}, "a"),
        ({"a": 0.0, "b": 0.0, "c": 0.0, "": 0.0}, "a"),
    ],
)
async def test_the_answer_of_highest_reward_is_returned(
    pack: AgentPack, rewards: dict[str, float], answer: str
) -> None:
    async def oracle(given: str) -> float:
        return rewards[given]

    answers = sorted(rewards)  # "" comes first, and is returned only where there is no other
    llm = script(lambda request, index: (f"t{index}", f"finish[{answers[index]}]"))
    outcome = await run(llm, pack, oracle=oracle, feedback="oracle", children=len(answers))
    assert outcome.answer == answer


async def test_among_equal_rewards_the_better_rated_way_counts(pack: AgentPack) -> None:
    def samples(request: Request, index: int) -> tuple[str, str]:
        if step(request) == 1:
            return f"t{index}", "search[Anna]"
        return f"u{index}", "finish[good]" if "Thought 1: t1" in request.prompt else "finish[bad]"

    # Without roll-outs, the first iteration is unfinished and counts against t1: the second goes to t0.
    llm = script(samples, rating=lambda r: "6" if thought(r) == "t1" else "3")
    outcome = await run(llm, pack, children=2, rollout_depth=0)
    assert [checkpoint.answer for checkpoint in outcome.checkpoints] == ["", "bad", "good"]
    assert outcome.answer == "good"


async def test_wrong_answers_are_judged_and_reflected_on_once(pack: AgentPack) -> None:
    def samples(request: Request, index: int) -> tuple[str, str]:
        if step(request) == 1 or index == 0:
            return f"t{request.seed}", "search[Anna]"
        return f"u{request.seed}", f"finish[{'Elm' if step(request) == 2 else 'Ash'}]"

    llm = script(samples)
    await run(llm, pack, children=2, iterations=4)
    judged = [request.prompt.partition("Proposed answer: ")[2] for request in of("verdict", llm)]
    assert [text.partition("\n")[0] for text in judged] == ["Elm", "Ash"]
    lessons = of("lesson", llm)
    assert len(lessons) == 2
    assert re.search(
        r"Action 2: finish\[Elm\]\n.+\n.+\nWhat to do differently:$", lessons[0].prompt
    )
    for name in ("sample", "rating"):
        shown = [request.prompt.count("- Look closer.\n") for request in of(name, llm)]
        assert shown == sorted(shown)
        assert set(shown) == {0, 1, 2}
    taught = "Attempts at the next question failed. What they taught:\n- Look closer.\n"
    last = f"{taught}- Look closer.\n\nQuestion: {QUESTION}\nThought 1:"
    assert of("sample", llm)[-1].prompt.startswith(last)
    assert of("rating", llm)[-1].prompt.startswith(last)


@pytest.mark.parametrize("reflections", [0, 1, 3])
async def test_as_many_lessons_are_drawn_as_asked_for(pack: AgentPack, reflections: int) -> None:
    def samples(request: Request, index: int) -> tuple[str, str]:
        action = "search[Anna]" if index == 0 else f"finish[{request.seed}]"
        return f"t{request.seed}", action

    llm = script(samples)
    await run(llm, pack, children=3, iterations=4, reflections=reflections, depth=4)
    assert len(of("lesson", llm)) == reflections
    assert of("sample", llm)[-1].prompt.count("- Look closer.\n") == reflections


async def test_a_lesson_that_no_prompt_would_show_is_not_drawn(pack: AgentPack) -> None:
    llm = script(lambda request, index: (f"t{index}", f"finish[{index}]"))
    await run(llm, pack, children=2, iterations=9)
    assert kinds(llm) == ["sample"] * 2 + ["verdict"] * 2


async def test_an_empty_lesson_teaches_nothing(pack: AgentPack) -> None:
    def samples(request: Request, index: int) -> tuple[str, str]:
        return f"t{request.seed}", "finish[Elm]" if index == 0 else "search[Anna]"

    llm = script(samples, lesson=" \n")
    await run(llm, pack, children=2, iterations=3)
    assert len(of("lesson", llm)) == 1
    assert all("taught" not in request.prompt for request in llm.requests)


async def test_roles_have_models_of_their_own(pack: AgentPack) -> None:
    def samples(request: Request, index: int) -> tuple[str, str]:
        return f"t{request.seed}", "finish[Elm]" if index == 0 else "search[Anna]"

    llms = {name: script(samples) for name in ("m", "v", "r")}
    params = LatsParams(children=2, iterations=2, value_model="v", reflection_model="r")
    await Agent(Lats(params), llms=llms, actor="m", pack=pack).run(QUESTION)
    assert {name: set(kinds(llm)) for name, llm in llms.items()} == {
        "m": {"sample"},
        "v": {"rating", "verdict"},
        "r": {"lesson"},
    }


# Tools


async def test_what_tools_remember_does_not_leak_between_ways(pack: AgentPack) -> None:
    def samples(request: Request, index: int) -> tuple[str, str]:
        return f"t{request.seed}", "search[Anna]" if step(request) == 1 else "lookup[dog]"

    llm = script(samples)
    outcome = await run(llm, pack, children=3, iterations=4)
    assert sum(span.name == "lookup" for span in outcome.spans) > 20
    for request in of("sample", llm):
        results = re.findall(r"\(Result (\d) / 3\)", request.prompt)
        lookups = request.prompt.count("lookup[dog]")
        assert results == ["1", "2", "3"][:lookups]


async def test_a_program_is_an_answer() -> None:
    pack = AgentPack(instruction="Write a program.", answer="program")
    llm = script(
        lambda request, index: ("t", "finish\n```python\nprint(1)\n\nprint(2)\n```"), verdict="yes"
    )
    assert (await run(llm, pack)).answer == "print(1)\n\nprint(2)"


async def test_what_an_ending_tool_gives_is_the_answer() -> None:
    pack = AgentPack(instruction="Wait.", answer="action")

    def samples(request: Request, index: int) -> tuple[str, str]:
        return f"t{index}", "wait[never]" if index == 0 else "wait[Bert]"

    llm = script(samples, verdict="yes")
    tools = Toolbox([SlowKit(lambda _: 0.0, ends=True)])
    outcome = await run(llm, pack, tools=tools, children=2)
    assert outcome.answer == "waited for Bert"
    assert kinds(llm) == ["sample", "sample", "rating", "verdict"]
    assert "Observation 1: It is closed.\nRate these" in of("rating", llm)[0].prompt


# Concurrency


async def test_children_take_their_tools_and_are_valued_concurrently(pack: AgentPack) -> None:
    llm = script(lambda request, index: (f"t{index}", f"wait[{index}]"), delay_s=0.1)
    tools = Toolbox([SlowKit(lambda _: 0.1)])
    outcome = await run(llm, pack, tools=tools, children=4, rollout_depth=0, iterations=1)
    assert len(outcome.spans) == 12
    assert 0.3 <= outcome.latency_s < 0.45  # samples, tools, ratings
    assert [span.kind for span in outcome.spans] == ["llm"] * 4 + ["tool"] * 4 + ["llm"] * 4


async def test_a_child_is_valued_while_another_waits_for_its_tool(pack: AgentPack) -> None:
    llm = script(lambda request, index: (f"t{index}", f"wait[{index}]"), delay_s=0.1)
    tools = Toolbox([SlowKit(lambda name: 0.3 if name == "3" else 0.0)])
    outcome = await run(llm, pack, tools=tools, children=4, rollout_depth=0, iterations=1)
    rated = [span.end_s for span in outcome.spans[4:] if span.kind == "llm"]
    slowest = max(span.end_s for span in outcome.spans if span.kind == "tool")
    assert sum(end_s < slowest for end_s in rated) == 3


@given(st.integers(0, 10**6))
@settings(max_examples=15)
async def test_nothing_depends_on_which_tool_is_first(script_seed: int) -> None:
    pack = AgentPack(instruction="Wait.", answer="action")

    def samples(request: Request, index: int) -> tuple[str, str]:
        rng = random.Random(f"{script_seed} {request.seed}")
        return f"t{index}", rng.choice(["wait[a1]", "wait[a2]", "wait[b]", "wait[never]", "what"])

    runs = []
    for order in (1, -1):
        delays = {"a1": 0.004, "a2": 0.002, "b": 0.003, "never": 0.001}
        kit = SlowKit(
            lambda name, order=order, delays=delays: 0.004 * (order < 0) + order * delays[name],  # type: ignore[misc]
            ends=True,
        )
        llm = script(samples, rating=lambda r: str(r.seed % 10))
        outcome = await run(llm, pack, tools=Toolbox([kit]), children=4, iterations=3)
        answers = [checkpoint.answer for checkpoint in outcome.checkpoints]
        runs.append((answers, sorted(llm.requests, key=repr)))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("moment_s", [0.02, 0.07, 0.12])
async def test_cancelled_it_leaves_no_task(pack: AgentPack, moment_s: float) -> None:
    llm = script(lambda request, index: (f"t{index}", f"wait[{index}]"), delay_s=0.05)
    one = agent(llm, pack)
    session = one.open_session()
    session.tools = Toolbox([SlowKit(lambda _: 0.05)])
    task = asyncio.create_task(one.run_session(QUESTION, session))
    await asyncio.sleep(moment_s)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert {span.error for span in session.trace.spans} <= {None, "cancelled"}
    assert session.trace.spans[-1].error == "cancelled"


@pytest.mark.parametrize("failing", ["sample", "rating", "verdict", "lesson"])
async def test_an_error_of_the_model_goes_to_the_caller(pack: AgentPack, failing: str) -> None:
    error = ModelError("down")

    def samples(request: Request, index: int) -> tuple[str, str]:
        return f"t{index}", "finish[Elm]" if index == 0 else "search[Anna]"

    working = script(samples)

    class Model:
        async def complete(
            self, request: Request, trace: Trace, on_text: OnText | None = None
        ) -> str:
            if kind(request) == failing:
                raise error
            return await working.complete(request, trace, on_text)

    started_s = time.perf_counter()
    with pytest.raises(ModelError) as caught:
        await run(Model(), pack)
    assert caught.value is error
    assert time.perf_counter() - started_s < 1
    assert asyncio.all_tasks() == {asyncio.current_task()}


# Budget and seeds

DOGS = AgentPack(
    instruction="Answer.",
    toolkits=("browser", "calculator"),
    documents=(Document(title="Anna", sentences=("A dog.", "No cat.", "Two dogs.")),),
)
REPLIES = (
    " t{r}\nAction {i}: search[Anna]",
    " t\nAction {i}: lookup[dog]",
    " t\nAction {i}: finish[{r}]",
    " t{r}\nAction {i}: nonsense",
    " only a thought",
    " finish[Elm]",
    "",
)


def at_random(number: int) -> ScriptedLLM:
    """A model whose reply is a function of the request, right now and then."""

    def reply(request: Request) -> str:
        rng = random.Random(f"{number} {request.seed} {request.text()}")
        name = kind(request)
        if name == "rating":
            return rng.choice(["1", "4", "8", "10", "what"])
        if name == "verdict":
            return rng.choice(["no"] * 9 + ["yes"])
        if name == "lesson":
            return rng.choice(["Look up.", "Do not.", ""])
        form = rng.choices(REPLIES, weights=(6, 4, 2, 2, 2, 1, 1))[0]
        return form.format(i=request.prompt.count("Observation ") + 1, r=rng.randrange(4))

    return ScriptedLLM(reply)


@given(
    number=st.integers(0, 10**6),
    iterations=st.integers(2, 5),
    children=st.integers(1, 3),
    depth=st.integers(1, 4),
    unvisited=st.sampled_from(["value", "infinite"]),
)
@settings(max_examples=50)
async def test_a_checkpoint_is_the_run_at_that_budget(
    number: int, iterations: int, children: int, depth: int, unvisited: str
) -> None:
    params = {"children": children, "depth": depth, "unvisited": unvisited}
    llm = at_random(number)
    whole = await run(llm, DOGS, iterations=iterations, **params)
    assert [c.budget for c in whole.checkpoints] == list(range(1, len(whole.checkpoints) + 1))
    assert len(whole.checkpoints) <= iterations
    for smaller in range(1, iterations):
        own = at_random(number)
        short = await run(own, DOGS, iterations=smaller, **params)
        if smaller >= len(whole.checkpoints):  # ended by then: the two runs are one
            assert short.answer == whole.answer == whole.checkpoints[-1].answer
            assert own.requests == llm.requests
            continue
        checkpoint = whole.checkpoints[smaller - 1]
        assert checkpoint.answer == short.answer
        assert [
            (span.name, span.input, span.output, span.tokens_in, span.tokens_out)
            for span in whole.spans[: checkpoint.span_count]
        ] == [
            (span.name, span.input, span.output, span.tokens_in, span.tokens_out)
            for span in short.spans
        ]


async def test_every_sample_and_rating_has_a_seed_of_its_own(pack: AgentPack) -> None:
    llm = script(lambda request, index: (f"t{request.seed}", "search[Anna]"))
    await run(llm, pack, children=3, iterations=3, reflections=0)
    seeds = [request.seed for request in llm.requests]
    assert len(set(seeds)) == len(seeds)
    again = script(lambda request, index: (f"t{request.seed}", "search[Anna]"))
    await run(again, pack, children=3, iterations=3, reflections=0)
    assert again.requests == llm.requests
