"""YAML as data from anybody: no tag runs code, and what a text may grow to is bounded before it does.

Apart from `config`, because the tuner reads its own files by it as well. An alias costs what it stands for, so that a few
lines cannot become a gigabyte; nesting and numbers end somewhere. All that can be wrong is a YAMLError, with its line.
"""

from pathlib import Path
from typing import Any
from typing import ClassVar

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

MOST_BYTES = 2**22
"""Of a file. Long parts of an exported agent stand beside it, as JSON lines."""

MOST_NODES = 200_000
"""Values of a file, those that an alias stands for counted each time."""

MOST_DEPTH = 64
"""Of lists and mappings within each other."""

LONGEST_INTEGER = 100
"""Characters."""


class Loader(yaml.SafeLoader):
    """Plain values only, each key once, and so many of all of them."""

    each_once: ClassVar[bool] = True

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = 0
        self._depth = 0
        self._sizes: dict[str, int] = {}
        """By anchor, what an alias of it adds."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A node, once it is known that there is room for it."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            size = self._sizes.get(event.anchor or "")
            if size == 0:
                raise ComposerError(None, None, f"*{event.anchor} stands within what it names", mark)  # fmt: skip
            self._count(size or 0, mark)
            return super().compose_node(parent, index)
        if self._depth == MOST_DEPTH:
            raise ComposerError(None, None, f"nested more than {MOST_DEPTH} deep", mark)
        before = self._nodes
        self._count(1, mark)
        if event.anchor is not None:
            self._sizes[event.anchor] = 0
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if event.anchor is not None:
            self._sizes[event.anchor] = self._nodes - before
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping that has each key once; those that it merges (`<<`) may have them as well."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value if self.each_once else ():
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name is not None and name in lines:
                problem = f"{key.value!r} stands here and on line {lines[name]}"
                raise ComposerError(None, None, problem, key.start_mark)
            if name is not None:
                lines[name] = key.start_mark.line + 1
        return node

    def _count(self, nodes: int, mark: Any) -> None:
        self._nodes += nodes
        if self._nodes > MOST_NODES:
            raise ComposerError(None, None, f"holds more than {MOST_NODES:,} values", mark)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value of a node; a tag that does not fit it is a YAMLError like any other."""
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
            raise ConstructorError(None, None, f"{error}", node.start_mark) from None

    def construct_yaml_int(self, node: Any) -> int:
        """A whole number that can be written down."""
        if len(node.value) > LONGEST_INTEGER:
            raise ConstructorError(None, None, f"a number of {len(node.value)} digits", node.start_mark)  # fmt: skip
        return super().construct_yaml_int(node)

    def construct_yaml_str(self, node: Any) -> str:
        """A text of whole characters: JSON escapes some as pairs, of which no half may stand alone."""
        text: str = super().construct_yaml_str(node)
        try:
            return (
                text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16")
            )
        except UnicodeDecodeError:
            raise ConstructorError(
                None, None, "half of a surrogate pair", node.start_mark
            ) from None


Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)
Loader.add_constructor("tag:yaml.org,2002:str", Loader.construct_yaml_str)


def read_text(path: Path) -> str:
    """A file's text. Raises OSError, UnicodeDecodeError, and YAMLError for one that is too long."""
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise yaml.YAMLError(f"longer than {MOST_BYTES // 2**20} MiB")
    return content.decode("utf-8")


def read_yaml(text: str, loader: type[Loader] = Loader) -> Any:
    """What a text holds. Raises YAMLError."""
    return yaml.load(text, Loader=loader)  # noqa: S506 (a SafeLoader)
