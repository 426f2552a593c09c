import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.errors import DataError
from tuner.tasks import Example
from tuner.tasks import TaskOptions
from tuner.tasks.reading import Row
from tuner.tasks.reading import Text
from tuner.tasks.reading import draw_splits
from tuner.tasks.reading import read_rows


class Fact(Row):
    name: Text
    size: int = 0


def read(path, content):
    path.write_bytes(content)
    return [(place.removeprefix(f"{path}: "), row) for place, row in read_rows(path, Fact)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "facts.jsonl"


def test_lines_and_an_array_give_the_same_rows(path):
    rows = [{"name": "Lorn", "size": 3}, {"name": "Größe", "other": None}]
    lines = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    array = json.dumps(rows, indent=1).encode()
    expected = [Fact(name="Lorn", size=3), Fact(name="Größe")]
    assert read(path, lines) == [("line 1", expected[0]), ("line 3", expected[1])]
    assert read(path, b" \n" + array) == [("row 1", expected[0]), ("row 2", expected[1])]
    assert [row for _, row in read(path, b"\xef\xbb\xbf" + lines)] == expected
    assert [row for _, row in read(path, b"\xef\xbb\xbf" + array)] == expected


def test_a_compressed_file_gives_the_same_rows(path):
    lines = b'{"name": "Lorn"}\n\n{"name": "Karst", "size": 3}\n'
    for content in (lines, b"\xef\xbb\xbf" + lines, b'[{"name": "Lorn"}]'):
        assert read(path, gzip.compress(content)) == read(path, content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-12], "cannot be read: Compressed file ended"),
        (lambda data: data[:-8] + b"\0" * 8, "cannot be read: CRC check failed"),
        (lambda data: data[:10] + b"\xff" * 20, "cannot be read: Error -3"),
    ],
)
def test_a_damaged_compressed_file_is_refused(path, damage, message):
    with pytest.raises(DataError, match=message) as refused:
        read(path, damage(gzip.compress(b'{"name": "Lorn"}\n')))
    assert str(refused.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"name": "a"}\n{"name": \n', 'line 2: Invalid JSON: .* found \'{"name": '),
        (b'{"name": "a"}\nplain text\n', "line 2: Invalid JSON"),
        (b'{"name": "a"}\n{"size": 3}\n', "line 2: name: Field required; found {'size': 3}"),
        (b'{"name": 5}\n', "line 1: name: Input should be a valid string; found 5"),
        (b'{"name": "  "}\n', "line 1: name: .* at least 1 character"),
        (b'\n{"name": "a", "size": "3"}\n', "line 2: size: .* valid integer; found '3'"),
        (b'"name"\n', "line 1: Input should be an object; found 'name'"),
        (b'{"name": "a"}\n{"name": "\xff"}\n', "line 2: not UTF-8: byte 0xff at position 11"),
        (b'[{"name": "a"}, {"name": 5}]', "row 2: name: Input should be a valid string; found 5"),
        (b'[{"name": "a"}, {"na', "facts.jsonl: Invalid JSON"),
        (b'[{"name": "\xff"}]', "not UTF-8"),
        (b"", "holds no rows"),
        (b" \n\n", "holds no rows"),
        (b"[]", "holds no rows"),
    ],
)
def test_a_file_that_cannot_be_used_says_where_and_what(path, content, message):
    with pytest.raises(DataError, match=message) as refused:
        read(path, content)
    assert str(refused.value).startswith(f"{path}: ")


def test_the_hint_names_the_keys(path):
    with pytest.raises(DataError) as refused:
        read(path, b"{}")
    assert refused.value.hint == "each row is a JSON object with the keys name, size (optional)"


def test_what_was_found_is_shown_in_brief(path):
    with pytest.raises(DataError) as refused:
        read(path, json.dumps({"name": ["x" * 10_000]}).encode())
    assert len(str(refused.value)) < len(str(path)) + 200


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        list(read_rows(tmp_path / "missing.jsonl", Fact))
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        list(read_rows(tmp_path, Fact))


def test_lines_are_read_as_they_are_asked_for(path):
    path.write_text('{"name": "a"}\n{"name": "b"}\nnot JSON\n')
    rows = read_rows(path, Fact)
    assert [next(rows)[1].name, next(rows)[1].name] == ["a", "b"]
    rows.close()


def make_examples(questions):
    return [Example(str(number), question, ("x",)) for number, question in enumerate(questions)]


def draw(questions, search, holdout, seed=0, shown=()):
    options = TaskOptions(examples=search, holdout=holdout, seed=seed)
    return draw_splits(make_examples(questions), options, path="data.jsonl", shown=shown)


@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 5), st.integers(0, 100))
def test_splits_have_their_sizes_and_no_question_in_common(search, holdout, spare, seed):
    questions = [f"Q {number}?" for number in range(search + holdout + spare)]
    drawn = draw(questions, search, holdout, seed)
    assert drawn == draw(questions, search, holdout, seed)
    assert [len(split) for split in drawn] == [search, holdout]
    texts = [example.question for split in drawn for example in split]
    assert len(set(texts)) == len(texts)
    assert set(texts) <= set(questions)


def test_another_seed_draws_other_questions_in_another_order():
    questions = [f"Q {number}?" for number in range(100)]
    assert draw(questions, 10, 10, seed=1) != draw(questions, 10, 10, seed=2)


def test_a_question_counts_once_and_a_demonstrated_one_never():
    search, holdout = draw(
        ["Who?", " who? ", "When?", "Where\n is it?"], 1, 1, shown=["where is it?"]
    )
    assert {example.id for example in search + holdout} == {"0", "2"}


def test_too_few_questions_are_counted():
    with pytest.raises(
        DataError, match=r"has 2 different questions, .* asks for 5 \(3 examples \+ 2 holdout\)"
    ):
        draw(["Who?", "who?", "When?"], 3, 2)


def test_two_questions_of_one_id_are_refused():
    examples = [Example("7", "Who?", ("x",)), Example("7", "When?", ("y",))]
    with pytest.raises(DataError, match="two questions have the id '7'"):
        draw_splits(examples, TaskOptions(examples=1, holdout=1), path="data.jsonl")
