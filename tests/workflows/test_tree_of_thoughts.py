import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tuner.serving import Endpoint
from workflows import AgentPack
from workflows import ChatClient
from workflows import Demonstration
from workflows import ModelError
from workflows import Outcome
from workflows import Request
from workflows import ScriptedLLM
from workflows.agent import Agent
from workflows.tree_of_thoughts import State
from workflows.tree_of_thoughts import TreeOfThoughts
from workflows.tree_of_thoughts import TreeOfThoughtsParams
from workflows.tree_of_thoughts import best
from workflows.tree_of_thoughts import read_value
from workflows.tree_of_thoughts import read_vote
from workflows.tree_of_thoughts import show_thoughts

QUESTION = "Where does Anna live?"
PACK = AgentPack(instruction="Answer.")


async def run(llm: object, pack: AgentPack = PACK, **params: float | str) -> Outcome:
    workflow = TreeOfThoughts(TreeOfThoughtsParams.model_validate(params))
    one = Agent(workflow, llms={"m": llm}, actor="m", pack=pack)  # type: ignore[dict-item]
    return await one.run(QUESTION, seed=3)


def kind(request: Request) -> str:
    if request.prompt.endswith("candidates for the next line:\n1."):
        return "propose"
    ends = {"impossible:": "value", "best candidate:": "vote", "Answer:": "answer"}
    return next((name for end, name in ends.items() if request.prompt.endswith(end)), "sample")


def kinds(llm: ScriptedLLM) -> list[str]:
    return [kind(request) for request in llm.requests]


def of(name: str, llm: ScriptedLLM) -> list[Request]:
    return [request for request in llm.requests if kind(request) == name]


def path(request: Request) -> str:
    """The last line of each thought or answer of the state that a prompt is about, joined."""
    return "".join(re.findall(r"(?:Thought \d+|Answer): (.+)\n", request.prompt))


def script(
    lines: Callable[[str, int], str],
    *,
    value: Callable[[str], str] = lambda _: "likely",
    vote: Callable[[Request], str] = lambda _: "1",
    answer: str = "last",
    delay_s: float = 0.0,
) -> ScriptedLLM:
    """A model; `lines` gives a proposal or a sample from the path and how often it was asked there."""
    asked: Counter[str] = Counter()

    def reply(request: Request) -> str:
        name = kind(request)
        if name == "value":
            return value(path(request))
        if name == "vote":
            return vote(request)
        if name == "answer":
            return f" {answer}\n"
        asked[request.prompt] += 1
        return lines(path(request), asked[request.prompt] - 1)

    return ScriptedLLM(reply, delay_s=delay_s)


def proposals(*letters: str) -> Callable[[str, int], str]:
    return lambda _path, _index: "\n".join(
        f"{number}. {letter}" for number, letter in enumerate(letters, 1)
    )


def samples(*letters: str) -> Callable[[str, int], str]:
    return lambda path, index: f"Thought {len(path) + 1}: {letters[index % len(letters)]}"


# Parts


@pytest.mark.parametrize(
    ("line", "thoughts", "answer"),
    [
        ("Oak is old.", ("x", "Oak is old."), None),
        ("1. Oak is old.", ("x", "Oak is old."), None),
        ("- Thought 2: Oak is old.", ("x", "Oak is old."), None),
        ("Thought 2:Oak is old.", ("x", "Oak is old."), None),
        ("12 - 8 = 4 (left: 2)", ("x", "12 - 8 = 4 (left: 2)"), None),
        ("1.5 metres", ("x", "1.5 metres"), None),
        ("Answer: Oak", ("x",), "Oak"),
        ("3) Answer:  Oak ", ("x",), "Oak"),
        ("It is old. Answer: Oak", ("x", "It is old."), "Oak"),
        ("Answer: Oak. Answer: Elm", ("x",), "Oak."),
        ("It is. Answer:", ("x", "It is."), None),
    ],
)
def test_a_line_extends_a_state(line: str, thoughts: tuple[str, ...], answer: str | None) -> None:
    assert State(("x",)).extend(line) == State(thoughts, answer)


@pytest.mark.parametrize("line", ["", " ", "2.", "Thought 3:", "Answer:", "- "])
def test_a_line_that_says_nothing_extends_no_state(line: str) -> None:
    assert State(("x",)).extend(line) is None


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        (" sure", 20), ("Likely.", 1), ("I say impossible", 0.001), ("likely, not sure", 1),
        ("unlikely", 0), ("surely", 0), ("", 0), ("3", 0),
    ],
)  # fmt: skip
def test_read_value(reply: str, value: float) -> None:
    assert read_value(reply) == value


