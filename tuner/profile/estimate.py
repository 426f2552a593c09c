"""Estimates with their 95 % intervals, from what each question gave; apart from the tables, which only name quantities.

Shares of right and wrong answers have Wilson's interval, everything else resamples the questions, ratios with numerator
and denominator on the same ones: as `results` does for a front, here for any formula.
"""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from tuner.forecast import Amount
from tuner.front import resample_indices
from tuner.intervals import wilson
from tuner.load import P95_NEEDS
from tuner.load import P99_NEEDS
from tuner.sample import SEED

DRAWS = 1000
"""Resamples of the questions: quantiles at 2.5 and 97.5 % then rest on 25 draws each."""

NEEDS = {0.05: P95_NEEDS, 0.95: P95_NEEDS, 0.99: P99_NEEDS}
"""Fewest questions for a quantile to be more than the fastest or the slowest of them."""


@dataclass(frozen=True, slots=True)
class Value:
    """A figure with its 95 % interval; None where it is not known, and then why."""

    value: float | None
    interval: tuple[float, float] | None = None
    """None where no error is known: a single question, a count that was read once."""
    why: str | None = None


Amounts = Sequence[float | None]


def missing(why: str) -> Value:
    """A figure that is not known."""
    return Value(None, why=why)


def mean(amounts: Amounts, *, why: str = "not measured on every question") -> Value:
    """The mean; not known when one amount is not."""
    return estimate([amounts], lambda drawn: drawn.mean(axis=-1), why=why)


def share(scores: Amounts, *, why: str = "not known for every question") -> Value:
    """The mean of scores in 0 … 1: accuracy."""
    known = [score for score in scores if score is not None]
    if len(known) < len(scores) or not set(known) <= {0.0, 1.0} or not known:
        return mean(scores, why=why)
    return Value(sum(known) / len(known), wilson(sum(known), len(known)))


def quantile(amounts: Amounts, q: float) -> Value:
    """A quantile; not known of fewer amounts than it needs: no p99 under 100."""
    if len(amounts) < NEEDS.get(q, 1):
        return missing(f"n = {len(amounts)}, and it takes {NEEDS[q]}")
    return estimate([amounts], lambda drawn: np.quantile(drawn, q, axis=-1))


def ratio(
    over: Amounts,
    under: Amounts,
    *,
    why: str = "not measured on every question",
    scale: float = 1.0,
) -> Value:
    """Σ over ÷ Σ under, times `scale`, question by question the same ones."""
    return estimate(
        [over, under],
        lambda above, below: scale * np.divide(above.sum(axis=-1), below.sum(axis=-1)),
        why=why,
    )


def estimate(
    columns: Sequence[Amounts],
    formula: Callable[..., npt.NDArray[np.float64]],
    *,
    why: str = "not measured on every question",
) -> Value:
    """A formula over columns of amounts, a row a question; it reduces the last axis of each."""
    if not columns[0]:
        return missing("no questions")
    if any(amount is None for column in columns for amount in column):
        return missing(why)
    table = [np.array(column, dtype=np.float64) for column in columns]
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(formula(*table))
        if not np.isfinite(value):
            return missing("nothing to divide by")
        if len(table[0]) < 2:
            return Value(value)
        indices = _indices(len(table[0]))
        draws = formula(*(column[indices] for column in table))
    finite = draws[np.isfinite(draws)]
    low, high = np.quantile(finite, [0.025, 0.975])
    return Value(value, (min(float(low), value), max(float(high), value)))


@cache
def _indices(count: int) -> npt.NDArray[np.int64]:
    return resample_indices(count, DRAWS, SEED)


def blurred(value: Value, stderr_share: float | None) -> Value:
    """The same figure with a meter's own error, a share of it, beside that of the questions drawn."""
    if value.value is None or value.interval is None or not stderr_share:
        return value
    amount = Amount(value.value, value.interval).blurred(abs(stderr_share * value.value))
    return Value(value.value, amount.interval)
