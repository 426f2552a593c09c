import json
import sys

import pytest

from tuner.errors import DataError
from tuner.tasks.mbpp import DEMONSTRATIONS
from tuner.tasks.mbpp import Options
from tuner.tasks.mbpp import load
from workflows.tools import python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are run on Linux only")

SHARED = {
    "task_id": 1,
    "text": "Write a function to find the numbers that both lists hold.",
    "code": "def shared(a, b):\r\n  return tuple(set(a) & set(b)) ",
    "test_list": [
        "assert set(shared((3, 4, 5), (5, 4))) == {4, 5}",
        "assert set(shared((1, 2), (3,))) == set()",
    ],
    "test_setup_code": "",
    "challenge_test_list": ["assert sorted(shared([1] * 3, [1])) == [1]"],
}
DISTANCE = {
    "task_id": 2,
    "text": "Write a python function to find the distance of a point from the origin.",
    "code": "import math\ndef distance(x, y):\n  return math.hypot(x, y)",
    "test_list": ["assert math.isclose(distance(3, 4), 5.0)", "assert distance(0, 0) == 0"],
    "test_setup_code": "",
    "challenge_test_list": [],
}
DEPTH = {
    "task_id": 3,
    "text": "Write a function to find the depth of a tree.",
    "code": "class Node:\n  def __init__(self, data):\n    self.data = data\n    self.left = None\n    self.right = None\n"
    "def depth(node):\n  return 0 if node is None else 1 + max(depth(node.left), depth(node.right))",
    "test_list": ["assert (depth(root)) == 2", "assert depth(root.left) == 1"],
    "test_setup_code": "root = Node(1)\nroot.left = Node(2)",
    "challenge_test_list": ["assert [depth(node) for node in (None, root)] == [0, 2]"],
}
SANITIZED = {
    "source_file": "Benchmark Questions Verification V2.ipynb",
    "task_id": 4,
    "prompt": "Write a function to double every item.",
    "code": "def doubled(items):\n  return [2 * item for item in items]",
    "test_imports": ["from collections import Counter"],
    "test_list": ["assert Counter(doubled([1, 1])) == Counter({2: 2})"],
}
ROWS = (SHARED, DISTANCE, DEPTH, SANITIZED)


@pytest.fixture
def examples(tmp_path):
    return {example.id: example for example in make_task(tmp_path).search}


@pytest.fixture
def task(tmp_path):
    return make_task(tmp_path)


def make_task(tmp_path, rows=ROWS, text=None):
    text = text or "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "mbpp.jsonl").write_text(text)
    return load(Options(path="mbpp.jsonl", examples=len(rows), holdout=0), tmp_path)


def test_a_question_shows_a_call_without_what_it_gives(examples):
    assert [examples[name].question.rpartition("\n")[2] for name in "1234"] == [
        "It is called like this: shared((3, 4, 5), (5, 4))",
        "It is called like this: distance(3, 4)",
        "It is called like this: depth(root)",
        "It is called like this: doubled([1, 1])",
    ]
    assert examples["4"].question.startswith("Write a function to double every item.\n")


def test_the_tests_are_for_the_scorer_alone(task):
    for example in task.search:
        assert "assert" in example.secret
        assert "assert" not in example.question
    assert (task.pack.answer, task.pack.toolkits) == ("program", ("python",))


def test_the_sanitized_array_is_read_like_the_lines(tmp_path, task):
    array = make_task(tmp_path, text=json.dumps(ROWS, indent=1))
    assert array.search == task.search


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["task_id"])
async def test_the_reference_is_right(task, examples, row):
    assert await task.score(examples[str(row["task_id"])], row["code"]) == 1


@pytest.mark.parametrize(
    ("name", "answer", "score"),
    [
        ("1", "def shared(a, b):\n    return [x for x in dict.fromkeys(a) if x in b]", 1),
        ("1", "def shared(a, b):\n    return (x for x in set(a) if x in b)", 1),
        ("1", "def shared(a, b):\n    return [x for x in a if x in b]", 0),
        ("1", "def common(a, b):\n    return set(a) & set(b)", 0),
        ("1", "def shared(a, b):\n    return set(a)", 0),
        ("2", "def distance(x, y):\n    return (x * x + y * y) ** 0.5", 1),
        ("2", "def distance(x, y):\n    return x + y", 0),
        ("3", "def depth(node):\n    return 2", 0),
        ("4", "import sys\ndef doubled(items):\n    return [2, 2]\nsys.exit(0)", 0),
        (
            "4",
            "from collections import Counter\ndef Counter(*_):\n    return 0\ndef doubled(_): ...",
            0,
        ),
        ("4", "set = list = Counter = lambda *_: 1\ndef doubled(_): return []", 0),
        ("4", "class E:\n    __iter__ = lambda _: iter([2, 2])\ndef doubled(_): return E()", 1),
        ("4", "class E:\n    __eq__ = lambda *_: True\ndef doubled(_): return E()", 0),
        ("4", "", 0),
    ],
)
async def test_an_answer_is_right_when_all_tests_pass(task, examples, name, answer, score):
    assert await task.score(examples[name], answer) == score


async def test_challenge_tests_count(tmp_path):
    almost = "def shared(a, b):\n    return [x for x in a if x in b]"
    for challenges, score in ((SHARED["challenge_test_list"], 0), ([], 1)):
        task = make_task(tmp_path, [SHARED | {"challenge_test_list": challenges}])
        assert await task.score(task.search[0], almost) == score


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_list": []}, "line 1: test_list: "),
        ({"test_list": ["assert other(1)"]}, "the first test calls nothing that `code` defines"),
        ({"test_list": ["assert ("]}, "the first test calls nothing that `code` defines"),
        ({"code": "def ("}, "the first test calls nothing that `code` defines"),
        ({"task_id": "x"}, "line 1: task_id: "),
        ({"text": None}, "line 1: text: "),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        make_task(tmp_path, [SHARED | changes])


def test_two_rows_of_one_id_are_refused(tmp_path):
    with pytest.raises(DataError, match="two questions have the id '1'"):
        make_task(tmp_path, [SHARED, DISTANCE | {"task_id": 1}])


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
