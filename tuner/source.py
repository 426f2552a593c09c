"""YAML files with the line of every key, and pydantic's complaints about them in words.

Apart from the models that the files are read into, so that studies and search spaces report mistakes
alike: `file:line: key: what is wrong`.
"""

import difflib
import json
import re
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import TypeVar

import yaml
from pydantic import BaseModel
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tuner.errors import SpecError
from workflows import yaml_data

Key = str | int
Model = TypeVar("Model", bound=BaseModel)

MOST_MISTAKES = 50
"""Of a file, told at once."""

SHOWN = 200
"""Characters of what was given."""

GUESS = "did you mean"
"""Begins the hint that is worth most of several."""


class _Loader(yaml_data.Loader):
    """YAML without dates, as no file of ours holds one, and with 1e-3 for a number, as YAML 1.2 has it."""

    each_once = False  # `Source` says itself where a key is that stands twice

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML declares it so)
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


@dataclass(frozen=True, slots=True)
class Source:
    """A YAML mapping as read, with the line on which each of its keys stands."""

    path: Path
    content: dict[str, Any]
    lines: dict[tuple[Key, ...], int]
    prefix: tuple[Key, ...] = ()
    """Where in the file this mapping stands."""

    @classmethod
    def read(cls, path: Path) -> "Source":
        """The file's mapping. Raises SpecError for a file that is missing, not YAML, or no mapping."""
        try:
            text = yaml_data.read_text(path)
            node = yaml.compose(text, Loader=_Loader)
            lines = _lines(path, node)
            # By way of JSON: its keys are text, as those of `lines` are.
            content = json.loads(json.dumps(yaml_data.read_yaml(text, _Loader), default=str))
        except OSError as error:
            raise SpecError(
                f"{path}: cannot be read: {error.strerror}",
                hint="is the path right? tuner init DIR writes a study to begin with",
            ) from None
        except UnicodeDecodeError:
            raise SpecError(
                f"{path}: is not a text file in UTF-8",
                hint="save it as UTF-8; is it the file that you meant?",
            ) from None
        except (ValueError, TypeError) as error:  # a key that JSON has not: !!binary
            raise SpecError(
                f"{path}: not YAML: {error}", hint="write the value without its tag (!!…)"
            ) from None
        except yaml.YAMLError as error:
            raise _refused(path, error) from None
        if not isinstance(content, dict):
            raise SpecError(f"{path}: holds no keys", hint="start with: format_version: 1")
        return cls(path, content, lines)

    def error(self, key: tuple[Key, ...], message: str, hint: str) -> SpecError:
        """A SpecError that says where: the line of the key, or of its nearest parent."""
        known = key
        while known and known not in self.lines:
            known = known[:-1]
        line = f":{self.lines[known]}" if known in self.lines else ""
        return SpecError(
            f"{self.path}{line}: {_dotted((*self.prefix, *key))}: {message}", hint=hint
        )

    def below(self, key: str, *, without: str) -> "Source":
        """The mapping under a key as a source of its own, less one of its keys."""
        content = {name: value for name, value in self.content[key].items() if name != without}
        lines = {where[1:]: line for where, line in self.lines.items() if where[:1] == (key,)}
        return Source(self.path, content, lines, (*self.prefix, key))

    def validate(self, model: type[Model]) -> Model:
        """The content as an instance of the model. Raises SpecError that names every mistake."""
        try:
            # By way of JSON: strict models then take lists for tuples, as YAML writes them.
            return model.model_validate_json(json.dumps(self.content))
        except ValidationError as error:
            mistakes = self._mistakes(model, error.errors())
        text = "\n".join(str(mistake) for mistake in mistakes)
        hints = [mistake.hint for mistake in mistakes]
        likeliest = next((hint for hint in hints if hint.startswith(GUESS)), hints[0])
        raise SpecError(text, hint=likeliest)

    def _mistakes(self, model: type[BaseModel], details: list[ErrorDetails]) -> list[SpecError]:
        """One for each key: what each part of a union has against a value makes one mistake."""
        found: dict[tuple[Key, ...], list[ErrorDetails]] = {}
        above = {detail["loc"][:size] for detail in details for size in range(len(detail["loc"]))}
        for detail in details:
            # A list whose items are wrong is also said to have none.
            if detail["loc"] not in above:
                found.setdefault(self._key(detail), []).append(detail)
        told = list(found.items())[:MOST_MISTAKES]
        return [self._mistake(model, key, same) for key, same in told]

    def _mistake(
        self, model: type[BaseModel], key: tuple[Key, ...], details: list[ErrorDetails]
    ) -> SpecError:
        detail = details[0]
        match detail["type"]:
            case "extra_forbidden":
                allowed = _fields(model, key, self._at(key[:-1]))
                close = difflib.get_close_matches(str(key[-1]), allowed, n=1)
                hint = f"{GUESS} {close[0]}?" if close else "remove it, or name a known one"
                return self.error(key, f"unknown key; known: {', '.join(allowed)}", hint)
            case "missing":
                message = "is missing"
            case "value_error":
                message = str(detail["ctx"]["error"])
            case "too_short" | "too_long":
                message = detail["msg"][0].lower() + detail["msg"][1:]
            case _:
                wanted = " or ".join(
                    item["msg"].removeprefix("Input should be ") for item in details
                )
                same = all(item["msg"].startswith("Input should be ") for item in details)
                message = f"input should be {wanted}" if same else wanted[0].lower() + wanted[1:]
                given = repr(detail["input"])
                message += f", not {given if len(given) <= SHOWN else given[:SHOWN] + '…'}"
        told = _description(model, key)
        hint = (
            f"{key[-1]}: {told}"
            if told
            else "tuner init DIR writes files that load, to compare with"
        )
        return self.error(key, message, hint)

    def _key(self, detail: ErrorDetails) -> tuple[Key, ...]:
        """The user's keys in pydantic's location, which also holds tags of unions; a key that is not there comes last."""
        *above, last = detail["loc"] or ("",)
        key: tuple[Key, ...] = ()
        for part in above:
            if (*key, part) in self.lines:
                key = (*key, part)
        is_key = (*key, last) in self.lines or detail["type"] in ("missing", "extra_forbidden")
        return (*key, last) if is_key else key

    def _at(self, key: tuple[Key, ...]) -> Any:
        """What the file holds under a key."""
        content: Any = self.content
        for part in key:
            content = content[part]
        return content


