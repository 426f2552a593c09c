import json
import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from tuner.errors import DataError
from tuner.tasks import shop
from tuner.tasks.shop import DEMONSTRATIONS
from tuner.tasks.shop import INSTRUCTION
from tuner.tasks.shop import Options
from tuner.tasks.shop import load
from workflows.agent_pack import AgentPack
from workflows.agent_pack import Product
from workflows.tools import Toolbox
from workflows.tools import call_tool
from workflows.tools.shop import load as load_toolkit
from workflows.trace import Trace

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "tasks" / "shop.md"


def made_up(**options):
    return load(Options(**{"examples": 30, "holdout": 60} | options), Path())


def write_files(folder, count=6):
    rows = [
        {
            "asin": f"B{number}",
            "name": f"Coat number {number}",
            "pricing": f"${number + 20}.00",
            "query": "coat",
            "product_category": "Clothing › Coats › Rain",
            "full_description": "",
            "small_description": ["warm"],
            "customization_options": {"size": [{"value": "small"}, {"value": "large"}]},
        }
        for number in range(count)
    ]
    attributes = {
        row["asin"]: {
            "attributes": ["warm"],
            "instruction": f"find coat {row['asin']}",
            "instruction_attributes": ["warm"],
        }
        for row in rows
    }
    goals = {
        row["asin"]: [
            {
                "instruction": f"i want {row['asin']} in large",
                "instruction_attributes": ["warm"],
                "instruction_options": ["large"],
            }
        ]
        for row in rows
    }
    for name, content in {"items": rows, "ins": attributes, "human": goals}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


FILES = {"products": "items.json", "attributes": "ins.json", "goals": "human.json"}


async def test_the_answers_that_are_shown_score_one():
    for task in (made_up(), made_up(score="success")):
        for example in task.search + task.holdout:
            assert await task.score(example, example.answers[0]) == 1


async def test_what_is_bought_instead_scores_as_it_meets_the_goal():
    task = made_up()
    example = task.search[0]
    bought = json.loads(example.answers[0])
    name = next(iter(bought["options"]))
    del bought["options"][name]
    assert await task.score(example, json.dumps(bought)) == pytest.approx(4 / 5)
    assert await task.score(example, json.dumps({**bought, "options": {}})) == pytest.approx(3 / 5)
    assert await made_up(score="success").score(example, json.dumps(bought)) == 0


async def test_what_is_no_purchase_of_this_shop_scores_nothing():
    task = made_up()
    example = task.search[0]
    bought = json.loads(example.answers[0])
    name = next(iter(bought["options"]))
    for answer in (
        "",
        bought["asin"],
        "[]",
        json.dumps({**bought, "asin": "B0"}),
        json.dumps({**bought, "price": 1}),
        json.dumps({"asin": bought["asin"]}),
        json.dumps({**bought, "options": {name: "gigantic"}}),
        json.dumps({**bought, "options": {"weight": "small"}}),
        json.dumps({**bought, "options": {name: 1}}),
    ):
        assert await task.score(example, answer) == 0


def test_a_seed_draws_the_questions_and_leaves_the_shop():
    assert made_up(seed=1).fingerprint() == made_up(seed=1).fingerprint()
    assert made_up(seed=1).search != made_up(seed=2).search
    assert made_up(seed=1).pack == made_up(seed=2).pack


def test_an_agent_gets_the_goods_and_not_the_goal():
    task = made_up()
    assert task.pack.answer == "action"
    assert task.pack.toolkits == ("shop",)
    assert len(task.pack.products) == 1200
    example = task.search[0]
    assert example.secret not in task.pack.model_dump_json()
    assert json.loads(example.secret)["asin"] == json.loads(example.answers[0])["asin"]


def test_questions_are_told_by_department():
    assert {"Home", "Clothing", "Pets"} < {example.kind for example in made_up(examples=200).search}


def test_the_made_up_catalogue_has_its_limits():
    assert len(made_up(examples=500, holdout=690).holdout) == 690
    with pytest.raises(DataError, match=r"the made-up catalogue: has \d+ different questions"):
        made_up(examples=1000, holdout=1000)


async def test_peoples_goals_come_first(tmp_path):
    write_files(tmp_path)
    task = load(Options(**FILES, examples=2, holdout=2), tmp_path)
    assert all(example.question.startswith("i want ") for example in task.search)
    assert {example.kind for example in task.search} == {"Clothing"}
    example = task.search[0]
    assert json.loads(example.answers[0])["options"] == {"size": "large"}
    assert await task.score(example, example.answers[0]) == 1
    other = json.dumps(json.loads(example.answers[0]) | {"options": {"size": "small"}})
    assert await task.score(example, other) == pytest.approx(2 / 3)


async def test_without_them_the_written_instructions_are_asked(tmp_path):
    write_files(tmp_path)
    files = {key: FILES[key] for key in ("products", "attributes")}
    task = load(Options(**files, examples=3, holdout=3), tmp_path)
    assert all(example.question.startswith("find coat B") for example in task.search)
    for example in task.search:
        assert await task.score(example, example.answers[0]) == 1


