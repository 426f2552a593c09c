"""A made-up catalogue and what shoppers want of it, so that shopping can be tuned without WebShop's files.

Ten shelves of five kinds of goods; 24 products of each kind, by three brands that make nothing else:

    B1331        Ombrova rain coat, machine washable, $57.50
    features     It is machine washable. It is odourless. It is lightweight. It has zip pockets. It has elastic cuffs.
    options      colour: white / grey / red / olive / yellow; size: small / medium / large
    its wish     Buy a lightweight rain coat with zip pockets for me, colour olive and size small. It may cost up to 70 dollars.

All of it is the same in every study: a seed draws among the wishes, as it draws among a dataset's questions.
Every wish can be met in full, by its own product and often by a few more. No attribute's words stand within
another's or in a title's nouns, so that a product's texts promise what its attributes say and no more.
"""

import random
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.tasks.purchase import CATEGORY_SEPARATOR
from tuner.tasks.purchase import Wish
from tuner.tasks.purchase import make_goal
from workflows.agent_pack import Product

PRODUCTS_PER_KIND = 24
BRANDS_PER_KIND = 3
FIRST_NUMBER = 1000
_SEED = 2207


@dataclass(frozen=True, slots=True)
class Shelf:
    """Kinds of goods that share attributes and options."""

    path: str
    kinds: Sequence[str]
    prices: tuple[int, int]
    """Dollars, lowest and highest."""
    qualities: Sequence[str]
    """What may stand before a kind: "windproof"."""
    parts: Sequence[str]
    """What a kind may come with: "a glass lid"."""
    uses: Sequence[str]
    options: Mapping[str, Sequence[str]]


_COLOURS = ("black", "white", "grey", "navy", "red", "olive", "teal", "yellow")
_SIZES = ("small", "medium", "large", "x-large")

