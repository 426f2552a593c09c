import asyncio
import gzip
import json
import sys
from pathlib import Path

import pytest

from tuner.errors import DataError
from tuner.tasks.humaneval import DEMONSTRATIONS
from tuner.tasks.humaneval import Options
from tuner.tasks.humaneval import load
from workflows.tools import python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are run on Linux only")

OFFICIAL = Path(__file__).resolve().parents[3] / "../shared/data/HumanEval.jsonl.gz"

PROMPT = '''import math


def helper(x: float) -> float:
    """ Half of x. """
    return x / 2


def area(side: float) -> float:
    """ Area of a square.
    >>> area(2)
    4
    """
'''
ROW = {
    "task_id": "Test/0",
    "prompt": PROMPT,
    "entry_point": "area",
    "canonical_solution": "    return math.pow(side, 2)\n",
    "test": "def check(candidate):\n    assert candidate(3) == 9\n    assert helper(candidate(4)) == 8\n",
}
WHOLE = "def area(side):\n    return side * side"


@pytest.fixture
def task(tmp_path):
    return make_task(tmp_path)


def make_task(tmp_path, **changes):
    (tmp_path / "he.jsonl.gz").write_bytes(gzip.compress(json.dumps(ROW | changes).encode()))
    return load(Options(path="he.jsonl.gz", examples=1, holdout=0), tmp_path)


async def scored(task, answer):
    return await task.score(task.search[0], answer)


def test_a_question_is_an_ask_and_the_prompt(task):
    (example,) = task.search
    assert example.id == "Test/0"
    assert example.question.endswith(f"\n\n{PROMPT.strip()}")
    assert example.answers == (PROMPT + ROW["canonical_solution"],)
    assert (task.pack.answer, task.pack.toolkits) == ("program", ("python",))


def test_the_tests_are_for_the_scorer_alone(task):
    (example,) = task.search
    assert "candidate(3) == 9" in example.secret
    assert "candidate" not in example.question
    assert "candidate" not in task.pack.model_dump_json()


@pytest.mark.parametrize(
    "answer",
    [
        PROMPT + "    return side ** 2",
        WHOLE,
        "    return math.prod((side, side))",
        "return side * side",
        "result = side * side\nreturn result",
        "def area(side):\n    return 4 * helper(side) ** 2",
        "area = lambda side: side * side",
        "def helper(x):\n    return x * x\n\ndef area(side):\n    return helper(side)",
        WHOLE + "\n\nif __name__ == '__main__':\n    raise SystemExit(area(int(input())))",
        WHOLE + "\n\nprint('☃' * 100)",
    ],
)
async def test_a_right_program_is_right_however_it_is_given(task, answer):
    assert await scored(task, answer) == 1


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "pass",
        "Sure! Here is the function.",
        "def area(side):",
        "\x00",
        "\ud800",
        "def area(side):\n    return side",
        "def other(side):\n    return side * side",
        WHOLE + "\n\nraise ValueError",
    ],
)
async def test_a_wrong_program_is_wrong(task, answer):
    assert await scored(task, answer) == 0


CHEATS = {
    "exit": "import sys\nsys.exit(0)\n\n{wrong}",
    "hard exit": "import os\nos._exit(0)\n\n{wrong}",
    "exit when called": "import os\ndef area(side):\n    os._exit(0)",
    "exit of all": "import os, signal\n{wrong}\nos.kill(os.getppid(), signal.SIGTERM)",
    "success printed": "{wrong}\nprint('passed', 'OK', 0, True)",
    "equal to all": "class Equal(float):\n    __eq__ = lambda *_: True\ndef area(side):\n    return Equal()",
    "equal object": "class Equal:\n    __eq__ = lambda *_: True\n    __truediv__ = lambda *_: Equal()\ndef area(side):\n    return Equal()",
    "patched builtins": "import builtins\nbuiltins.AssertionError = Exception\nbuiltins.exec = print\n{wrong}",
    "hooks": "import atexit, os, sys\natexit.register(os._exit, 0)\nsys.excepthook = print\nsys.settrace(lambda *_: None)\n{wrong}",
    "tests redefined": "def check(candidate):\n    pass\n{wrong}",
    "helper redefined": "def helper(x):\n    return 8\ndef area(side):\n    return 9",
    "frames": "import gc, sys\nfor thing in gc.get_objects():\n    if isinstance(thing, dict) and 'check' in thing:\n        thing['check'] = print\n{wrong}",
}


