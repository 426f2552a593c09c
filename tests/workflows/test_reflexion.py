import contextlib
import io
import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows import AgentPack
from workflows import Document
from workflows import ModelError
from workflows import Outcome
from workflows import Request
from workflows import ScriptedLLM
from workflows import Session
from workflows import ToolError
from workflows.feedback import LEFT_OUT
from workflows.prompt import fenced
from workflows.reflexion import Reflexion
from workflows.reflexion import ReflexionParams
from workflows.session import Oracle
from workflows.tools import Tool
from workflows.tools import Toolbox
from workflows.tools import load_toolkits

QUESTION = "Where does Anna live?"
HEADS = {
    "last": "The last attempt at the next question failed:\n",
    "reflections": "Attempts at the next question failed. What they taught:\n",
}

Knob = bool | int | float | str


async def score(answer: str) -> float:
    return {"Oak": 1.0, "oak tree": 0.5}.get(answer, 0.0)


def open_session(
    llm: ScriptedLLM, pack: AgentPack, *, oracle: Oracle | None = None, **others: ScriptedLLM
) -> Session:
    tools = Toolbox([toolkit() for toolkit in load_toolkits(pack)])
    return Session(
        llms={"m": llm, **others}, actor="m", pack=pack, tools=tools, seed=3, oracle=oracle
    )


async def run(llm: ScriptedLLM, pack: AgentPack, **params: Knob) -> Outcome:
    session = open_session(llm, pack, oracle=score if params.get("feedback") == "oracle" else None)
    workflow = Reflexion(ReflexionParams.model_validate(params))
    return session.outcome(await workflow.run(QUESTION, session))


def finish(answer: str) -> str:
    return f" I know.\nAction 1: finish[{answer}]"


def role(request: Request) -> str:
    if "Proposed answer:" in request.prompt:
        return "judge"
    if request.prompt.endswith("What to do differently:"):
        return "reflect"
    return "act"


def roles(llm: ScriptedLLM) -> list[str]:
    return [role(request) for request in llm.requests]


async def test_trials_go_on_until_one_is_judged_right(pack: AgentPack) -> None:
    llm = ScriptedLLM(
        [
            " I look.\nAction 1: search[Bert]",
            " I know.\nAction 2: finish[Elm]",
            "no",
            " Bert is not Anna.\nSearch Anna.\n\nQuestion: Who?",
            finish("Oak"),
            "yes",
        ]
    )
    outcome = await run(llm, pack, few_shot=1)
    assert outcome.answer == "Oak"
    assert roles(llm) == ["act", "act", "judge", "reflect", "act", "judge"]
    first, _, judged, reflected, second, _ = llm.requests
    steps = (
        "Thought 1: I look.\nAction 1: search[Bert]\n"
        "Observation 1: Bert is a baker. He lives in Elm.\n"
        "Thought 2: I know.\nAction 2: finish[Elm]\n"
    )
    assert judged.prompt.startswith(
        f"Task: Answer about the villages.\nQuestion: {QUESTION}\n{steps}Proposed answer: Elm\n"
    )
    assert reflected.prompt == (
        f"Question: {QUESTION}\n{steps}The answer was judged wrong.\nWhat to do differently:"
    )
    assert "search[title]" in reflected.system
    assert reflected.grammar == 'root ::= " " [^\\n]{1,600} "\\n"'
    # The memory stands between what questions have in common and the question.
    end = f"Question: {QUESTION}\nThought 1:"
    assert second.prompt == (
        f"{first.prompt.removesuffix(end)}{HEADS['reflections']}"
        f"- Bert is not Anna. Search Anna.\n\n{end}"
    )
    assert second.system == first.system
    assert [checkpoint.answer for checkpoint in outcome.checkpoints] == ["Elm", "Oak"]
    # Each is left before its trial is judged.
    assert [checkpoint.span_count for checkpoint in outcome.checkpoints] == [3, 6]
    assert len(outcome.spans) == 7


async def test_the_last_trial_is_not_judged(pack: AgentPack) -> None:
    llm = ScriptedLLM([finish("a"), "no", "hm", finish("b"), "no", "hm", finish("c")])
    outcome = await run(llm, pack, max_trials=3)
    assert outcome.answer == "c"
    assert roles(llm) == ["act", "judge", "reflect", "act", "judge", "reflect", "act"]
    assert [checkpoint.budget for checkpoint in outcome.checkpoints] == [1, 2, 3]


