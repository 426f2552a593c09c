import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.tasks.purchase import best_options
from tuner.tasks.purchase import make_goal
from tuner.tasks.purchase import reward
from tuner.tasks.purchase import type_reward
from workflows.agent_pack import Product

SHIRT = Product(
    asin="B1",
    title="Vorick Trail Running Shirt for Men, 2 Pack",
    price=25,
    options=(("color", ("black", "dark green")), ("size", ("large", "x-large"))),
    description="Keeps you dry on the hills.",
    features=("Flat seams.", "Made of recycled yarn."),
    attributes=("quick drying", "flat seams"),
    query="men's running shirts",
    category="Clothing › Men › Shirts",
)
WANTED = {"color": "dark green", "size": "large"}


def wish(product=SHIRT, *, attributes=("quick drying",), options=("dark green", "large"), limit=30):
    return make_goal(product, attributes=attributes, options=options, price_limit=limit)


def changed(**fields):
    return SHIRT.model_copy(update=fields)


def test_what_was_wanted_is_worth_one():
    assert reward(SHIRT, WANTED, wish()) == 1


@pytest.mark.parametrize(
    ("product", "chosen", "score"),
    [
        (SHIRT, {}, 2 / 4),
        (SHIRT, {"color": "dark green"}, 3 / 4),
        (SHIRT, {"color": "black", "size": "x-large"}, 2 / 4),
        (changed(price=30), WANTED, 1),
        (changed(price=30.5), WANTED, 3 / 4),
        (changed(attributes=()), WANTED, 3 / 4),
        (changed(attributes=(), price=99), {}, 0),
    ],
)
def test_every_wish_counts_the_same(product, chosen, score):
    assert reward(product, chosen, wish()) == score


def test_no_limit_is_kept_by_any_price():
    assert reward(changed(price=5000), WANTED, wish(limit=None)) == 1


@pytest.mark.parametrize(
    ("attribute", "met"),
    [
        ("quick drying", True),
        ("Quick-Drying", True),  # punctuation and case
        ("drying quick", True),  # order
        ("quick", True),  # some of its words
        ("recycled yarn", True),  # in the features
        ("dry on the hills", True),  # in the description
        ("trail running", True),  # in the title
        ("slow drying", False),
        ("waterproof", False),
    ],
)
def test_an_attribute_is_met_by_words_alike_or_by_the_texts(attribute, met):
    goal = wish(attributes=(attribute,), options=(), limit=1)
    assert reward(SHIRT, {}, goal) == (1 / 2 if met else 0)


@pytest.mark.parametrize(
    ("option", "value", "wanted", "met"),
    [
        ("color", "forest green", "light green", True),  # both are read as green
        ("color", "black", "white", False),
        ("color", "titanium", "tan", False),  # a colour is a word
        ("style", "crew neck", "neck crew", True),
        ("size", "x-large", "large", False),
        ("size", "large", "LARGE", True),
        ("Size", "2 pack", "pack of 2", True),  # in the title
        ("style", "x-large", "large", True),  # alike, where it is no size
    ],
)
def test_sizes_must_be_the_same_and_other_options_alike(option, value, wanted, met):
    goal = wish(attributes=(), options=(wanted,), limit=1)
    assert reward(SHIRT, {option: value}, goal) == (1 / 2 if met else 0)


@pytest.mark.parametrize(
    ("title", "query", "category", "share"),
    [
        ("Vorick trail running shirt", "", "", 1),
        ("Vorick shirt", "", "", 1),  # a third of the nouns
        ("Lamp", SHIRT.query, SHIRT.category, 0),
        ("The 2 for", SHIRT.query, SHIRT.category, 0),
    ],
)
def test_the_kind_of_thing_is_in_its_title(title, query, category, share):
    bought = changed(title=title, query=query, category=category)
    assert type_reward(bought, wish()) == share


TEN_WORDS = changed(title="ant bee cow dog eel fox gnu hen ibex jay")
ELEVEN_WORDS = changed(title="ant bee cow dog eel fox gnu hen ibex jay kea")


@pytest.mark.parametrize(
    ("wanted", "title", "query", "category", "share"),
    [
        (TEN_WORDS, "ant bee cow", "", "", 1),
        (TEN_WORDS, "ant bee", "", "", 0.5),
        (TEN_WORDS, "ant bee", SHIRT.query, "", 1),
        (TEN_WORDS, "ant bee", "", "Clothing › Women › Coats", 0.5),
        (TEN_WORDS, "ant bee", "", "Men › Clothing", 1),  # two levels, in any order
        (TEN_WORDS, "ant", "", "", 0.5),
        (ELEVEN_WORDS, "ant", "", "", 0.1),
        (ELEVEN_WORDS, "ant", SHIRT.query, SHIRT.category, 0.1),
    ],
)
def test_little_in_common_needs_the_same_query_or_category(wanted, title, query, category, share):
    bought = changed(title=title, query=query, category=category)
    assert type_reward(bought, wish(wanted)) == share


def test_words_of_attributes_are_no_nouns():
    assert make_goal(
        changed(title="Vorick shirt, quick drying, for 2"),
        attributes=(),
        options=(),
        price_limit=None,
    ).nouns == ("shirt", "vorick")


def test_a_title_of_attributes_alone_is_judged_by_query_and_category():
    goal = wish(changed(title="Quick drying"))
    assert goal.nouns == ()
    assert type_reward(SHIRT, goal) == 1
    assert type_reward(changed(query="", category=""), goal) == 0.5


def test_the_best_options_are_the_very_values():
    product = changed(options=(("color", ("light green", "dark green")), ("size", ("s", "large"))))
    assert best_options(product, wish()) == WANTED
    assert best_options(product, wish(options=("large", "green"))) == {
        "size": "large",
        "color": "light green",
    }
    assert best_options(product, wish(options=("purple", "x-large"))) == {}


WORDS = st.lists(st.sampled_from(["ant", "bee", "red", "tan", "large", "small"]), max_size=4)
TEXTS = WORDS.map(" ".join)


@given(
    bought=st.builds(
        Product,
        asin=st.just("B"),
        title=TEXTS,
        price=st.floats(1, 99),
        attributes=st.tuples(TEXTS),
        category=TEXTS,
    ),
    chosen=st.dictionaries(st.sampled_from(["color", "size", "style"]), TEXTS),
    attributes=WORDS,
    options=WORDS,
    limit=st.none() | st.floats(1, 99),
)
def test_rewards_stay_within_one(bought, chosen, attributes, options, limit):
    goal = wish(attributes=attributes, options=options, limit=limit)
    assert 0 <= reward(bought, chosen, goal) <= 1
