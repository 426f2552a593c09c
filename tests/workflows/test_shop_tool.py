import asyncio
import copy
import json

import pytest

from workflows.agent_pack import AgentPack
from workflows.agent_pack import Product
from workflows.errors import ToolError
from workflows.tools import Toolbox
from workflows.tools.shop import TEXT_CHARACTERS
from workflows.tools.shop import TITLE_CHARACTERS
from workflows.tools.shop import Shop
from workflows.tools.shop import load

COAT = Product(
    asin="B1",
    title="Vorick rain coat",
    price=54.5,
    options=(("colour", ("black", "olive")), ("size", ("small", "large"))),
    description="A coat for\nwet days.",
    features=("It is windproof.", "It has zip pockets."),
    attributes=("secret",),
    query="hidden",
    category="unseen",
)
LAMP = Product(asin="B2", title="Mundaro desk lamp", price=20)
CUPS = tuple(
    Product(asin=f"C{number}", title=f"Cup number {number}", price=number)
    for number in range(1, 24)
)


def opened(*products: Product) -> Shop:
    shop = load(AgentPack(instruction="", products=products or (COAT, LAMP)))()
    assert isinstance(shop, Shop)
    return shop


async def act(shop: Shop, *actions: str) -> str:
    """The last observation, of a failed action its message."""
    tools = Toolbox([shop])
    observation = ""
    for action in actions:
        name, _, argument = action.partition("[")
        try:
            observation = await tools[name].call(argument.removesuffix("]"))
        except ToolError as error:
            observation = str(error)
    return observation


COAT_PAGE = (
    "B1: Vorick rain coat, $54.50; colour: black / olive; size: small / large "
    "(buttons: description, features, < prev, back to search)"
)


async def test_a_visit_from_the_search_to_the_purchase() -> None:
    shop = opened()
    assert await act(shop, "search[rain coat]") == (
        "Page 1 of 1; B1: Vorick rain coat, $54.50 (buttons: back to search)"
    )
    assert await act(shop, "click[B1]") == COAT_PAGE
    assert "olive (chosen)" in await act(shop, "click[olive]")
    assert "small (chosen)" in await act(shop, "click[small]")
    assert await act(shop, "buy[now]") == (
        '{"asin": "B1", "options": {"colour": "olive", "size": "small"}}'
    )


def test_a_visit_begins_with_a_search_keeps_its_order_and_ends_with_buying() -> None:
    tools = Toolbox([opened()])
    assert list(tools) == ["search", "click", "buy"]
    assert [name for name, tool in tools.items() if tool.ordered] == ["click", "buy"]
    assert tools.end == "buy"
    assert all(tool.description.startswith(f"{name}[") for name, tool in tools.items())


@pytest.mark.parametrize("keywords", ["windproof", "ZIP", "wet", "olive", "large"])
async def test_search_reads_every_text_that_is_shown(keywords: str) -> None:
    assert "B1: " in await act(opened(), f"search[{keywords}]")


@pytest.mark.parametrize("keywords", ["secret", "hidden", "unseen", "kayak", ""])
async def test_search_finds_nothing_by_other_words(keywords: str) -> None:
    assert await act(opened(), f"search[{keywords}]") == (
        f"No results for {keywords!r}. Search for other words."
    )


async def test_a_search_in_vain_leaves_the_page() -> None:
    shop = opened()
    await act(shop, "search[coat]", "click[b1]", "click[olive]", "search[kayak]")
    assert json.loads(await act(shop, "buy[now]"))["options"] == {"colour": "olive"}


async def test_search_works_on_any_page_and_forgets_what_was_chosen() -> None:
    shop = opened()
    await act(shop, "search[coat]", "click[B1]", "click[olive]", "click[features]")
    assert (await act(shop, "search[lamp]")).startswith("Page 1 of 1; B2: Mundaro desk lamp")
    assert await act(shop, "search[coat]", "click[B1]") == COAT_PAGE


async def test_an_empty_shop_has_no_results() -> None:
    shop = load(AgentPack(instruction=""))()
    assert isinstance(shop, Shop)
    assert (await act(shop, "search[coat]")).startswith("No results")


async def test_results_come_ten_a_page_and_fifty_at_most() -> None:
    shop = opened(*CUPS)
    first = await act(shop, "search[cup]")
    assert first.startswith("Page 1 of 3; C1: Cup number 1, $1.00; C2: ")
    assert first.count("; ") == 10
    assert first.endswith("(buttons: next >, back to search)")
    second = await act(shop, "click[Next >]")
    assert second.startswith("Page 2 of 3; C11: ")
    assert second.endswith("(buttons: < prev, next >, back to search)")
    third = await act(shop, "click[next >]")
    assert third.count("; ") == 3
    assert third.endswith("(buttons: < prev, back to search)")
    assert "Nothing here is called 'next >'" in await act(shop, "click[next >]")
    assert await act(shop, "click[< prev]") == second
    many = tuple(Product(asin=f"D{i}", title="cup", price=1) for i in range(80))
    assert (await act(opened(*many), "search[cup]")).startswith("Page 1 of 5; ")


async def test_only_products_of_the_page_can_be_opened() -> None:
    shop = opened(*CUPS)
    assert await act(shop, "search[cup]", "click[C11]") == (
        "Nothing here is called 'c11'. Click a product of this page, next > or back to search."
    )
    assert (await act(shop, "click[next >]", "click[c11]")).startswith("C11: Cup number 11")