async def test_one_trial_is_react(pack: AgentPack) -> None:
    llm = ScriptedLLM([finish("Elm")])
    assert (await run(llm, pack, max_trials=1)).answer == "Elm"


async def test_the_oracle_judges_without_a_call(pack: AgentPack) -> None:
    llm = ScriptedLLM([finish("oak tree"), "hm", finish("Oak")])
    outcome = await run(llm, pack, feedback="oracle")
    assert outcome.answer == "Oak"
    assert roles(llm) == ["act", "reflect", "act"]
    assert "The answer is not right.\n" in llm.requests[1].prompt


async def test_an_empty_answer_is_not_judged_and_gives_way_to_an_earlier_one(
    pack: AgentPack,
) -> None:
    llm = ScriptedLLM([finish("Elm"), "no", "hm", " t\nAction 1: search[Bert]", "ha", finish("")])
    outcome = await run(llm, pack, max_trials=3, max_steps=1)
    assert outcome.answer == "Elm"
    assert roles(llm) == ["act", "judge", "reflect", "act", "reflect", "act"]
    assert "The attempt ended without an answer.\n" in llm.requests[4].prompt
    assert [checkpoint.answer for checkpoint in outcome.checkpoints] == ["Elm", "Elm", "Elm"]


async def test_every_trial_has_fresh_tools_and_a_seed_of_its_own(pack: AgentPack) -> None:
    actions = ["search[Anna]", "lookup[dog]", "finish[x]"]

    def reply(request: Request) -> str:
        if role(request) != "act":
            return "no"
        step = request.prompt.rpartition("Question:")[2].count("Observation ") + 1
        return f" t\nAction {step}: {actions[step - 1]}"

    llm = ScriptedLLM(reply)
    outcome = await run(llm, pack, max_trials=3)
    looked = [span.output for span in outcome.spans if span.name == "lookup"]
    assert looked == ["(Result 1 / 3) She has a dog."] * 3
    acts = [request.seed for request in llm.requests if role(request) == "act"]
    assert acts == [3, 3, 3, 4, 4, 4, 5, 5, 5]
    assert {request.seed for request in llm.requests if role(request) != "act"} == {3}


@pytest.mark.parametrize(
    ("memory", "calls"),
    [
        ("none", ["act", "judge", "act", "judge", "act"]),
        ("last", ["act", "judge", "act", "judge", "act"]),
        ("reflections", ["act", "judge", "reflect", "act", "judge", "reflect", "act"]),
        ("both", ["act", "judge", "reflect", "act", "judge", "reflect", "act"]),
    ],
)
async def test_what_a_trial_sees_of_those_before_it(
    pack: AgentPack, memory: str, calls: list[str]
) -> None:
    replies = {
        "act": iter([finish("a"), finish("b"), finish("c")]),
        "judge": iter(["no", "no"]),
        "reflect": iter(["First lesson.", "Second lesson."]),
    }
    llm = ScriptedLLM(lambda request: next(replies[role(request)]))
    await run(llm, pack, max_trials=3, memory=memory)
    assert roles(llm) == calls
    first, second, third = (r.prompt for r in llm.requests if role(r) == "act")
    last = f"{HEADS['last']}Thought 1: I know.\nAction 1: finish[{{}}]\n\n"
    lessons = f"{HEADS['reflections']}{{}}\n"
    expected = {
        "none": ("", ""),
        "last": (last.format("a"), last.format("b")),
        "reflections": (
            lessons.format("- First lesson.\n"),
            lessons.format("- First lesson.\n- Second lesson.\n"),
        ),
        "both": (
            last.format("a") + lessons.format("- First lesson.\n"),
            last.format("b") + lessons.format("- First lesson.\n- Second lesson.\n"),
        ),
    }[memory]
    assert first == f"Question: {QUESTION}\nThought 1:"
    assert (second, third) == (expected[0] + first, expected[1] + first)


