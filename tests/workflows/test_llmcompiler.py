import asyncio
import random
import re
import time
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tuner.serving import Endpoint
from workflows import AgentPack
from workflows import ChatClient
from workflows import Demonstration
from workflows import Document
from workflows import ModelError
from workflows import Outcome
from workflows import Request
from workflows import ScriptedLLM
from workflows import Step
from workflows import ToolError
from workflows import Trace
from workflows.agent import Agent
from workflows.llm import OnText
from workflows.llmcompiler import Call
from workflows.llmcompiler import LLMCompiler
from workflows.llmcompiler import LLMCompilerParams
from workflows.llmcompiler import PlanReader
from workflows.llmcompiler import read_argument
from workflows.llmcompiler import read_decision
from workflows.llmcompiler import references
from workflows.llmcompiler import show_argument
from workflows.llmcompiler import show_plans
from workflows.llmcompiler import substitute
from workflows.tools import Tool
from workflows.tools import Toolbox

QUESTION = "Where does Anna live?"
OAK = " I know.\nAction: finish[Oak]"
MORE = " Not yet.\nAction: replan[more]"


def agent(llm: object, pack: AgentPack, **params: float | str) -> Agent:
    workflow = LLMCompiler(LLMCompilerParams.model_validate(params))
    return Agent(workflow, llms={"m": llm}, actor="m", pack=pack)  # type: ignore[dict-item]


async def run(
    llm: object, pack: AgentPack, *, tools: Toolbox | None = None, **params: float | str
) -> Outcome:
    one = agent(llm, pack, **params)
    session = one.open_session(seed=3)
    session.tools = session.tools if tools is None else tools
    return await one.run_session(QUESTION, session)


def tool_spans(outcome: Outcome) -> list[tuple[str, str, str]]:
    spans = (span for span in outcome.spans if span.kind == "tool")
    return [(span.name, span.input, span.output) for span in spans]


class WaitKit:
    """`wait[seconds]`, `note[text]` that tells all notes so far, `buy[what]` that ends the run."""

    def __init__(self, *, ends: bool = False) -> None:
        self._ends = ends
        self._notes: tuple[str, ...] = ()

    def tools(self) -> Iterable[Tool]:
        yield Tool("wait", "wait[seconds] waits", self._wait)
        yield Tool("echo", "echo[text] repeats", self._echo)
        yield Tool("note", "note[text] takes a note", self._note, ordered=True)
        if self._ends:
            yield Tool("buy", "buy[what] buys it", self._buy, ends=True)

    async def _wait(self, seconds: str) -> str:
        await asyncio.sleep(float(seconds))
        return f"waited {seconds}"

    async def _echo(self, text: str) -> str:
        return text

    async def _note(self, text: str) -> str:
        self._notes = (*self._notes, text)
        return ",".join(self._notes)

    async def _buy(self, what: str) -> str:
        if what == "nothing":
            raise ToolError("It is closed.")
        return f"{what} after {','.join(self._notes)}"


def waiting(*, ends: bool = False) -> Toolbox:
    return Toolbox([WaitKit(ends=ends)])


# Plans


