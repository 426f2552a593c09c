"""Game of 24 (Yao et al., arXiv 2305.10601): make 24 from four numbers; from the official CSV, or all that can be solved from 1 … 13.

    Rank,Puzzles,AMT (s),Solved rate,1-sigma Mean (s),1-sigma STD (s)
    820,2 3 8 12,6.91,96.30%,9.31,5.13

An answer is an expression of + - * / and parentheses ("= 24" may follow). It is right when it uses each number
exactly once and is exactly 24. There are many right ones; an example shows one that was calculated here.

Puzzles are solved by values that can be reached: of each part of the numbers, all of them, kept for the next
puzzle; then for each value x of one part, the six that would make 24 with it are looked up among the other's.
"""

import ast
import csv
import re
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from itertools import combinations
from itertools import combinations_with_replacement
from itertools import product
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic import NonNegativeInt
from pydantic import Strict
from pydantic import model_validator

from tuner.errors import DataError
from tuner.tasks import Example
from tuner.tasks import Task
from tuner.tasks import TaskOptions
from tuner.tasks.reading import draw_splits
from tuner.tasks.scoring import best_of
from tuner.tasks.worked import calculated
from workflows.agent_pack import AgentPack
from workflows.agent_pack import Demonstration

INSTRUCTION = (
    "Make 24 from the four numbers with +, -, *, / and parentheses. Use each number exactly once. "
    "The answer is the expression."
)
TARGET = 24
LARGEST = 13
MAX_CHARACTERS = 200

_COLUMN = "Puzzles"
_ARITHMETIC = re.compile(r"[0-9+\-*/() ]+")
_SIGNS = str.maketrans("×·÷−", "**/-")
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div)


class Options(TaskOptions):
    """Keys of `task: {name: game24}` in a study."""

    path: str | None = Field(
        default=None,
        description="24.csv of princeton-nlp/tree-of-thought-llm; else puzzles are made",
    )
    rows: Annotated[tuple[NonNegativeInt, NonNegativeInt], Strict(False)] | None = Field(
        default=None,
        description="first and last row of the file, from 0; Tree of Thoughts used [900, 999]",
    )

    @model_validator(mode="after")
    def _rows_are_of_a_file(self) -> "Options":
        if self.rows is not None and self.path is None:
            raise ValueError("rows: given without a path, whose rows they would be")
        if self.rows is not None and self.rows[0] > self.rows[1]:
            raise ValueError("rows: the first comes after the last")
        return self


def load(options: Options, base: Path) -> Task:
    """The task on a file or on puzzles made here. Raises DataError when the file cannot be used or there are too few puzzles."""
    path = Path("puzzles of 1 … 13") if options.path is None else base / options.path
    search, holdout = draw_splits(
        _made() if options.path is None else _read(path, options.rows),
        options,
        path=path,
        shown=(demo.question for demo in DEMONSTRATIONS),
    )
    pack = AgentPack(
        instruction=INSTRUCTION, demonstrations=DEMONSTRATIONS, toolkits=("calculator",)
    )
    return Task("game24", pack, search, holdout, best_of(same_puzzle_solved))


def same_puzzle_solved(answer: str, right: str) -> float:
    """1 when the answer is 24 and uses the numbers of the right one, each as often, else 0."""
    try:
        ours, theirs = _parse(answer), _parse(right)
        return float(_numbers(ours) == _numbers(theirs) and _value(ours.body) == TARGET)
    except (SyntaxError, ValueError, ZeroDivisionError):
        return 0.0


def solve(numbers: Sequence[int]) -> str | None:
    """An expression that makes 24, None where there is none."""
    for left, right in _splits(tuple(numbers)):
        others = _reach(right)
        for x, text in _reach(left).items():
            for y, form in _completions(x):
                if y in others:
                    return form.format(text, others[y])
    return None


def _made() -> Iterator[Example]:
    for numbers in combinations_with_replacement(range(1, LARGEST + 1), 4):
        solution = solve(numbers)
        if solution is not None:
            yield Example("-".join(map(str, numbers)), _question(numbers), (solution,))


