import asyncio
import contextlib
import io
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows import AgentPack
from workflows import ConfigError
from workflows import ModelError
from workflows import ScriptedLLM
from workflows import Session
from workflows import ToolError
from workflows.feedback import LEFT_OUT
from workflows.feedback import Judge
from workflows.feedback import Verdict
from workflows.feedback import read_tests
from workflows.feedback import show_steps
from workflows.session import Oracle
from workflows.steps import Taken
from workflows.steps import read_action
from workflows.steps import show_step
from workflows.tools import Tool
from workflows.tools import Toolbox

DOUBLE = "def double(x):\n    return 2 * x"
TESTS = "assert double(1) == 2\nassert double(0) == 0\n```"


class Runner:
    """Runs a program and counts how often."""

    def __init__(self) -> None:
        self._runs = 0

    def tools(self) -> Iterable[Tool]:
        return (Tool("run", "run with a program in a fenced block runs it", self.run, block=True),)

    async def run(self, program: str) -> str:
        self._runs += 1
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                exec(program, {"runs": self._runs})
        except Exception as failure:
            raise ToolError(f"{printed.getvalue()}{type(failure).__name__}: {failure}") from None
        return printed.getvalue()


async def score(answer: str) -> float:
    return {"Oak": 1.0, "oak tree": 0.5}.get(answer, 0.0)


def session(
    llm: ScriptedLLM,
    *,
    program: bool = False,
    runner: bool = True,
    oracle: Oracle | None = None,
    judge: ScriptedLLM | None = None,
) -> Session:
    return Session(
        llms={"m": llm, "j": llm if judge is None else judge},
        actor="m",
        pack=AgentPack(instruction="Solve it.", answer="program" if program else "line"),
        tools=Toolbox([Runner()] if runner else []),
        seed=4,
        oracle=oracle,
    )


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("yes", True),
        (" Yes, it is.", True),
        ("**YES**", True),
        ("\nThe answer is right: yes", True),
        ("no", False),
        ("No, yes would be wrong.", False),
        ("", False),
        ("It may well be.", False),
        ("yesterday", False),
    ],
)
async def test_the_model_says_yes_or_no(reply: str, right: bool) -> None:
    llm = ScriptedLLM([])
    model = ScriptedLLM([reply])
    one = session(llm, judge=model)
    verdict = await Judge("Where?", one, how="self", model="j").judge("Oak", "Action 1: look[x]\n")
    assert (verdict.right, verdict.reward) == (right, float(right))
    assert verdict.why == f"The answer was judged {'right' if right else 'wrong'}."
    assert llm.requests == []
    (request,) = model.requests
    assert request.prompt == (
        "Task: Solve it.\nQuestion: Where?\nAction 1: look[x]\nProposed answer: Oak\n"
        "Is the proposed answer right? Say yes or no:"
    )
    assert request.grammar == 'root ::= " "? ("yes" | "no")'
    assert (request.temperature, request.seed) == (0.0, 4)


@pytest.mark.parametrize("how", ["self", "oracle"])
async def test_no_answer_is_wrong_without_a_call(how: str) -> None:
    async def never(answer: str) -> float:
        raise AssertionError(answer)

    llm = ScriptedLLM([])
    verdict = await Judge("Where?", session(llm, oracle=never), how=how).judge("", "steps")  # type: ignore[arg-type]
    assert verdict == Verdict(False, 0.0, "The attempt ended without an answer.")
    assert llm.requests == []


@pytest.mark.parametrize(("answer", "reward"), [("Oak", 1.0), ("oak tree", 0.5), ("Elm", 0.0)])
@pytest.mark.parametrize("program", [False, True])
async def test_the_oracle_makes_no_call(answer: str, reward: float, program: bool) -> None:
    llm = ScriptedLLM([])
    one = session(llm, program=program, oracle=score)
    verdict = await Judge("Where?", one, how="oracle").judge(answer)
    assert (verdict.right, verdict.reward) == (reward == 1, reward)
    assert "Oak" not in verdict.why
    assert llm.requests == []
    assert one.trace.spans == []


async def test_without_an_oracle_nobody_can_be_asked() -> None:
    with pytest.raises(ConfigError, match="oracle"):
        await Judge("Where?", session(ScriptedLLM([])), how="oracle").judge("Oak")


async def test_a_model_that_fails_is_the_caller_s_to_handle() -> None:
    down = ModelError("down")
    with pytest.raises(ModelError) as caught:
        await Judge("Where?", session(ScriptedLLM([down])), how="self").judge("Oak")
    assert caught.value is down


async def test_a_program_is_right_when_it_passes_tests_that_are_written_once() -> None:
    llm = ScriptedLLM([])
    model = ScriptedLLM([TESTS])
    one = session(llm, program=True, judge=model)
    judge = Judge("Double a number.", one, how="self", model="j")
    wrong = await judge.judge(DOUBLE.replace("2 *", "1 +"))
    assert (wrong.right, wrong.reward) == (False, 0.0)
    assert wrong.why.endswith("AssertionError: double(0) == 0")
    right = await judge.judge(DOUBLE)
    assert right == Verdict(True, 1.0, "All tests passed.")
    broken = await judge.judge("def double(x")
    assert not broken.right
    assert "SyntaxError" in broken.why
    (request,) = model.requests
    assert request.system.startswith("Solve it. ")
    assert request.prompt == "Question: Double a number.\nTests:\n```python\n"
    assert [span.name for span in one.trace.spans] == ["scripted", "run", "run", "run"]
    assert one.trace.spans[2].input == (
        f"{DOUBLE}\n\n"
        "assert double(1) == 2, 'double(1) == 2'\n"
        "assert double(0) == 0, 'double(0) == 0'\n"
        "print('All tests passed.')"
    )


