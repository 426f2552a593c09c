"""How a program is judged by hidden tests; apart from the tasks, because HumanEval and MBPP share it.

`judge` says what keeps the program from its tests.
"""

import ast
import textwrap
from pathlib import Path

from pydantic import BaseModel
from pydantic import ConfigDict

from tuner.tasks.worked import worked
from workflows.agent_pack import Demonstration
from workflows.tools.sandbox import run_python

WALL_S = 10.0
"""For a program and all its tests."""

_JUDGE = Path(__file__).with_name("judge.py")


class Tests(BaseModel):
    """The hidden tests of one question, as `Example.secret` holds them in JSON."""

    model_config = ConfigDict(frozen=True)
    __test__ = False  # no tests of pytest's

    before: str
    """Code that the tests and a program share: imports, helpers."""
    entry: str = ""
    """The function under test, where `before` defines one of its name."""
    tests: str
    """Code that raises where a program is wrong."""


async def passes(program: str, tests: Tests) -> float:
    """1 when all tests pass within the sandbox's limits, else 0. Raises SandboxError."""
    source = _JUDGE.read_text("utf-8")
    call = f"judge({source!r}, {program!r}, {tests.before!r}, {tests.entry!r}, {tests.tests!r})"
    ran = await run_python(f"{source}\n{call}\n", wall_s=WALL_S)
    return float(ran.exit_code == 0)


def defines(program: str, name: str) -> bool:
    """Whether a program gives that name a function or a value at its top level; False where it is no program."""
    try:
        body = ast.parse(program).body
    except (SyntaxError, ValueError, RecursionError):
        return False
    return any(name in _bound(statement) for statement in body)


def _bound(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    return {
        node.id
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def programmed(
    question: str, reasoning: str, program: str, *runs: tuple[str, str, str], end: str
) -> Demonstration:
    """A demonstration whose steps are runs (thought, program, observation), then the answer after the thought `end`."""
    actions = [(thought, "run", _flush(tried), seen) for thought, tried, seen in runs]
    return worked(question, reasoning, _flush(program), *actions, end=end)


def _flush(program: str) -> str:
    return textwrap.dedent(program).strip()
