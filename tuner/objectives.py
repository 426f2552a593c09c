"""The objectives by name: direction, unit and formula; a new one is a line in this table."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tuner.records import ExampleRun

JOULES_PER_WH = 3600.0

Amounts = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Objective:
    """A number with a direction, made from what each question scored or cost.

    `amounts` turns fields of example runs, an array each, into one number a run; `summary` reduces
    those along the last axis, so that resampled amounts go through the very same formula. Inside
    these arrays, and only there, what was not measured is NaN.
    """

    name: str
    direction: Literal["maximize", "minimize"]
    unit: str
    needs: Literal["nothing", "meter", "prices", "tokens"]
    """What must be there for it to be measured at all; looked at before trial 1."""
    fields: tuple[str, ...]
    """Of ExampleRun, and columns of the same names in the store."""
    amounts: Callable[..., Amounts]
    summary: Callable[[Amounts], Amounts]

    def value(self, runs: Sequence[ExampleRun]) -> float | None:
        """The objective over these runs; None when there are none, or one was not measured."""
        if not runs:
            return None
        columns = ([getattr(run, field) for run in runs] for field in self.fields)
        amounts = self.amounts(*(np.array(column, dtype=float) for column in columns))
        return None if np.isnan(amounts).any() else float(self.summary(amounts))


def _mean(amounts: Amounts) -> Amounts:
    return np.asarray(amounts.mean(axis=-1))


def _quantile(share: float) -> Callable[[Amounts], Amounts]:
    def summary(amounts: Amounts) -> Amounts:
        # As np.quantile interpolates, at a third of its time on many short rows.
        ordered = np.sort(amounts, axis=-1)
        position = share * (amounts.shape[-1] - 1)
        low = int(position)
        high = min(low + 1, amounts.shape[-1] - 1)
        below, above = ordered[..., low], ordered[..., high]
        return np.asarray(below + (above - below) * (position - low))

    return summary


def _same(amounts: Amounts) -> Amounts:
    return amounts


OBJECTIVES: Mapping[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective("accuracy", "maximize", "share", "nothing", ("score",), _same, _mean),
        Objective("latency_mean_s", "minimize", "s", "nothing", ("latency_s",), _same, _mean),
        Objective(
            "latency_p50_s", "minimize", "s", "nothing", ("latency_s",), _same, _quantile(0.5)
        ),
        Objective(
            "latency_p95_s", "minimize", "s", "nothing", ("latency_s",), _same, _quantile(0.95)
        ),
        Objective(
            "energy_wh",
            "minimize",
            "Wh/query",
            "meter",
            ("energy_j",),
            lambda joules: joules / JOULES_PER_WH,
            _mean,
        ),
        Objective("cost_usd", "minimize", "$/query", "prices", ("cost_usd",), _same, _mean),
        Objective(
            "tokens_total",
            "minimize",
            "tokens/query",
            "tokens",
            ("tokens_in", "tokens_out"),
            lambda tokens_in, tokens_out: tokens_in + tokens_out,
            _mean,
        ),
    )
}