SHELVES: Sequence[Shelf] = (
    Shelf(
        "Clothing › Outdoor wear",
        ("hiking jacket", "rain coat", "fleece vest", "running shirt", "wool sweater"),
        (25, 120),
        (
            "windproof",
            "breathable",
            "lightweight",
            "machine washable",
            "quick drying",
            "insulated",
            "odourless",
        ),
        ("zip pockets", "a detachable hood", "reflective strips", "elastic cuffs"),
        ("long walks", "cold mornings", "weekends in the hills", "the way to work"),
        {"colour": _COLOURS, "size": _SIZES},
    ),
    Shelf(
        "Home › Cookware",
        ("frying pan", "soup pot", "baking tray", "mixing bowl", "salad strainer"),
        (12, 80),
        (
            "nonstick",
            "dishwasher safe",
            "oven proof",
            "scratch resistant",
            "heavy duty",
            "stackable",
            "fast heating",
        ),
        ("a glass lid", "silicone grips", "a pouring spout", "measuring marks"),
        ("family meals", "small kitchens", "Sunday cooking", "beginners"),
        {"colour": _COLOURS, "size": ("18 cm", "22 cm", "26 cm", "30 cm")},
    ),
    Shelf(
        "Home › Lighting",
        ("desk lamp", "floor lamp", "bedside lamp", "night light", "clip spotlight"),
        (15, 95),
        (
            "dimmable",
            "energy saving",
            "cordless",
            "foldable",
            "flicker free",
            "touch controlled",
            "child friendly",
        ),
        ("a usb port", "a sleep timer", "a remote control", "a swivel arm"),
        ("late reading", "home offices", "dark corners", "students"),
        {"colour": _COLOURS, "bulb": ("warm", "neutral", "daylight")},
    ),
    Shelf(
        "Home › Textiles",
        ("throw blanket", "pillow case", "duvet set", "bath towel", "table cloth"),
        (10, 90),
        (
            "hypoallergenic",
            "wrinkle free",
            "fade resistant",
            "machine washable",
            "reversible",
            "pure cotton",
            "extra soft",
        ),
        ("a fringed edge", "a hidden zip", "a hanging loop", "double stitching"),
        ("guest rooms", "summer nights", "the whole family", "rented flats"),
        {"colour": _COLOURS, "pattern": ("plain", "striped", "checked", "floral", "dotted")},
    ),
    Shelf(
        "Beauty › Skin and hair",
        ("hand cream", "body lotion", "hair shampoo", "face mask", "bath soap"),
        (6, 45),
        (
            "cruelty free",
            "alcohol free",
            "vegan",
            "fast absorbing",
            "dermatologist tested",
            "long lasting",
            "moisturising",
        ),
        ("shea butter", "aloe vera", "jojoba", "sea minerals"),
        ("dry days", "daily care", "travel", "tired skin"),
        {
            "scent": ("lemon", "cedar", "vanilla", "rose", "unscented"),
            "size": ("50 ml", "100 ml", "250 ml", "400 ml"),
        },
    ),
    Shelf(
        "Pets › Dogs and cats",
        ("dog bed", "cat cushion", "dog leash", "dog harness", "cat tunnel"),
        (9, 75),
        (
            "chew resistant",
            "orthopaedic",
            "non slip",
            "easy clean",
            "collapsible",
            "padded",
            "weatherproof",
        ),
        ("a removable cover", "a reflective thread", "a quick buckle", "a catnip pouch"),
        ("playful puppies", "old friends", "quiet evenings", "busy parks"),
        {"colour": _COLOURS, "size": _SIZES},
    ),
    Shelf(
        "Electronics › Accessories",
        ("bluetooth speaker", "alarm clock", "computer mouse", "laptop stand", "phone holder"),
        (14, 130),
        (
            "compact",
            "splash proof",
            "rechargeable",
            "shock resistant",
            "fingerprint free",
            "travel sized",
            "low power",
        ),
        ("a braided cable", "a carry pouch", "rubber feet", "a spare battery"),
        ("hot desks", "hotel rooms", "night shifts", "long calls"),
        {"colour": _COLOURS, "finish": ("matte", "glossy", "brushed", "textured")},
    ),
    Shelf(
        "Grocery › Drinks and snacks",
        ("herbal tea", "ground coffee", "trail mix", "oat cookie", "chocolate bar"),
        (5, 40),
        (
            "gluten free",
            "sugar reduced",
            "organic",
            "fair trade",
            "plant based",
            "small batch",
            "kosher",
        ),
        ("a resealable bag", "added protein", "whole spices", "dried berries"),
        ("slow afternoons", "lunch boxes", "the office kitchen", "gifts"),
        {
            "flavour": ("vanilla", "ginger", "hazelnut", "cinnamon", "orange"),
            "size": ("pack of 1", "pack of 3", "pack of 6", "pack of 12"),
        },
    ),
    Shelf(
        "Garden › Tools and pots",
        ("watering can", "plant pot", "hand trowel", "bird feeder", "seed tray"),
        (8, 60),
        (
            "rustproof",
            "frost resistant",
            "uv stable",
            "lightweight",
            "easy to assemble",
            "recycled",
            "leakproof",
        ),
        ("a wall bracket", "a hanging hook", "an ash handle", "a drip saucer"),
        ("balconies", "the first spring days", "raised beds", "window sills"),
        {"colour": _COLOURS, "size": _SIZES},
    ),
    Shelf(
        "Luggage › Bags",
        ("travel backpack", "gym bag", "shoulder bag", "lunch bag", "toiletry case"),
        (15, 110),
        (
            "water repellent",
            "cabin sized",
            "tear resistant",
            "expandable",
            "foldable",
            "insulated",
            "hand sewn",
        ),
        ("padded straps", "a shoe compartment", "a key clip", "a trolley sleeve"),
        ("short trips", "commuters", "training days", "picnics"),
        {"colour": _COLOURS, "material": ("canvas", "nylon", "felt", "cork")},
    ),
)

# Each start with each end is a brand: 150 of them, made up.
BRAND_STARTS = "Vor Tarb Quell Mund Bresk Olv Drun Farl Zemm Hask Plov Kest Jund Ombr Wend"
BRAND_ENDS = "ick aro ette unda ix orn ume ova esk ayo"

