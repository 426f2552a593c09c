import json
from pathlib import Path

import pytest

from tuner.errors import DataError
from tuner.tasks.musique import DEMONSTRATIONS
from tuner.tasks.musique import Options
from tuner.tasks.musique import load
from workflows.answer import normalise
from workflows.tools import load_toolkits

DEV = Path(__file__).resolve().parents[3] / "../shared/data/musique_dev_200.jsonl"


def make_paragraph(title, text, index=0):
    return {"idx": index, "title": title, "paragraph_text": text, "is_supporting": False}


def make_row(number, **changes):
    row = {
        "id": f"2hop__{number}",
        "question": f"Question {number}?",
        "question_decomposition": [{"id": 1}, {"id": 2}],
        "answer": "Sonde",
        "answer_aliases": ["River Sonde"],
        "answerable": True,
        "paragraphs": [
            make_paragraph("Vesterby", "Vesterby is a town. The Sonde flows through it."),
            make_paragraph(f"Page {number}", f"Page {number} is short.", 1),
        ],
    }
    return {key: value for key, value in (row | changes).items() if value is not None}


def load_rows(tmp_path, rows, *, examples=2, holdout=1, **options):
    (tmp_path / "musique.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = Options(path="musique.jsonl", examples=examples, holdout=holdout, **options)
    return load(options, tmp_path)


def load_page(tmp_path, *texts):
    rows = [
        make_row(number, paragraphs=[make_paragraph("Vesterby", text)])
        for number, text in enumerate(texts)
    ]
    (page,) = load_rows(tmp_path, rows, examples=1, holdout=0).pack.documents
    return page.sentences


def test_the_paragraphs_of_all_rows_are_the_library(tmp_path):
    task = load_rows(tmp_path, [make_row(number) for number in range(4)])
    titles = [page.title for page in task.pack.documents]
    assert titles == ["Vesterby", *(f"Page {number}" for number in range(4))]
    assert task.pack.documents[0].sentences == (
        "Vesterby is a town.",
        "The Sonde flows through it.",
    )
    assert {example.kind for example in task.search} == {"2 hops"}


def test_paragraphs_of_one_title_make_one_page(tmp_path):
    paragraphs = [
        make_paragraph("Vesterby", "Vesterby is a town. It is old."),
        make_paragraph("VESTERBY", "It is old. Its yards built trams."),
    ]
    rows = [make_row(0, paragraphs=paragraphs), make_row(1, paragraphs=paragraphs[:1])]
    (page,) = load_rows(tmp_path, rows, examples=1).pack.documents
    assert page.title == "Vesterby"
    assert page.sentences == ("Vesterby is a town.", "It is old.", "Its yards built trams.")


async def test_what_comes_after_the_opening_is_looked_up(tmp_path):
    texts = [f"Sentence {number} of the first. " * 2 for number in range(6)]
    paragraphs = [
        make_paragraph("Vesterby", " ".join(texts)),
        make_paragraph("Vesterby", "The Sonde flows through it."),
    ]
    pack = load_rows(tmp_path, [make_row(0, paragraphs=paragraphs)], examples=1, holdout=0).pack
    tools = {tool.name: tool for toolkit in load_toolkits(pack) for tool in toolkit().tools()}
    opening = await tools["search"].call("vesterby")
    assert opening.endswith("Sentence 4 of the first.")
    assert await tools["lookup"].call("sonde") == "(Result 1 / 1) The Sonde flows through it."


def test_sentences_end_at_full_stops_but_not_within_names(tmp_path):
    (*sentences,) = load_page(
        tmp_path,
        "Is St. Orm old? It was built by Dr. J. K. Fell. (He left in 1902.) 14 of its 3.5 m pillars stand! They lean.",
    )
    assert sentences == [
        "Is St. Orm old?",
        "It was built by Dr. J. K. Fell.",
        "(He left in 1902.) 14 of its 3.5 m pillars stand!",
        "They lean.",
    ]


async def test_the_best_over_answer_and_aliases_counts(tmp_path):
    rows = [make_row(number, answer_aliases=["the river Sonde", " "]) for number in range(3)]
    by_match, by_f1 = load_rows(tmp_path, rows), load_rows(tmp_path, rows, score="f1")
    example = by_match.search[0]
    assert example.answers == ("Sonde", "the river Sonde")
    for answer in ("sonde.", "River Sonde"):
        assert await by_match.score(example, answer) == await by_f1.score(example, answer) == 1
    assert await by_match.score(example, "small river Sonde") == 0
    assert await by_f1.score(example, "small river Sonde") == pytest.approx(4 / 5)
    assert await by_match.score(example, "") == await by_f1.score(example, "") == 0


def test_a_row_may_lack_what_is_optional(tmp_path):
    rows = [
        make_row(n, answer_aliases=None, answerable=None, question_decomposition=None)
        for n in range(3)
    ]
    task = load_rows(tmp_path, rows)
    assert {(example.answers, example.kind) for example in task.search} == {(("Sonde",), "")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": None}, "line 2: answer: missing"),
        ({"answerable": False}, "line 2: answerable: false"),
        ({"id": None}, "line 2: id: Field required"),
        ({"paragraphs": None}, "line 2: paragraphs: Field required"),
        ({"paragraphs": [{"title": "x"}]}, "line 2: paragraphs.0.paragraph_text: Field required"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        load_rows(tmp_path, [make_row(0), make_row(1, **changes), make_row(2)])


async def test_the_published_dev_questions_load():
    if not DEV.exists():
        pytest.skip(f"{DEV.name} is not on this machine")
    options = Options(path=str(DEV), examples=150, holdout=50, seed=3)
    task = load(options, Path("/"))
    assert len(task.pack.documents) == 2733
    assert all(page.sentences for page in task.pack.documents)
    assert {example.kind for example in task.search} == {"2 hops", "3 hops", "4 hops"}
    questions = {example.question for example in task.search + task.holdout}
    assert len(questions) == 200
    for example in task.search:
        for answer in example.answers:
            assert await task.score(example, answer) == 1


@pytest.mark.parametrize("demo", DEMONSTRATIONS, ids=lambda demo: demo.question)
async def test_demonstrations_are_what_an_agent_would_see(demo, check_browsed):
    await check_browsed(demo)
    assert normalise(demo.answer) in normalise(demo.reasoning)
    pages = {step.argument for step in demo.steps if step.tool == "search"}
    assert 2 <= len(pages) <= 4


def test_there_are_as_many_demonstrations_as_a_prompt_may_hold():
    assert len({demo.question for demo in DEMONSTRATIONS}) == 8
