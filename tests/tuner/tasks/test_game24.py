import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tuner.errors import DataError
from tuner.tasks.game24 import DEMONSTRATIONS
from tuner.tasks.game24 import Options
from tuner.tasks.game24 import load
from tuner.tasks.game24 import same_puzzle_solved
from tuner.tasks.game24 import solve

PUBLISHED = Path(__file__).resolve().parents[3] / "../shared/data/game24.csv"
HEAD = "Rank,Puzzles,AMT (s),Solved rate\n"

puzzles = st.lists(st.integers(1, 13), min_size=4, max_size=4)


def load_puzzles(tmp_path, *puzzles, head=HEAD, examples=1, **options):
    lines = [f"{rank},{puzzle},4.4,99.20%\n" for rank, puzzle in enumerate(puzzles, 1)]
    (tmp_path / "24.csv").write_text(head + "".join(lines))
    return load(Options(path="24.csv", examples=examples, holdout=0, **options), tmp_path)


def test_a_file_gives_its_puzzles(tmp_path):
    task = load_puzzles(tmp_path, "1 1 4 6", "1 1 11 11", examples=2)
    found = {example.id: example.question for example in task.search}
    assert found == {"0": "Make 24 from 1 1 4 6.", "1": "Make 24 from 1 1 11 11."}
    assert task.pack.toolkits == ("calculator",)


def test_rows_are_counted_from_0_and_both_ends_belong(tmp_path):
    task = load_puzzles(tmp_path, "1 1 4 6", "1 1 11 11", "1 1 3 8", examples=2, rows=[1, 2])
    assert {example.id for example in task.search} == {"1", "2"}


@pytest.mark.slow
async def test_without_a_file_every_puzzle_that_can_be_solved_is_there():
    task = load(Options(examples=1300, holdout=50, seed=1), Path())
    examples = task.search + task.holdout
    for example in examples:
        assert await task.score(example, example.answers[0]) == 1


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("(12 - 8) * 3 * 2", 1),
        ("(12−8)×3×2 = 24", 1),
        ("3*8 / (12/12)", 0),  # uses 12 twice, and no 2
        ("(12 - 8) * 3 * 2 = 24.", 1),
        ("(12 - 8) * 6", 0),
        ("2 * 3 * (12 - 8) * 1", 0),
        ("2 + 3 + 8 + 12", 0),
        ("8 * 3 * (12 - 2 - 10)", 0),
        ("23 + 8 / 12", 0),
        ("-2 * 3 * (8 - 12)", 0),
        ("2 ** 3 + 8 + 12", 0),
        ("12 // 8 + 2 + 3", 0),
        ("12 / (2 * 3 - 8 + 2)", 0),
        ("2 / (3 - 3) * 8 * 12", 0),
        ("24", 0),
        ("= 24", 0),
        ("", 0),
        ("(12 - 8) * 3 * 2 = 25", 0),
        ("(12 - 8) * 3 * 2 = 24 = 24", 0),
        ("(12 - 8 * 3 * 2", 0),
        ("2(3)(12 - 8)", 0),
        ("2and 3", 0),
        ("__import__('os')", 0),
        ("(" * 100 + "2" + ")" * 99, 0),
        ("1+" * 5000 + "1", 0),
    ],
)
def test_an_answer_uses_each_number_once_and_is_24(answer, score):
    assert same_puzzle_solved(answer, "2 * 3 * (12 - 8)") == score


def test_thirds_are_exact():
    assert same_puzzle_solved("8 / (3 - 8 / 3)", "8 / (3 - (8 / 3))") == 1


@given(puzzles)
def test_what_is_solved_is_24_of_these_numbers(numbers):
    expression = solve(numbers)
    assert (expression is None) == (solve(sorted(numbers)) is None)
    if expression is not None:
        assert same_puzzle_solved(expression, expression) == 1
        assert sorted(map(int, re.findall(r"\d+", expression))) == sorted(numbers)