def calls(text: str, first: int = 1) -> list[tuple[int, str, str]]:
    reader = PlanReader(first)
    return [(c.number, c.tool, c.argument) for c in (*reader.read(text), *reader.end())]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (" search[Anna]\n2. lookup[dog]\n3. ", [(1, "search", "Anna"), (2, "lookup", "dog")]),
        ("1. search[Anna]\n2. lookup[dog]", [(1, "search", "Anna"), (2, "lookup", "dog")]),
        ("\n1. Search[ Anna ]", [(1, "search", "Anna")]),
        (' search("Anna")\n2. lookup(dog)', [(1, "search", '"Anna"'), (2, "lookup", "dog")]),
        (" search[Oak [village]] # a page", [(1, "search", "Oak [village]")]),
        (" f(a (b)) c) d", [(1, "f", "a (b)) c")]),
        (" search[Anna]\nlookup[dog]", [(1, "search", "Anna"), (2, "lookup", "dog")]),
        (" search[a]\n4. search[b]\n2. search[c]", [(1, "search", "a"), (4, "search", "b"), (5, "search", "c")]),
        (" search[a]\n900. search[b]", [(1, "search", "a"), (2, "search", "b")]),
        (" search[a]\n2. join[]\n3. search[b]", [(1, "search", "a")]),
        (" search[a]\nJoin()\n3. search[b]", [(1, "search", "a")]),
        (" search[a]\n2. finish[b]\n3. search[c]", [(1, "search", "a")]),
        (" look for Anna\n2. search[b", [(1, "", "look for Anna")]),
        (" search[a\n2. search[b]", [(1, "", "search[a"), (2, "search", "b")]),
        ("Plan:\n```\n1. search[a]\n```", [(1, "search", "a")]),
        ("", []),
        (" \n\n", []),
    ],
)  # fmt: skip
def test_a_plan_is_read_line_by_line(reply: str, expected: list[tuple[int, str, str]]) -> None:
    assert calls(reply) == expected


def test_thoughts_go_with_the_next_call() -> None:
    reader = PlanReader(4)
    text = " Thought: Anna first.\n4. search[Anna]\nThen the dog.\n5. lookup[dog]\n6. lookup[cat]"
    assert [*reader.read(text), *reader.end()] == [
        Call(4, "search", "Anna", "search[Anna]", "Anna first."),
        Call(5, "lookup", "dog", "lookup[dog]", "Then the dog."),
        Call(6, "lookup", "cat", "lookup[cat]"),
    ]


@given(
    st.lists(st.sampled_from(["1. a[x]", "b(y)", "what", "", "7. c[$1]", "2. join[]"]), max_size=6),
    st.lists(st.integers(0, 60), max_size=5),
)
def test_a_plan_reads_the_same_however_it_comes_in_pieces(
    lines: list[str], cuts: list[int]
) -> None:
    text = "\n".join(lines)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    reader = PlanReader(1)
    read: list[Call] = []
    for start, end in pairwise(edges):
        read += reader.read(text[start:end])
    read += reader.end()
    assert reader.heard == len(text)
    whole = PlanReader(1)
    assert read == [*whole.read(text), *whole.end()]


# Arguments


@pytest.mark.parametrize(
    ("text", "value", "shown"),
    [
        ("Anna", "Anna", "Anna"),
        ('"Anna"', "Anna", "Anna"),
        ("'it\\'s'", "it's", "it's"),
        ('"a", "b"', ["a", "b"], "a, b"),
        ('["$1", ["b", 2]]', ["$1", ["b", 2]], "$1, b, 2"),
        ("Oak, Elm", "Oak, Elm", "Oak, Elm"),
        ("007", "007", "007"),
        ("(12 - 8) * 3", "(12 - 8) * 3", "(12 - 8) * 3"),
        ('"The Ferry" (film)', '"The Ferry" (film)', '"The Ferry" (film)'),
        ("'dog", "'dog", "'dog"),
        ('"\\d"', "\\d", "\\d"),
        ("[" * 3000, "[" * 3000, "[" * 3000),
        ("", "", ""),
    ],
)
def test_an_argument_is_a_literal_or_text(text: str, value: object, shown: str) -> None:
    assert read_argument(text) == value
    assert show_argument(value) == shown


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("$1", "one"),
        ("${1}2", "one2"),
        ("$12", "twelve"),
        ("$1 $12 ${12}", "one twelve twelve"),
        ("$2 ${3}", "$2 ${3}"),
        ("$123", "$123"),
        ("$1.50 or $1,000", "$1.50 or $1,000"),
        ("is it $1.", "is it one."),
        ("$1,$12", "one,twelve"),
        ("$ 1 $x $", "$ 1 $x $"),
    ],
)
def test_only_what_is_known_is_filled_in(text: str, filled: str) -> None:
    assert substitute(text, {1: "one", 12: "twelve"}) == filled