def _read(path: Path, rows: tuple[int, int] | None) -> Iterator[Example]:
    puzzles = list(_column(path))
    first, last = rows or (0, len(puzzles) - 1)
    if last >= len(puzzles):
        raise DataError(
            f"{path}: rows: {first} to {last} were asked for, and the file has rows 0 to {len(puzzles) - 1}",
            hint="ask for rows that it has: rows: [first, last]",
        )
    for number, (place, puzzle) in enumerate(puzzles[first : last + 1], first):
        words = puzzle.split()
        if len(words) != 4 or not all(re.fullmatch("[1-9][0-9]?", word) for word in words):
            raise DataError(
                f"{place}: {_COLUMN}: expected four numbers such as '2 3 8 12', found {puzzle!r}",
                hint="give four whole numbers from 1 to 99, with spaces between",
            )
        numbers = [int(word) for word in words]
        solution = solve(numbers)
        if solution is None:
            raise DataError(
                f"{place}: {_COLUMN}: {puzzle!r} cannot make {TARGET}", hint="leave this row out"
            )
        yield Example(str(number), _question(numbers), (solution,))


def _column(path: Path) -> Iterator[tuple[str, str]]:
    """The puzzles with their places, as they stand in the file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if _COLUMN not in (rows.fieldnames or ()):
                raise DataError(
                    f"{path}: has no column {_COLUMN!r}",
                    hint="give 24.csv as published: its first line names the columns",
                )
            for row in rows:
                yield f"{path}: line {rows.line_num}", row[_COLUMN] or ""
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}",
            hint="is the path right, and may you read it? A relative path starts from the study file's folder",
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path}: not a CSV file in UTF-8: {error}",
            hint=f"save it as CSV in UTF-8, with a column {_COLUMN}",
        ) from None


def _question(numbers: Sequence[int]) -> str:
    return f"Make 24 from {' '.join(map(str, numbers))}."


def _parse(text: str) -> ast.Expression:
    """The tree of an expression that holds nothing but numbers and the four operators. Raises SyntaxError or ValueError."""
    text = re.sub(rf"\s*=\s*{TARGET}\s*\.?\s*$", "", text.translate(_SIGNS)).strip()
    if len(text) > MAX_CHARACTERS or not _ARITHMETIC.fullmatch(text):
        raise ValueError("not an expression")
    tree = ast.parse(text, mode="eval")
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Expression, ast.BinOp, ast.Constant, *_OPERATORS)):
            raise ValueError("not one of the four operators")
    return tree


def _numbers(tree: ast.Expression) -> list[int]:
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return sorted(value for value in constants if isinstance(value, int))


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return Fraction(node.value)
    assert isinstance(node, ast.BinOp)
    x, y = _value(node.left), _value(node.right)
    match node.op:
        case ast.Add():
            return x + y
        case ast.Sub():
            return x - y
        case ast.Mult():
            return x * y
        case _:
            return x / y


def _completions(x: Fraction) -> Iterator[tuple[Fraction, str]]:
    """Every y that makes 24 with x, and how; {0} stands for x and {1} for y."""
    yield TARGET - x, "{0} + {1}"
    yield x - TARGET, "{0} - {1}"
    yield TARGET + x, "{1} - {0}"
    if x:
        yield TARGET / x, "{0} * {1}"
        yield x / TARGET, "{0} / {1}"
        yield TARGET * x, "{1} / {0}"


@cache
def _reach(numbers: tuple[int, ...]) -> Mapping[Fraction, str]:
    """Every value that the numbers can make, with one expression for it."""
    if len(numbers) == 1:
        return {Fraction(numbers[0]): str(numbers[0])}
    found: dict[Fraction, str] = {}
    for left, right in _splits(numbers):
        for (x, a), (y, b) in product(_reach(left).items(), _reach(right).items()):
            found.setdefault(x + y, f"({a} + {b})")
            found.setdefault(x - y, f"({a} - {b})")
            found.setdefault(y - x, f"({b} - {a})")
            found.setdefault(x * y, f"({a} * {b})")
            if y:
                found.setdefault(x / y, f"({a} / {b})")
            if x:
                found.setdefault(y / x, f"({b} / {a})")
    return found


def _splits(numbers: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Every way to part the numbers in two, the first number being in the first part."""
    places = range(1, len(numbers))
    for size in range(len(places)):
        for chosen in combinations(places, size):
            left = (numbers[0], *(numbers[place] for place in chosen))
            yield left, tuple(numbers[place] for place in places if place not in chosen)