async def test_a_program_that_prints_and_leaves_before_its_tests_has_not_passed() -> None:
    judge = Judge("q", session(ScriptedLLM([TESTS]), program=True), how="self")
    leaves = "print('All tests passed.')\nraise ValueError('bye')"
    assert not (await judge.judge(leaves)).right


async def test_tests_run_on_tools_of_their_own() -> None:
    one = session(ScriptedLLM(["assert runs == 1"]), program=True)
    judge = Judge("q", one, how="self")
    assert (await judge.judge("x = 1")).right
    assert (await judge.judge("x = 1")).right


async def test_answers_judged_at_once_share_their_tests() -> None:
    llm = ScriptedLLM([TESTS], delay_s=0.02)
    judge = Judge("q", session(llm, program=True), how="self")
    verdicts = await asyncio.gather(judge.judge(DOUBLE), judge.judge("x = 1"), judge.judge(DOUBLE))
    assert [verdict.right for verdict in verdicts] == [True, False, True]
    assert len(llm.requests) == 1


async def test_cancelled_while_tests_are_written_others_write_them() -> None:
    llm = ScriptedLLM(lambda _: TESTS, delay_s=0.03)
    judge = Judge("q", session(llm, program=True), how="self")
    first = asyncio.create_task(judge.judge(DOUBLE))
    second = asyncio.create_task(judge.judge(DOUBLE))
    await asyncio.sleep(0.01)
    first.cancel()
    assert (await second).right
    assert len(llm.requests) == 2


@pytest.mark.parametrize(
    "tests",
    ["", "I would test it well.", "def test():\n    assert double(1) == 2", "assert double("],
)
async def test_a_program_without_tests_is_asked_about(tests: str) -> None:
    llm = ScriptedLLM([tests, "yes", "no"])
    one = session(llm, program=True)
    judge = Judge("q", one, how="self")
    assert (await judge.judge(DOUBLE, "steps\n")).right
    assert not (await judge.judge(DOUBLE)).right
    assert len(llm.requests) == 3
    assert {span.kind for span in one.trace.spans} == {"llm"}


async def test_a_program_that_nothing_can_run_is_asked_about() -> None:
    llm = ScriptedLLM(["yes"])
    judge = Judge("q", session(llm, program=True, runner=False), how="self")
    assert (await judge.judge(DOUBLE)).right
    assert "Proposed answer" in llm.requests[0].prompt


@pytest.mark.parametrize(
    ("reply", "tests"),
    [
        ("assert f(1) == 2", ("f(1) == 2",)),
        ("assert f(1)\nassert f(2) == [3,", ("f(1)",)),
        (
            "Sure:\n```python\nassert f(1)  # one\n\nassert not f(0), 'zero'\n```",
            ("f(1)", "not f(0)"),
        ),
        ("def f(x):\n    return 1\nassert f(1)\nimport os", ("f(1)",)),
        ("assert " + "-" * 9000 + "1\nassert f(1)", ("f(1)",)),
        ("assert f(1)\x00", ()),
        ("assert f('\\d')", ("f('\\\\d')",)),
        ("assert f(1); f = 2", ()),
    ],
)
def test_tests_are_the_assert_statements_that_stand_alone(
    reply: str, tests: tuple[str, ...]
) -> None:
    assert read_tests(reply) == tuple(f"assert {test}, {test!r}" for test in tests)


def taken(*observations: str | None) -> list[Taken]:
    return [Taken("t", read_action("look[x]"), observation) for observation in observations]


def test_the_longest_observations_are_left_out_first() -> None:
    steps = taken("a" * 50, "b" * 90, "c" * 30, None)
    whole = show_steps(steps, 10_000)
    assert whole == "".join(show_step(number, step) for number, step in enumerate(steps, 1))
    assert show_steps(steps, len(whole)) == whole
    cut = show_steps(steps, len(whole) - 1)
    assert cut == whole.replace("b" * 90, LEFT_OUT)
    assert show_steps(steps, len(cut) - 1) == cut.replace("a" * 50, LEFT_OUT)
    assert steps == taken("a" * 50, "b" * 90, "c" * 30, None)


def test_when_all_are_left_out_the_beginning_goes() -> None:
    bare = show_steps(taken("a" * 50, "b" * 90), 130)
    assert bare.count(LEFT_OUT) == 2
    assert show_steps(taken("a" * 50, "b" * 90), 20) == bare[-20:]


@given(st.lists(st.none() | st.integers(0, 300).map("o".__mul__), max_size=5), st.integers(1, 900))
def test_steps_are_as_long_as_allowed_at_most(
    observations: list[str | None], most_chars: int
) -> None:
    steps = taken(*observations)
    shown = show_steps(steps, most_chars)
    assert len(shown) <= most_chars
    whole = show_steps(steps, 10**6)
    assert (shown == whole) == (len(whole) <= most_chars)
