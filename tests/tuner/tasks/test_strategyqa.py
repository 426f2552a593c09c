import json
from pathlib import Path

import pytest

from tuner.errors import DataError
from tuner.tasks.strategyqa import DEMONSTRATIONS
from tuner.tasks.strategyqa import Options
from tuner.tasks.strategyqa import load

DEV = Path(__file__).resolve().parents[3] / "../shared/data/strategyqa_dev.json"


def make_row(number, **changes):
    row = {
        "qid": f"q{number}",
        "term": f"Term {number}",
        "description": "Wading bird",
        "question": f"Question {number}?",
        "answer": number % 2 == 0,
        "facts": [f"Fact {number} ends well.", " Fact without a stop "],
        "decomposition": ["How tall is it?"],
    }
    return {key: value for key, value in (row | changes).items() if value is not None}


def load_rows(tmp_path, rows, *, examples=2, holdout=1):
    (tmp_path / "strategyqa.json").write_text(json.dumps(rows))
    return load(Options(path="strategyqa.json", examples=examples, holdout=holdout), tmp_path)


def test_answers_are_yes_and_no(tmp_path):
    task = load_rows(tmp_path, [make_row(number) for number in range(3)])
    answers = {example.id: example.answers for example in task.search + task.holdout}
    assert answers == {"q0": ("yes",), "q1": ("no",), "q2": ("yes",)}


def test_a_term_has_a_page_of_its_description_and_facts(tmp_path):
    rows = [
        make_row(0, term="Heron"),
        make_row(1, term="heron", facts=["Herons eat fish"]),
        make_row(2, description="", facts=None),
    ]
    heron, other = load_rows(tmp_path, rows).pack.documents
    assert heron.title == "Heron"
    assert heron.sentences == (
        "Wading bird.",
        "Fact 0 ends well.",
        "Fact without a stop.",
        "Herons eat fish.",
    )
    assert other.sentences == ()


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("yes", 1),
        ("Yes.", 1),
        ("YES, because it is tall", 1),
        ("no", 0),
        ("not yes", 0),
        ("The answer is yes", 0),
        ("yesterday", 0),
        ("", 0),
    ],
)
async def test_the_first_word_of_an_answer_counts(tmp_path, answer, score):
    task = load_rows(tmp_path, [make_row(0)], examples=1, holdout=0)
    assert await task.score(task.search[0], answer) == score


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": None}, "row 2: answer: missing"),
        ({"answer": "yes"}, "row 2: answer: Input should be a valid boolean"),
        ({"qid": None}, "row 2: qid: Field required"),
        ({"term": None}, "row 2: term: Field required"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        load_rows(tmp_path, [make_row(0), make_row(1, **changes), make_row(2)])


async def test_the_published_dev_questions_load():
    if not DEV.exists():
        pytest.skip(f"{DEV.name} is not on this machine")
    options = Options(path=str(DEV), examples=150, holdout=79)
    task = load(options, Path("/"))
    assert len(task.pack.documents) == 218
    asked = task.search + task.holdout
    assert [sum(example.answers == (word,) for example in asked) for word in ("yes", "no")] == [
        107,
        122,
    ]


@pytest.mark.parametrize("demo", DEMONSTRATIONS, ids=lambda demo: demo.question)
async def test_demonstrations_are_what_an_agent_would_see(demo, check_browsed):
    await check_browsed(demo)
    assert demo.reasoning


def test_there_are_as_many_demonstrations_as_a_prompt_may_hold():
    assert len({demo.question for demo in DEMONSTRATIONS}) == 8
    assert sum(demo.answer == "yes" for demo in DEMONSTRATIONS) == 4