def _worked(
    numbers: Sequence[int], answer: str, *sums: tuple[str, str, str, str], end: str
) -> Demonstration:
    """A demonstration from (thought, expression, value, numbers left) rows; its reasoning has a line for each, then the answer."""
    lines = [f"{expression} = {value} (left: {left})" for _, expression, value, left in sums]
    return calculated(
        _question(numbers),
        "\n".join((*lines, f"{answer} = {TARGET}")),
        answer,
        *((thought, expression, value) for thought, expression, value, _ in sums),
        end=end,
    )


DEMONSTRATIONS = (
    _worked(
        (2, 3, 8, 12),
        "(12 - 8) * 3 * 2",
        ("24 is 4 * 3 * 2, and 12 - 8 gives a 4.", "12 - 8", "4", "2 3 4"),
        ("Then times 3.", "4 * 3", "12", "2 12"),
        ("And times 2.", "12 * 2", "24", "24"),
        end="12 - 8 is the 4, then times 3 and times 2.",
    ),
    _worked(
        (4, 8, 10, 12),
        "(12 - 10) * (4 + 8)",
        ("24 is 2 * 12. A difference gives the 2.", "12 - 10", "2", "2 4 8"),
        ("The other two give the 12.", "4 + 8", "12", "2 12"),
        ("Both together.", "2 * 12", "24", "24"),
        end="The difference times the sum makes 24.",
    ),
    _worked(
        (6, 8, 10, 12),
        "6 * 8 / (12 - 10)",
        ("6 * 8 is twice as much as is wanted.", "6 * 8", "48", "10 12 48"),
        ("The other two give a 2.", "12 - 10", "2", "2 48"),
        ("Half of 48 is left.", "48 / 2", "24", "24"),
        end="6 * 8 is divided by the difference of 12 and 10.",
    ),
    _worked(
        (1, 9, 10, 12),
        "(10 - 9 + 1) * 12",
        ("12 wants a 2. 10 and 9 are close together.", "10 - 9", "1", "1 1 12"),
        ("With the other 1 that makes 2.", "1 + 1", "2", "2 12"),
        ("Times 12.", "2 * 12", "24", "24"),
        end="10 - 9 + 1 is the 2 that 12 wants.",
    ),
    _worked(
        (5, 5, 6, 6),
        "5 * 5 - 6 / 6",
        ("5 * 5 is one more than 24.", "5 * 5", "25", "6 6 25"),
        ("The sixes make the 1.", "6 / 6", "1", "1 25"),
        ("Take it away.", "25 - 1", "24", "24"),
        end="25 less 1 is 24.",
    ),
    _worked(
        (5, 6, 7, 12),
        "(5 + 7) * (12 / 6)",
        ("12 and 6 make a 2, so that a 12 is wanted from 5 and 7.", "5 + 7", "12", "6 12 12"),
        ("Now the 2.", "12 / 6", "2", "2 12"),
        ("Both together.", "12 * 2", "24", "24"),
        end="The sum times the quotient makes 24.",
    ),
    _worked(
        (3, 7, 7, 8),
        "3 * 8 + 7 - 7",
        ("3 * 8 is 24 already.", "3 * 8", "24", "7 7 24"),
        ("The sevens must make nothing.", "7 - 7", "0", "0 24"),
        ("That changes nothing.", "24 + 0", "24", "24"),
        end="The sevens cancel out.",
    ),
    _worked(
        (2, 5, 6, 11),
        "2 + 5 + 6 + 11",
        ("The numbers are small, so I try their sum.", "2 + 5", "7", "6 7 11"),
        ("Then 6.", "7 + 6", "13", "11 13"),
        ("Then 11.", "13 + 11", "24", "24"),
        end="The sum of all four is 24.",
    ),
)
