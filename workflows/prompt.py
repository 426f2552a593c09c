"""How questions, demonstrations, instructions and answers are laid out; apart, so that all workflows look alike to the model's prefix cache.

Instruction and demonstrations come first and the question last: whatever questions have in common is a
common prefix. A program stands in a fence; whatever else is an answer follows "Answer:".
"""

import re
from collections.abc import Callable
from collections.abc import Sequence

from workflows.agent_pack import AnswerForm
from workflows.agent_pack import Demonstration

FENCE = "```"
_OPENED_ANSWER = re.compile(r"Answer:\s*(?=```)")
_OPENING = re.compile(r"(?:\A\s*|\n)```(?:python3?|py)[ \t]*\n|\A\s*```[ \t]*\n", re.IGNORECASE)


def layout(
    question: str,
    demonstrations: Sequence[Demonstration],
    work: Callable[[Demonstration], str],
    *,
    memory: str = "",
) -> str:
    """Demonstrations as `Question: …` and what `work` makes of them, then the question, open for an answer.

    `memory`, what earlier attempts taught, comes between: the demonstrations before it stay a common prefix.
    """
    blocks = [f"Question: {demo.question}\n{work(demo)}\n\n" for demo in demonstrations]
    return "".join(blocks) + memory + f"Question: {question}\n"


def fenced(program: str) -> str:
    """A program as prompts show it."""
    return f"{FENCE}python\n{program}\n{FENCE}"


def show_answer(answer: str, form: AnswerForm) -> str:
    """An answer as demonstrations show it."""
    return f"Answer:\n{fenced(answer)}" if form == "program" else f"Answer: {answer}"


def open_answer(form: AnswerForm) -> str:
    """The end of a prompt after which the answer comes."""
    return f"Answer:\n{FENCE}python\n" if form == "program" else "Answer:"


ANSWER_STOP: dict[AnswerForm, tuple[str, ...]] = {
    "line": ("\n",),
    # A fence with nothing after it closes: "\n```python" opens one, for models that begin with words.
    "program": (f"\n{FENCE}\n", "\nQuestion:"),
    "text": ("\nQuestion:",),
}
"""Where a reply that continues `open_answer` has ended."""


def read_answer(reply: str, form: AnswerForm) -> str:
    """The answer in a reply that continues `open_answer`, or that says it all again."""
    if form == "program":
        return read_block(reply)
    reply = reply.replace("Answer:", "", 1)
    return reply.strip() if form == "text" else first_line(reply)


def last_answer(text: str, form: AnswerForm = "line") -> str | None:
    """What stands after the last "Answer:"; None where there is none, or it stayed empty."""
    _, marker, answer = text.rpartition("Answer:")
    if not marker:
        return None
    if form != "program":
        return first_line(answer) or None
    # A program may say "Answer:" itself; the one before its fence is meant.
    opened = list(_OPENED_ANSWER.finditer(text))
    return read_block(text[opened[-1].end() :] if opened else answer) or None


def read_block(text: str) -> str:
    """The first fenced program of a text; without an opening fence, what stands before the closing one."""
    opening = _OPENING.search(text)
    closing = text.find(FENCE)
    if opening is not None and opening.start() <= closing:
        text = text[opening.end() :]
    return text.partition(FENCE)[0].strip("\n").rstrip()


def first_line(text: str) -> str:
    """The first line with anything on it, stripped; "" where there is none."""
    lines = text.strip().splitlines()
    return lines[0].strip() if lines else ""