@pytest.mark.parametrize("cheat", CHEATS.values(), ids=CHEATS)
async def test_a_cheat_is_wrong(task, cheat):
    wrong = "def area(side):\n    return 5"
    assert await scored(task, cheat.replace("{wrong}", wrong)) == 0


async def test_the_tests_cannot_be_found_by_the_program(task):
    """It looks for an expected value in files, in its memory and in its parent's; were it found, it would answer right."""
    search = r"""
import ctypes, gc, os, sys

def found():
    needle = "".join(("candidate(3) ", "== 9"))  # not to find itself
    for folder in (".", "/", "/tmp", os.path.dirname(sys.argv[0]) or "."):
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            try:
                if needle in open(os.path.join(folder, name), errors="replace").read():
                    return True
            except OSError:
                pass
    for number in range(3, 64):
        try:
            if needle in os.pread(number, 1 << 16, 0).decode(errors="replace"):
                return True
        except OSError:
            pass
    for thing in gc.get_objects():
        if isinstance(thing, (dict, list, tuple)) and needle in str(thing)[:10 ** 6]:
            return True
    if ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0:
        return True
    try:
        open(f"/proc/{os.getppid()}/mem", "rb")
        return True
    except OSError:
        return False

def area(side):
    return side * side if found() else 5
"""
    assert await scored(task, search) == 0
    honest = search.replace("if found() else 5", "if not found() else 5")
    assert await scored(task, honest) == 1


@pytest.mark.slow
async def test_an_endless_program_is_wrong(task, monkeypatch):
    monkeypatch.setattr("tuner.tasks.programs.WALL_S", 0.7)
    assert await scored(task, "def area(side):\n    while True: pass") == 0


async def test_values_keep_their_types_on_the_way(tmp_path):
    values = "[1, 1.5, True, None, 'ß', b'x', (1,), [2], {3}, frozenset({4}), {5: (6, {7: 8})}, 2j, 1e999, 10**5000]"
    task = make_task(
        tmp_path,
        test=f"def check(candidate):\n    values = {values}\n    given = candidate(values)\n"
        "    assert given == values\n    assert list(map(type, given)) == list(map(type, values))\n",
    )
    assert await scored(task, f"def area(side):\n    assert side == {values}\n    return side") == 1


async def test_an_exception_is_known_by_its_kind(tmp_path):
    test = "def check(candidate):\n    try:\n        candidate(0)\n    except ValueError as error:\n        assert str(error) == 'low'\n    else:\n        assert False\n"
    task = make_task(tmp_path, test=test)
    right = "class Low(ValueError):\n    pass\ndef area(side):\n    raise Low('low')"
    assert await scored(task, right) == 1
    assert await scored(task, right.replace("Low(ValueError)", "Low(Exception)")) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"entry_point": "volume"}, "line 1: prompt: no function 'volume' in it"),
        ({"prompt": "def area(:"}, "line 1: prompt: no function 'area' in it"),
        ({"test": None}, "line 1: test: Input should be a valid string"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        make_task(tmp_path, **changes)


@pytest.mark.slow
async def test_the_published_solutions_are_right():
    if not OFFICIAL.exists():
        pytest.skip(f"{OFFICIAL.name} is not on this machine")
    task = load(Options(path=str(OFFICIAL), examples=12, holdout=152), Path("/"))
    assert len({example.id for example in task.search + task.holdout}) == 164
    solutions = {example.answers[0] for example in task.search + task.holdout}
    assert not solutions & {demo.answer for demo in DEMONSTRATIONS}
    for answer, score in ((None, 1.0), ("return None", 0.0)):
        scores = (task.score(one, answer or one.answers[0]) for one in task.search)
        assert await asyncio.gather(*scores) == [score] * 12


@pytest.mark.parametrize("demo", DEMONSTRATIONS, ids=lambda demo: demo.answer.split("(")[0])
async def test_demonstrations_show_what_the_tool_gives(demo):
    *runs, finish = demo.steps
    for step in runs:
        assert step.tool == "run"
        assert await python.run(step.argument) == step.observation
    assert (finish.tool, finish.argument) == ("finish", demo.answer)
    assert demo.reasoning


def test_there_are_demonstrations_enough():
    assert len({demo.question for demo in DEMONSTRATIONS}) >= 4
