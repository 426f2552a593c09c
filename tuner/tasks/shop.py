"""Shopping as in WebShop (Yao et al., arXiv 2207.01206): find and buy what somebody asks for, in the right colour and size.

    I need a breathable rain coat with zip pockets, in colour yellow and size medium, for at most 60 dollars.

Without files the shop is tuner.tasks.catalogue's. With WebShop's (tuner.tasks.webshop), questions come from `goals`
where it is given, else from the instructions in `attributes`.

An answer is what the `buy` tool says, and is scored by WebShop's reward (tuner.tasks.purchase); any other is 0.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import ValidationError
from pydantic import model_validator

from tuner.tasks import Example
from tuner.tasks import Task
from tuner.tasks import TaskOptions
from tuner.tasks import webshop
from tuner.tasks.catalogue import make_products
from tuner.tasks.catalogue import make_wishes
from tuner.tasks.purchase import CATEGORY_SEPARATOR
from tuner.tasks.purchase import Goal
from tuner.tasks.purchase import Wish
from tuner.tasks.purchase import best_options
from tuner.tasks.purchase import reward
from tuner.tasks.reading import draw_splits
from workflows.agent_pack import AgentPack
from workflows.agent_pack import Demonstration
from workflows.agent_pack import Product
from workflows.agent_pack import Step
from workflows.tools.shop import purchase

INSTRUCTION = "Find the product that the shopper wants, choose the options, and buy it."


class Options(TaskOptions):
    """Keys of `task: {name: shop}` in a study."""

    products: str | None = Field(
        default=None, description="WebShop's items_shuffle*.json; a made-up catalogue without it"
    )
    attributes: str | None = Field(default=None, description="WebShop's items_ins_v2*.json")
    goals: str | None = Field(default=None, description="WebShop's items_human_ins.json")
    score: Literal["reward", "success"] = Field(
        default="reward", description="WebShop's reward, or whether it is 1"
    )

    @model_validator(mode="after")
    def _files_go_together(self) -> "Options":
        if self.products and not (self.attributes or self.goals):
            raise ValueError("products needs attributes, goals or both, which hold the questions")
        if not self.products and (self.attributes or self.goals):
            raise ValueError("attributes and goals need products, which they are about")
        return self


class Purchase(BaseModel):
    """An answer: what was bought."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    asin: str
    options: dict[str, str]


def load(options: Options, base: Path) -> Task:
    """The task on the made-up catalogue or on files. Raises DataError when a file cannot be used or holds too few questions."""
    path, products, wishes = _open(options, base)
    shop = {product.asin: product for product in products}
    search, holdout = draw_splits(
        (_example(wish, shop[wish.goal.asin]) for wish in wishes),
        options,
        path=path,
        shown=(demonstration.question for demonstration in DEMONSTRATIONS),
    )
    pack = AgentPack(
        instruction=INSTRUCTION,
        demonstrations=DEMONSTRATIONS,
        toolkits=("shop",),
        answer="action",
        products=products,
    )
    measure = reward if options.score == "reward" else _success

    async def score(example: Example, answer: str) -> float:
        return _score(answer, Goal.model_validate_json(example.secret), shop, measure)

    return Task("shop", pack, search, holdout, score)


def _open(options: Options, base: Path) -> tuple[Path, tuple[Product, ...], Iterable[Wish]]:
    """Where the questions come from, for messages; what is sold; what is wished for."""
    if options.products is None:
        products = make_products()
        return Path("the made-up catalogue"), products, make_wishes(products)
    attributes = webshop.read_attributes(base / options.attributes) if options.attributes else {}
    products = webshop.read_products(base / options.products, attributes)
    if options.goals:
        path = base / options.goals
        return path, products, webshop.human_wishes(products, webshop.read_instructions(path))
    path = base / (options.attributes or options.products)
    return path, products, webshop.synthetic_wishes(products, attributes)


def _score(
    answer: str,
    goal: Goal,
    shop: Mapping[str, Product],
    measure: Callable[[Product, Mapping[str, str], Goal], float],
) -> float:
    """What the measure gives for a purchase in this shop; 0 for an answer that is none."""
    try:
        bought = Purchase.model_validate_json(answer)
    except ValidationError:
        return 0.0
    product = shop.get(bought.asin)
    if product is None or not bought.options.items() <= {
        (name, value) for name, values in product.options for value in values
    }:
        return 0.0
    return measure(product, bought.options, goal)


def _success(product: Product, chosen: Mapping[str, str], goal: Goal) -> float:
    return float(reward(product, chosen, goal) == 1)


