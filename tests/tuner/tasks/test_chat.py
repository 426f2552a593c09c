import json
from collections import Counter
from pathlib import Path

import pytest

from tuner.errors import DataError
from tuner.tasks.chat import DEMONSTRATIONS
from tuner.tasks.chat import TEMPLATES
from tuner.tasks.chat import Options
from tuner.tasks.chat import load


def make_row(*turns):
    return {
        "id": "same_0",
        "conversations": [{"from": author, "value": text} for author, text in turns],
    }


def load_rows(tmp_path, *rows, examples=1, **options):
    (tmp_path / "sharegpt.json").write_text(json.dumps(rows))
    options = Options(path="sharegpt.json", examples=examples, holdout=0, **options)
    return load(options, tmp_path)


def asked(task):
    return {example.question for example in task.search + task.holdout}


def test_the_first_turn_of_a_person_is_the_question(tmp_path):
    task = load_rows(
        tmp_path,
        make_row(("human", "How do tides work?"), ("gpt", "Well."), ("human", "And why?")),
        make_row(("gpt", "… as I said."), ("user", " Thanks!\n\nOne more: why? ")),
        examples=2,
    )
    assert asked(task) == {"How do tides work?", "Thanks!\n\nOne more: why?"}
    assert {example.id for example in task.search} == {"1", "2"}


def test_what_cannot_be_asked_is_passed_over(tmp_path):
    rows = [
        make_row(("gpt", "Hello.")),
        make_row(("human", " ")),
        make_row(("human", None)),
        make_row(("human", "x" * 41)),
        make_row(("human", "x" * 40)),
        make_row(),
    ]
    assert asked(load_rows(tmp_path, *rows, max_characters=40)) == {"x" * 40}
    with pytest.raises(DataError, match="has 1 different questions"):
        load_rows(tmp_path, *rows, max_characters=40, examples=2)


def test_a_row_of_another_format_is_named(tmp_path):
    with pytest.raises(DataError, match="row 1: conversations: Field required"):
        load_rows(tmp_path, {"items": []})
    with pytest.raises(DataError, match=r"row 2: conversations.0.from: Field required"):
        load_rows(tmp_path, make_row(("human", "Hi?")), {"conversations": [{"role": "user"}]})


def test_prompts_of_every_kind_are_made():
    task = load(Options(examples=250, holdout=50, seed=2), Path())
    kinds = Counter(example.kind for example in task.search)
    assert set(kinds) == set(TEMPLATES)
    assert len(asked(task)) == 300
    assert not any(set("{}") & set(question) for question in asked(task))
    assert task.search == load(Options(examples=250, holdout=50, seed=2), Path()).search
    assert task.search != load(Options(examples=250, holdout=50, seed=3), Path()).search


async def test_an_answer_is_a_reply_with_something_in_it():
    task = load(Options(examples=1, holdout=0), Path())
    assert task.pack.answer == "text"
    assert task.pack.toolkits == ()
    for answer, score in (("Tides come\nand go.", 1), ("?", 1), ("", 0), (" \n", 0)):
        assert await task.score(task.search[0], answer) == score


def test_demonstrations_are_questions_of_their_own():
    task = load(Options(examples=250, holdout=50), Path())
    assert len(DEMONSTRATIONS) == 4
    assert not asked(task) & {demo.question for demo in DEMONSTRATIONS}
