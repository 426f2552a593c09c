"""What a shopper wants, and how well a purchase meets it: WebShop's reward (Yao et al., arXiv 2207.01206, section 3.1).

    reward = r_type · (attributes met + options met + [price ≤ limit]) / (attributes + options + 1)

Apart from the task, because the generated catalogue makes wishes too. As in the published code, a wish that
is not among a product's attributes or chosen options is met by its texts as well, and r_type comes from
the share of the wanted title's nouns that the bought title has:

    0    no noun
    0.1  less than a tenth
    0.5  a fifth at most, found by another query, and fewer than two levels of category in common
    1    otherwise

The published code takes nouns from spaCy's tagger. Here they are the title's words without numbers, little
words and the words of the product's attributes, so that "waterproof" makes a jacket no better a substitute
for a lamp. It also reads a value that names a colour as that colour; the colours here are a list of our own.
"""

import re
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel
from pydantic import ConfigDict

from workflows.agent_pack import Product
from workflows.ranking import words

FUZZY_THRESHOLD = 85
"""Of rapidfuzz's token_set_ratio, rounded, in 0 … 100; what is above it matches."""

EXACT_OPTIONS = ("size",)
"""Options whose values must be the same: "large" is not "x-large"."""

CATEGORY_SEPARATOR = "›"

LITTLE_WORDS = "a an and at by for from in of on or the to with without"
COLOURS = """
beige black blue bronze brown burgundy copper coral cream cyan gold gray green grey indigo ivory khaki lavender
lilac lime magenta maroon mauve mint navy ochre olive orange peach pink plum purple red rose ruby rust sand
scarlet silver tan teal turquoise violet white yellow
"""
_COLOUR = re.compile(rf"\b(?:{'|'.join(COLOURS.split())})\b")


class Goal(BaseModel):
    """A product, and what of it a shopper asks for; only the scorer sees it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asin: str
    nouns: tuple[str, ...]
    """Words of the product's title that say what it is."""
    query: str
    category: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]
    """Values, whatever the names of their options."""
    price_limit: float | None
    """Dollars; None where any price will do."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a shopper says, and the goal behind it."""

    id: str
    question: str
    goal: Goal


def make_goal(
    product: Product,
    *,
    attributes: Iterable[str],
    options: Iterable[str],
    price_limit: float | None,
) -> Goal:
    """The goal of a shopper who wants these things of a product."""
    known = {word for attribute in product.attributes for word in words(attribute)}
    return Goal(
        asin=product.asin,
        nouns=tuple(sorted(_title_words(product.title) - known)),
        query=product.query,
        category=product.category,
        attributes=tuple(attributes),
        options=tuple(options),
        price_limit=price_limit,
    )


def reward(product: Product, chosen: Mapping[str, str], goal: Goal) -> float:
    """How well a product with these options meets the goal, 0 … 1."""
    met = (
        sum(_has_attribute(product, attribute) for attribute in goal.attributes)
        + _options_met(product, chosen, goal)
        + (goal.price_limit is None or product.price <= goal.price_limit)
    )
    wanted = len(goal.attributes) + len(goal.options) + 1
    return type_reward(product, goal) * met / wanted


def type_reward(product: Product, goal: Goal) -> float:
    """Whether the product is the kind of thing that was wanted: 0, 0.1, 0.5 or 1."""
    share = 0.2  # where the wanted title has no noun, as published
    if goal.nouns:
        share = len(_title_words(product.title) & set(goal.nouns)) / len(goal.nouns)
    if share == 0:
        return 0.0
    if share < 0.1:
        return 0.1
    related = product.query == goal.query or _levels_in_common(product.category, goal.category) >= 2
    return 1.0 if related or share > 0.2 else 0.5


def best_options(product: Product, goal: Goal) -> dict[str, str]:
    """The product's options that meet the goal's, the very values first; without those that it does not offer."""
    chosen: dict[str, str] = {}
    for wanted in goal.options:
        offers = [
            (name, value)
            for name, values in product.options
            if name not in chosen
            for value in values
            if _same_option(name, value, wanted)
        ]
        same = [offer for offer in offers if offer[1].casefold() == wanted.casefold()]
        chosen.update((same or offers)[:1])
    return chosen


def _title_words(title: str) -> set[str]:
    return {word for word in words(title) if not word.isdigit()} - set(LITTLE_WORDS.split())


def _levels_in_common(one: str, other: str) -> int:
    levels = ({level.strip() for level in path.split(CATEGORY_SEPARATOR)} for path in (one, other))
    return len(set.intersection(*levels))


def _has_attribute(product: Product, wanted: str) -> bool:
    return any(_alike(one, wanted) for one in product.attributes) or _mentions(product, wanted)


def _options_met(product: Product, chosen: Mapping[str, str], goal: Goal) -> int:
    """Chosen options that were wanted; no more than were, so that a reward stays within 1."""
    met = sum(
        any(_same_option(name, value, wanted) for wanted in goal.options)
        or _mentions(product, _fold(value))
        for name, value in chosen.items()
    )
    return min(met, len(goal.options))


def _same_option(name: str, value: str, wanted: str) -> bool:
    value, wanted = _fold(value), _fold(wanted)
    return value == wanted if name.casefold() in EXACT_OPTIONS else _alike(value, wanted)


def _fold(value: str) -> str:
    value = value.casefold()
    colour = _COLOUR.search(value)
    return colour[0] if colour else value


def _mentions(product: Product, wanted: str) -> bool:
    texts = (product.title, " ".join(product.features), product.description)
    return any(wanted.casefold() in text.casefold() for text in texts)


def _alike(one: str, other: str) -> bool:
    from rapidfuzz.fuzz import token_set_ratio  # scoring alone needs it
    from rapidfuzz.utils import default_process

    return round(token_set_ratio(one, other, processor=default_process)) > FUZZY_THRESHOLD