def _example(wish: Wish, product: Product) -> Example:
    department, _, _ = product.category.partition(CATEGORY_SEPARATOR)
    return Example(
        wish.id,
        wish.question,
        (purchase(product, best_options(product, wish.goal)),),
        kind=department.strip(),
        secret=wish.goal.model_dump_json(),
    )


def _worked(
    question: str, reasoning: str, answer: str, *actions: tuple[str, str, str, str], end: str
) -> Demonstration:
    """A demonstration whose steps are (thought, tool, argument, observation), then the purchase after the thought `end`."""
    steps = [
        Step(thought=thought, tool=tool, argument=argument, observation=observation)
        for thought, tool, argument, observation in actions
    ]
    return Demonstration(
        question=question,
        answer=answer,
        reasoning=reasoning,
        steps=(*steps, Step(thought=end, tool="buy", argument="now")),
    )


# Goods of a shop of their own, which no question asks for.
DEMONSTRATIONS = (
    _worked(
        "I need a quiet electric kettle in colour steel and size 1 litre, for at most 50 dollars.",
        "K11 is a quiet electric kettle for $42.00, with colour steel and size 1 litre.",
        '{"asin": "K11", "options": {"colour": "steel", "size": "1 litre"}}',
        (
            "I search for quiet electric kettles.",
            "search",
            "quiet electric kettle",
            "Page 1 of 1; K11: Tornby electric kettle, quiet, $42.00; K12: Halvor electric kettle, fast boiling, $35.50 (buttons: back to search)",
        ),
        (
            "K11 is quiet and costs less than 50 dollars. I open it.",
            "click",
            "K11",
            "K11: Tornby electric kettle, quiet, $42.00; colour: white / steel; size: 1 litre / 2 litres (buttons: features, < prev, back to search)",
        ),
        (
            "It comes in steel.",
            "click",
            "steel",
            "K11: Tornby electric kettle, quiet, $42.00; colour: white / steel (chosen); size: 1 litre / 2 litres (buttons: features, < prev, back to search)",
        ),
        (
            "Now the size.",
            "click",
            "1 litre",
            "K11: Tornby electric kettle, quiet, $42.00; colour: white / steel (chosen); size: 1 litre (chosen) / 2 litres (buttons: features, < prev, back to search)",
        ),
        end="Colour and size are chosen. I buy it.",
    ),
    _worked(
        "Find a silent wall clock for at most 40 dollars.",
        "C31 costs too much. C32 is a silent wall clock for $24.00, and has no options.",
        '{"asin": "C32", "options": {}}',
        (
            "I search for silent wall clocks.",
            "search",
            "silent wall clock",
            "Page 1 of 1; C32: Ostrel wall clock, silent, small, $24.00; C31: Ostrel wall clock, silent, $58.00 (buttons: back to search)",
        ),
        (
            "C31 costs more than 40 dollars, C32 less. I open C32.",
            "click",
            "C32",
            "C32: Ostrel wall clock, silent, small, $24.00 (buttons: features, < prev, back to search)",
        ),
        end="There is nothing to choose. I buy it.",
    ),
    _worked(
        "I am looking for a yoga mat with a carry strap: colour green, not above 35 dollars.",
        "M21 is a yoga mat with a carry strap for $28.00, with colour green.",
        '{"asin": "M21", "options": {"colour": "green"}}',
        (
            "I search for yoga mats with a carry strap.",
            "search",
            "yoga mat carry strap",
            "Page 1 of 1; M21: Sunnel yoga mat, $28.00; M22: Pradel yoga mat, extra thick, $39.00 (buttons: back to search)",
        ),
        (
            "M21 costs less than 35 dollars. I open it.",
            "click",
            "M21",
            "M21: Sunnel yoga mat, $28.00; colour: purple / green (buttons: features, < prev, back to search)",
        ),
        (
            "Has it a carry strap? I look at its features.",
            "click",
            "features",
            "It is 6 mm thick. It comes with a carry strap. (buttons: < prev, back to search)",
        ),
        (
            "It has one. I go back to the product.",
            "click",
            "< prev",
            "M21: Sunnel yoga mat, $28.00; colour: purple / green (buttons: features, < prev, back to search)",
        ),
        (
            "Now the colour.",
            "click",
            "green",
            "M21: Sunnel yoga mat, $28.00; colour: purple / green (chosen) (buttons: features, < prev, back to search)",
        ),
        end="It has the strap and the colour. I buy it.",
    ),
    _worked(
        "Buy a lined rain boot for me, size 41. It may cost up to 60 dollars.",
        "T41 does not come in size 41. T42 is a lined rain boot for $44.50, with size 41.",
        '{"asin": "T42", "options": {"size": "41"}}',
        (
            "I search for lined rain boots.",
            "search",
            "lined rain boot",
            "Page 1 of 1; T41: Brevik rain boot, lined, $49.00; T42: Marlo rain boot, lined, $44.50 (buttons: back to search)",
        ),
        (
            "T41 is lined and costs less than 60 dollars. I open it.",
            "click",
            "T41",
            "T41: Brevik rain boot, lined, $49.00; size: 37 / 38 / 39 (buttons: features, < prev, back to search)",
        ),
        (
            "It does not come in size 41. I go back to the results.",
            "click",
            "< prev",
            "Page 1 of 1; T41: Brevik rain boot, lined, $49.00; T42: Marlo rain boot, lined, $44.50 (buttons: back to search)",
        ),
        (
            "T42 is lined too.",
            "click",
            "T42",
            "T42: Marlo rain boot, lined, $44.50; size: 40 / 41 / 42 (buttons: features, < prev, back to search)",
        ),
        (
            "It comes in size 41.",
            "click",
            "41",
            "T42: Marlo rain boot, lined, $44.50; size: 40 / 41 (chosen) / 42 (buttons: features, < prev, back to search)",
        ),
        end="The size is chosen. I buy it.",
    ),
    _worked(
        "I need a jotter with dotted pages, in colour orange and size a5, for at most 10 dollars.",
        "N51 is a notebook with dotted pages for $9.50, with colour orange and size a5.",
        '{"asin": "N51", "options": {"colour": "orange", "size": "a5"}}',
        (
            "I search for jotters.",
            "search",
            "jotter",
            "No results for 'jotter'. Search for other words.",
        ),
        (
            "The shop may call it a notebook.",
            "search",
            "notebook dotted pages",
            "Page 1 of 1; N51: Fennick notebook, dotted pages, $9.50; N52: Fennick notebook, ruled pages, $8.00 (buttons: back to search)",
        ),
        (
            "N51 has dotted pages and costs less than 10 dollars. I open it.",
            "click",
            "N51",
            "N51: Fennick notebook, dotted pages, $9.50; colour: black / orange; size: a5 / a4 (buttons: features, < prev, back to search)",
        ),
        (
            "First the colour.",
            "click",
            "orange",
            "N51: Fennick notebook, dotted pages, $9.50; colour: black / orange (chosen); size: a5 / a4 (buttons: features, < prev, back to search)",
        ),
        (
            "Now the size.",
            "click",
            "a5",
            "N51: Fennick notebook, dotted pages, $9.50; colour: black / orange (chosen); size: a5 (chosen) / a4 (buttons: features, < prev, back to search)",
        ),
        end="Colour and size are chosen. I buy it.",
    ),
    _worked(
        "Find a rechargeable bicycle lamp with an aluminium clamp. I want light rear, and pay 40 dollars or less.",
        "L61 is a rechargeable bicycle lamp with an aluminium clamp for $31.00, with light rear.",
        '{"asin": "L61", "options": {"light": "rear"}}',
        (
            "I search for rechargeable bicycle lamps.",
            "search",
            "rechargeable bicycle lamp",
            "Page 1 of 1; L61: Quarl bicycle lamp, rechargeable, $31.00; L62: Quarl bicycle bell, loud, $12.00 (buttons: back to search)",
        ),
        (
            "L61 costs less than 40 dollars. I open it.",
            "click",
            "L61",
            "L61: Quarl bicycle lamp, rechargeable, $31.00; light: front / rear (buttons: description, features, < prev, back to search)",
        ),
        (
            "Is its clamp made of aluminium? I look at its description.",
            "click",
            "description",
            "A lamp for the handlebar or the seat post. Its clamp is made of aluminium. (buttons: < prev, back to search)",
        ),
        (
            "It is. I go back to the product.",
            "click",
            "< prev",
            "L61: Quarl bicycle lamp, rechargeable, $31.00; light: front / rear (buttons: description, features, < prev, back to search)",
        ),
        (
            "Now the light.",
            "click",
            "rear",
            "L61: Quarl bicycle lamp, rechargeable, $31.00; light: front / rear (chosen) (buttons: description, features, < prev, back to search)",
        ),
        end="The light is chosen. I buy it.",
    ),
)