_WORDINGS = (
    "I need {thing}, in {options}, for at most {limit} dollars.",
    "Find {thing}. I want {options}, and pay {limit} dollars or less.",
    "I am looking for {thing}: {options}, not above {limit} dollars.",
    "Buy {thing} for me, {options}. It may cost up to {limit} dollars.",
)


def make_products() -> tuple[Product, ...]:
    """The 1,200 products, in an order without meaning."""
    rng = random.Random(_SEED)
    brands = [start + end for start in BRAND_STARTS.split() for end in BRAND_ENDS.split()]
    rng.shuffle(brands)
    kinds = [(shelf, kind) for shelf in SHELVES for kind in shelf.kinds]
    numbers = list(range(FIRST_NUMBER, FIRST_NUMBER + len(kinds) * PRODUCTS_PER_KIND))
    rng.shuffle(numbers)
    made = []
    for shelf, kind in kinds:
        makers = [brands.pop() for _ in range(BRANDS_PER_KIND)]
        for count in range(PRODUCTS_PER_KIND):
            brand = makers[count % BRANDS_PER_KIND]
            made.append(_product(f"B{numbers.pop()}", brand, kind, shelf, rng))
    return tuple(sorted(made, key=lambda product: product.asin))


def make_wishes(products: Iterable[Product]) -> Iterator[Wish]:
    """A wish for every product of the catalogue."""
    rng = random.Random(_SEED)
    shelves = {shelf.path: shelf for shelf in SHELVES}
    for product in products:
        path, _, _ = product.category.rpartition(f" {CATEGORY_SEPARATOR} ")
        yield _wish(product, shelves[path], rng)


def _product(asin: str, brand: str, kind: str, shelf: Shelf, rng: random.Random) -> Product:
    qualities = rng.sample(shelf.qualities, 3)
    parts = rng.sample(shelf.parts, 2)
    low, high = shelf.prices
    return Product(
        asin=asin,
        title=f"{brand} {kind}, {qualities[0]}",
        price=rng.randrange(2 * low, 2 * high) / 2,
        options=tuple((name, _some(values, rng)) for name, values in shelf.options.items()),
        description=f"{_a(kind).capitalize()} by {brand}, made for {rng.choice(shelf.uses)}.",
        features=(*(f"It is {one}." for one in qualities), *(f"It has {one}." for one in parts)),
        attributes=(*qualities, *(_bare(part) for part in parts)),
        query=kind,
        category=f"{shelf.path} {CATEGORY_SEPARATOR} {kind.capitalize()}",
    )


def _some(values: Sequence[str], rng: random.Random) -> tuple[str, ...]:
    """About half of the values, at least two, in their order."""
    drawn = set(rng.sample(values, rng.randint(2, len(values) // 2 + 1)))
    return tuple(value for value in values if value in drawn)


def _wish(product: Product, shelf: Shelf, rng: random.Random) -> Wish:
    qualities = [one for one in shelf.qualities if one in product.attributes]
    parts = [one for one in shelf.parts if _bare(one) in product.attributes]
    quality, part = rng.choice(qualities), rng.choice(parts)
    chosen = {name: rng.choice(values) for name, values in product.options}
    limit = 10 * (int(product.price) // 10 + rng.randint(1, 3))
    question = rng.choice(_WORDINGS).format(
        thing=f"{_a(f'{quality} {product.query}')} with {part}",
        options=" and ".join(f"{name} {value}" for name, value in chosen.items()),
        limit=limit,
    )
    goal = make_goal(
        product,
        attributes=(quality, _bare(part)),
        options=chosen.values(),
        price_limit=float(limit),
    )
    return Wish(product.asin, question, goal)


def _a(thing: str) -> str:
    return f"{'an' if thing[0] in 'aeio' else 'a'} {thing}"


def _bare(part: str) -> str:
    return part.removeprefix("a ").removeprefix("an ")
