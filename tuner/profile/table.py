"""Tables as data: what every figure of a profile comes to, whoever prints, writes or plots it.

Apart from the figures, each of which fills one table, and from the outputs, none of which knows a figure.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Literal

from tuner.profile.estimate import Value
from tuner.profile.estimate import missing
from tuner.profile.evaluation import Evaluation

Key = str | bool | int | float

Unit = Literal["", "s", "share", "Wh", "tokens", "calls", "bytes", "1/s", "×"]
"""Of a column's values as they are kept; "×" is a ratio, "" a plain number."""


@dataclass(frozen=True, slots=True)
class Column:
    """A quantity of a table."""

    name: str
    """As in files: `latency_mean_s`."""
    unit: Unit
    title: str
    """As shown, without the unit."""


@dataclass(frozen=True, slots=True)
class Row:
    """A config's figures; `keys` say of what, beside the config: a budget, a rate."""

    of: Evaluation
    values: Mapping[str, Value]
    n: int
    """How many questions, or calls, stand behind each."""
    keys: Mapping[str, Key] = field(default_factory=dict)
    source: str | None = None
    """Where what is metered comes from: energy, keys and values."""


@dataclass(frozen=True, slots=True)
class Chart:
    """How a table is plotted: columns side by side, stacked, or as quantiles of each config; points and lines over another column or key."""

    kind: Literal["bars", "stack", "spread", "points", "lines"]
    y: tuple[str, ...]
    x: str | None = None
    """Of points and lines."""
    log_x: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One figure of the paper, for this machine."""

    figure: str
    """Its number: "4", "III" for a table."""
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    charts: tuple[Chart, ...]
    counts: Literal["questions", "calls"] = "questions"
    """What `n` counts."""
    notes: tuple[str, ...] = ()
    """What has to be known to read it, and why rows are missing."""

    @property
    def name(self) -> str:
        """`Figure 4`, `Table III`."""
        return f"Table {self.figure}" if self.figure.isalpha() else f"Figure {self.figure}"

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the rows' keys."""
        return tuple(dict.fromkeys(key for row in self.rows for key in row.keys))

    def column(self, name: str) -> Column:
        """The column of that name. Raises KeyError."""
        return {column.name: column for column in self.columns}[name]


LATENCY = Column("latency_mean_s", "s", "latency, mean")
LATENCY_P95 = Column("latency_p95_s", "s", "latency, p95")
ACCURACY = Column("accuracy", "share", "accuracy")
ENERGY = Column("energy_wh", "Wh", "energy per query")
PER_LATENCY = Column("accuracy_per_latency", "", "accuracy ÷ latency, best = 1")
TOKENS = Column("tokens_total", "tokens", "tokens per query")


def rows(
    measured: Sequence[Evaluation],
    names: Sequence[str],
    values: Callable[[Evaluation], Mapping[str, Value]],
    *,
    keys: Callable[[Evaluation], Mapping[str, Key]] = lambda of: {},
    count: Callable[[Evaluation], int] = lambda of: len(of.queries),
    source: Callable[[Evaluation], str | None] = lambda of: None,
) -> tuple[Row, ...]:
    """A row for each evaluation; one that failed has the reason in place of its figures."""
    return tuple(
        Row(of, values(of), count(of), keys(of), source(of))
        if of.queries
        else Row(of, dict.fromkeys(names, missing(of.problem or "it failed")), 0, keys(of))
        for of in measured
    )
