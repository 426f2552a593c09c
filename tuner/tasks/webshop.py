"""Products and wishes from WebShop's official files (Yao et al., arXiv 2207.01206); apart from the task, which can do without them.

Products are one JSON array (items_shuffle.json, items_shuffle_1000.json). Other keys are passed over, and all but
`asin` and `name` may be missing or null:

    {"asin": "B07X", "name": "Vorick rain coat", "pricing": "$41.00$58.00", "query": "women's coats",
     "product_category": "Clothing › Women › Coats", "full_description": "…", "small_description": ["Zip pockets.", …],
     "customization_options": {"size": [{"value": "small"}, {"value": "large"}], "color": null}}

Attributes (items_ins_v2.json) and people's instructions (items_human_ins.json) are objects by asin:

    {"B07X": {"attributes": ["zip pockets", "windproof"], "instruction": "Find me …", "instruction_attributes": ["windproof"]}}
    {"B07X": [{"instruction": "I want …", "instruction_attributes": ["windproof"], "instruction_options": ["large"]}]}

A product of several prices has the lowest. As in WebShop, a price limit is one of the next tens of dollars
above the price, the larger of two drawn from the first four.
"""

import random
import re
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from typing import TypeVar

from pydantic import BeforeValidator
from pydantic import TypeAdapter
from pydantic import ValidationError

from tuner.errors import DataError
from tuner.tasks.purchase import Wish
from tuner.tasks.purchase import make_goal
from tuner.tasks.reading import Row
from tuner.tasks.reading import Text
from tuner.tasks.reading import read_rows
from workflows.agent_pack import Product

PRICE_UNKNOWN = 100.0  # dollars, as WebShop has it
PRICE_LIMITS = range(10, 1000, 10)
LONGEST_ASIN = 10

_AMOUNT = re.compile(r"\d[\d,]*(?:\.\d+)?")

ValueT = TypeVar("ValueT")


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    texts = map(_text, value if isinstance(value, list) else [value])
    return tuple(text for text in texts if text)


def _options(value: object) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Options and values of `{name: [{"value": …}, …]}`; null, and options without a value, are left out."""
    offers = value.items() if isinstance(value, dict) else ()
    read = {
        name.lower(): _texts([one.get("value") for one in listed if isinstance(one, dict)])
        for name, listed in offers
        if isinstance(listed, list)
    }
    return tuple(
        (name, tuple(dict.fromkeys(map(_option_value, values))))
        for name, values in read.items()
        if values
    )


def _option_value(text: str) -> str:
    """A value as WebShop shows it."""
    return text.replace("/", " | ").lower()


LooseText = Annotated[str, BeforeValidator(_text)]
"""Whatever is no text counts as none."""
LooseTexts = Annotated[tuple[str, ...], BeforeValidator(_texts)]
"""One text or a list of them."""


class _Item(Row):
    asin: Text
    name: Text
    query: LooseText = ""
    product_category: LooseText = ""
    full_description: LooseText = ""
    small_description: LooseTexts = ()
    pricing: LooseText = ""
    customization_options: Annotated[
        tuple[tuple[str, tuple[str, ...]], ...], BeforeValidator(_options)
    ] = ()


class Attributes(Row):
    """What a product is like, and an instruction written for it."""

    attributes: LooseTexts = ()
    instruction: LooseText = ""
    instruction_attributes: LooseTexts = ()


class Instruction(Row):
    """What somebody asked for."""

    instruction: Text
    instruction_attributes: LooseTexts = ()
    instruction_options: LooseTexts = ()


def read_attributes(path: Path) -> dict[str, Attributes]:
    """Attributes by asin. Raises DataError for a file that cannot be used."""
    return _read_by_asin(path, Attributes)


def read_instructions(path: Path) -> dict[str, tuple[Instruction, ...]]:
    """People's instructions by asin. Raises DataError for a file that cannot be used."""
    return _read_by_asin(path, tuple[Instruction, ...])


def read_products(path: Path, attributes: Mapping[str, Attributes]) -> tuple[Product, ...]:
    """Products as WebShop takes them: the first of an asin, and none whose asin is "nan" or too long.

    Raises DataError for a file that cannot be used.
    """
    products: dict[str, Product] = {}
    for _, item in read_rows(path, _Item):
        if item.asin == "nan" or len(item.asin) > LONGEST_ASIN or item.asin in products:
            continue
        products[item.asin] = Product(
            asin=item.asin,
            title=item.name,
            price=_price(item.pricing),
            options=item.customization_options,
            description=item.full_description,
            features=item.small_description,
            attributes=attributes[item.asin].attributes if item.asin in attributes else (),
            query=item.query.lower(),
            category=item.product_category,
        )
    return tuple(products.values())


def human_wishes(
    products: Iterable[Product], instructions: Mapping[str, Sequence[Instruction]]
) -> Iterator[Wish]:
    """A wish for every instruction that names an attribute, as WebShop takes them."""
    for product in products:
        for number, asked in enumerate(instructions.get(product.asin, ()), 1):
            if asked.instruction_attributes:
                yield _wish(
                    f"{product.asin}/{number}",
                    asked.instruction,
                    product,
                    asked.instruction_attributes,
                    [_option_value(value) for value in asked.instruction_options],
                )


def synthetic_wishes(
    products: Iterable[Product], attributes: Mapping[str, Attributes]
) -> Iterator[Wish]:
    """A wish for every product with an instruction of its own; options are drawn, since it names none."""
    for product in products:
        written = attributes.get(product.asin)
        if written is None or not (written.instruction and written.instruction_attributes):
            continue
        rng = random.Random(product.asin)
        chosen = {name: rng.choice(values) for name, values in product.options}
        named = ", ".join(f"{name} {value}" for name, value in chosen.items())
        instruction = written.instruction.rstrip(". ")
        yield _wish(
            product.asin,
            f"{instruction}, in {named}" if named else instruction,
            product,
            written.instruction_attributes,
            list(chosen.values()),
        )


def _wish(
    id: str, instruction: str, product: Product, attributes: Sequence[str], options: Sequence[str]
) -> Wish:
    limits = [float(limit) for limit in PRICE_LIMITS if limit > product.price][:4]
    limit = max(random.Random(id).sample(limits, 2)) if len(limits) > 1 else None
    priced = "" if limit is None else f", for at most {limit:.0f} dollars"
    return Wish(
        id,
        f"{instruction.rstrip('. ')}{priced}.",
        make_goal(product, attributes=attributes, options=options, price_limit=limit),
    )


def _price(pricing: str) -> float:
    amounts = [float(amount.replace(",", "")) for amount in _AMOUNT.findall(pricing)]
    return min(amounts, default=PRICE_UNKNOWN)


def _read_by_asin(path: Path, kind: type[ValueT]) -> dict[str, ValueT]:
    try:
        found: dict[str, ValueT] = TypeAdapter(dict[str, kind]).validate_json(path.read_bytes())  # type: ignore[valid-type]
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}",
            hint="is the path right, and may you read it? A relative path starts from the study file's folder",
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{path}: {where + ': ' if where else ''}{first['msg']}",
            hint="give the file as WebShop publishes it: one JSON object by asin",
        ) from None
    return found
