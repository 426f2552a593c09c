"""Rows of dataset files, and the two splits drawn from them; one place, so that all datasets fail alike."""

import gzip
import random
import zlib
from collections.abc import Iterable
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
from typing import BinaryIO
from typing import TypeVar
from typing import cast

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import StringConstraints
from pydantic import TypeAdapter
from pydantic import ValidationError

from tuner.errors import DataError
from tuner.tasks import Example
from tuner.tasks import TaskOptions
from workflows.trace import storable

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
"""Text with something in it; white space at its ends does not count."""

LONGEST_LINE = 2**26
"""Bytes of a row; of a compressed file, they may stand in very few."""

_SHOWN = 80
_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"

RowT = TypeVar("RowT", bound=BaseModel)


class Row(BaseModel):
    """One row of somebody else's file: columns that no task asks for are passed over."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


def read_rows(path: Path, model: type[RowT]) -> Iterator[tuple[str, RowT]]:
    """Every row with its place ("data.jsonl: line 3"), from JSON lines or one JSON array, compressed by gzip or not.

    Lines are streamed; an array is read whole. Blank lines are passed over. Raises DataError for a file
    that is missing, empty, damaged or not UTF-8, and for the first row that is not as `model` wants it.
    """
    try:
        with _open(path) as file:
            head = file.read(4096)
            start = len(_BOM) if head.startswith(_BOM) else 0
            file.seek(start)
            if head[start:].lstrip().startswith(b"["):
                rows = _array(path, file.read(), model)
            else:
                rows = _lines(path, file, model)
            row = None
            for row in rows:
                yield row
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{path}: cannot be read: {reason}",
            hint="is the path right, and may you read it? A relative path starts from the study file's folder",
        ) from None
    if row is None:
        raise DataError(f"{path}: holds no rows", hint="give a file with one JSON object a line")


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        compressed = file.read(len(_GZIP)) == _GZIP
    return cast(BinaryIO, gzip.open(path)) if compressed else path.open("rb")


def _lines(path: Path, file: BinaryIO, model: type[RowT]) -> Iterator[tuple[str, RowT]]:
    for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), b""), 1):
        if not line.strip():
            continue
        place = f"{path}: line {number}"
        if len(line) > LONGEST_LINE:
            raise DataError(
                f"{place}: is longer than {LONGEST_LINE // 2**20} MiB",
                hint="give a file with one JSON object a line",
            )
        try:
            yield place, model.model_validate_json(_decode(place, line))
        except ValidationError as error:
            raise DataError(f"{place}: {_what(error, 0)}", hint=_hint(model)) from None


def _array(path: Path, data: bytes, model: type[RowT]) -> Iterator[tuple[str, RowT]]:
    try:
        rows = TypeAdapter(list[model]).validate_json(_decode(str(path), data))  # type: ignore[valid-type]
    except ValidationError as error:
        at = error.errors()[0]["loc"]
        place = f"{path}: row {int(at[0]) + 1}" if at else str(path)
        raise DataError(f"{place}: {_what(error, 1)}", hint=_hint(model)) from None
    yield from ((f"{path}: row {number}", row) for number, row in enumerate(rows, 1))


def _decode(place: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{place}: not UTF-8: byte 0x{data[error.start]:02x} at position {error.start + 1}",
            hint="save the file as UTF-8",
        ) from None


def _what(error: ValidationError, skip: int) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][skip:])
    found = repr(first["input"])
    shown = found if len(found) <= _SHOWN else found[:_SHOWN] + "…"
    return f"{where + ': ' if where else ''}{first['msg']}; found {shown}"


def _hint(model: type[BaseModel]) -> str:
    keys = [
        field.alias or name if field.is_required() else f"{field.alias or name} (optional)"
        for name, field in model.model_fields.items()
    ]
    return f"each row is a JSON object with the keys {', '.join(keys)}"


def draw_splits(
    examples: Iterable[Example], options: TaskOptions, *, path: Path, shown: Iterable[str] = ()
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """The search and the holdout split: shuffled by the seed, the first `examples` and the next `holdout`.

    A question counts once, whatever its case and white space, and as it first stands; those in `shown`
    (demonstrations, which tell the answer) do not count. Raises DataError when there are too few, or when
    two questions have one id.
    """
    seen = {_same(question) for question in shown}
    ids: set[str] = set()
    pool = []
    for example in examples:
        if _same(example.question) in seen:
            continue
        seen.add(_same(example.question))
        if storable(example.id) != example.id:
            raise DataError(
                f"{path}: the id {example.id!r} holds what is no character of a text",
                hint="give the question an id without U+0000 and halves of surrogate pairs",
            )
        if example.id in ids:
            raise DataError(
                f"{path}: two questions have the id {example.id!r}",
                hint="give each question an id of its own, or leave all ids out",
            )
        ids.add(example.id)
        pool.append(example)
    wanted = options.examples + options.holdout
    if len(pool) < wanted:
        raise DataError(
            f"{path}: has {len(pool)} different questions, and the task asks for {wanted} "
            f"({options.examples} examples + {options.holdout} holdout)",
            hint="ask for fewer with `examples:` and `holdout:`, or give a larger file",
        )
    random.Random(options.seed).shuffle(pool)
    return tuple(pool[: options.examples]), tuple(pool[options.examples : wanted])


def _same(question: str) -> str:
    return " ".join(question.casefold().split())