@pytest.mark.parametrize(
    ("reply", "vote"), [(" 3", 3), ("Candidate 12 is", 12), ("none", 0), ("", 0), ("9" * 5000, 999999999)]
)  # fmt: skip
def test_read_vote(reply: str, vote: int) -> None:
    assert read_vote(reply) == vote


@given(st.lists(st.sampled_from([0.0, 0.003, 1.0, 3.0, 60.0]), max_size=9), st.integers(1, 9))
def test_the_best_are_kept_in_order_and_ties_go_to_the_first(
    values: list[float], count: int
) -> None:
    states = [State((str(index),)) for index in range(len(values))]
    kept = best(states, values, count)
    ranked = sorted(range(len(values)), key=lambda index: (-values[index], index))
    assert [int(state.thoughts[0]) for state in kept] == ranked[:count]


@pytest.mark.parametrize(
    ("reasoning", "expected"),
    [
        ("Anna is old. She lives in Oak.", "Thought 1: Anna is old.\nThought 2: She lives in Oak.\n"),
        ("It costs 1.5 dollars.", "Thought 1: It costs 1.5 dollars.\n"),
        ("12 - 8 = 4. Left: 2\n4 * 3 = 12\n", "Thought 1: 12 - 8 = 4. Left: 2\nThought 2: 4 * 3 = 12\n"),
        ("", ""),
    ],
)  # fmt: skip
def test_demonstrations_are_taken_apart(reasoning: str, expected: str) -> None:
    demo = Demonstration(question="?", answer="Oak", reasoning=reasoning)
    assert show_thoughts(demo) == f"{expected}Answer: Oak"


# The algorithm


@pytest.mark.parametrize(
    ("generate", "evaluate", "expected"),
    [
        # 1 state, then 2: each asked once for a list, or twice for a line; 2, then 4 new states.
        ("propose", "value", ["propose"] + ["value"] * 6 + ["propose"] * 2 + ["value"] * 12),
        ("sample", "value", ["sample"] * 2 + ["value"] * 6 + ["sample"] * 4 + ["value"] * 12),
        ("propose", "vote", ["propose"] + ["vote"] * 3 + ["propose"] * 2 + ["vote"] * 3),
        ("sample", "vote", ["sample"] * 2 + ["vote"] * 3 + ["sample"] * 4 + ["vote"] * 3),
    ],
)
async def test_the_calls_of_each_combination(
    generate: str, evaluate: str, expected: list[str]
) -> None:
    lines = proposals("a", "b") if generate == "propose" else samples("a", "b")
    llm = script(lines)
    outcome = await run(
        llm, generate=generate, evaluate=evaluate, steps=2, children=2, breadth=2, max_tokens=9
    )
    assert kinds(llm) == [*expected, "answer"]
    assert {request.max_tokens for request in of(generate, llm)} == {9}
    assert outcome.answer == "last"


async def test_the_states_of_highest_value_go_on() -> None:
    values = {"a": "impossible", "b": "sure", "c": "likely", "ba": "likely", "bc": "sure"}
    llm = script(
        proposals("a", "b", "c"), value=lambda way: values.get(way, "impossible"), answer="end"
    )
    outcome = await run(llm, breadth=2, steps=3, evaluations=1)
    assert [path(request) for request in of("propose", llm)] == ["", "b", "c", "bc", "ba"]
    assert [path(request) for request in of("value", llm)[3:9]] == [
        "ba", "bb", "bc", "ca", "cb", "cc",
    ]  # fmt: skip
    assert outcome.answer == "end"


async def test_evaluations_add_up() -> None:
    said = {"a": ["likely", "likely", "likely"], "b": ["what", "sure", "impossible"]}
    llm = script(proposals("a", "b"), value=lambda way: said[way].pop() if way in said else "")
    await run(llm, breadth=1, steps=2)
    assert [path(request) for request in of("propose", llm)] == ["", "b"]


async def test_votes_choose_by_number() -> None:
    ballots = iter(["3", "Candidate 2", "3", "9", "none", "0"])
    llm = script(proposals("a", "b", "c"), vote=lambda request: next(ballots, "1"), answer="end")
    await run(llm, breadth=2, steps=2, evaluate="vote", evaluations=6)
    assert of("vote", llm)[0].prompt == (
        f"Question: {QUESTION}\nCandidate 1:\nThought 1: a\nCandidate 2:\nThought 1: b\n"
        "Candidate 3:\nThought 1: c\nThe number of the best candidate:"
    )
    assert [path(request) for request in of("propose", llm)] == ["", "c", "b"]


