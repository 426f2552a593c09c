"""What example runs took, summed up by the database.

Apart from the store, which keeps and gives back what it was given: here is which part of a run is new, and what is
made of a part that nobody knows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from tuner.store.tables import example_runs
from tuner.store.tables import trials


@dataclass(frozen=True, slots=True)
class Amount:
    """How much of something the runs of a trial on one split took."""

    total: float
    """Of the runs of which it is known, what earlier runs had paid for included."""
    known: int
    """Those runs."""
    spent: float
    """What was paid for them anew."""
    unknown: int
    """Runs that were paid for, nobody knows how much."""
    dearest: float
    """The most that a run took; 0 where none is known."""

    def __add__(self, other: "Amount") -> "Amount":
        """Of these runs and others."""
        return Amount(
            self.total + other.total,
            self.known + other.known,
            self.spent + other.spent,
            self.unknown + other.unknown,
            max(self.dearest, other.dearest),
        )


@dataclass(frozen=True, slots=True)
class Spending:
    """What the runs of one trial on one split took."""

    trial_id: int
    split: str
    config_hash: str
    workflow: str
    runs: int
    last: int
    """The run that was kept last: `Store.spent(after=…)` goes on from there."""
    amounts: Mapping[str, Amount]
    """`seconds` of sittings, in which runs may overlap, `latency_s`, `joules`, `tokens` and `usd`."""

    def __add__(self, other: "Spending") -> "Spending":
        """Of these runs and later ones of the same trial and split."""
        amounts = {name: amount + other.amounts[name] for name, amount in self.amounts.items()}
        return replace(other, runs=self.runs + other.runs, amounts=amounts)


_RUNS = example_runs.c

_IS_NEW = sa.or_(_RUNS.latency_s <= 0, _RUNS.reused_s < _RUNS.latency_s)
"""Whether any of a run was made for its trial; one that was derived or taken from another study is old all through."""

_SECONDS = sa.case((_RUNS.energy_s > 0, _RUNS.energy_s), else_=_RUNS.latency_s)
"""How long a run's stretch of its sitting was; its latency where a meter failed and did not say."""

_OLD_SHARE = sa.case((_RUNS.latency_s > 0, _RUNS.reused_s / _RUNS.latency_s), else_=0.0)

_AMOUNTS: Mapping[str, tuple[sa.ColumnElement[Any], sa.ColumnElement[Any]]] = {
    "seconds": (_SECONDS, _SECONDS * _OLD_SHARE),
    "latency_s": (_RUNS.latency_s, _RUNS.reused_s),
    "joules": (_RUNS.energy_j, _RUNS.reused_j),
    "tokens": (_RUNS.tokens_in + _RUNS.tokens_out, _RUNS.reused_tokens),
    "usd": (_RUNS.cost_usd, _RUNS.reused_usd),
}
"""What a run took, NULL where that is not known, and what of it an earlier run had paid for."""


def spending_query(trial_ids: sa.Select[Any], after: int) -> sa.Select[Any]:
    """A row for each of these trials and each split with runs kept after that one, to be read by `spending_of`."""
    return (
        sa.select(
            _RUNS.trial_id,
            _RUNS.split,
            sa.func.min(trials.c.config_hash).label("config_hash"),
            sa.func.min(trials.c.config["workflow"].as_string()).label("workflow"),
            sa.func.count().label("runs"),
            sa.func.max(_RUNS.run_id).label("last"),
            *(column for name in _AMOUNTS for column in _columns_of(name)),
        )
        .join(trials, trials.c.trial_id == _RUNS.trial_id)
        .where(_RUNS.trial_id.in_(trial_ids), _RUNS.run_id > after)
        .group_by(_RUNS.trial_id, _RUNS.split)
        .order_by(_RUNS.trial_id, _RUNS.split)
    )


def spending_of(row: Mapping[str, Any]) -> Spending:
    """What a row of `spending_query` says."""
    return Spending(
        trial_id=row["trial_id"],
        split=row["split"],
        config_hash=row["config_hash"],
        workflow=row["workflow"],
        runs=row["runs"],
        last=row["last"],
        amounts={
            name: Amount(
                total=float(row[f"{name}_total"]),
                known=int(row[f"{name}_known"]),
                spent=float(row[f"{name}_spent"]),
                unknown=int(row[f"{name}_unknown"]),
                dearest=float(row[f"{name}_dearest"]),
            )
            for name in _AMOUNTS
        },
    )


def _columns_of(name: str) -> list[sa.Label[Any]]:
    value, reused = _AMOUNTS[name]
    unknown = sa.and_(_IS_NEW, value.is_(None))
    parts = {
        "total": sa.func.sum(value),
        "known": sa.func.count(value),
        "spent": sa.func.sum(sa.case((_IS_NEW, value - reused), else_=0)),
        "unknown": sa.func.sum(sa.case((unknown, 1), else_=0)),
        "dearest": sa.func.max(value),
    }
    return [sa.func.coalesce(column, 0).label(f"{name}_{part}") for part, column in parts.items()]
