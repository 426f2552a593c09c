"""Figures as people read them, in a terminal and on a page alike; apart from both."""

from collections.abc import Iterable
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any

from tuner.figures import number as number
from tuner.profile.estimate import Value
from tuner.profile.table import Column
from tuner.profile.table import Key
from tuner.profile.table import Row
from tuner.profile.table import Table
from tuner.profile.table import Unit

if TYPE_CHECKING:
    from tuner.profile.pairing import Pair

BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def quantity(value: float, unit: Unit) -> str:
    """A value as it is shown in a column of that unit: shares in per cent, bytes in the unit that fits."""
    if unit == "share":
        return f"{100 * value:.{0 if abs(value) >= 0.1 or value == 0 else 1}f} %"
    if unit == "×":
        return f"×{number(value)}"
    if unit == "bytes":
        size, name = next((each for each in BYTES if value >= each[0]), (1.0, "B"))
        return f"{number(value / size)} {name}"
    return number(value)


def estimate(value: Value, unit: Unit) -> str:
    """The value with its interval, `67 % [47, 82]`; a dash for one that is not known."""
    if value.value is None:
        return "–"
    text = quantity(value.value, unit)
    if value.interval is None:
        return text
    low, high = value.interval
    if unit == "share":
        return f"{text} [{100 * low:.0f}, {100 * high:.0f}]"
    if unit == "bytes":
        return f"{text} [{quantity(low, unit)}, {quantity(high, unit)}]"
    return f"{text} [{number(low)}, {number(high)}]"


def pair(of: "Pair") -> str:
    """What is here, what is in the paper, and the first ÷ the second."""
    unit = of.column.unit
    return " | ".join(
        [
            "–" if of.here.value is None else quantity(of.here.value, unit),
            "–" if of.paper is None else quantity(of.paper, unit),
            "–" if of.ratio is None else quantity(of.ratio, "×"),
        ]
    )


def header(column: Column) -> str:
    """A column's title with its unit, where the values do not carry it themselves."""
    carried = column.unit in ("", "share", "×", "bytes", "calls", "tokens")
    return column.title if carried else f"{column.title}, {column.unit}"


def config(row: Row) -> str:
    """A row's config, marked where it was derived from another's checkpoints."""
    return f"{row.of.label} (derived)" if row.of.derived else row.of.label


def key(value: Key) -> str:
    """A key's value: yes and no for booleans."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, float) else str(value)


def load(declared: Mapping[str, Any]) -> str:
    """How questions came, in words."""
    if declared.get("rate") is not None:
        return f"{declared['rate']:g} questions a second"
    count = declared.get("concurrency") or 1
    return "1 question at a time" if count == 1 else f"{count} questions at a time"


def reasons(table: Table) -> list[str]:
    """Why figures are missing, each reason once, with the quantities that it is true of."""
    missing: dict[str, dict[str, None]] = {}
    for row in table.rows:
        for column in table.columns:
            value = row.values[column.name]
            if value.value is None:
                missing.setdefault(value.why or "not known", {})[column.title] = None
    return [f"– {_list(titles)}: {why}" for why, titles in missing.items()]


def _list(titles: Iterable[str]) -> str:
    return ", ".join(titles)
