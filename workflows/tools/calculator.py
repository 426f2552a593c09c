"""`calculate` for arithmetic, evaluated by simpleeval: names, calls, text and huge powers are refused, so no code can run."""

import ast
import operator
from collections.abc import Callable
from collections.abc import Iterable
from typing import Any

from workflows.agent_pack import AgentPack
from workflows.errors import ToolError
from workflows.tools import Tool
from workflows.tools import Toolkit

MAX_CHARACTERS = 500
MAX_BITS = 4096
"""Of a power's value: more than any question asks for, and still computed at once."""


async def calculate(expression: str) -> str:
    """The value of an arithmetic expression, whole numbers without a fraction. Raises ToolError."""
    from simpleeval import InvalidExpression  # only agents with this tool need it
    from simpleeval import SimpleEval

    if len(expression) > MAX_CHARACTERS:
        raise ToolError(f"Cannot calculate more than {MAX_CHARACTERS} characters.")
    text = expression.replace(",", "").replace("$", "").replace("^", "**").strip()
    evaluator = SimpleEval(operators=_OPERATORS, functions={}, names={})
    try:
        tree = ast.parse(text, mode="eval")
        if any(
            isinstance(node, ast.Constant) and not _is_number(node.value) for node in ast.walk(tree)
        ):
            raise TypeError("only numbers")  # text could be formatted to any length
        return _show(evaluator.eval(text, previously_parsed=tree.body))
    except (
        InvalidExpression,
        SyntaxError,
        ArithmeticError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise ToolError(f"Cannot calculate {expression}: {error}") from None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _show(value: object) -> str:
    if not _is_number(value):
        raise TypeError("not a number")
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _power(base: Any, exponent: Any) -> Any:
    bits = base.bit_length() if isinstance(base, int) else 1
    if bits * abs(exponent) > MAX_BITS:
        raise OverflowError("too large a power")
    return base**exponent


_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


class Calculator:
    """A calculator; it remembers nothing."""

    def tools(self) -> Iterable[Tool]:
        """`calculate`."""
        return (Tool("calculate", "calculate[expression] gives its value", calculate),)


def load(pack: AgentPack) -> Toolkit:
    """A toolkit of `calculate`; it needs nothing from the pack."""
    return Calculator