async def test_a_repeated_state_is_worth_nothing_and_valued_once() -> None:
    llm = script(samples("a", "a", "b"), value=lambda _: "impossible")
    await run(llm, generate="sample", children=3, breadth=3, steps=2, evaluations=2)
    first = [path(request) for request in of("value", llm)][:4]
    assert first == ["a", "a", "b", "b"]
    assert [path(request) for request in of("sample", llm)[3:]] == ["a"] * 3 + ["b"] * 3 + ["a"] * 3
    votes = script(samples("a", "a", "b"))
    await run(votes, generate="sample", evaluate="vote", children=3, steps=1)
    assert "Candidate 2:\nThought 1: b\nThe" in of("vote", votes)[0].prompt


async def test_one_state_alone_is_not_evaluated() -> None:
    for evaluate in ("value", "vote"):
        llm = script(samples("a"))
        await run(llm, generate="sample", evaluate=evaluate, children=2, breadth=1, steps=2)
        assert kinds(llm) == ["sample"] * 4 + ["answer"]


async def test_a_list_gives_no_line_twice_and_no_more_than_wanted() -> None:
    llm = script(lambda path, _: " a\n2. b\n3. a\n\nno more" if not path else "")
    await run(llm, steps=1)
    assert {path(request) for request in of("value", llm)} == {"a", "b"}
    for reply in ("1. a\n2. a\n3. b\n4. c", "\n- a\n- b\n- c", "a\nb\nc"):
        llm = script(lambda path, _, reply=reply: reply)  # type: ignore[misc]
        await run(llm, steps=1, children=2)
        assert {path(request) for request in of("value", llm)} == {"a", "b"}


async def test_prompts_show_demonstrations_and_the_state(pack: AgentPack) -> None:
    llm = script(proposals("It is Oak."))
    await run(llm, pack, few_shot=1, steps=2, children=3)
    head = (
        "Question: Where does the smith live?\n"
        "Thought 1: The smith is Anna, and Anna lives in Oak.\nAnswer: Oak\n\n"
        f"Question: {QUESTION}\n"
    )
    ask = "3 candidates for the next line:\n1."
    assert [request.prompt for request in llm.requests] == [
        f"{head}{ask}",
        f"{head}Thought 1: It is Oak.\n{ask}",
        f"{head}Thought 1: It is Oak.\nThought 2: It is Oak.\nAnswer:",
    ]


# How it ends


async def test_it_ends_when_the_best_state_has_an_answer() -> None:
    def lines(way: str, _: int) -> str:
        return "1. a\n2. b" if not way else "1. Answer: Oak\n2. c"

    llm = script(lines, value=lambda way: "sure" if "Oak" in way else "likely")
    outcome = await run(llm, steps=9, breadth=2)
    assert outcome.answer == "Oak"
    assert [(c.budget, c.answer) for c in outcome.checkpoints] == [(1, None), (2, "Oak")]
    assert "answer" not in kinds(llm)


async def test_a_state_with_an_answer_competes_on_and_is_not_valued_again() -> None:
    def lines(way: str, _: int) -> str:
        return "1. Answer: Oak\n2. b" if not way else "1. c\n2. d"

    llm = script(lines, value=lambda way: "likely" if "Oak" in way else "sure")
    outcome = await run(llm, steps=3, breadth=5)
    assert outcome.answer == "Oak"
    assert [c.answer for c in outcome.checkpoints] == ["Oak"] * 3
    assert [path(request) for request in of("value", llm)].count("Oak") == 3
    # It was kept, behind those of more value: what it stated is the only answer there is.
    assert [path(request) for request in of("propose", llm)][:3] == ["", "b", "bc"]
    votes = script(lines, vote=lambda r: "1" if "Candidate 3" not in r.prompt else "2")
    assert (await run(votes, steps=3, evaluate="vote")).answer == "Oak"


@pytest.mark.parametrize(("at_budget", "answer"), [("empty", ""), ("answer", "last")])
async def test_without_an_answer_after_the_last_step(at_budget: str, answer: str) -> None:
    llm = script(proposals("a", "b"))
    outcome = await run(llm, steps=2, at_budget=at_budget)
    assert outcome.answer == answer
    assert [c.answer for c in outcome.checkpoints] == [None if answer else ""] * 2
    assert kinds(llm).count("answer") == bool(answer)


@pytest.mark.parametrize("generate", ["sample", "propose"])
async def test_where_the_model_says_nothing_it_ends(generate: str) -> None:
    llm = script(lambda way, _: "" if way else "a")
    outcome = await run(llm, generate=generate, steps=9, children=2)
    assert [c.budget for c in outcome.checkpoints] == [1, 2]
    assert outcome.answer == "last"
    assert llm.requests[-1].prompt.endswith("Thought 1: a\nAnswer:")


