import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows import Demonstration
from workflows.agent_pack import AnswerForm
from workflows.prompt import ANSWER_STOP
from workflows.prompt import fenced
from workflows.prompt import first_line
from workflows.prompt import last_answer
from workflows.prompt import layout
from workflows.prompt import open_answer
from workflows.prompt import read_answer
from workflows.prompt import read_block
from workflows.prompt import show_answer

PROGRAM = "def f(x):\n    # doubles\n\n    return 2 * x"
PROGRAMS = st.lists(
    st.text(st.characters(codec="ascii", exclude_characters="`\n\r"), max_size=20), max_size=6
).map("\n".join)


def test_memory_comes_after_what_questions_have_in_common() -> None:
    demos = [Demonstration(question="A?", answer="a"), Demonstration(question="B?", answer="b")]
    shown = layout(
        "C?", demos, lambda demo: show_answer(demo.answer, "line"), memory="Mind it.\n\n"
    )
    assert shown == (
        "Question: A?\nAnswer: a\n\nQuestion: B?\nAnswer: b\n\nMind it.\n\nQuestion: C?\n"
    )
    without = layout("C?", demos, lambda demo: show_answer(demo.answer, "line"))
    assert without == shown.replace("Mind it.\n\n", "")


@pytest.mark.parametrize(
    "reply",
    [
        PROGRAM,
        f"{PROGRAM}\n```",
        f"{PROGRAM}\n```\nIt doubles.",
        f"\n{PROGRAM}\n\n```\n\nTry it:\n\n```python\nf(2)\n```",
        f"```python\n{PROGRAM}\n```",
        f"```\n{PROGRAM}\n```",
        f"\n\n```py\n{PROGRAM}\n```\nIt doubles.",
        f"```Python3\n{PROGRAM}\n```",
        f"Here is the code:\n```python\n{PROGRAM}\n```\nIt doubles.",
        f"Here is the code:\n\n```python \n{PROGRAM}\n",
        f"Sure!\n```python\n{PROGRAM}\n```\nTry it:\n```python\nf(2)\n```",
    ],
)
def test_a_program_is_read_with_and_without_fences(reply: str) -> None:
    assert read_block(reply) == PROGRAM
    assert read_answer(reply, "program") == PROGRAM


@pytest.mark.parametrize("reply", ["", "\n", "```", "```python\n", "```python\n```", "\n```\n"])
def test_an_empty_block_is_an_empty_program(reply: str) -> None:
    assert read_block(reply) == ""


def test_a_program_that_goes_on_within_a_function_keeps_its_indent() -> None:
    assert read_block("    return 2 * x\n```\n") == "    return 2 * x"


@given(PROGRAMS)
def test_what_is_fenced_is_read_back(program: str) -> None:
    assert read_block(fenced(program)) == program.strip("\n").rstrip()


@pytest.mark.parametrize(
    ("text", "form", "answer"),
    [
        ("So. Answer: Oak\nmore", "line", "Oak"),
        ("Answer: Elm?\nAnswer:\n\nOak", "line", "Oak"),
        ("So.", "line", None),
        ("So. Answer:", "line", None),
        ("So. Answer:\n \n", "line", None),
        (f"So.\nAnswer:\n{fenced(PROGRAM)}\nDone.", "program", PROGRAM),
        (f"So.\nAnswer: here is the code:\n{fenced(PROGRAM)}", "program", PROGRAM),
        (f"So.\nAnswer:\n```python\n{PROGRAM}", "program", PROGRAM),
        (f"So.\nAnswer:\n{PROGRAM}", "program", PROGRAM),
        ("So.\nAnswer:\n```python\n```", "program", None),
        (f"So.\n{fenced(PROGRAM)}", "program", None),
    ],
)
def test_the_last_answer(text: str, form: AnswerForm, answer: str | None) -> None:
    assert last_answer(text, form) == answer


@pytest.mark.parametrize(
    ("reply", "form", "answer"),
    [
        (" Oak\nElm", "line", "Oak"),
        ("Answer: Oak", "line", "Oak"),
        ("", "line", ""),
        (" One.\nTwo.\n", "text", "One.\nTwo."),
        ("Answer:\nOne.\n\nTwo.", "text", "One.\n\nTwo."),
        ("", "text", ""),
        ("", "program", ""),
    ],
)
def test_an_answer_is_read_in_its_form(reply: str, form: AnswerForm, answer: str) -> None:
    assert read_answer(reply, form) == answer


@pytest.mark.parametrize(
    ("form", "answer"), [("line", "Oak"), ("program", PROGRAM), ("text", "One.\nTwo.")]
)
def test_what_demonstrations_show_is_what_is_asked_for(form: AnswerForm, answer: str) -> None:
    shown = show_answer(answer, form)
    opening = open_answer(form)
    assert shown.startswith(opening)
    reply = shown.removeprefix(opening)
    for stop in ANSWER_STOP[form]:
        reply = reply.partition(stop)[0]
    assert read_answer(reply, form) == answer


def test_first_line() -> None:
    assert first_line("\n  \n one \ntwo") == "one"
    assert first_line(" \n") == ""


def test_a_program_may_say_answer_itself() -> None:
    program = 'def show(x):\n    return f"Answer: {x}"'
    text = f" It formats.\nAnswer:\n```python\n{program}\n```\n"
    assert last_answer(text, "program") == program
