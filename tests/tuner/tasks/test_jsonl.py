import json
import re

import pytest

from tuner.errors import DataError
from tuner.tasks import jsonl
from tuner.tasks.jsonl import Options
from tuner.tasks.jsonl import load

QUESTIONS = [
    {"id": "q1", "question": "Who wrote it?", "answer": ["Mara Okoye", "M. Okoye"], "tag": 1},
    {"question": "How many sites?", "answer": "14"},
    {"id": 0, "question": "Who runs Oslo?", "answer": "Per Lie"},
]
STEPS = [
    {"thought": "I open it.", "tool": "search", "argument": "Oslo", "observation": "Per Lie."},
    {"thought": "It is he.", "tool": "finish", "argument": "Per Lie"},
]


@pytest.fixture
def load_files(tmp_path):
    def write_and_load(questions=QUESTIONS, *, documents=None, demonstrations=None, **options):
        files = {"path": questions, "documents": documents, "demonstrations": demonstrations}
        for key, rows in files.items():
            if rows is not None:
                (tmp_path / f"{key}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
                options[key] = f"{key}.jsonl"
        return load(Options(**{"examples": 1, "holdout": 1} | options), tmp_path)

    return write_and_load


def test_questions_alone_are_enough(load_files):
    task = load_files(examples=2)
    answers = {example.id: example.answers for example in task.search + task.holdout}
    assert answers == {"q1": ("Mara Okoye", "M. Okoye"), "2": ("14",), "0": ("Per Lie",)}
    assert task.pack.toolkits == ()
    assert task.pack.instruction == "Answer the question."


def test_documents_bring_search_and_a_key_brings_the_calculator(load_files):
    documents = [
        {"title": "Report", "text": "Mara wrote it. It has 3.5 pages! Is it short? Yes"},
        {"title": "Oslo", "sentences": ["Per Lie runs it.", "It is new."]},
    ]
    task = load_files(documents=documents, calculator=True, instruction="Be brief.")
    assert task.pack.toolkits == ("browser", "calculator")
    assert task.pack.instruction == "Be brief."
    report, oslo = task.pack.documents
    assert report.sentences == ("Mara wrote it.", "It has 3.5 pages!", "Is it short?", "Yes")
    assert oslo.sentences == ("Per Lie runs it.", "It is new.")


def test_a_demonstrated_question_is_not_asked(load_files):
    demonstrations = [{"question": "who runs Oslo?", "answer": "Per Lie", "steps": STEPS}]
    documents = [{"title": "Oslo", "text": "Per Lie."}]
    task = load_files(demonstrations=demonstrations, documents=documents)
    assert task.pack.demonstrations[0].steps[0].observation == "Per Lie."
    assert {example.id for example in task.search + task.holdout} == {"q1", "2"}


@pytest.mark.parametrize(
    ("score", "answer", "value"),
    [
        ("exact", "m okoye", 1),
        ("exact", "It was M. Okoye", 0),
        ("f1", "Okoye", 2 / 3),
        ("contains", "It was M. Okoye", 1),
    ],
)
async def test_answers_are_compared_as_asked(load_files, score, answer, value):
    task = load_files(QUESTIONS[:1], score=score, holdout=0)
    assert await task.score(task.search[0], answer) == pytest.approx(value)


async def test_numbers_are_compared_by_value(load_files):
    task = load_files(QUESTIONS[1:2], score="number", holdout=0)
    assert await task.score(task.search[0], "There are 14.0 sites.") == 1
    with pytest.raises(DataError, match=r"path.jsonl: line 1: answer: expected a number"):
        load_files(score="number")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"questions": [{"question": "Who?"}]}, "path.jsonl: line 1: answer"),
        ({"questions": [{"question": "Who?", "answer": []}]}, "path.jsonl: line 1: answer"),
        ({"questions": [{"question": "Who?", "answer": 14}]}, "path.jsonl: line 1: answer"),
        (
            {"questions": [*QUESTIONS, {"id": "q1", "question": "Else?", "answer": "x"}]},
            "two questions have the id 'q1'",
        ),
        ({"documents": [{"title": "Oslo"}]}, "documents.jsonl: line 1: .* found neither"),
        (
            {"documents": [{"title": "Oslo", "text": "x", "sentences": ["x"]}]},
            "documents.jsonl: line 1: .* found both",
        ),
        (
            {"documents": [{"title": "Oslo", "text": "x"}, {"title": "OSLO", "text": "y"}]},
            "documents.jsonl: line 2: title: 'OSLO' is a title already",
        ),
        (
            {"demonstrations": [{"question": "Who?", "answer": "x", "stpes": []}]},
            "demonstrations.jsonl: line 1: stpes: Extra inputs",
        ),
        (
            {"demonstrations": [{"question": "Who?", "answer": "x", "steps": STEPS}]},
            "demonstrations.jsonl: line 1: steps: expected tools among none, and finish",
        ),
        (
            {
                "demonstrations": [{"question": "Who?", "answer": "x", "steps": STEPS[:1]}],
                "documents": [{"title": "Oslo", "text": "x"}],
            },
            "expected tools among search, lookup, and finish as the last; found search",
        ),
    ],
)
def test_a_row_that_cannot_be_used_is_named(load_files, files, message):
    with pytest.raises(DataError, match=message):
        load_files(**files)


def test_the_rows_in_the_documentation_are_rows(load_files):
    blocks = re.findall(r"^    (\{.*?\})\n(?=\n|\Z)", jsonl.__doc__, re.DOTALL | re.MULTILINE)
    question, page, demonstration = (json.loads(block) for block in blocks)
    task = load_files([question], documents=[page], demonstrations=[demonstration], holdout=0)
    assert task.search[0].answers == ("Mara Okoye", "M. Okoye")
    assert len(task.pack.documents[0].sentences) == 2
    assert len(task.pack.demonstrations[0].steps) == 2
