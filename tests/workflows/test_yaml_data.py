"""YAML from a stranger: bombs are refused in little time and memory, and nothing else is."""

import json
import time
import tracemalloc

import pytest
import yaml

from workflows import yaml_data
from workflows.yaml_data import LONGEST_INTEGER
from workflows.yaml_data import MOST_BYTES
from workflows.yaml_data import Loader
from workflows.yaml_data import read_text
from workflows.yaml_data import read_yaml


def laughs(start: str, line: str) -> str:
    """Thirty names, each of which stands for the one above it ten times."""
    lines = [f"a0: &a0 {start}"]
    return "\n".join(lines + [line.format(n=n, m=n - 1) for n in range(1, 30)])


BOMBS = {
    "billion laughs": laughs("[x]", f"a{{n}}: &a{{n}} [{', '.join(['*a{m}'] * 10)}]"),
    "laughs in keys": laughs("{x: 1}", "a{n}: &a{n} {{p: *a{m}, q: *a{m}, r: *a{m}}}"),
    "merges": laughs("{x: 1}", "a{n}: &a{n} {{<<: [*a{m}, *a{m}, *a{m}, *a{m}]}}"),
    "lists": "[" * 100_000,
    "blocks": "- " * 100_000,
    "mappings": "{a: " * 100_000,
    "keys of keys": "? " * 100_000,
    "within itself": "a: &a [*a]",
    "merged into itself": "a: &a {<<: *a}",
    "digits": "a: " + "9" * 100_000,
    "hexadecimal": "a: 0x" + "f" * 100_000,
    "sexagesimal": "a: 1" + ":59" * 30_000,
    "twice": "a: 1\nb: 2\na: 3\n",
    "twice in one line": "{a: 1, a: 2}",
    "a tag for code": "!!python/object/apply:os.system ['true']",
    "a tag for a name": "a: !!python/name:os.system",
    "a tag that does not fit": "a: !!int b",
    "a float that is none": "a: !!float b",
    "binary that is none": "a: !!binary é",
    "a time that is none": "a: 2001-99-99",
    "a boolean that is none": "a: !!bool b",
    "an empty number": "a: !!int ''",
    "a list for a key": "{[a]: b}",
    "an unknown alias": "a: *b",
    "half a character": r'a: "x\ud83d"',
    "half a character in a key": r'"\ude00": 1',
    "halves in the wrong order": r'a: "\ude00\ud83d"',
    "two documents": "a: 1\n---\nb: 2\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_little_time_and_memory(name: str) -> None:
    tracemalloc.start()
    began = time.perf_counter()
    try:
        with pytest.raises(yaml.YAMLError) as caught:
            read_yaml(BOMBS[name])
        taken = time.perf_counter() - began
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 500
    assert peak < 2**28
    assert taken < 10  # under tracemalloc, on a busy machine


def test_values_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_data, "MOST_NODES", 1000)
    assert len(read_yaml("[" + "a," * 999 + "]")) == 999
    with pytest.raises(yaml.YAMLError, match="holds more than 1,000 values"):
        read_yaml("[" + "a," * 1000 + "]")


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("", None),
        ("base: &b {x: 1, y: 2}\nown: {<<: *b, y: 3}\n", {"base": {"x": 1, "y": 2}, "own": {"x": 1, "y": 3}}),
        ("a: &a [1]\nb: *a\nc: *a\n", {"a": [1], "b": [1], "c": [1]}),
        ("a: &a {}\nb: {<<: *a}\nc: {<<: *a, x: 1}\n", {"a": {}, "b": {}, "c": {"x": 1}}),
        ("[1, '1', 1.0, true, null, 0x1f]", [1, "1", 1.0, True, None, 31]),
        ("9" * LONGEST_INTEGER, int("9" * LONGEST_INTEGER)),
        ("[" * 60 + "]" * 60, None),
    ],
)  # fmt: skip
def test_what_is_none_is_read(text: str, content: object) -> None:
    found = read_yaml(text)
    assert content is None or found == content
    assert found == yaml.safe_load(text)


def test_every_text_that_is_dumped_is_read_as_it_was() -> None:
    texts = ["1e5", "2001-01-01", "yes", "0x1", "1:30", "<<", "=", "a: b", "\u2028", "\x85", "null"]
    assert read_yaml(yaml.safe_dump(texts)) == texts


def test_characters_that_are_escaped_as_json_does_are_whole() -> None:
    content = {"a": "\U0001f600 \u00e9", "\U0001f600": "\ufeff\uffff"}
    assert read_yaml(json.dumps(content)) == content


def test_a_file_is_read_to_a_limit(tmp_path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"#" * MOST_BYTES)
    assert len(read_text(path)) == MOST_BYTES
    path.write_bytes(b"#" * (MOST_BYTES + 1))
    with pytest.raises(yaml.YAMLError, match="longer than 4 MiB"):
        read_text(path)


@pytest.mark.slow
def test_it_knows_no_tag_beside_the_safe_ones() -> None:
    assert Loader.yaml_constructors.keys() == yaml.SafeLoader.yaml_constructors.keys()
    assert Loader.yaml_multi_constructors == yaml.SafeLoader.yaml_multi_constructors