async def test_the_window_forgets_the_oldest_reflections(pack: AgentPack) -> None:
    lessons = iter("abcd")

    def reply(request: Request) -> str:
        return {"act": finish("x"), "judge": "no"}.get(role(request)) or next(lessons)

    llm = ScriptedLLM(reply)
    await run(llm, pack, max_trials=5, window=2)
    last = [request.prompt for request in llm.requests if role(request) == "act"][-1]
    assert last.startswith(f"{HEADS['reflections']}- c\n- d\n\nQuestion:")


async def test_an_empty_reflection_is_not_remembered(pack: AgentPack) -> None:
    llm = ScriptedLLM([finish("a"), "no", " \n\n", finish("b")])
    await run(llm, pack, max_trials=2)
    assert llm.requests[3].prompt == llm.requests[0].prompt


async def test_a_long_transcript_leaves_out_its_longest_observations(pack: AgentPack) -> None:
    long = Document(title="Long", sentences=("word " * 60,))
    pack = pack.model_copy(update={"documents": (*pack.documents, long)})
    llm = ScriptedLLM(
        [
            " t\nAction 1: search[Bert]",
            " t\nAction 2: search[Long]",
            " t\nAction 3: finish[x]",
            "no",
            "hm",
            finish("y"),
        ]
    )
    await run(llm, pack, max_trials=2, memory="both", transcript_chars=250)
    shown = f"Observation 1: Bert is a baker. He lives in Elm.\nThought 2: t\nAction 2: search[Long]\nObservation 2: {LEFT_OUT}\n"
    for request in llm.requests[3:]:
        assert shown in request.prompt
        assert "word word" not in request.prompt
    assert "word word" in llm.requests[2].prompt


async def test_judge_and_reflection_may_be_other_models(pack: AgentPack) -> None:
    actor = ScriptedLLM([finish("a"), finish("b")])
    judge = ScriptedLLM(["no"])
    writer = ScriptedLLM(["Look it up."])
    session = open_session(actor, pack, j=judge, w=writer)
    params = ReflexionParams(max_trials=2, judge_model="j", reflection_model="w")
    assert await Reflexion(params).run(QUESTION, session) == "b"
    assert (len(actor.requests), roles(judge), roles(writer)) == (2, ["judge"], ["reflect"])
    assert "- Look it up.\n" in actor.requests[1].prompt


@pytest.mark.parametrize("failing", ["act", "judge", "reflect"])
async def test_a_failing_model_ends_the_run(pack: AgentPack, failing: str) -> None:
    def reply(request: Request) -> str | Exception:
        if role(request) == failing:
            return ModelError("down")
        return finish("x") if role(request) == "act" else "no"

    with pytest.raises(ModelError, match="down"):
        await run(ScriptedLLM(reply), pack)


class Runner:
    """Runs programs."""

    def tools(self) -> Iterable[Tool]:
        return (Tool("run", "run with a program in a fenced block runs it", self.run, block=True),)

    async def run(self, program: str) -> str:
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                exec(program, {})
        except Exception as failure:
            raise ToolError(f"{type(failure).__name__}: {failure}") from None
        return printed.getvalue()


async def test_a_program_that_passes_its_own_tests_ends_the_trials() -> None:
    wrong, right = "def double(x):\n    return x + 1", "def double(x):\n    return x + x"
    tests = "assert double(1) == 2\nassert double(3) == 6\n```"
    llm = ScriptedLLM(
        [
            f" t\nAction 1: finish\n{fenced(wrong)}",
            tests,
            "Add it to itself.",
            f" t\nAction 1: finish\n{fenced(right)}",
        ]
    )
    pack = AgentPack(instruction="Write it.", answer="program")
    session = Session(llms={"m": llm}, actor="m", pack=pack, tools=Toolbox([Runner()]))
    outcome = session.outcome(await Reflexion(ReflexionParams()).run("Double.", session))
    assert outcome.answer == right
    assert [span.name for span in outcome.spans] == [
        *["scripted"] * 2,
        "run",
        *["scripted"] * 2,
        "run",
    ]
    reflected = llm.requests[2].prompt
    assert reflected == (
        f"Question: Double.\nThought 1: t\nAction 1: finish\n{fenced(wrong)}\n"
        "The answer fails tests of its own:\nAssertionError: double(3) == 6\n"
        "What to do differently:"
    )
    assert [checkpoint.span_count for checkpoint in outcome.checkpoints] == [1, 5]


