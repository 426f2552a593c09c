import json
import re
from pathlib import Path

import pytest

from tuner.errors import DataError
from tuner.tasks import load_task
from tuner.tasks.hotpotqa import DEMONSTRATIONS
from tuner.tasks.hotpotqa import Options
from tuner.tasks.hotpotqa import load
from workflows.agent_pack import AgentPack
from workflows.agent_pack import Document
from workflows.answer import normalise
from workflows.tools import load_toolkits

DEV = Path(__file__).resolve().parents[3] / "../shared/data/hotpotqa_dev_distractor_396.jsonl"


def make_row(number, **changes):
    row = {
        "_id": f"id{number}",
        "question": f"Question {number}?",
        "answer": "Lorn",
        "type": "bridge",
        "level": "hard",
        "supporting_facts": [["Karst", 0]],
        "context": [
            ["Karst", ["Karst is a town.", " The Lorn flows through it.", " "]],
            [f"Page {number}", [f"Page {number} is short."]],
        ],
    }
    return {key: value for key, value in (row | changes).items() if value is not None}


def load_rows(tmp_path, rows, *, examples=2, holdout=1, **options):
    path = tmp_path / "hotpot.json"
    path.write_text(json.dumps(rows))
    return load(
        Options(path="hotpot.json", examples=examples, holdout=holdout, **options), tmp_path
    )


def test_the_paragraphs_of_all_rows_are_the_library(tmp_path):
    task = load_rows(tmp_path, [make_row(number) for number in range(5)])
    assert len(task.search) == 2
    assert len(task.holdout) == 1
    assert [page.title for page in task.pack.documents] == [
        "Karst",
        *(f"Page {i}" for i in range(5)),
    ]
    assert task.pack.documents[0].sentences == ("Karst is a town.", "The Lorn flows through it.")


async def test_agents_can_search_and_look_up(tmp_path):
    pack = load_rows(tmp_path, [make_row(number) for number in range(3)]).pack
    tools = {tool.name: tool for toolkit in load_toolkits(pack) for tool in toolkit().tools()}
    assert await tools["search"].call("karst") == "Karst is a town. The Lorn flows through it."
    assert await tools["lookup"].call("lorn") == "(Result 1 / 1) The Lorn flows through it."


def test_json_and_lines_give_the_same_task(tmp_path):
    rows = [make_row(number) for number in range(5)]
    (tmp_path / "hotpot.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    from_lines = load(Options(path="hotpot.jsonl", examples=2, holdout=1), tmp_path)
    assert from_lines.fingerprint() == load_rows(tmp_path, rows).fingerprint()


def test_fullwiki_rows_may_lack_what_is_not_used(tmp_path):
    rows = [make_row(number, supporting_facts=None, type=None, level=None) for number in range(2)]
    rows.append(make_row(2, context=[]))
    task = load_rows(tmp_path, rows)
    assert {example.kind for example in task.search} <= {"", "bridge"}
    assert len(task.pack.documents) == 3


def test_of_two_texts_under_one_title_the_first_stays(tmp_path):
    rows = [make_row(number) for number in range(3)]
    rows[2]["context"][0] = ["Karst", ["Something else."]]
    task = load_rows(tmp_path, rows)
    assert [page.sentences[0] for page in task.pack.documents if page.title == "Karst"] == [
        "Karst is a town."
    ]


async def test_scores_are_exact_match_by_default_and_f1_on_demand(tmp_path):
    rows = [make_row(number, answer="the river Lorn") for number in range(3)]
    by_match, by_f1 = load_rows(tmp_path, rows), load_rows(tmp_path, rows, score="f1")
    example = by_match.search[0]
    assert (
        await by_match.score(example, "River Lorn.")
        == await by_f1.score(example, "River Lorn.")
        == 1
    )
    assert await by_match.score(example, "Lorn") == 0
    assert await by_f1.score(example, "Lorn") == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": None}, "row 2: answer: missing"),
        ({"_id": None}, "row 2: _id: Field required"),
        ({"context": None}, "row 2: context: Field required"),
        ({"context": [["Karst"]]}, "row 2: context.0.1: Field required"),
        ({"context": {"title": []}}, "row 2: context: Input should be a valid array"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        load_rows(tmp_path, [make_row(0), make_row(1, **changes), make_row(2)])


async def test_the_published_dev_questions_load():
    if not DEV.exists():
        pytest.skip(f"{DEV.name} is not on this machine")
    options = Options(path=str(DEV), examples=300, holdout=90, seed=3)
    task = load_task("hotpotqa", options, base=Path("/"))
    assert len(task.pack.documents) == 3908
    assert {example.kind for example in task.search} == {"bridge", "comparison"}
    questions = {example.question for example in task.search + task.holdout}
    assert len(questions) == 390
    assert not questions & {demo.question for demo in DEMONSTRATIONS}
    for example in task.search:
        assert await task.score(example, example.answers[0]) == 1
    too_many = Options(path=str(DEV), examples=300, holdout=96)
    with pytest.raises(DataError, match="has 395 different questions"):
        load(too_many, Path("/"))


@pytest.mark.parametrize("demo", DEMONSTRATIONS, ids=lambda demo: demo.question)
async def test_demonstrations_are_what_an_agent_would_see(demo):
    """Replays each one's actions on pages made of its observations."""
    actions = [step for step in demo.steps if step.tool != "finish"]
    pages: dict[str, list[str]] = {}
    similar: list[str] = []
    title = ""
    for step in actions:
        if step.observation.startswith("Could not find"):
            similar = re.split(", ", step.observation.partition("Similar: ")[2].rstrip("."))
        elif step.tool == "search":
            title = step.argument
            pages[title] = re.split(r"(?<=[.]) ", step.observation)
            assert len(pages[title]) <= 5
        else:
            pages[title].append(re.sub(r"^\(Result \d / \d\) ", "", step.observation))
    documents = [Document(title=title, sentences=tuple(lines)) for title, lines in pages.items()]
    documents += [Document(title=name, sentences=()) for name in similar if name not in pages]
    pack = load_pack(documents)
    tools = {tool.name: tool for toolkit in load_toolkits(pack) for tool in toolkit().tools()}
    for step in actions:
        observation = await tools[step.tool].call(step.argument)
        if step.observation.startswith("Could not find"):
            prefix = f"Could not find {step.argument}. Similar: "
            assert observation.startswith(prefix)
            assert step.observation.startswith(prefix)
            assert set(similar) <= set(observation.removeprefix(prefix).rstrip(".").split(", "))
        else:
            assert observation == step.observation
    assert demo.steps[-1].tool == "finish"
    assert demo.steps[-1].argument == demo.answer
    assert normalise(demo.answer) in normalise(demo.reasoning)


def load_pack(documents):
    return AgentPack(instruction="", toolkits=("browser",), documents=tuple(documents))


def test_there_are_as_many_demonstrations_as_a_prompt_may_hold():
    assert len({demo.question for demo in DEMONSTRATIONS}) == 8
