"""What the tests of several tasks need."""

import re
from collections.abc import Awaitable
from collections.abc import Callable

import pytest

from workflows.agent_pack import AgentPack
from workflows.agent_pack import Demonstration
from workflows.agent_pack import Document
from workflows.tools import load_toolkits
from workflows.tools.browser import OPENING_SENTENCES
from workflows.tools.calculator import calculate

MISS = "Could not find"
Check = Callable[[Demonstration], Awaitable[None]]


@pytest.fixture
def check_browsed() -> Check:
    """Replays a demonstration's actions on pages made of its observations, and expects to see the same."""

    async def check(demo: Demonstration) -> None:
        *actions, finish = demo.steps
        pages: dict[str, list[str]] = {}
        similar: list[str] = []
        title = ""
        for step in actions:
            if step.observation.startswith(MISS):
                similar = step.observation.partition("Similar: ")[2].rstrip(".").split(", ")
            elif step.tool == "search":
                title = step.argument
                pages[title] = re.split(r"(?<=[.]) ", step.observation)
                assert len(pages[title]) <= OPENING_SENTENCES
            elif step.observation != "No more results.":
                assert len(pages[title]) >= OPENING_SENTENCES
                pages[title].append(re.sub(r"^\(Result \d / \d\) ", "", step.observation))
        documents = [Document(title=name, sentences=tuple(text)) for name, text in pages.items()]
        documents += [Document(title=name, sentences=()) for name in similar if name not in pages]
        pack = AgentPack(instruction="", toolkits=("browser",), documents=tuple(documents))
        tools = {tool.name: tool for toolkit in load_toolkits(pack) for tool in toolkit().tools()}
        for step in actions:
            observation = await tools[step.tool].call(step.argument)
            if step.observation.startswith(MISS):
                prefix = f"{MISS} {step.argument}. Similar: "
                assert step.observation.startswith(prefix)
                found = observation.removeprefix(prefix).rstrip(".").split(", ")
                assert set(similar) <= set(found)
            else:
                assert observation == step.observation
        assert finish.tool == "finish"
        assert finish.argument == demo.answer

    return check


@pytest.fixture
def check_calculated() -> Check:
    """Does a demonstration's sums again."""

    async def check(demo: Demonstration) -> None:
        *sums, finish = demo.steps
        assert sums
        for step in sums:
            assert step.tool == "calculate"
            assert await calculate(step.argument) == step.observation
        assert finish.tool == "finish"
        assert finish.argument == demo.answer

    return check