class Stall:
    """Sells once a purse was found."""

    def __init__(self) -> None:
        self._purse = False

    def tools(self) -> Iterable[Tool]:
        return (
            Tool("open", "open[thing] opens it", self.open, ordered=True),
            Tool("buy", "buy[name] ends by buying", self.buy, ends=True, ordered=True),
        )

    async def open(self, thing: str) -> str:
        self._purse = True
        return f"Opened {thing}."

    async def buy(self, name: str) -> str:
        if not self._purse:
            raise ToolError("Open the purse first.")
        return f"Bought {name}"


async def test_where_a_tool_ends_a_trial_may_end_without_an_answer() -> None:
    llm = ScriptedLLM(
        [
            " t\nAction 1: buy[hat]",
            " t\nAction 2: open[purse]",
            "Open the purse first.",
            " t\nAction 1: buy[hat]",  # not with what the first trial opened
            " t\nAction 2: open[purse]",
            "Really.",
            " t\nAction 1: open[purse]",
            " t\nAction 2: buy[hat]",
            "yes",
        ]
    )
    pack = AgentPack(instruction="Buy.", answer="action")
    session = Session(llms={"m": llm}, actor="m", pack=pack, tools=Toolbox([Stall()]))
    params = ReflexionParams(max_steps=2)
    outcome = session.outcome(await Reflexion(params).run("A hat.", session))
    assert outcome.answer == "Bought hat"
    assert [checkpoint.answer for checkpoint in outcome.checkpoints] == ["", "", "Bought hat"]
    assert "Observation 1: Open the purse first.\n" in llm.requests[2].prompt


REPLIES = {
    "act": (
        " t\nAction {i}: search[Anna]",
        " t\nAction {i}: lookup[dog]",
        *(f" t\nAction {{i}}: finish[{answer}]" for answer in ("Oak", "Elm", "oak tree", "")),
        " nonsense",
        "",
    ),
    "judge": ("no", "no", "no", "yes", "hm"),
    "reflect": ("Look.", "Think of dogs.", ""),
}


def scripted(script: int) -> ScriptedLLM:
    """A model whose reply is a function of the request."""

    def reply(request: Request) -> str:
        rng = random.Random(f"{script} {request.seed} {request.text()}")
        step = request.prompt.rpartition("Question:")[2].count("Observation ") + 1
        return rng.choice(REPLIES[role(request)]).format(i=step)

    return ScriptedLLM(reply)


DOGS = AgentPack(
    instruction="Answer.",
    toolkits=("browser", "calculator"),
    documents=(Document(title="Anna", sentences=("A dog.", "No cat.", "Two dogs.")),),
)


@given(
    script=st.integers(0, 10**6),
    budget=st.integers(2, 6),
    params=st.fixed_dictionaries(
        {"feedback": st.sampled_from(["self", "oracle"])},
        optional={
            "memory": st.sampled_from(["none", "last", "both"]),
            "at_budget": st.just("answer"),
            "window": st.just(1),
        },
    ),
)
async def test_a_checkpoint_is_the_run_at_that_budget(
    script: int, budget: int, params: dict[str, Knob]
) -> None:
    whole = await run(scripted(script), DOGS, max_trials=budget, max_steps=2, **params)
    assert [c.budget for c in whole.checkpoints] == list(range(1, len(whole.checkpoints) + 1))
    assert 1 <= len(whole.checkpoints) <= budget
    for smaller in range(1, budget + 1):
        short = await run(scripted(script), DOGS, max_trials=smaller, max_steps=2, **params)
        if smaller > len(whole.checkpoints):  # judged right by then: the two runs are one
            answer, spans = whole.answer, whole.spans
        else:
            checkpoint = whole.checkpoints[smaller - 1]
            assert checkpoint.answer is not None
            answer, spans = checkpoint.answer, whole.spans[: checkpoint.span_count]
        assert short.answer == answer == short.checkpoints[-1].answer
        assert [(s.input, s.output, s.tokens_in, s.tokens_out) for s in spans] == [
            (s.input, s.output, s.tokens_in, s.tokens_out) for s in short.spans
        ]