SUM = re.compile(r"(\d+) ([-+*]) (\d+) = (\d+)")


def numbers_left(prompt: str) -> list[tuple[int, str]]:
    """The numbers of 4 8 10 12 after the sums in a prompt, each with how it was made."""
    left = [(number, str(number)) for number in (4, 8, 10, 12)]
    for x, sign, y, z in SUM.findall(prompt):
        first = next(one for one in left if one[0] == int(x))
        left.remove(first)
        second = next(one for one in left if one[0] == int(y))
        left.remove(second)
        left.append((int(z), f"({first[1]} {sign} {second[1]})"))
    return left


def sums(numbers: list[int]) -> list[tuple[str, list[int]]]:
    """Every sum of two of the numbers, and what is left after it."""
    made = []
    for i, j in permutations(range(len(numbers)), 2):
        x, y = numbers[i], numbers[j]
        rest = [number for k, number in enumerate(numbers) if k not in (i, j)]
        for sign, z in (("+", x + y), ("-", x - y), ("*", x * y)):
            if z >= 0:
                made.append((f"{x} {sign} {y} = {z}", [*rest, z]))
    return made


def reaches_24(numbers: list[int]) -> bool:
    if len(numbers) == 1:
        return numbers == [24]
    return any(reaches_24(rest) for _, rest in sums(numbers))


async def test_the_game_of_24_is_solved() -> None:
    def reply(request: Request) -> str:
        left = numbers_left(request.prompt)
        numbers = [number for number, _ in left]
        if kind(request) == "value":
            return "likely" if reaches_24(numbers) else "impossible"
        if len(left) == 1:
            return f" Answer: {left[0][1]}"
        return "\n".join(f"{number}. {line}" for number, (line, _) in enumerate(sums(numbers), 1))

    llm = ScriptedLLM(reply)
    outcome = await run(llm, children=64, max_tokens=1000)
    assert sorted(re.findall(r"\d+", outcome.answer)) == ["10", "12", "4", "8"]
    assert eval(outcome.answer) == 24
    assert [c.budget for c in outcome.checkpoints] == [1, 2, 3, 4]
    assert [kinds(llm).count(name) for name in ("propose", "answer")] == [1 + 5 + 5 + 5, 0]


# Concurrency, seeds and budget


async def test_the_calls_of_a_depth_are_concurrent() -> None:
    llm = script(samples("a", "b", "c"), delay_s=0.05)
    started_s = time.perf_counter()
    outcome = await run(llm, generate="sample", children=3, steps=2, at_budget="empty")
    assert 0.2 <= time.perf_counter() - started_s < 1  # one after the other takes 2.4 s
    assert len(outcome.spans) == 3 + 9 + 9 + 27


async def test_every_call_has_a_seed_of_its_own() -> None:
    runs = []
    for _ in range(2):
        llm = script(samples("a", "b"))
        await run(llm, generate="sample", children=2, breadth=2, steps=3)
        runs.append(llm.requests)
    assert runs[0] == runs[1]
    seeds = [request.seed for request in runs[0]]
    assert len(set(seeds)) == len(seeds)
    assert {request.temperature for request in runs[0]} == {0.7}


async def test_values_come_from_a_model_of_their_own() -> None:
    llms = {name: script(proposals("a", "b")) for name in ("m", "v")}
    workflow = TreeOfThoughts(TreeOfThoughtsParams(value_model="v", steps=1))
    await Agent(workflow, llms=llms, actor="m", pack=PACK).run(QUESTION)
    assert {name: set(kinds(llm)) for name, llm in llms.items()} == {
        "m": {"propose", "answer"},
        "v": {"value"},
    }


@pytest.mark.parametrize("moment_s", [0.02, 0.07, 0.12])
async def test_cancelled_it_leaves_no_task(moment_s: float) -> None:
    llm = script(samples("a", "b"), delay_s=0.05)
    workflow = TreeOfThoughts(TreeOfThoughtsParams(generate="sample", children=3))
    one = Agent(workflow, llms={"m": llm}, actor="m", pack=PACK)
    session = one.open_session()
    task = asyncio.create_task(one.run_session(QUESTION, session))
    await asyncio.sleep(moment_s)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert session.trace.spans[-1].error == "cancelled"