async def test_prev_leads_back_along_the_way() -> None:
    shop = opened(*CUPS)
    page = await act(shop, "search[cup]", "click[next >]")
    assert await act(shop, "click[C12]", "click[< prev]") == page
    shop = opened()
    chosen = await act(shop, "search[coat]", "click[B1]", "click[olive]")
    assert await act(shop, "click[features]", "click[< prev]") == chosen
    assert await act(shop, "click[< prev]", "click[B1]") == COAT_PAGE


async def test_back_to_search_leads_to_the_beginning() -> None:
    shop = opened()
    for way in ([], ["click[B1]"], ["click[B1]", "click[description]"]):
        assert await act(shop, "search[coat]", *way, "click[back to search]") == "Search page."
        assert await act(shop, "click[B1]") == "Nothing here is called 'b1'. Search first."


async def test_texts_stand_on_pages_of_their_own() -> None:
    shop = opened()
    await act(shop, "search[coat]", "click[B1]")
    assert await act(shop, "click[Description]") == (
        "A coat for wet days. (buttons: < prev, back to search)"
    )
    assert await act(shop, "click[olive]") == (
        "Nothing here is called 'olive'. Click < prev or back to search."
    )
    assert await act(shop, "buy[now]") == (
        "Click < prev first: buying is done on the product's own page."
    )
    await act(shop, "click[< prev]")
    assert await act(shop, "click[features]") == (
        "It is windproof. It has zip pockets. (buttons: < prev, back to search)"
    )


async def test_a_product_without_texts_and_options_shows_no_buttons_for_them() -> None:
    shop = opened()
    assert await act(shop, "search[lamp]", "click[B2]") == (
        "B2: Mundaro desk lamp, $20.00 (buttons: < prev, back to search)"
    )
    assert "Nothing here" in await act(shop, "click[description]")
    assert await act(shop, "buy[now]") == '{"asin": "B2", "options": {}}'


async def test_a_value_replaces_the_one_chosen_before() -> None:
    shop = opened()
    bought = await act(shop, "search[coat]", "click[B1]", "click[BLACK]", "click[olive]", "buy[B1]")
    assert json.loads(bought)["options"] == {"colour": "olive"}


async def test_one_purchase_is_written_in_one_way() -> None:
    one = await act(
        opened(), "search[coat]", "click[B1]", "click[small]", "click[olive]", "buy[now]"
    )
    other = await act(
        opened(), "search[coat]", "click[B1]", "click[olive]", "click[small]", "buy[b1]"
    )
    assert one == other


async def test_a_value_of_several_options_is_the_first_unless_its_option_is_named() -> None:
    mat = Product(
        asin="M1", title="mat", price=5, options=(("top", ("red",)), ("rim", ("red", "tan")))
    )
    by_value = await act(opened(mat), "search[mat]", "click[M1]", "click[red]", "buy[now]")
    assert json.loads(by_value)["options"] == {"top": "red"}
    by_name = await act(opened(mat), "search[mat]", "click[M1]", "click[rim: red]", "buy[now]")
    assert json.loads(by_name)["options"] == {"rim": "red"}


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (["buy[now]"], "No product is open. Click one first."),
        (["search[coat]", "buy[B1]"], "No product is open. Click one first."),
        (["search[coat]", "click[B1]", "buy[B2]"], "The open product is B1. Use buy[now]"),
        (["search[coat]", "click[B1]", "click[Buy Now]"], "To buy the open product, use buy[now]."),
        (["click[B1]"], "Nothing here is called 'b1'. Search first."),
        (
            ["search[coat]", "click[B1]", "click[pink]"],
            "Nothing here is called 'pink'. Click an option's value, description or features or",
        ),
    ],
)
async def test_what_cannot_be_done_is_said(actions: list[str], message: str) -> None:
    assert (await act(opened(), *actions)).startswith(message)


async def test_long_texts_are_cut() -> None:
    shop = opened(Product(asin="L1", title="mat " * 60, price=1, description="word " * 500))
    results = await act(shop, "search[mat]")
    title = results.partition("L1: ")[2].partition(", $")[0]
    assert title.endswith("…")
    assert len(title) <= TITLE_CHARACTERS
    await act(shop, "click[L1]")
    text = (await act(shop, "click[description]")).partition(" (buttons")[0]
    assert text.endswith("…")
    assert len(text) <= TEXT_CHARACTERS


async def test_a_fork_goes_its_own_way() -> None:
    shop = opened()
    await act(shop, "search[coat]", "click[B1]", "click[small]")
    fork = copy.copy(shop)
    await act(fork, "click[olive]", "click[large]")
    assert json.loads(await act(shop, "buy[now]"))["options"] == {"size": "small"}
    assert json.loads(await act(fork, "buy[now]"))["options"] == {
        "colour": "olive",
        "size": "large",
    }
    await act(shop, "click[back to search]")
    assert json.loads(await act(fork, "buy[now]"))["asin"] == "B1"


async def test_forks_at_once_do_not_meet() -> None:
    shop = opened(*CUPS)
    await act(shop, "search[cup]")
    ways = [f"C{number}" for number in range(1, 11)]
    bought = await asyncio.gather(
        *(act(copy.copy(shop), f"click[{asin}]", "buy[now]") for asin in ways)
    )
    assert [json.loads(one)["asin"] for one in bought] == ways


def test_visits_are_apart() -> None:
    open_shop = load(AgentPack(instruction="", products=(COAT,)))
    assert open_shop() is not open_shop()