@given(puzzles, st.lists(st.sampled_from("+-*/"), min_size=3, max_size=3), st.booleans())
def test_what_can_be_24_is_solved(numbers, operators, in_pairs):
    a, b, c, d = (f"Fraction({number})" for number in numbers)
    p, q, r = operators
    text = f"({a}{p}{b}){q}({c}{r}{d})" if in_pairs else f"(({a}{p}{b}){q}{c}){r}{d}"
    try:
        value = eval(text, {"Fraction": Fraction})
    except ZeroDivisionError:
        return
    if value == 24:
        assert solve(numbers) is not None


@pytest.mark.parametrize(
    ("puzzle", "message"),
    [
        ("1 1 1 1", r"line 3: Puzzles: '1 1 1 1' cannot make 24"),
        ("1 4 6", r"line 3: Puzzles: expected four numbers .* found '1 4 6'"),
        ("1 1 4 x", r"line 3: Puzzles: expected four numbers"),
        ("1 1 4 ٦", r"line 3: Puzzles: expected four numbers"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, puzzle, message):
    with pytest.raises(DataError, match=message):
        load_puzzles(tmp_path, "1 1 4 6", puzzle)


def test_a_file_that_cannot_be_used_says_why(tmp_path):
    with pytest.raises(DataError, match="has no column 'Puzzles'"):
        load_puzzles(tmp_path, "1 1 4 6", head="Rank,Numbers\n")
    with pytest.raises(DataError, match=r"rows: 900 to 999 were asked for, .* rows 0 to 1"):
        load_puzzles(tmp_path, "1 1 4 6", "1 1 3 8", rows=[900, 999])
    with pytest.raises(DataError, match="cannot be read: No such file"):
        load(Options(path="missing.csv"), tmp_path)
    (tmp_path / "24.csv").write_bytes(HEAD.encode() + b"1,\xff\n")
    with pytest.raises(DataError, match="not a CSV file in UTF-8"):
        load(Options(path="24.csv"), tmp_path)


@pytest.mark.parametrize(
    "keys",
    [
        {"rows": [0, 9]},
        {"path": "24.csv", "rows": [9, 0]},
        {"path": "24.csv", "rows": [-1, 9]},
        {"path": "24.csv", "rows": [0, "9"]},
        {"path": "24.csv", "rows": [0]},
    ],
)
def test_rows_that_make_no_sense_are_refused(keys):
    with pytest.raises(ValidationError, match="rows"):
        Options(**keys)


@pytest.mark.slow
async def test_the_published_puzzles_load_and_are_the_ones_that_are_made():
    if not PUBLISHED.exists():
        pytest.skip(f"{PUBLISHED.name} is not on this machine")
    options = Options(path=str(PUBLISHED), rows=[900, 999], examples=50, holdout=50)
    task = load(options, Path("/"))
    assert {int(example.id) for example in task.search + task.holdout} == set(range(900, 1000))
    most = {"examples": 1362 - len(DEMONSTRATIONS), "holdout": 0}
    published = load(Options(path=str(PUBLISHED), **most), Path("/"))
    made = load(Options(**most), Path())
    assert {one.question for one in published.search} == {one.question for one in made.search}


@pytest.mark.parametrize("demo", DEMONSTRATIONS, ids=lambda demo: demo.question)
async def test_demonstrations_keep_the_books(demo, check_calculated):
    await check_calculated(demo)
    *lines, last = demo.reasoning.splitlines()
    assert last == f"{demo.answer} = 24"
    assert same_puzzle_solved(last, demo.answer) == 1
    left = sorted(re.findall(r"\d+", demo.question.removeprefix("Make 24 from")))
    assert sorted(re.findall(r"\d+", demo.answer)) == left
    for line, step in zip(lines, demo.steps, strict=False):
        expression, value, remaining = re.fullmatch(r"(.+) = (\d+) \(left: (.+)\)", line).groups()
        assert (expression, value) == (step.argument, step.observation)
        for number in re.findall(r"\d+", expression):
            left.remove(number)
        left = sorted([*left, value])
        assert remaining.split() == sorted(left, key=int)
    assert left == ["24"]


def test_there_are_as_many_demonstrations_as_a_prompt_may_hold():
    assert len({demo.question for demo in DEMONSTRATIONS}) == 8
