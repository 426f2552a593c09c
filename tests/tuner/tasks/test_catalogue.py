import re
from collections import Counter
from statistics import mean

import pytest

from tuner.tasks import catalogue
from tuner.tasks.catalogue import PRODUCTS_PER_KIND
from tuner.tasks.catalogue import SHELVES
from tuner.tasks.catalogue import make_products
from tuner.tasks.catalogue import make_wishes
from tuner.tasks.purchase import best_options
from tuner.tasks.purchase import make_goal
from tuner.tasks.purchase import reward
from workflows.tools.shop import Catalogue


@pytest.fixture(scope="module")
def products():
    return make_products()


@pytest.fixture(scope="module")
def wishes(products):
    return tuple(make_wishes(products))


@pytest.fixture(scope="module")
def by_asin(products):
    return {product.asin: product for product in products}


def shelf_of(product):
    return product.category.rpartition(" › ")[0]


def test_it_is_the_same_every_time(products, wishes):
    assert make_products() == products
    assert tuple(make_wishes(products)) == wishes


def test_it_is_large_enough(products, wishes):
    kinds = Counter(product.query for product in products)
    assert len(kinds) == 50
    assert set(kinds.values()) == {PRODUCTS_PER_KIND}
    assert len({product.asin for product in products}) == len(products)
    assert len({wish.question for wish in wishes}) > 1190


def test_every_wish_is_met_in_full_by_its_product(by_asin, wishes):
    for wish in wishes:
        product = by_asin[wish.goal.asin]
        chosen = best_options(product, wish.goal)
        assert len(chosen) == len(product.options) == 2
        assert reward(product, chosen, wish.goal) == 1


def test_a_question_says_all_that_its_goal_asks(wishes):
    for wish in wishes:
        for text in (*wish.goal.attributes, *wish.goal.options, wish.goal.query):
            assert re.search(rf"\b{re.escape(text)}\b", wish.question)
        assert f" {wish.goal.price_limit:.0f} dollars" in wish.question


def test_every_option_counts(by_asin, wishes):
    """No other value of a product passes for the one that is wanted."""
    for wish in wishes:
        product = by_asin[wish.goal.asin]
        chosen = best_options(product, wish.goal)
        for name, values in product.options:
            for value in set(values) - {chosen[name]}:
                assert reward(product, {**chosen, name: value}, wish.goal) == 4 / 5


def test_products_have_the_attributes_that_they_list_and_no_others(products):
    every = {shelf.path: set() for shelf in SHELVES}
    for product in products:
        every[shelf_of(product)].update(product.attributes)
    assert all(len(attributes) == 11 for attributes in every.values())
    for product in products:
        for attribute in every[shelf_of(product)]:
            goal = make_goal(product, attributes=(attribute,), options=(), price_limit=0.5)
            assert reward(product, {}, goal) == (attribute in product.attributes) / 2


def test_titles_keep_the_words_that_say_what_it_is(by_asin, wishes):
    for wish in wishes:
        brand, *kind = by_asin[wish.goal.asin].title.partition(",")[0].lower().split()
        assert set(wish.goal.nouns) == {brand, *kind}


def test_a_wish_leaves_something_to_find(products, by_asin, wishes):
    """Few products meet a wish in full, search brings one up, and to buy its first hit as it is does not do."""
    shelves = {}
    for product in products:
        shelves.setdefault(shelf_of(product), []).append(product)
    searched = Catalogue(products)
    full = []
    unread = []
    for wish in wishes[::24]:
        shelf = shelves[shelf_of(by_asin[wish.goal.asin])]
        meets = {p.asin for p in shelf if reward(p, best_options(p, wish.goal), wish.goal) == 1}
        hits = searched.search(wish.question)
        assert meets & {hit.asin for hit in hits}
        full.append(len(meets))
        unread.append(reward(hits[0], {}, wish.goal))
    assert mean(full) < 4
    assert max(unread) < 1
    assert 0.4 < mean(unread) < 0.7


def test_the_docstring_shows_one_of_them(by_asin, wishes):
    shown = " ".join(catalogue.__doc__.split())
    product = by_asin["B1331"]
    (wish,) = (wish for wish in wishes if wish.id == product.asin)
    for text in (product.title, f"${product.price:.2f}", *product.features, wish.question):
        assert text in shown
