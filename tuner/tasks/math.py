r"""MATH (Hendrycks et al., arXiv 2103.03874): competition mathematics, from JSON lines such as MATH-500; a calculator is at hand.

    {"problem": "What is $\\frac{1}{2} + \\frac{1}{3}$?", "solution": "… we get $\\boxed{\\frac{5}{6}}.$",
     "answer": "\\frac{5}{6}", "subject": "Algebra", "level": 2, "unique_id": "test/algebra/1.json"}

Where a row has no `answer`, it is what the solution's last \boxed{} holds; `type` stands for `subject` in the
original rows. An answer is right when it equals the right one, however it is written: see equivalence.py.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from pydantic import Field

from tuner.errors import DataError
from tuner.tasks import Example
from tuner.tasks import Task
from tuner.tasks import TaskOptions
from tuner.tasks.equivalence import Comparer
from tuner.tasks.equivalence import last_boxed
from tuner.tasks.reading import Row
from tuner.tasks.reading import Text
from tuner.tasks.reading import draw_splits
from tuner.tasks.reading import read_rows
from tuner.tasks.worked import calculated
from workflows.agent_pack import AgentPack

INSTRUCTION = "Solve the problem. The answer is a number or an expression, in LaTeX where needed."


class Options(TaskOptions):
    """Keys of `task: {name: math}` in a study."""

    path: str = Field(description="MATH problems as JSON lines, such as MATH-500's test.jsonl")


class _Problem(Row):
    problem: Text
    solution: str = ""
    answer: Text | None = None
    subject: str = ""
    type: str = ""
    unique_id: Text | None = None


def load(options: Options, base: Path) -> Task:
    """The task on a file. Raises DataError when the file cannot be used or holds too few questions, or math-verify is missing."""
    if find_spec("math_verify") is None:
        raise DataError(
            "task math: answers are compared by math-verify, which is not installed",
            hint="pip install 'tuner[math]'",
        )
    path = base / options.path
    search, holdout = draw_splits(
        _examples(path), options, path=path, shown=(demo.question for demo in DEMONSTRATIONS)
    )
    pack = AgentPack(
        instruction=INSTRUCTION, demonstrations=DEMONSTRATIONS, toolkits=("calculator",)
    )
    comparer = Comparer()

    async def score(example: Example, answer: str) -> float:
        return float(await comparer.same(answer, example.answers[0]))

    return Task("math", pack, search, holdout, score)


def _examples(path: Path) -> Iterator[Example]:
    for number, (place, row) in enumerate(read_rows(path, _Problem), 1):
        answer = row.answer or last_boxed(row.solution)
        if not answer:
            raise DataError(
                rf"{place}: answer: expected it, or a solution with \boxed{{}}; found neither",
                hint="complete the row: the official files have both",
            )
        yield Example(row.unique_id or str(number), row.problem, (answer,), row.subject or row.type)


DEMONSTRATIONS = (
    calculated(
        r"What is the value of $x$ if $\frac{3}{4}x - 5 = 7$?",
        r"Adding 5 gives $\frac{3}{4}x = 12$. Multiplying by $\frac{4}{3}$ gives $x = 12 \cdot \frac{4}{3} = 16$.",
        "16",
        (r"Adding 5 gives $\frac{3}{4}x = 7 + 5$.", "7 + 5", "12"),
        (r"Now multiply by $\frac{4}{3}$.", "12 * 4 / 3", "16"),
        end="So $x = 16$.",
    ),
    calculated(
        "A bag holds 5 red and 7 blue marbles. Two are drawn without replacement. What is the probability that both are red? Express your answer as a common fraction.",
        r"The first is red with probability $\frac{5}{12}$, the second then with $\frac{4}{11}$. The product is $\frac{20}{132} = \frac{5}{33}$.",
        r"\frac{5}{33}",
        (
            r"The probability is $\frac{5}{12} \cdot \frac{4}{11}$. Its numerator:",
            "5 * 4",
            "20",
        ),
        ("Its denominator:", "12 * 11", "132"),
        ("Both can be divided by 4.", "132 / 4", "33"),
        end=r"$\frac{20}{132} = \frac{5}{33}$.",
    ),
    calculated(
        "What is the remainder when $7^{10}$ is divided by 13?",
        r"$7^2 = 49$ leaves 10. $7^4$ leaves what $10^2 = 100$ leaves, 9. $7^8$ leaves what $9^2 = 81$ leaves, 3. $7^{10} = 7^8 \cdot 7^2$ leaves what $3 \cdot 10 = 30$ leaves, 4.",
        "4",
        ("The remainder can be calculated at once.", "7^10 % 13", "4"),
        end="The remainder is 4.",
    ),
    calculated(
        "The legs of a right triangle are 4 and 10. What is the length of its hypotenuse, in simplest radical form?",
        r"The square of the hypotenuse is $4^2 + 10^2 = 116$. Since $116 = 4 \cdot 29$, the hypotenuse is $2\sqrt{29}$.",
        r"2\sqrt{29}",
        ("The square of the hypotenuse is the sum of the legs' squares.", "4^2 + 10^2", "116"),
        ("I look for a square that divides 116. It is 4.", "116 / 4", "29"),
        end=r"29 is prime, so the hypotenuse is $\sqrt{4 \cdot 29} = 2\sqrt{29}$.",
    ),
    calculated(
        "For which real numbers $x$ is $x^2 - x - 6 < 0$? Give your answer in interval notation.",
        r"$x^2 - x - 6 = (x - 3)(x + 2)$ is negative between its zeros $-2$ and $3$, so the answer is the interval $(-2, 3)$.",
        "(-2, 3)",
        ("The zeros come from the discriminant.", "(-1)^2 - 4 * 1 * (-6)", "25"),
        ("Its root is 5. The larger zero:", "(1 + 5) / 2", "3"),
        ("The smaller zero:", "(1 - 5) / 2", "-2"),
        end="The parabola opens upwards, so it is negative between its zeros.",
    ),
    calculated(
        "In how many ways can 4 of 9 different books be put on a shelf in a row?",
        r"There are 9 books for the first place, then 8, 7 and 6. That makes $9 \cdot 8 \cdot 7 \cdot 6 = 3024$.",
        "3024",
        ("There are 9 books for the first place, then 8, 7 and 6.", "9 * 8 * 7 * 6", "3024"),
        end="There are 3024 ways.",
    ),
    calculated(
        r"Convert the point $\left(4, \frac{5\pi}{6}\right)$ in polar coordinates to rectangular coordinates.",
        r"$x = 4 \cos \frac{5\pi}{6} = -2\sqrt{3}$ and $y = 4 \sin \frac{5\pi}{6} = 2$, so the point is $(-2\sqrt{3}, 2)$.",
        r"(-2\sqrt{3}, 2)",
        (
            r"$\sin \frac{5\pi}{6} = \frac{1}{2}$, so $y$ is half of 4.",
            "4 / 2",
            "2",
        ),
        (
            r"$\cos \frac{5\pi}{6} = -\frac{\sqrt{3}}{2}$, so the factor of $\sqrt{3}$ in $x$ is:",
            "-4 / 2",
            "-2",
        ),
        end=r"The point is $(-2\sqrt{3}, 2)$.",
    ),
    calculated(
        "45 is what percent of 72?",
        r"$\frac{45}{72} = 0.625$, which is $62.5\%$.",
        r"62.5\%",
        ("The share times 100 gives the percentage.", "45 / 72 * 100", "62.5"),
        end=r"It is $62.5\%$.",
    ),
)
