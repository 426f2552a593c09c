"""Whether an attempt is right, as judged by a model or by whoever knows; apart, because several methods retry what is judged wrong.

The published methods that retry ask whether the answer is the right one, which nobody can ask in
deployment: that is `oracle`. With `self` the agent finds out by itself:

an empty answer is wrong, and no call is made
a program is right when it passes tests that the judge's model wrote, once a question; the `run` tool runs them
any other answer, or a program without tests, is right when the judge's model says yes
"""

import ast
import asyncio
import re
import warnings
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from typing import Literal

from workflows.config import ACTOR
from workflows.prompt import FENCE
from workflows.prompt import read_block
from workflows.session import Session
from workflows.steps import Taken
from workflows.steps import show_step

Feedback = Literal["self", "oracle"]
"""Who says whether an attempt is right. `oracle` is for research: it is marked in results, and not exported."""

LEFT_OUT = "(left out)"
"""What stands for an observation that was too long to show."""

LESSON = 'root ::= " " [^\\n]{1,600} "\\n"'
"""What is said about a failed attempt: one line, as a small model would go on with lists."""

TESTS_TOKENS = 400
VERDICT_TOKENS = 8

_RUN = "run"
_PASSED = "All tests passed."
_YES_OR_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of an attempt."""

    right: bool
    reward: float
    """0 … 1; by a model 0 or 1."""
    why: str
    """One or more lines for whoever tries again; never tells the right answer."""


class Judge:
    """Judges the answers to one question; may be asked about several at once."""

    def __init__(
        self, question: str, session: Session, *, how: Feedback, model: str = ACTOR
    ) -> None:
        self._question = question
        self._session = session
        self._how = how
        self._model = model
        self._tests: Sequence[str] | None = None
        self._writing = asyncio.Lock()

    async def judge(self, answer: str, transcript: str = "") -> Verdict:
        """The verdict on an answer that these steps led to. Raises ModelError; ConfigError where an oracle is asked and there is none."""
        if not answer:
            return Verdict(False, 0.0, "The attempt ended without an answer.")
        if self._how == "oracle":
            reward = await self._session.oracle(answer)
            return Verdict(reward >= 1, reward, "" if reward >= 1 else "The answer is not right.")
        if self._session.pack.answer == "program" and _RUN in self._session.tools:
            tests = await self._own_tests()
            if tests:
                return await self._test(answer, tests)
        return await self._ask(answer, transcript)

    async def _own_tests(self) -> Sequence[str]:
        """Tests for the question, written when they are first wanted; none where the model wrote none that can be read."""
        async with self._writing:
            if self._tests is None:
                reply = await self._session.complete(
                    f"Question: {self._question}\nTests:\n{FENCE}python\n",
                    system=(
                        f"{self._session.pack.instruction} Do not answer. Write a few tests that a "
                        "right answer passes: one assert statement a line, and nothing else."
                    ),
                    max_tokens=TESTS_TOKENS,
                    stop=(f"\n{FENCE}\n", "\nQuestion:"),
                    grammar=f'root ::= ("assert " [^\\n]+ "\\n")+ "{FENCE}"',
                    model=self._model,
                )
                self._tests = read_tests(reply)
            return self._tests

    async def _test(self, program: str, tests: Sequence[str]) -> Verdict:
        text = "\n".join([program, "", *tests, f"print({_PASSED!r})"])
        # On a fork, so that what the tests leave behind meets no attempt.
        seen = await self._session.act(_RUN, text, tools=self._session.tools.fork())
        if seen.text.rstrip().endswith(_PASSED):
            return Verdict(True, 1.0, _PASSED)
        return Verdict(False, 0.0, f"The answer fails tests of its own:\n{seen.text}")

    async def _ask(self, answer: str, transcript: str) -> Verdict:
        reply = await self._session.complete(
            f"Task: {self._session.pack.instruction}\n"
            f"Question: {self._question}\n{transcript}"
            f"Proposed answer: {answer}\n"
            "Is the proposed answer right? Say yes or no:",
            system=(
                "Judge the proposed answer to a question by the steps that led to it. "
                "Reply with yes or no."
            ),
            max_tokens=VERDICT_TOKENS,
            grammar='root ::= " "? ("yes" | "no")',
            model=self._model,
        )
        said = _YES_OR_NO.search(reply)
        if said is not None and said[0].lower() == "yes":
            return Verdict(True, 1.0, "The answer was judged right.")
        return Verdict(False, 0.0, "The answer was judged wrong.")


def read_tests(reply: str) -> tuple[str, ...]:
    """The tests in a reply, each with a message that repeats it: the lines that are an assert statement and nothing else.

    Whatever else it holds is left out: a definition would take the place of the program's own.
    """
    tests = []
    for line in read_block(reply).splitlines():
        try:
            with warnings.catch_warnings(action="ignore"):  # of escapes that Python does not know
                (test,) = ast.parse(line).body
            if isinstance(test, ast.Assert):
                test.msg = ast.Constant(ast.unparse(test.test))
                tests.append(ast.unparse(test))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue  # cut short, empty, or nested past what Python reads
    return tuple(tests)


def show_lessons(lessons: Iterable[str]) -> str:
    """What failed attempts taught, as it stands before the question that they were at; "" where they taught nothing."""
    lines = "".join(f"- {lesson}\n" for lesson in lessons if lesson)
    return lines and f"Attempts at the next question failed. What they taught:\n{lines}\n"


def show_steps(steps: Sequence[Taken], most_chars: int) -> str:
    """Steps as prompts show them, in at most so many characters.

    The longest observations are left out until the rest fits (as in Reflexion's code for HotpotQA);
    if thoughts and actions alone are too long, their beginning goes.
    """
    shown = list(steps)
    text = _show(shown)
    longest_first = sorted(
        range(len(shown)), key=lambda index: len(shown[index].observation or ""), reverse=True
    )
    for index in longest_first:
        if len(text) <= most_chars:
            return text
        if len(shown[index].observation or "") > len(LEFT_OUT):
            shown[index] = replace(shown[index], observation=LEFT_OUT)
            text = _show(shown)
    return text[-most_chars:]


def _show(steps: Sequence[Taken]) -> str:
    return "".join(show_step(number, taken) for number, taken in enumerate(steps, 1))
