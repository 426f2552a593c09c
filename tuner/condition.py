"""A comparison written as text, `<= 20`; apart, because search spaces and constraints both hold some."""

import operator
import re
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml

from workflows.yaml_data import read_yaml

_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
    "!=": operator.ne,
}
_EXPONENT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+")
"""Numbers that YAML 1.1, hence PyYAML, takes for words."""
_FORM = re.compile(r"\s*(<=|>=|==|!=|<|>)\s*(\S.*)")


@dataclass(frozen=True, slots=True)
class Condition:
    """`operator value`, to be held against a value on its left."""

    sign: str
    value: bool | int | float | str

    @classmethod
    @lru_cache(maxsize=1024, typed=True)  # a listed space asks the same few for every config
    def parse(cls, text: bool | int | float | str) -> "Condition":
        """A condition from `">= 1"`; a plain value means equality. Raises ValueError."""
        if not isinstance(text, str):
            return cls("==", text)
        match = _FORM.fullmatch(text)
        if match is None and text.lstrip()[:1] in ("<", ">", "=", "!"):
            raise ValueError(f"{text!r} is no comparison; write one like '>= 1'")
        if match is None:
            return cls("==", text)
        try:
            written = match[2].strip()
            value = float(written) if _EXPONENT.fullmatch(written) else read_yaml(written)
        except yaml.YAMLError:
            value = None
        if not isinstance(value, bool | int | float | str):
            raise ValueError(f"{text!r} does not compare with a number or a word")
        return cls(match[1], value)

    def holds(self, value: bool | int | float | str) -> bool:
        """Whether `value operator self.value` is true; False where the two cannot be ordered."""
        try:
            return _OPERATORS[self.sign](value, self.value)
        except TypeError:
            return False

    def __str__(self) -> str:
        return f"{self.sign} {self.value}"
