"""What example runs took, summed up by trial and split: the totals that are kept up as runs are kept.

Apart from the store, which keeps and gives back what it was given: here is which part of a run is new, and what is
made of a part that nobody knows.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tuner.records import ExampleRun
from tuner.store.tables import AMOUNTS
from tuner.store.tables import totals
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


def amounts_of(run: ExampleRun) -> dict[str, Amount]:
    """What one run took."""
    reused, latency_s = run.reused, run.latency_s
    # One that was derived or taken from another study is old all through.
    is_new = latency_s <= 0 or reused.latency_s < latency_s
    # How long its stretch of its sitting was; its latency where a meter failed and did not say.
    seconds = run.energy.seconds if run.energy.seconds > 0 else latency_s
    old_share = reused.latency_s / latency_s if latency_s > 0 else 0.0
    is_counted = run.tokens_in is not None and run.tokens_out is not None
    tokens = (run.tokens_in or 0) + (run.tokens_out or 0) if is_counted else None
    taken: Mapping[str, tuple[float | None, float]] = {
        "seconds": (seconds, seconds * old_share),
        "latency_s": (latency_s, reused.latency_s),
        "joules": (run.energy_j, reused.energy_j),
        "tokens": (tokens, reused.tokens),
        "usd": (run.cost_usd, reused.cost_usd),
    }
    return {name: _amount(*taken[name], is_new=is_new) for name in AMOUNTS}


def _amount(value: float | None, reused: float, *, is_new: bool) -> Amount:
    if value is None:
        return Amount(total=0.0, known=0, spent=0.0, unknown=int(is_new), dearest=0.0)
    spent = value - reused if is_new else 0.0
    return Amount(total=value, known=1, spent=spent, unknown=0, dearest=value)


_ADDED = (
    "runs",
    "failed",
    "asked",
    *(f"{name}_{part}" for name in AMOUNTS for part in ("total", "known", "spent", "unknown")),
)
_LARGEST = ("last_run", "last_window", *(f"{name}_dearest" for name in AMOUNTS))

_T = totals.c

_ADD = (
    sa.update(totals)
    .where(_T.trial_id == sa.bindparam("of_trial"), _T.split == sa.bindparam("of_split"))
    .values(
        {name: _T[name] + sa.bindparam(f"new_{name}") for name in _ADDED}
        | {
            name: sa.case(
                (_T[name] < sa.bindparam(f"new_{name}"), sa.bindparam(f"new_{name}")),
                else_=_T[name],
            )
            for name in _LARGEST
        }
    )
)


def add_to_totals(
    connection: sa.Connection, trial_id: int, split: str, run_id: int, run: ExampleRun
) -> None:
    """Count a run that was kept in this transaction."""
    row: dict[str, Any] = {
        "runs": 1,
        "last_run": run_id,
        "last_window": run.window,
        "failed": int(run.error is not None),
        "asked": int(run.reused.latency_s < run.latency_s),
    }
    for name, amount in amounts_of(run).items():
        for part in ("total", "known", "spent", "unknown", "dearest"):
            row[f"{name}_{part}"] = getattr(amount, part)
    new = {f"new_{name}": value for name, value in row.items()}
    of = {"of_trial": trial_id, "of_split": split}
    if connection.execute(_ADD, {**of, **new}).rowcount == 0:
        connection.execute(
            sa.insert(totals),
            {"trial_id": trial_id, "split": split, "energy_source": run.energy.source, **row},
        )


def spending_query(trial_ids: sa.Select[Any], after: int) -> sa.Select[Any]:
    """A row for each of these trials and each split with runs kept after that one, to be read by `spending_of`."""
    return (
        sa.select(
            _T.trial_id,
            _T.split,
            trials.c.config_hash,
            trials.c.config["workflow"].as_string().label("workflow"),
            _T.runs,
            _T.last_run,
            *(
                _T[f"{name}_{part}"]
                for name in AMOUNTS
                for part in ("total", "known", "spent", "unknown", "dearest")
            ),
        )
        .join(trials, trials.c.trial_id == _T.trial_id)
        .where(_T.trial_id.in_(trial_ids), _T.last_run > after)
        .order_by(_T.trial_id, _T.split)
    )


def spending_of(row: Sequence[Any]) -> Spending:
    """What a row of `spending_query` says."""
    first = len(row) - _PARTS * len(AMOUNTS)
    amounts = {
        name: Amount(*row[place : place + _PARTS])
        for name, place in zip(AMOUNTS, range(first, len(row), _PARTS), strict=True)
    }
    trial_id, split, config_hash, workflow, runs, last = row[:first]
    return Spending(trial_id, split, config_hash, workflow, runs, last, amounts)


_PARTS = 5
"""Of an amount, in the order of its fields."""
