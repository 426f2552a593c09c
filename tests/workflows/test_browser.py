from workflows import AgentPack
from workflows import Document
from workflows.tools import Tool
from workflows.tools.browser import load


def opened(pack: AgentPack) -> dict[str, Tool]:
    return {tool.name: tool for tool in load(pack)().tools()}


async def test_search_gives_the_first_five_sentences(pack: AgentPack) -> None:
    tools = opened(pack)
    shown = "Anna is a smith. She lives in Oak. Her anvil is old. She has a dog. The dog sleeps."
    assert await tools["search"].call("Anna") == shown
    assert await tools["search"].call(" anna ") == shown


async def test_lookup_walks_the_sentences_with_the_keyword(pack: AgentPack) -> None:
    tools = opened(pack)
    await tools["search"].call("Anna")
    look = tools["lookup"].call
    assert await look("dog") == "(Result 1 / 3) She has a dog."
    assert await look("DOG") == "(Result 2 / 3) The dog sleeps."
    assert await look("dog") == "(Result 3 / 3) A dog guards Oak."
    assert await look("dog") == "No more results."
    assert await look("dog") == "No more results."
    assert await look("oak") == "(Result 1 / 3) She lives in Oak."
    assert await look("dog") == "(Result 1 / 3) She has a dog."
    assert await look("cat") == "No more results."


async def test_a_page_that_is_found_resets_the_lookup(pack: AgentPack) -> None:
    tools = opened(pack)
    await tools["search"].call("Anna")
    await tools["lookup"].call("dog")
    await tools["search"].call("Anna")
    assert await tools["lookup"].call("dog") == "(Result 1 / 3) She has a dog."
    await tools["search"].call("Old Bert")
    assert await tools["lookup"].call("dog") == "(Result 1 / 1) Old Bert owns no dog."


async def test_a_miss_names_similar_titles_and_leaves_the_page_open(pack: AgentPack) -> None:
    tools = opened(pack)
    await tools["search"].call("Anna")
    await tools["lookup"].call("dog")
    missed = await tools["search"].call("Old Berta Bert")
    assert missed == "Could not find Old Berta Bert. Similar: Old Bert, Bert, Anna."
    assert await tools["lookup"].call("dog") == "(Result 2 / 3) The dog sleeps."


async def test_a_miss_names_five_titles_at_most() -> None:
    pages = tuple(Document(title=f"Mill {i}", sentences=("x",)) for i in range(9))
    tools = opened(AgentPack(instruction="", documents=pages))
    assert await tools["search"].call("mill") == (
        "Could not find mill. Similar: Mill 0, Mill 1, Mill 2, Mill 3, Mill 4."
    )


async def test_lookup_needs_a_page(pack: AgentPack) -> None:
    assert await opened(pack)["lookup"].call("dog") == "No page is open. Search for one first."


async def test_each_opening_has_its_own_cursor(pack: AgentPack) -> None:
    toolkit = load(pack)
    one, other = ({tool.name: tool for tool in toolkit().tools()} for _ in range(2))
    for tools in (one, other):
        await tools["search"].call("Anna")
        assert await tools["lookup"].call("dog") == "(Result 1 / 3) She has a dog."