async def test_attributes_may_be_missing_beside_goals(tmp_path):
    write_files(tmp_path)
    files = {key: FILES[key] for key in ("products", "goals")}
    task = load(Options(**files, examples=3, holdout=3), tmp_path)
    assert await task.score(task.search[0], task.search[0].answers[0]) == 1


def test_the_file_of_the_questions_is_named_when_they_are_too_few(tmp_path):
    write_files(tmp_path)
    with pytest.raises(DataError, match=r"human.json: has 6 different questions"):
        load(Options(**FILES, examples=5, holdout=5), tmp_path)
    files = {key: FILES[key] for key in ("products", "attributes")}
    with pytest.raises(DataError, match=r"ins.json: has 6 different questions"):
        load(Options(**files, examples=5, holdout=5), tmp_path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"products": "items.json"}, "products needs attributes, goals or both"),
        ({"attributes": "ins.json"}, "attributes and goals need products"),
        ({"goals": "human.json"}, "attributes and goals need products"),
        ({"score": "f1"}, "Input should be 'reward' or 'success'"),
        ({"path": "items.json"}, "Extra inputs"),
    ],
)
def test_options_that_do_not_go_together_are_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        Options(**keys)


STEEL_AND_WHITE = ("colour", ("white", "steel"))
# What the demonstrations are played on.
GOODS = (
    Product(
        asin="K11",
        title="Tornby electric kettle, quiet",
        price=42,
        options=(STEEL_AND_WHITE, ("size", ("1 litre", "2 litres"))),
        features=("It is quiet.",),
    ),
    Product(
        asin="K12",
        title="Halvor electric kettle, fast boiling",
        price=35.5,
        options=(STEEL_AND_WHITE,),
        features=("It boils a litre in two minutes.",),
    ),
    Product(
        asin="M21",
        title="Sunnel yoga mat",
        price=28,
        options=(("colour", ("purple", "green")),),
        features=("It is 6 mm thick.", "It comes with a carry strap."),
    ),
    Product(asin="M22", title="Pradel yoga mat, extra thick", price=39),
    Product(asin="C31", title="Ostrel wall clock, silent", price=58, features=("Large numbers.",)),
    Product(asin="C32", title="Ostrel wall clock, silent, small", price=24, features=("Silent.",)),
    Product(
        asin="T41",
        title="Brevik rain boot, lined",
        price=49,
        options=(("size", ("37", "38", "39")),),
        features=("It has a warm lining.",),
    ),
    Product(
        asin="T42",
        title="Marlo rain boot, lined",
        price=44.5,
        options=(("size", ("40", "41", "42")),),
        features=("It has a warm lining.",),
    ),
    Product(
        asin="N51",
        title="Fennick notebook, dotted pages",
        price=9.5,
        options=(("colour", ("black", "orange")), ("size", ("a5", "a4"))),
        features=("It has dotted pages.",),
    ),
    Product(asin="N52", title="Fennick notebook, ruled pages", price=8),
    Product(
        asin="L61",
        title="Quarl bicycle lamp, rechargeable",
        price=31,
        options=(("light", ("front", "rear")),),
        description="A lamp for the handlebar or the seat post. Its clamp is made of aluminium.",
        features=("It is rechargeable.",),
    ),
    Product(asin="L62", title="Quarl bicycle bell, loud", price=12),
)


@pytest.mark.parametrize("demo", DEMONSTRATIONS, ids=lambda demo: demo.question)
async def test_demonstrations_are_what_an_agent_would_see(demo):
    tools = Toolbox([load_toolkit(AgentPack(instruction=INSTRUCTION, products=GOODS))()])
    *steps, last = demo.steps
    for step in steps:
        seen = await call_tool(tools, step.tool, step.argument, Trace())
        assert seen.text == step.observation
    bought = await call_tool(tools, last.tool, last.argument, Trace())
    assert (last.tool, bought.text, bought.ends) == ("buy", demo.answer, True)
    answer = json.loads(demo.answer)
    for said in (answer["asin"], *answer["options"].values()):
        assert said in demo.reasoning
    for value in answer["options"].values():
        assert value in demo.question


def test_demonstrations_are_of_other_goods():
    titles = " ".join(product.title.lower() for product in made_up().pack.products)
    assert len(DEMONSTRATIONS) == 6
    for goods in ("kettle", "yoga", "wall clock", "boot", "notebook", "bicycle"):
        assert goods not in titles
        assert any(goods in step.observation for demo in DEMONSTRATIONS for step in demo.steps)


def test_the_docstring_shows_a_question_of_the_made_up_catalogue():
    asked = load(Options(examples=600, holdout=590), Path())
    questions = [example.question for example in asked.search + asked.holdout]
    assert sum(question in shop.__doc__ for question in questions) == 1


def test_the_stanzas_of_the_guide_are_options():
    stanzas = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    assert len(stanzas) == 2
    for stanza in stanzas:
        task = yaml.safe_load(stanza)["task"]
        assert task.pop("name") == "shop"
        Options(**task)


def test_every_option_is_in_the_guide():
    guide = GUIDE.read_text()
    assert all(f"`{key}`" in guide for key in Options.model_fields)
