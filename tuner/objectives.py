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

    `amount` reads one run, None where it was not measured; `summary` reduces amounts along the last
    axis, so that resampled amounts go through the very same formula.
    """

    name: str
    direction: Literal["maximize", "minimize"]
    unit: str
    needs: Literal["nothing", "meter", "prices", "tokens"]
    """What must be there for it to be measured at all; looked at before trial 1."""
    amount: Callable[[ExampleRun], float | None]
    summary: Callable[[Amounts], Amounts]

    def value(self, runs: Sequence[ExampleRun]) -> float | None:
        """The objective over these runs; None when there are none, or one was not measured."""
        amounts = [self.amount(run) for run in runs]
        if not amounts or None in amounts:
            return None
        return float(self.summary(np.array(amounts, dtype=np.float64)))


def _mean(amounts: Amounts) -> Amounts:
    return np.asarray(amounts.mean(axis=-1))


def _quantile(share: float) -> Callable[[Amounts], Amounts]:
    def summary(amounts: Amounts) -> Amounts:
        return np.asarray(np.quantile(amounts, share, axis=-1))

    return summary


def _energy_wh(run: ExampleRun) -> float | None:
    return None if run.energy.joules is None else run.energy.joules / JOULES_PER_WH


def _tokens(run: ExampleRun) -> float | None:
    if run.tokens_in is None or run.tokens_out is None:
        return None
    return float(run.tokens_in + run.tokens_out)


OBJECTIVES: Mapping[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective("accuracy", "maximize", "share", "nothing", lambda run: run.score, _mean),
        Objective("latency_mean_s", "minimize", "s", "nothing", lambda run: run.latency_s, _mean),
        Objective(
            "latency_p50_s", "minimize", "s", "nothing", lambda run: run.latency_s, _quantile(0.5)
        ),
        Objective(
            "latency_p95_s", "minimize", "s", "nothing", lambda run: run.latency_s, _quantile(0.95)
        ),
        Objective("energy_wh", "minimize", "Wh/query", "meter", _energy_wh, _mean),
        Objective("cost_usd", "minimize", "$/query", "prices", lambda run: run.cost_usd, _mean),
        Objective("tokens_total", "minimize", "tokens/query", "tokens", _tokens, _mean),
    )
}
