"""A profile as plain data: one JSON document, and one tidy CSV with a line for each quantity of each row.

Apart from the page, which is for people, and from the command line, which prints.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tuner.profile import Profile
from tuner.profile.beside import Comparison
from tuner.profile.estimate import Value
from tuner.profile.pairing import Pair
from tuner.profile.table import Row
from tuner.profile.table import Table

FORMAT_VERSION = 1

CSV_COLUMNS = (
    "figure",
    "trial",
    "workflow",
    "model",
    "config",
    "derived",
    "oracle",
    "of",
    "quantity",
    "unit",
    "value",
    "low",
    "high",
    "n",
    "source",
    "why",
)


def content(profile: Profile, comparison: Comparison | None = None) -> dict[str, Any]:
    """The profile as plain JSON; `beside` is there where it was compared."""
    document: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "study": profile.study,
        "task": profile.task,
        "tool_delay_s": profile.tool_delay_s,
        "load": dict(profile.load),
        "cache": profile.cache,
        "configs": profile.rule,
        "shown": {workflow: each.label for workflow, each in profile.shown.items()},
        "machine": profile.provenance.get("machine"),
        "versions": profile.provenance.get("versions"),
        "models": profile.provenance.get("models"),
        "figures": {table.figure: _table(table) for table in profile.tables},
    }
    if comparison is not None:
        document["beside"] = _comparison(comparison)
    return document


def write(profile: Profile, folder: Path, comparison: Comparison | None = None) -> list[Path]:
    """profile.json and profile.csv in a folder, which is made where there is none; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    as_json, as_csv = folder / "profile.json", folder / "profile.csv"
    text = json.dumps(content(profile, comparison), indent=1, ensure_ascii=False, allow_nan=False)
    as_json.write_text(text + "\n", encoding="utf-8")
    with as_csv.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, CSV_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for table in profile.tables:
            writer.writerows(_lines(table))
    return [as_json, as_csv]


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "columns": [asdict(column) for column in table.columns],
        "n_counts": table.counts,
        "notes": list(table.notes),
        "rows": [_row(row) for row in table.rows],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "trial": row.of.trial,
        "workflow": row.of.workflow,
        "model": row.of.model,
        "config": row.of.label,
        "derived": row.of.derived,
        "oracle": row.of.config.oracle,
        "keys": dict(row.keys),
        "n": row.n,
        "source": row.source,
        "values": {name: _value(value) for name, value in row.values.items()},
    }


def _value(value: Value) -> dict[str, Any]:
    if value.value is None:
        return {"value": None, "why": value.why}
    return {
        "value": value.value,
        "interval": None if value.interval is None else list(value.interval),
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "paper": comparison.name,
        "title": comparison.title,
        "source": comparison.source,
        "note": comparison.note,
        "task": comparison.task,
        "ratios": [_pair(pair) for pair in comparison.ratios],
        "figures": {
            number: [_pair(pair) for pair in pairs] for number, pairs in comparison.figures.items()
        },
    }


def _pair(pair: Pair) -> dict[str, Any]:
    return {
        "workflow": pair.workflow,
        "keys": dict(pair.keys),
        "quantity": pair.column.name,
        "unit": pair.column.unit,
        "here": _value(pair.here),
        "paper": pair.paper,
        "here_over_paper": pair.ratio,
    }


def _lines(table: Table) -> Iterator[dict[str, Any]]:
    for row in table.rows:
        for column in table.columns:
            value = row.values[column.name]
            low, high = value.interval or (None, None)
            yield {
                "figure": table.figure,
                "trial": row.of.trial,
                "workflow": row.of.workflow,
                "model": row.of.model,
                "config": row.of.label,
                "derived": row.of.derived,
                "oracle": row.of.config.oracle,
                "of": " ".join(f"{name}={key}" for name, key in row.keys.items()),
                "quantity": column.name,
                "unit": column.unit,
                "value": value.value,
                "low": low,
                "high": high,
                "n": row.n,
                "source": row.source,
                "why": value.why,
            }
