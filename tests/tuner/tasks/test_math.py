import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from tuner.errors import DataError
from tuner.tasks.equivalence import Comparer
from tuner.tasks.equivalence import last_boxed
from tuner.tasks.math import DEMONSTRATIONS
from tuner.tasks.math import Options
from tuner.tasks.math import load

MATH_500 = Path(__file__).resolve().parents[3] / "../shared/data/math_500.jsonl"
ENDLESS = "9^{9^{9^{9}}}"

if find_spec("math_verify") is None:
    pytest.skip("math-verify is not installed: pip install 'tuner[math]'", allow_module_level=True)


@pytest.fixture(scope="module")
def comparer() -> Iterator[Comparer]:
    """One worker for all tests, each of which has an event loop of its own."""
    return Comparer()


def make_row(number, **changes):
    row = {
        "problem": f"Problem {number}?",
        "solution": r"It is $\boxed{\frac{5}{6}}.$",
        "answer": r"\frac{5}{6}",
        "subject": "Algebra",
        "level": 2,
        "unique_id": f"test/algebra/{number}.json",
    }
    return {key: value for key, value in (row | changes).items() if value is not None}


def load_rows(tmp_path, *rows):
    (tmp_path / "math.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load(Options(path="math.jsonl", examples=len(rows), holdout=0), tmp_path)


def workers():
    return [
        process
        for process in psutil.Process().children()
        if "tuner.tasks.equivalence" in process.cmdline()
    ]


def test_rows_of_math_500_and_of_math_load(tmp_path):
    original = make_row(
        1, answer=None, subject=None, unique_id=None, type="Geometry", level="Level 5"
    )
    task = load_rows(tmp_path, make_row(0), original)
    found = {example.id: (example.answers, example.kind) for example in task.search}
    assert found == {
        "test/algebra/0.json": ((r"\frac{5}{6}",), "Algebra"),
        "2": ((r"\frac{5}{6}",), "Geometry"),
    }
    assert task.pack.toolkits == ("calculator",)


async def test_an_answer_is_right_however_it_is_written(tmp_path):
    task = load_rows(tmp_path, make_row(0))
    for right in (r"\frac{5}{6}", "5/6", r"So it is $\frac{10}{12}$.", r"\boxed{5/6}"):
        assert await task.score(task.search[0], right) == 1
    for wrong in ("6/5", "5", "", "many"):
        assert await task.score(task.search[0], wrong) == 0


@pytest.mark.parametrize("solution", ["It is 3.", r"It is $\boxed{3$", r"$\boxed{}$", None])
def test_a_row_without_an_answer_is_named(tmp_path, solution):
    with pytest.raises(DataError, match=r"line 2: answer: expected it, or a solution"):
        load_rows(tmp_path, make_row(0), make_row(1, answer=None, solution=solution))


def test_a_missing_library_is_told_before_anything_is_asked(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(DataError, match="math-verify, which is not installed") as refused:
        load_rows(tmp_path, make_row(0))
    assert refused.value.hint == "pip install 'tuner[math]'"


@pytest.mark.parametrize(
    ("text", "boxed"),
    [
        (r"first \boxed{1}, then $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"\boxed{\left\{1, 2\right.}", r"\left\{1, 2\right."),
        (r"so \fbox{4} it is", "4"),
        (r"$\boxed 7$ is it", "7"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{1", None),
        ("1", None),
    ],
)
def test_the_last_box_of_a_text(text, boxed):
    assert last_boxed(text) == boxed


@pytest.mark.parametrize(
    ("right", "answer"),
    [
        (r"\frac12", "1/2"),
        (r"\frac12", "0.5"),
        (r"\frac12", r"50\%"),
        (r"2\sqrt{2}", r"\sqrt{8}"),
        (r"2\sqrt{2}", "2√2"),
        (r"2\sqrt{2}", "2*sqrt(2)"),
        (r"-\frac{\pi}{6}", "-pi/6"),
        (r"\cot x", "cot(x)"),
        ("(1,2)", "(1, 2)"),
        ("1,2,3", "3, 1, 2"),
        (r"10^{\circ}", "10°"),
        (r"10^{\circ}", "10 degrees"),
        (r"\text{east}", "East"),
        (r"\text{ellipse}", "The graph is an ellipse."),
        (r"\text{(B)}", "B"),
        (r"x \in [1,2]", "[1, 2]"),
        (r"(-\infty, 0]", "(-∞, 0]"),
        ("10,080", "10080"),
        (r"\$32,348", "$32,348."),
        ("6 - 5i", "-5i + 6"),
        (r"1\frac{4}{5}", "9/5"),
        ("5", "x = 5"),
        ("(x+1)^2", "x**2 + 2x + 1"),
        ("15", "It takes 15 minutes."),
        ("x^2 + 1", "The answer is x^2+1."),
        ("3", r"I get \boxed{\frac{6}{2}}, so three."),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ],
)
async def test_equal_answers(comparer, right, answer):
    assert await comparer.same(answer, right)


@pytest.mark.parametrize(
    ("right", "answer"),
    [
        ("(1,2)", "(2,1)"),
        ("2", "(1, 2)"),
        (r"\frac12", "0.51"),
        (r"\text{east}", "west"),
        (r"\text{(B)}", "(C)"),
        ("p - q", "q - p"),
        ("[1,2]", "[1,3]"),
        ("6 - 5i", "6 + 5i"),
        ("1, -2", "1"),
        ("3", r"\boxed{4} and 3"),
        ("3", ""),
        ("3", "}{\x00\ud800"),
        ("3", "(" * 100),
    ],
)
async def test_different_answers(comparer, right, answer):
    assert not await comparer.same(answer, right)


@pytest.mark.slow
async def test_every_answer_of_math_500_equals_itself():
    if not MATH_500.exists():
        pytest.skip(f"{MATH_500.name} is not on this machine")
    task = load(Options(path=str(MATH_500), examples=450, holdout=50), Path("/"))
    examples = task.search + task.holdout
    unlike = [
        example.answers[0]
        for example in examples
        if not await task.score(example, rf"It is \boxed{{{example.answers[0]}}}.")
    ]
    assert unlike == []
    assert len({example.kind for example in examples}) == 7


@pytest.mark.slow
async def test_an_endless_comparison_is_cut_off_and_the_next_goes_on():
    comparer = Comparer(limit_s=0.3)
    assert await comparer.same("14/2", "7")
    began_s = time.monotonic()
    assert not await comparer.same(ENDLESS, "7")
    assert time.monotonic() - began_s < 5
    assert await comparer.same("14/2", "7")


async def test_a_worker_that_was_killed_is_replaced(comparer):
    assert await comparer.same("14/2", "7")
    for worker in workers():
        worker.kill()
        worker.wait()
    assert await comparer.same("14/2", "7")


def test_comparisons_go_on_in_other_event_loops_and_side_by_side(comparer):
    async def compare():
        return await asyncio.gather(*(comparer.same(f"{n}/2", "4") for n in range(12)))

    for _ in range(2):
        assert asyncio.run(compare()) == [n == 8 for n in range(12)]


@pytest.mark.slow
def test_no_worker_outlives_its_comparer():
    before = workers()
    comparer = Comparer()
    assert asyncio.run(comparer.same("14/2", "7"))
    assert len(workers()) == len(before) + 1
    del comparer
    gc.collect()
    assert workers() == before


@pytest.mark.slow
def test_no_worker_outlives_a_tuner_that_is_killed():
    program = f"""
import asyncio, psutil
from tuner.tasks.equivalence import Comparer
comparer = Comparer(limit_s=0.3)
asyncio.run(comparer.same("14/2", "7"))
print(psutil.Process().children()[0].pid, flush=True)
asyncio.run(comparer.same({ENDLESS!r}, "7"))
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as tuner:
        assert tuner.stdout is not None
        worker = psutil.Process(int(tuner.stdout.readline()))
        os.kill(tuner.pid, signal.SIGKILL)
    assert psutil.wait_procs([worker], timeout=10)[1] == []


@pytest.mark.parametrize("demo", DEMONSTRATIONS, ids=lambda demo: demo.question)
async def test_demonstrations_calculate_correctly(demo, check_calculated):
    await check_calculated(demo)
    assert demo.answer in demo.reasoning
    # An action's argument ends at its line's last bracket, and where a grammar holds, at the first.
    assert not set("[]\n") & set(demo.answer)


def test_there_are_as_many_demonstrations_as_a_prompt_may_hold():
    assert len({demo.question for demo in DEMONSTRATIONS}) == 8