Nested = st.recursive(
    st.lists(
        st.one_of(
            st.integers(1, 130).map(lambda number: f"${number}"),
            st.integers(1, 130).map(lambda number: f"${{{number}}}"),
            st.sampled_from([" ", "Anna", "$", "+"]),
        ),
        max_size=5,
    ).map(" ".join),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=8,
)


@given(Nested, st.dictionaries(st.integers(1, 130), st.sampled_from(["Oak", "$1", "${12}", "7"])))
def test_filling_in_replaces_each_known_name_and_nothing_else(
    value: Any, known: dict[int, str]
) -> None:
    def expected(part: Any) -> Any:
        if isinstance(part, list):
            return [expected(item) for item in part]
        words = []
        for word in part.split(" "):
            digits = word.strip("${}")
            is_name = word in (f"${digits}", f"${{{digits}}}") and digits.isdigit()
            words.append(known.get(int(digits), word) if is_name else word)
        return " ".join(words)

    assert substitute(value, known) == expected(value)
    assert set(references(substitute(value, dict.fromkeys(range(1, 131), "Oak")))) == set()


# Decisions


@pytest.mark.parametrize(
    ("reply", "thought", "answer", "missing"),
    [
        (" I know.\nAction: finish[Oak]", "I know.", "Oak", ""),
        ("Thought: I know.\nAction: Finish(Oak (village))", "I know.", "Oak (village)", ""),
        ("finish[a ] b] done", "", "a ] b", ""),
        ("So finish(f(x) = (1) (2)).", "So", "f(x) = (1) (2)", ""),
        (" t\nAction: finish[Oak", "t", "Oak", ""),
        (" t\nAction: finish[]", "t", "", ""),
        (" t\nAction: finish[a]\nAction: replan[b]", "t", "a", ""),
        (" Who?\nAction: Replan(the baker)", "Who?", None, "the baker"),
        (" I could finish (soon)\nmore", "I could finish (soon)", None, ""),
        ("", "", None, ""),
    ],
)
def test_read_decision(reply: str, thought: str, answer: str | None, missing: str) -> None:
    decision = read_decision(reply)
    assert (decision.thought, decision.answer, decision.missing) == (thought, answer, missing)


# The loop


async def test_a_plan_is_made_carried_out_and_joined(pack: AgentPack) -> None:
    llm = ScriptedLLM([" search[Anna]\n2. calculate[1+1]\n3. join[]", OAK])
    outcome = await run(llm, pack)
    assert outcome.answer == "Oak"
    assert llm.requests[0].prompt == f"Question: {QUESTION}\nPlan:\n1."
    assert llm.requests[1].prompt == (
        f"Question: {QUESTION}\nPlan:\n1. search[Anna]\n2. calculate[1+1]\n3. join[]\n"
        "Observation 1: Anna is a smith. She lives in Oak. Her anvil is old. She has a dog. The dog sleeps.\n"
        "Observation 2: 2\nThought:"
    )
    assert [checkpoint.answer for checkpoint in outcome.checkpoints] == ["Oak"]


async def test_planner_and_joiner_share_a_prompt_prefix(pack: AgentPack) -> None:
    llm = ScriptedLLM([" search[Anna]", MORE, " search[Bert]", OAK])
    await run(llm, pack, few_shot=2, max_rounds=2)
    texts = [request.text() for request in llm.requests]
    assert texts[1].startswith(texts[0])
    assert texts[2].startswith(texts[1])
    assert texts[3].startswith(texts[2])


