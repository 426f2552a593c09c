"""The objectives by name: direction, unit, formula and interval; a new one is a line in this table."""

import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from tuner.intervals import Interval
from tuner.intervals import mean_interval
from tuner.intervals import quantile_interval
from tuner.intervals import share_interval
from tuner.records import ExampleRun

JOULES_PER_WH = 3600.0

Amounts = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Objective:
    """A number with a direction, made from what each question scored or cost.

    `amounts` turns fields of example runs, an array each, into one number a run; `summary` reduces
    those along the last axis, so that resampled amounts go through the very same formula, and `interval`
    says how sure that is, of (questions, answers). Inside these arrays, and only there, what was
    not measured is NaN.
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
    interval: Callable[[Amounts], Interval]
    quantile: float | None = None
    """The share of amounts that lie below it; None for a mean."""

    def value(self, runs: Sequence[ExampleRun]) -> float | None:
        """The objective over these runs, every question weighing the same; None when there are none, or one was not measured."""
        answers = self.answers(runs)
        return None if answers is None else self.of(answers)

    def answers(self, runs: Sequence[ExampleRun]) -> Amounts | None:
        """(questions, answers) amounts of these runs, as `by_question` has them; None as of `value`."""
        ordered = sorted(runs, key=lambda run: (run.example_id, run.repeat))
        columns = ([getattr(run, field) for run in ordered] for field in self.fields)
        amounts = self.amounts(*(np.array(column, dtype=float) for column in columns))
        if not runs or np.isnan(amounts).any():
            return None
        asked = np.array([run.example_id for run in ordered])
        return by_question(amounts, np.flatnonzero(np.append(True, asked[1:] != asked[:-1])))

    def of(self, amounts: Amounts) -> float:
        """The objective over (questions, answers) amounts, all of them measured."""
        return float(self.summary(amounts.reshape(-1)))


def by_question(amounts: Amounts, starts: npt.NDArray[np.intp]) -> Amounts:
    """(questions, answers) of amounts that stand question by question, each from its place in `starts` on.

    A question that was answered less often than others has its answers there as many times over as make the rows
    equally long, so that every question weighs the same, whatever the formula.
    """
    if len(starts) == len(amounts):
        return amounts[:, np.newaxis]
    counts = np.diff(starts, append=len(amounts))
    length = math.lcm(*map(int, np.unique(counts)))
    rows = np.split(amounts, starts[1:])
    return np.stack([np.repeat(row, length // len(row)) for row in rows])


def _mean(amounts: Amounts) -> Amounts:
    return np.asarray(amounts.mean(axis=-1))


def _quantile(
    share: float,
) -> tuple[Callable[[Amounts], Amounts], Callable[[Amounts], Interval], float]:
    def summary(amounts: Amounts) -> Amounts:
        # As np.quantile interpolates, at a third of its time on many short rows.
        ordered = np.sort(amounts, axis=-1)
        position = share * (amounts.shape[-1] - 1)
        low = int(position)
        high = min(low + 1, amounts.shape[-1] - 1)
        below, above = ordered[..., low], ordered[..., high]
        return np.asarray(below + (above - below) * (position - low))

    return summary, partial(quantile_interval, share=share), share


def _same(amounts: Amounts) -> Amounts:
    return amounts


_SHARE = _mean, share_interval
_MEAN = _mean, mean_interval

OBJECTIVES: Mapping[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective("accuracy", "maximize", "share", "nothing", ("score",), _same, *_SHARE),
        Objective("latency_mean_s", "minimize", "s", "nothing", ("latency_s",), _same, *_MEAN),
        Objective(
            "latency_p50_s", "minimize", "s", "nothing", ("latency_s",), _same, *_quantile(0.5)
        ),
        Objective(
            "latency_p95_s", "minimize", "s", "nothing", ("latency_s",), _same, *_quantile(0.95)
        ),
        Objective(
            "energy_wh",
            "minimize",
            "Wh/query",
            "meter",
            ("energy_j",),
            lambda joules: joules / JOULES_PER_WH,
            *_MEAN,
        ),
        Objective("cost_usd", "minimize", "$/query", "prices", ("cost_usd",), _same, *_MEAN),
        Objective(
            "tokens_total",
            "minimize",
            "tokens/query",
            "tokens",
            ("tokens_in", "tokens_out"),
            lambda tokens_in, tokens_out: tokens_in + tokens_out,
            *_MEAN,
        ),
    )
}
