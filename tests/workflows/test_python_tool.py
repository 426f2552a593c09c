import asyncio
import copy
import sys

import pytest

from workflows import AgentPack
from workflows.tools import Toolbox
from workflows.tools import call_tool
from workflows.tools import python
from workflows.tools.python import load
from workflows.trace import Trace

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are run on Linux only")


async def act(program: str) -> str:
    tools = Toolbox([load(AgentPack(instruction="Write a program."))()])
    return (await call_tool(tools, "run", program, Trace())).text


@pytest.mark.parametrize(
    ("program", "observation"),
    [
        ("for i in range(2):\n    print(i)", "0\n1"),
        ("x = 1", "(no output)"),
        ("print()", "(no output)"),
        ("raise SystemExit(3)", "(exit code 3)"),
        ("print('a')\nraise SystemExit(3)", "a"),
        ("import os\nprint('a')\nos.abort()", "a\n(ended by signal 6)"),
        ("while True: print('x' * 65536)", None),
    ],
)
async def test_what_a_program_prints_is_seen(program: str, observation: str | None) -> None:
    seen = await act(program)
    if observation is None:
        assert seen.endswith("x\n(stopped, for it printed too much)")
        assert len(seen) < python.SHOWN_BYTES + 100
    else:
        assert seen == observation


async def test_an_error_is_seen_with_its_line() -> None:
    seen = await act("def half(x):\n    return x / 0\n\nprint(half(3))")
    assert seen.startswith('Traceback (most recent call last):\n  File "program.py", line 4')
    assert seen.endswith("ZeroDivisionError: division by zero")


async def test_an_endless_program_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "WALL_S", 0.5)
    assert await act("print('on')\nwhile True: pass") == "on\n(stopped after 0.5 seconds)"


async def test_it_takes_a_block_and_remembers_nothing() -> None:
    kit = load(AgentPack(instruction="Write a program."))()
    (tool,) = kit.tools()
    assert (tool.name, tool.block, tool.ends, tool.ordered) == ("run", True, False, False)
    assert await tool.call("x = 5") == "(no output)"
    fork = copy.copy(kit)
    (again,) = fork.tools()
    seen = await asyncio.gather(again.call("print(x)"), tool.call("open('a', 'w'); print(2)"))
    assert "NameError" in seen[0]
    assert seen[1] == "2"
