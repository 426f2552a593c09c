"""How questions, demonstrations and instructions are laid out; apart, so that all workflows look alike to the model's prefix cache.

Instruction and demonstrations come first and the question last: whatever questions have in common is a
common prefix.
"""

from collections.abc import Callable
from collections.abc import Sequence

from workflows.agent_pack import Demonstration


def layout(
    question: str,
    demonstrations: Sequence[Demonstration],
    work: Callable[[Demonstration], str],
) -> str:
    """Demonstrations as `Question: …` and what `work` makes of them, then the question, open for an answer."""
    blocks = [f"Question: {demo.question}\n{work(demo)}\n\n" for demo in demonstrations]
    return "".join(blocks) + f"Question: {question}\n"


def last_answer(text: str) -> str | None:
    """The first line after the last "Answer:"; None where there is none, or it stayed empty."""
    _, marker, answer = text.rpartition("Answer:")
    return (first_line(answer) or None) if marker else None


def first_line(text: str) -> str:
    """The first line with anything on it, stripped; "" where there is none."""
    lines = text.strip().splitlines()
    return lines[0].strip() if lines else ""
