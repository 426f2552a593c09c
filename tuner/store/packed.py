"""Figures of a trial's runs side by side: what whole studies are read from, a thousand trials in a blink.

The rows of the runs remain what holds: a pack is made once a trial has ended, and counts only while it has as many
runs as there are rows. Apart from the store, which knows when that is.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.store.tables import COLUMNS

Floats = npt.NDArray[np.float64]

_KIND = "<f8"


def pack(rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Columns of (example, *COLUMNS) rows in any order: those of nothing but None, and repeats where there are none, are left out."""
    ordered = sorted(rows, key=lambda row: (row[0], row[-1]))
    table = np.array([row[1:] for row in ordered], dtype=_KIND)
    packed: dict[str, Any] = {"runs": len(rows)}
    for name, column in zip(COLUMNS, table.T, strict=True):
        is_empty = not column.any() if name == "repeat" else np.isnan(column).all()
        packed[name] = None if is_empty else column.tobytes()
    return packed


def unpack(row: Mapping[str, Any], names: Sequence[str]) -> Floats:
    """(runs, names) of a packed row, ordered by example and repeat."""
    table = np.empty((row["runs"], len(names)))
    for place, name in enumerate(names):
        content = row[name]
        if content is None:
            table[:, place] = 0.0 if name == "repeat" else np.nan
        else:
            table[:, place] = np.frombuffer(content, dtype=_KIND)
    return table


def stack(contents: Sequence[bytes | None], runs: int) -> Floats:
    """(trials, runs) of one packed column of several trials; NaN where a trial has none."""
    empty = np.full(runs, np.nan, dtype=_KIND).tobytes()
    whole = b"".join(empty if content is None else content for content in contents)
    return np.frombuffer(whole, dtype=_KIND).reshape(len(contents), runs)
