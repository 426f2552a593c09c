import json

import pytest

from tuner.errors import DataError
from tuner.tasks.webshop import human_wishes
from tuner.tasks.webshop import read_attributes
from tuner.tasks.webshop import read_instructions
from tuner.tasks.webshop import read_products
from tuner.tasks.webshop import synthetic_wishes


def item(asin="B07X000001", **changes):
    row = {
        "asin": asin,
        "name": "Vorick rain coat",
        "pricing": "$41.00$58.00",
        "query": "Women's Coats",
        "category": "fashion",
        "product_category": "Clothing › Women › Coats",
        "full_description": "A coat.",
        "small_description": ["Zip pockets.", "Windproof."],
        "images": ["https://example.com/1.jpg"],
        "customization_options": {
            "Size": [{"value": " Small "}, {"value": "large", "image": None}],
            "Color": [{"value": "Black/White"}, {"value": "olive"}, {"value": "Olive"}],
            "style": None,
        },
    }
    return {key: value for key, value in (row | changes).items() if value != "absent"}


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(json.dumps(content))
    return path


def products_of(tmp_path, *items, attributes=None):
    return read_products(written(tmp_path, "items.json", list(items)), attributes or {})


def test_a_product_is_read_as_webshop_reads_it(tmp_path):
    known = {"B07X000001": {"attributes": ["windproof", "zip pockets"]}}
    attributes = read_attributes(written(tmp_path, "ins.json", known))
    (product,) = products_of(tmp_path, item(), attributes=attributes)
    assert product.model_dump() == {
        "asin": "B07X000001",
        "title": "Vorick rain coat",
        "price": 41.0,
        "options": (("size", ("small", "large")), ("color", ("black | white", "olive"))),
        "description": "A coat.",
        "features": ("Zip pockets.", "Windproof."),
        "attributes": ("windproof", "zip pockets"),
        "query": "women's coats",
        "category": "Clothing › Women › Coats",
    }


@pytest.mark.parametrize(
    ("pricing", "price"),
    [
        ("$12.99", 12.99),
        ("$15.49$10.99", 10.99),
        ("$1,234.50", 1234.5),
        ("", 100),
        (None, 100),
        ("absent", 100),
    ],
)
def test_the_lowest_price_counts_and_a_missing_one_is_a_hundred(tmp_path, pricing, price):
    (product,) = products_of(tmp_path, item(pricing=pricing))
    assert product.price == price


@pytest.mark.parametrize("nothing", [None, "", "absent", float("nan")])
def test_what_is_not_needed_may_be_missing(tmp_path, nothing):
    keys = ("query", "product_category", "full_description", "small_description")
    row = item(customization_options=nothing, **dict.fromkeys(keys, nothing))
    (product,) = products_of(tmp_path, row)
    assert (product.options, product.features, product.description) == ((), (), "")


def test_one_feature_may_stand_alone(tmp_path):
    (product,) = products_of(tmp_path, item(small_description="Zip pockets."))
    assert product.features == ("Zip pockets.",)


def test_products_that_webshop_leaves_out_are_left_out(tmp_path):
    read = products_of(
        tmp_path, item("B1"), item("nan"), item("B07X00000012"), item("B1", name="Another")
    )
    assert [(product.asin, product.title) for product in read] == [("B1", "Vorick rain coat")]


def test_a_row_that_cannot_be_used_is_named(tmp_path):
    with pytest.raises(DataError, match=r"items.json: row 2: name: Field required"):
        products_of(tmp_path, item("B1"), item("B2", name="absent"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "Input should be an object"),
        ("{", "Invalid JSON"),
        ('{"B1": []}', "B1: Input should be an object"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path, text, message):
    path = tmp_path / "ins.json"
    path.write_text(text)
    with pytest.raises(DataError, match=f"ins.json: {message}"):
        read_attributes(path)
    with pytest.raises(DataError, match=r"absent.json: cannot be read"):
        read_attributes(tmp_path / "absent.json")


def test_a_goal_without_words_is_named(tmp_path):
    path = written(tmp_path, "human.json", {"B1": [{"instruction": " "}]})
    with pytest.raises(DataError, match=r"human.json: B1.0.instruction: String should have"):
        read_instructions(path)


def test_people_ask_with_attributes_options_and_a_price(tmp_path):
    products = products_of(tmp_path, item("B1"))
    asked = {
        "instruction": "i want a windproof coat, black and white.",
        "instruction_attributes": ["windproof"],
        "instruction_options": ["Black/White", "small"],
        "assignment_id": "X",
        "worker_id": "Y",
    }
    nothing_asked = asked | {"instruction_attributes": []}
    instructions = {"B1": [nothing_asked, asked], "elsewhere": [asked]}
    read = read_instructions(written(tmp_path, "human.json", instructions))
    (wish,) = human_wishes(products, read)
    assert wish.id == "B1/2"
    assert wish.goal.attributes == ("windproof",)
    assert wish.goal.options == ("black | white", "small")
    assert wish.question == (
        f"i want a windproof coat, black and white, for at most {wish.goal.price_limit:.0f} dollars."
    )


def test_written_instructions_get_options_of_the_product(tmp_path):
    products = products_of(
        tmp_path,
        item("B1"),
        item("B2", customization_options={}),
        item("B3"),
        item("B4"),
    )
    attributes = {
        "B1": {"instruction": "Find a coat.", "instruction_attributes": ["windproof"]},
        "B2": {"instruction": "Find a cape", "instruction_attributes": ["warm"]},
        "B3": {"instruction": None, "instruction_attributes": None, "attributes": ["warm"]},
    }
    read = read_attributes(written(tmp_path, "ins.json", attributes))
    one, other = synthetic_wishes(products, read)
    size, colour = one.goal.options
    assert size in ("small", "large")
    assert colour in ("black | white", "olive")
    assert one.question.startswith(f"Find a coat, in size {size}, color {colour}, for at most ")
    assert other.goal.options == ()
    assert other.question.startswith("Find a cape, for at most ")


@pytest.mark.parametrize(
    ("pricing", "limits"),
    [
        ("$41.00", {60, 70, 80}),
        ("$10.00", {30, 40, 50}),
        ("$975.00", {990}),
        ("$985.00", {None}),
        ("$4,000", {None}),
    ],
)
def test_price_limits_are_among_the_next_tens(tmp_path, pricing, limits):
    products = products_of(tmp_path, *(item(f"B{i}", pricing=pricing) for i in range(60)))
    instructions = {
        product.asin: [{"instruction": "a coat", "instruction_attributes": ["warm"]}]
        for product in products
    }
    read = read_instructions(written(tmp_path, "human.json", instructions))
    wishes = list(human_wishes(products, read))
    assert {wish.goal.price_limit for wish in wishes} == limits
    assert wishes == list(human_wishes(products, read))
    if limits == {None}:
        assert wishes[0].question == "a coat."
