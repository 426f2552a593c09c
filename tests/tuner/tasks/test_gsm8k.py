import json
from pathlib import Path

import pytest

from tuner.errors import DataError
from tuner.tasks import load_task
from tuner.tasks.gsm8k import DEMONSTRATIONS
from tuner.tasks.gsm8k import Options
from tuner.tasks.gsm8k import load
from tuner.tasks.scoring import last_number
from workflows.tools.calculator import calculate

TEST = Path(__file__).resolve().parents[3] / "../shared/data/gsm8k_test.jsonl"


def load_answers(tmp_path, *answers):
    rows = [{"question": f"Problem {i}?", "answer": answer} for i, answer in enumerate(answers)]
    (tmp_path / "gsm.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return load(Options(path="gsm.jsonl", examples=1, holdout=len(answers) - 1), tmp_path)


def test_the_right_answer_stands_after_the_mark(tmp_path):
    task = load_answers(tmp_path, "2*4=<<2*4=8>>8 eggs\n#### 8", "So many.\n#### 1,450,000")
    answers = {example.id: example.answers for example in task.search + task.holdout}
    assert answers == {"1": ("8",), "2": ("1,450,000",)}
    assert task.pack.toolkits == ("calculator",)


async def test_an_answer_is_right_when_its_last_number_is(tmp_path):
    task = load_answers(tmp_path, "#### 1,450")
    example = task.search[0]
    for right in ("1450", "$1,450.00.", "29*50 = 1450 dollars"):
        assert await task.score(example, right) == 1
    for wrong in ("", "1451", "1450 of 2000", "many"):
        assert await task.score(example, wrong) == 0


@pytest.mark.parametrize("answer", ["8", "#### eight", "####"])
def test_a_row_without_a_number_after_the_mark_is_named(tmp_path, answer):
    with pytest.raises(DataError, match=r"gsm.jsonl: line 2: answer: expected .* '#### number'"):
        load_answers(tmp_path, "#### 1", answer)


async def test_the_published_test_questions_load():
    if not TEST.exists():
        pytest.skip(f"{TEST.name} is not on this machine")
    options = Options(path=str(TEST), examples=1000, holdout=319)
    task = load_task("gsm8k", options, base=Path("/"))
    questions = {example.question for example in task.search + task.holdout}
    assert len(questions) == 1319
    assert not questions & {demo.question for demo in DEMONSTRATIONS}
    for example in task.search:
        assert await task.score(example, example.answers[0]) == 1


@pytest.mark.parametrize("demo", DEMONSTRATIONS, ids=lambda demo: demo.question)
async def test_demonstrations_calculate_correctly(demo):
    *sums, finish = demo.steps
    for step in sums:
        assert step.tool == "calculate"
        assert await calculate(step.argument) == step.observation
    assert sums[-1].observation == finish.argument == demo.answer
    assert finish.tool == "finish"
    assert last_number(demo.reasoning) is not None
    assert demo.answer in demo.reasoning


def test_there_are_as_many_demonstrations_as_a_prompt_may_hold():
    assert len({demo.question for demo in DEMONSTRATIONS}) == 8
