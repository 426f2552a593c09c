"""A profile as plain data: one JSON document, and one tidy CSV with a line for each quantity of each row.

Apart from the page, which is for people, and from the command line, which prints.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tuner.measure import Meter
from tuner.measure import NoMeter
from tuner.measure import Sample
from tuner.measure.replay import record
from tuner.profile import Profile
from tuner.profile.beside import Comparison
from tuner.profile.estimate import Value
from tuner.profile.pairing import Pair
from tuner.profile.table import Row
from tuner.profile.table import Table

FORMAT_VERSION = 1

GAP_S = 0.001
"""Between two sittings of a recording, whose times must rise."""

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
    """profile.json, profile.csv, and power.csv where energy was metered, in a folder that is made; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    as_json, as_csv = folder / "profile.json", folder / "profile.csv"
    text = json.dumps(content(profile, comparison), indent=1, ensure_ascii=False, allow_nan=False)
    as_json.write_text(text + "\n", encoding="utf-8")
    with as_csv.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, CSV_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for table in profile.tables:
            writer.writerows(_lines(table))
    samples = recording(profile)
    if not samples:
        return [as_json, as_csv]
    power = folder / "power.csv"
    record(samples, _meter(profile), power)
    return [as_json, as_csv, power]


def recording(profile: Profile) -> list[Sample]:
    """What the meters counted, one sitting after another: what a meter `replay: power.csv` plays again."""
    samples: list[Sample] = []
    for each in profile.measured:
        runs = (*each.runs, *each.extras)
        for window in sorted({run.window for run in runs}):
            points = sorted({s for run in runs if run.window == window for s in run.samples})
            if not points:
                continue
            from_s, from_j = (
                (samples[-1].t_s + GAP_S, samples[-1].joules or 0.0) if samples else (0.0, 0.0)
            )
            samples.append(Sample(from_s, from_j))
            samples += [
                Sample(from_s + t_s, from_j + joules)
                for (t_s, joules), (before_s, _) in zip(points, [(0.0, 0.0), *points], strict=False)
                if t_s > before_s
            ]
    return samples


def _meter(profile: Profile) -> Meter:
    """What tells where the samples are from."""
    meters = [each["energy"] for each in (profile.provenance.get("models") or {}).values()]
    return NoMeter(
        source="; ".join(dict.fromkeys(each["source"] for each in meters)),
        scope="; ".join(dict.fromkeys(each["scope"] for each in meters)),
        tick_s=max((each.get("tick_s") or 0.0 for each in meters), default=0.0),
    )


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
        "value": _short(value.value),
        "interval": None if value.interval is None else [_short(end) for end in value.interval],
    }


def _short(value: float) -> float:
    """Six significant digits: more than any figure here is sure of, and a file that can be read."""
    return float(f"{value:.6g}")


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
        "paper": pair.paper if pair.paper is None else _short(pair.paper),
        "here_over_paper": None if pair.ratio is None else _short(pair.ratio),
    }


def _lines(table: Table) -> Iterator[dict[str, Any]]:
    for row in table.rows:
        for column in table.columns:
            value = row.values[column.name]
            interval = (None, None) if value.interval is None else map(_short, value.interval)
            low, high = interval
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
                "value": None if value.value is None else _short(value.value),
                "low": low,
                "high": high,
                "n": row.n,
                "source": row.source,
                "why": value.why,
            }