async def test_a_plan_made_anew_counts_on_and_sees_what_was_observed(pack: AgentPack) -> None:
    llm = ScriptedLLM(
        [" calculate[20+1]\n2. ", MORE, " calculate[$1*2]\n1. calculate[$3+${1}]\n", OAK]
    )
    outcome = await run(llm, pack, max_rounds=3)
    assert [(name, given) for name, given, _ in tool_spans(outcome)] == [
        ("calculate", "20+1"),
        ("calculate", "21*2"),
        ("calculate", "42+21"),
    ]
    assert llm.requests[2].prompt.endswith(
        "Observation 1: 21\nThought: Not yet.\nAction: replan[more]\nPlan:\n3."
    )
    assert "3. calculate[$1*2]\n4. calculate[$3+${1}]\n5. join[]\n" in llm.requests[3].prompt
    assert [checkpoint.answer for checkpoint in outcome.checkpoints] == [None, "Oak"]


@pytest.mark.parametrize("reply", [MORE, " nothing", ""])
async def test_the_last_round_must_answer(pack: AgentPack, reply: str) -> None:
    llm = ScriptedLLM([" search[Anna]", reply, "Oak] and more"])
    outcome = await run(llm, pack)
    assert outcome.answer == "Oak"
    assert llm.requests[2].prompt.endswith("\nAction: finish[")
    assert [checkpoint.answer for checkpoint in outcome.checkpoints] == [None]
    empty = await run(ScriptedLLM([" search[Anna]", reply]), pack, at_budget="empty")
    assert empty.answer == ""
    assert [checkpoint.answer for checkpoint in empty.checkpoints] == [""]


async def test_no_calls_at_all_are_a_plan_too(pack: AgentPack) -> None:
    llm = ScriptedLLM([" join[]", OAK])
    assert (await run(llm, pack)).answer == "Oak"
    assert llm.requests[1].prompt.endswith("Plan:\n1. join[]\nThought:")


async def test_unknown_tools_bad_lines_and_failing_tools_are_observations(pack: AgentPack) -> None:
    llm = ScriptedLLM([" fly[Oak]\n2. look for it\n3. calculate[1/0]\n4. calculate[2]\n", OAK])
    outcome = await run(llm, pack)
    seen = dict(re.findall(r"Observation (\d): (.*)", llm.requests[1].prompt))
    assert seen["1"].startswith("Invalid action 'fly[Oak]'.")
    assert seen["2"].startswith("Invalid action 'look for it'.")
    assert seen["3"].startswith("Cannot calculate 1/0")
    assert seen["4"] == "2"
    assert outcome.answer == "Oak"


async def test_references_to_itself_or_to_later_calls_are_left_as_they_are() -> None:
    pack = AgentPack(instruction="Wait.", toolkits=("calculator",))
    llm = ScriptedLLM([" echo[$1 $2]\n2. echo[$1]\n3. echo[$3]\n", OAK])
    outcome = await run(llm, pack, tools=waiting())
    assert sorted(given for _, given, _ in tool_spans(outcome)) == ["$1 $2", "$1 $2", "$3"]


async def test_long_observations_are_cut_in_the_prompt_alone() -> None:
    pack = AgentPack(instruction="Wait.", toolkits=("calculator",))
    text = "x" * 30
    llm = ScriptedLLM([f" echo[{text}]\n2. echo[$1!]\n", OAK])
    outcome = await run(llm, pack, tools=waiting(), observation_chars=20)
    assert [given for _, given, _ in tool_spans(outcome)] == [text, f"{text}!"]
    assert f"Observation 1: {'x' * 19}…\n" in llm.requests[1].prompt


async def test_the_planner_has_a_model_of_its_own(pack: AgentPack) -> None:
    planner, joiner = ScriptedLLM([" search[Anna]"]), ScriptedLLM([OAK])
    workflow = LLMCompiler(LLMCompilerParams(planner_model="p"))
    one = Agent(workflow, llms={"m": joiner, "p": planner}, actor="m", pack=pack)
    assert (await one.run(QUESTION)).answer == "Oak"
    assert (len(planner.requests), len(joiner.requests)) == (1, 1)


async def test_it_cannot_answer_without_tools() -> None:
    reason = LLMCompilerParams().unfit(AgentPack(instruction="Answer."))
    assert reason == "the task has no tools, and it plans calls of them"