def _refused(path: Path, error: yaml.YAMLError) -> SpecError:
    mark = getattr(error, "problem_mark", None)
    line = f":{mark.line + 1}" if mark is not None else ""
    problem = getattr(error, "problem", None) or error
    return SpecError(
        f"{path}{line}: not YAML: {problem}",
        hint="look at this line and the one above it: indentation, a missing colon or quotation mark",
    )


def _lines(path: Path, node: yaml.Node | None) -> dict[tuple[Key, ...], int]:
    """The line of every key. Raises SpecError for one that stands twice."""
    lines: dict[tuple[Key, ...], int] = {}
    for key, number in () if node is None else _walk(node, ()):
        if key in lines:
            raise SpecError(
                f"{path}:{number}: {_dotted(key)}: stands here and on line {lines[key]}",
                hint="remove one of the two",
            )
        lines[key] = number
    return lines


def _walk(node: yaml.Node, key: tuple[Key, ...]) -> Iterator[tuple[tuple[Key, ...], int]]:
    if isinstance(node, yaml.MappingNode):
        for name, below in node.value:
            yield (*key, str(name.value)), name.start_mark.line + 1
            yield from _walk(below, (*key, str(name.value)))
    elif isinstance(node, yaml.SequenceNode):
        for index, below in enumerate(node.value):
            yield (*key, index), below.start_mark.line + 1
            yield from _walk(below, (*key, index))


def _dotted(key: tuple[Key, ...]) -> str:
    return ".".join(str(part) for part in key) or "file"


def _fields(model: type[BaseModel], refused: tuple[Key, ...], given: Any) -> list[str]:
    """Names that are allowed in a refused key's place, as far as the annotations tell.

    Of the parts of a union, the one that refused the key is among those that do not know it, and it
    knows most of the other keys that are given there.
    """
    *key, last = refused
    allowed = [list(node.get("properties", {})) for node in _nodes(model, key)]
    refusing = [names for names in allowed if last not in names]
    return max(refusing, key=lambda names: sum(name in given for name in names), default=[])


def _description(model: type[BaseModel], key: tuple[Key, ...]) -> str | None:
    """What a key is for, where its field says so."""
    if not key:
        return None
    *above, last = key
    fields = [node.get("properties", {}).get(last, {}) for node in _nodes(model, above)]
    return next((field["description"] for field in fields if "description" in field), None)


def _nodes(model: type[BaseModel], key: Sequence[Key]) -> list[dict[str, Any]]:
    """The schemas of what may stand under a key."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    nodes = [schema]
    for part in key:
        below: list[dict[str, Any]] = []
        for node in _resolved(nodes, definitions):
            if part in node.get("properties", {}):
                below.append(node["properties"][part])
            elif isinstance(node.get("additionalProperties"), dict):
                below.append(node["additionalProperties"])
        nodes = below
    return _resolved(nodes, definitions)


def _resolved(nodes: list[dict[str, Any]], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for node in nodes:
        if "$ref" in node:
            found += _resolved([definitions[node["$ref"].rsplit("/", 1)[1]]], definitions)
        for union in ("anyOf", "oneOf", "allOf"):
            found += _resolved(node.get(union, []), definitions)
        if "properties" in node or "additionalProperties" in node:
            found.append(node)
    return found