@pytest.mark.parametrize("failing", ["sample", "value", "answer"])
async def test_an_error_of_the_model_goes_to_the_caller(failing: str) -> None:
    error = ModelError("down")
    working = script(samples("a", "b"))

    def reply(request: Request) -> str | Exception:
        if kind(request) == failing:
            return error
        said = working._next(request)
        assert isinstance(said, str)
        return said

    with pytest.raises(ModelError) as caught:
        await run(ScriptedLLM(reply), generate="sample", children=3, steps=2)
    assert caught.value is error
    assert asyncio.all_tasks() == {asyncio.current_task()}


def at_random(number: int) -> ScriptedLLM:
    """A model whose reply is a function of the request."""

    def reply(request: Request) -> str:
        rng = random.Random(f"{number} {request.seed} {request.text()}")
        name = kind(request)
        if name == "value":
            return rng.choice(["sure", "likely", "impossible", "what"])
        if name == "vote":
            return rng.choice(["1", "2", "3", "none"])
        lines = [rng.choice(["a", "b", "c", "a", "Answer: x", ""]) for _ in range(3)]
        return "\n".join(lines) if name == "propose" else lines[0]

    return ScriptedLLM(reply)


def calls_of(outcome: Outcome, count: int) -> list[tuple[object, ...]]:
    return [
        (span.name, span.input, span.output, span.tokens_in, span.tokens_out)
        for span in outcome.spans[:count]
    ]


@given(
    number=st.integers(0, 10**6),
    steps=st.integers(2, 5),
    generate=st.sampled_from(["sample", "propose"]),
    evaluate=st.sampled_from(["value", "vote"]),
    at_budget=st.sampled_from(["empty", "answer"]),
)
@settings(max_examples=60)
async def test_a_checkpoint_is_the_run_at_that_budget(
    number: int, steps: int, generate: str, evaluate: str, at_budget: str
) -> None:
    def short_run(budget: int) -> tuple[ScriptedLLM, dict[str, float | str]]:
        return at_random(number), {
            "steps": budget, "generate": generate, "evaluate": evaluate,
            "at_budget": at_budget, "children": 2, "breadth": 2, "evaluations": 1,
        }  # fmt: skip

    llm, params = short_run(steps)
    whole = await run(llm, **params)
    assert [c.budget for c in whole.checkpoints] == list(range(1, len(whole.checkpoints) + 1))
    for smaller in range(1, steps + 1):
        llm, params = short_run(smaller)
        short = await run(llm, **params)
        checkpoint = whole.checkpoints[min(smaller, len(whole.checkpoints)) - 1]
        count = checkpoint.span_count
        assert calls_of(whole, count) == calls_of(short, count)
        if checkpoint.answer is None:
            assert len(short.spans) == count + 1
        else:
            assert short.answer == checkpoint.answer
            assert len(short.spans) == count


@given(st.text(max_size=60), st.sampled_from(["", "1. ", "Answer:", "\n", "Thought 1:"]))
@settings(max_examples=60)
async def test_any_text_is_an_answer(text: str, opening: str) -> None:
    for generate in ("sample", "propose"):
        llm = ScriptedLLM(lambda _: f"{opening}{text}")
        outcome = await run(llm, generate=generate, steps=2, children=2, evaluations=1)
        assert "\n" not in outcome.answer


# A real server, which alone can tell whether it reads a grammar


@pytest.mark.slow
@pytest.mark.parametrize(("generate", "evaluate"), [("sample", "vote"), ("propose", "value")])
async def test_a_small_model_keeps_the_format(
    smollm2: Endpoint, pack: AgentPack, generate: str, evaluate: str
) -> None:
    llm = ChatClient(smollm2.settings)
    try:
        outcome = await run(
            llm, pack, few_shot=2, generate=generate, evaluate=evaluate, steps=2, children=2,
            breadth=1, evaluations=1, max_tokens=16,
        )  # fmt: skip
    finally:
        await llm.close()
    assert [span.error for span in outcome.spans] == [None] * len(outcome.spans)
    for span in outcome.spans:
        if span.input.endswith("Say sure, likely or impossible:"):
            assert read_value(span.output) > 0
        elif span.input.endswith("best candidate:"):
            assert read_vote(span.output) in (1, 2)
        elif generate == "sample" and not span.input.endswith("Answer:"):
            assert re.match(r"(Thought \d|Answer): ", span.output)


async def test_a_server_reads_the_largest_grammars(smollm2: Endpoint) -> None:
    llm = ChatClient(smollm2.settings)
    try:
        outcome = await run(llm, children=64, steps=1, max_tokens=8)
    finally:
        await llm.close()
    assert [span.error for span in outcome.spans] == [None] * len(outcome.spans)