# Order


async def test_a_look_up_sees_the_page_of_the_search_before_it(pack: AgentPack) -> None:
    plan = [
        "search[Anna]", "lookup[dog]", "calculate[6*7]", "look up", "lookup[dog]", "search[Old Bert]",
        "lookup[dog]", "lookup[dog]",
    ]  # fmt: skip
    numbered = "".join(f"{number}. {line}\n" for number, line in enumerate(plan, 1))
    llm = ScriptedLLM([numbered, MORE, " lookup[dog]\n", OAK])
    await run(llm, pack, max_rounds=2)
    seen = dict(re.findall(r"Observation (\d+): (.*)", llm.requests[3].prompt))
    assert seen["2"] == "(Result 1 / 3) She has a dog."
    assert seen["3"] == "42"
    assert seen["5"] == "(Result 2 / 3) The dog sleeps."
    assert seen["7"] == "(Result 1 / 1) Old Bert owns no dog."
    assert seen["8"] == "No more results."
    assert seen["10"] == "No more results."


@given(
    st.lists(
        st.sampled_from(["wait[0.002]", "wait[0]", "note[a]", "note[b]", "echo[$1]", "what"]),
        max_size=6,
    )
)
@settings(max_examples=40)
async def test_an_ordered_call_goes_on_where_the_last_call_of_its_kit_was(plan: list[str]) -> None:
    pack = AgentPack(instruction="Wait.", toolkits=("calculator",))
    text = "".join(f"{number}. {line}\n" for number, line in enumerate(plan, 1))
    llm = ScriptedLLM([text, OAK])
    await run(llm, pack, tools=waiting())
    kit = WaitKit()
    expected = []
    for line in plan:
        if line.startswith("note"):
            expected.append(await kit._note(line[5:-1]))
        elif line != "what":
            kit = WaitKit()  # it ran at once, and left the kit as the round began
    shown = re.findall(r"(\d)\. note", llm.requests[1].prompt)
    seen = dict(re.findall(r"Observation (\d+): (.*)", llm.requests[1].prompt))
    assert [seen[number] for number in shown] == expected


async def test_what_ends_the_run_gives_its_answer() -> None:
    pack = AgentPack(instruction="Buy.", toolkits=("calculator",), answer="action")
    plan = " note[a]\n2. wait[0.02]\n3. note[b]\n4. buy[bread]\n5. echo[never]\n6. note[never]\n"
    llm = ScriptedLLM([plan])
    outcome = await run(llm, pack, tools=waiting(ends=True), max_rounds=3)
    assert outcome.answer == "bread after b"
    assert "never" not in {given for _, given, _ in tool_spans(outcome)}
    assert [(c.budget, c.answer) for c in outcome.checkpoints] == [(1, "bread after b")]
    assert "finish" not in llm.requests[0].text()


async def test_where_a_tool_ends_the_run_the_joiner_only_plans_anew() -> None:
    pack = AgentPack(instruction="Buy.", toolkits=("calculator",), answer="action")
    llm = ScriptedLLM([" buy[nothing]\n2. echo[a]\n", OAK, " buy[bread]\n", OAK])
    outcome = await run(llm, pack, tools=waiting(ends=True), max_rounds=2)
    assert outcome.answer == "bread after "
    assert [(c.budget, c.answer) for c in outcome.checkpoints] == [(1, ""), (2, "bread after ")]
    assert "Observation 1: It is closed.\nObservation 2: a\n" in llm.requests[1].prompt
    assert "Action: replan[Oak]\nPlan:\n4." in llm.requests[2].prompt
    short = ScriptedLLM([" buy[nothing]\n2. echo[a]\n"])
    assert (await run(short, pack, tools=waiting(ends=True))).answer == ""


# Concurrency


WAIT = AgentPack(instruction="Wait.", toolkits=("calculator",))


async def test_a_call_starts_while_the_plan_still_streams() -> None:
    text = " wait[0.05]\n2. wait[0.05]\n3. echo[$1 and $2]\n4. " + " ".join(["x"] * 20)
    outcome = await run(ScriptedLLM([text, OAK], delay_s=0.3), WAIT, tools=waiting())
    plan = next(span for span in outcome.spans if span.kind == "llm")
    tools = {span.input: span for span in outcome.spans if span.kind == "tool"}
    assert tools["waited 0.05 and waited 0.05"].end_s < plan.end_s
    first = [span for span in outcome.spans if span.name == "wait"]
    assert all(span.start_s < 0.15 for span in first)


async def test_calls_that_need_not_wait_run_at_the_same_time() -> None:
    llm = ScriptedLLM([" wait[0.2]\n2. wait[0.2]\n3. wait[0.2]\n", OAK])
    started_s = time.perf_counter()
    outcome = await run(llm, WAIT, tools=waiting())
    assert 0.2 <= time.perf_counter() - started_s < 0.5  # one after the other takes 0.6 s
    assert outcome.answer == "Oak"


async def test_a_call_waits_for_those_that_it_names_alone() -> None:
    llm = ScriptedLLM([" wait[0.1]\n2. wait[0.01]\n3. echo[$2]\n4. echo[$1]\n", OAK])
    outcome = await run(llm, WAIT, tools=waiting())
    assert [given for _, given, _ in tool_spans(outcome)] == [
        "0.01", "waited 0.01", "0.1", "waited 0.1",
    ]  # fmt: skip


async def cancelled_after(llm: object, moment_s: float) -> list[str | None]:
    """The errors of the spans, those of the calls that were under way."""
    one = agent(llm, WAIT)
    session = one.open_session()
    session.tools = waiting()
    task = asyncio.create_task(one.run_session(QUESTION, session))
    await asyncio.sleep(moment_s)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == {asyncio.current_task()}
    return [span.error for span in session.trace.spans]


async def test_cancelled_while_a_tool_hangs_it_leaves_no_task() -> None:
    plan = " wait[9]\n2. wait[9]\n3. echo[$1]\n4. note[a]\n"
    errors = await cancelled_after(ScriptedLLM([plan]), 0.05)
    assert errors == [None, "cancelled", "cancelled"]


async def test_cancelled_while_the_plan_streams_it_leaves_no_task() -> None:
    plan = " wait[9]\n" + " ".join(["x"] * 20)
    errors = await cancelled_after(ScriptedLLM([plan], delay_s=0.5), 0.2)
    assert errors == ["cancelled", "cancelled"]


class Breaking:
    """A model that fails after it has said something."""

    def __init__(self, said: str, error: Exception) -> None:
        self._said = said
        self._error = error

    async def complete(self, request: Request, trace: Trace, on_text: OnText | None = None) -> str:
        assert on_text is not None
        on_text(self._said)
        await asyncio.sleep(0.02)
        raise self._error


async def test_a_planner_that_fails_stops_the_calls_under_way() -> None:
    error = ModelError("down")
    one = agent(Breaking(" wait[9]\n2. note[a]\n", error), WAIT)
    session = one.open_session()
    session.tools = waiting()
    started_s = time.perf_counter()
    with pytest.raises(ModelError) as caught:
        await one.run_session(QUESTION, session)
    assert caught.value is error
    assert time.perf_counter() - started_s < 1
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert [(span.name, span.error) for span in session.trace.spans] == [("wait", "cancelled")]


async def test_a_tool_with_a_bug_ends_the_run() -> None:
    plan = " wait[soon]\n2. wait[9]\n" + " ".join(["x"] * 20)
    with pytest.raises(ValueError, match="soon"):
        await run(ScriptedLLM([plan], delay_s=0.1), WAIT, tools=waiting())
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_model_that_does_not_stream_does_as_well() -> None:
    class Whole:
        def __init__(self) -> None:
            self._inner = ScriptedLLM([" echo[a]\n2. echo[$1]", OAK])

        async def complete(
            self, request: Request, trace: Trace, on_text: OnText | None = None
        ) -> str:
            return await self._inner.complete(request, trace)

    outcome = await run(Whole(), WAIT, tools=waiting())
    assert [given for _, given, _ in tool_spans(outcome)] == ["a", "a"]


# Demonstrations


def steps(*taken: tuple[str, str, str], end: str = "") -> tuple[Step, ...]:
    made = [
        Step(thought=f"t{number}", tool=tool, argument=argument, observation=seen)
        for number, (tool, argument, seen) in enumerate(taken, 1)
    ]
    return (*made, Step(thought="I know.", tool="finish", argument=end)) if end else tuple(made)


def shown(question: str, taken: tuple[Step, ...], pack: AgentPack) -> str:
    demo = Demonstration(question=question, answer="x", steps=taken)
    return show_plans(demo, agent(ScriptedLLM([]), pack).open_session())


def test_calls_known_from_the_question_are_one_plan(pack: AgentPack) -> None:
    taken = steps(("search", "Oak", "A village. Elm is near."), ("search", "Elm", "A."), end="no")
    assert shown("Are Oak and Elm old?", taken, pack) == (
        "Plan:\n1. search[Oak]\n2. search[Elm]\n3. join[]\n"
        "Observation 1: A village. Elm is near.\nObservation 2: A.\n"
        "Thought: I know.\nAction: finish[no]"
    )


def test_a_call_that_must_be_seen_first_is_planned_anew(pack: AgentPack) -> None:
    taken = steps(
        ("search", "Oak", "The smith is Anna."),
        ("search", "Anna", "Anna is old."),
        ("lookup", "dog", "She has a dog."),
        end="yes",
    )
    assert shown("Has the smith of Oak a pet?", taken, pack) == (
        "Plan:\n1. search[Oak]\n2. join[]\nObservation 1: The smith is Anna.\n"
        "Thought: t2\nAction: replan[Anna]\nPlan:\n3. search[Anna]\n4. lookup[dog]\n5. join[]\n"
        "Observation 3: Anna is old.\nObservation 4: She has a dog.\n"
        "Thought: I know.\nAction: finish[yes]"
    )


def test_what_was_calculated_is_named(pack: AgentPack) -> None:
    taken = steps(
        ("calculate", "40-14", "26"),
        ("calculate", "3*26", "78"),
        ("calculate", "40+26+78", "144"),
        ("search", "144", "A number."),
        end="144",
    )
    assert shown("40 stamps, 14 fewer, 3 times?", taken, pack).splitlines()[:6] == [
        "Plan:", "1. calculate[40-14]", "2. calculate[3*$1]", "3. calculate[40+$1+$2]",
        "4. search[$3]", "5. join[]",
    ]  # fmt: skip


def test_a_number_that_stands_in_an_observation_must_be_seen(pack: AgentPack) -> None:
    taken = steps(("search", "Month", "It has 31 days."), ("calculate", "2*31", "62"), end="62")
    assert "Action: replan[2*31]\nPlan:\n3. calculate[2*31]" in shown("Month?", taken, pack)


def test_a_demonstration_may_end_with_a_call(pack: AgentPack) -> None:
    taken = steps(("search", "bread", "K1"), ("buy", "now", "bought"))
    assert shown("Buy bread.", taken, pack) == "Plan:\n1. search[bread]\n2. buy[now]\n3. join[]"
    assert shown("Why?", (), pack) == "Plan:\n1. join[]"


async def test_demonstrations_come_first(pack: AgentPack) -> None:
    llm = ScriptedLLM([" join[]", OAK])
    await run(llm, pack, few_shot=2)
    assert llm.requests[0].prompt == (
        "Question: Where does the smith live?\nPlan:\n1. search[smith]\n2. join[]\n"
        "Observation 1: Anna is the smith.\nThought: I know.\nAction: finish[Oak]\n\n"
        "Question: Who bakes bread in Elm?\nPlan:\n1. join[]\n"
        f"Thought: Bert does.\nAction: finish[Bert]\n\nQuestion: {QUESTION}\nPlan:\n1."
    )


# Budget


DOGS = AgentPack(
    instruction="Answer.",
    toolkits=("browser", "calculator"),
    documents=(Document(title="Anna", sentences=("A dog.", "No cat.", "Two dogs.")),),
)
LINES = ["search[Anna]", "lookup[dog]", "calculate[$1 + 2]", "calculate[3]", "what", "join[]", ""]


def at_random(number: int) -> ScriptedLLM:
    """A model whose reply is a function of the request."""

    def reply(request: Request) -> str:
        rng = random.Random(f"{number} {request.text()}")
        if request.prompt.endswith("Thought:"):
            return rng.choice([MORE] * 6 + [OAK, " hm", "", "finish(a) b)"])
        if request.prompt.endswith("finish["):
            return rng.choice(["Elm]", ""])
        return "".join(f" {rng.choice(LINES)}\n{line}." for line in range(2, rng.randrange(2, 7)))

    return ScriptedLLM(reply)


def calls_of(outcome: Outcome, count: int) -> list[tuple[object, ...]]:
    return [
        (span.name, span.input, span.output, span.tokens_in, span.tokens_out)
        for span in outcome.spans[:count]
    ]


@given(st.integers(0, 10**6), st.integers(2, 5), st.sampled_from(["empty", "answer"]))
@settings(max_examples=60)
async def test_a_checkpoint_is_the_run_at_that_budget(
    number: int, rounds: int, at_budget: str
) -> None:
    whole = await run(at_random(number), DOGS, max_rounds=rounds, at_budget=at_budget)
    assert [c.budget for c in whole.checkpoints] == list(range(1, len(whole.checkpoints) + 1))
    for smaller in range(1, rounds + 1):
        short = await run(at_random(number), DOGS, max_rounds=smaller, at_budget=at_budget)
        checkpoint = whole.checkpoints[min(smaller, len(whole.checkpoints)) - 1]
        count = checkpoint.span_count
        assert calls_of(whole, count) == calls_of(short, count)
        if checkpoint.answer is None:
            assert len(short.spans) == count + 1
        else:
            assert short.answer == checkpoint.answer
            assert len(short.spans) == count


async def test_the_same_question_and_seed_give_the_same_calls() -> None:
    runs = []
    for _ in range(2):
        llm = at_random(5)
        outcome = await run(llm, DOGS, max_rounds=4)
        runs.append((outcome.answer, llm.requests, tool_spans(outcome)))
    assert runs[0] == runs[1]


@given(st.text(max_size=60), st.sampled_from(["", "1. ", "search[", "\n", "$1", "join"]))
@settings(max_examples=60)
async def test_any_text_is_an_answer(text: str, opening: str) -> None:
    llm = ScriptedLLM(lambda _: f"{opening}{text}")
    outcome = await run(llm, DOGS, max_rounds=2)
    assert "\n" not in outcome.answer


# A real server, which alone can tell whether it reads a grammar


@pytest.mark.slow
async def test_a_small_model_keeps_the_format(smollm2: Endpoint, pack: AgentPack) -> None:
    llm = ChatClient(smollm2.settings)
    try:
        params = {"few_shot": 2, "max_rounds": 2, "max_tokens": 60, "join_tokens": 60}
        outcome = await run(llm, pack, **params)
    finally:
        await llm.close()
    spans = [span for span in outcome.spans if span.kind == "llm"]
    assert [span.error for span in spans] == [None] * len(spans)
    call = r" ?(search|lookup|calculate)\["
    for span in spans:
        if span.input.endswith("Thought:"):
            assert re.match(r" [^\n]+(\nAction: (finish|replan)\[|$)", span.output)
        elif not span.input.endswith("finish["):
            assert re.match(rf"{call}|\s*$", span.output)
