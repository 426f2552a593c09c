"""Whether a figure that was claimed still holds, told from the same questions asked once more.

Apart from `results`, which compares configs that were measured alike: here it is one config at two times. The
difference is taken question by question, so that what is hard for it is no doubt, and bounded by a 95 % interval:

holds      the interval lies within what is tolerated
fails      it lies beyond: the figure is worse by more than that
undecided  it holds both: so few questions do not tell
"""

import math
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tuner.front import resample_indices
from tuner.intervals import Floats
from tuner.intervals import Interval
from tuner.intervals import difference_interval
from tuner.intervals import mean_interval
from tuner.intervals import share_interval
from tuner.intervals import widening
from tuner.intervals import wilson
from tuner.objectives import Objective

TOLERANCES: Mapping[str, float] = {
    "share": 0.05,
    "s": 0.25,
    "Wh/query": 0.25,
    "$/query": 0.1,
    "tokens/query": 0.1,
}
"""How much worse a figure may be, by its unit: of a share so much of it, of all else that part of what was claimed.

Times and joules differ from one day to the next on a machine that did not change; answers and tokens do not.
"""

DRAWS = 2000
SEED = 0

MOST_NEEDED = 100_000
"""More questions than that are not worth naming: the figure lies where the tolerance ends."""

Outcome = Literal["holds", "fails", "undecided"]


@dataclass(frozen=True, slots=True)
class Judged:
    """A claimed figure and what became of it."""

    name: str
    claimed: float
    """Over the questions that were asked again."""
    now: float
    worse: float
    """By how much it is worse now, in its unit; below 0 where it is better."""
    interval: Interval
    """95 % confidence, of `worse` over all questions of this kind."""
    tolerated: float
    """In its unit."""
    outcome: Outcome
    questions: int
    needed: int | None
    """Questions that would tell, if they were like these; None where it is told, or where no number of them is known."""


def judge(
    objective: Objective, claimed: Floats, now: Floats, *, tolerance: float | None = None
) -> Judged:
    """Whether an objective holds, by (questions, answers) amounts of the same questions in the same order.

    `tolerance` is as TOLERANCES has it, which is what counts where it is None.
    """
    tolerance = TOLERANCES[objective.unit] if tolerance is None else tolerance
    before, after = objective.of(claimed), objective.of(now)
    tolerated = tolerance if objective.unit == "share" else tolerance * abs(before)
    sign = -1.0 if objective.direction == "maximize" else 1.0
    worse = sign * (after - before) + 0.0  # never −0
    interval = _interval(objective, sign, claimed, now)
    outcome = _outcome(interval, tolerated)
    needed = None
    if outcome == "undecided":
        needed = _needed(objective, sign, claimed, now, worse, interval, tolerated)
    return Judged(
        objective.name, before, after, worse, interval, tolerated, outcome, len(claimed), needed
    )


def _outcome(interval: Interval, tolerated: float) -> Outcome:
    if interval[0] > tolerated:
        return "fails"
    return "holds" if interval[1] <= tolerated else "undecided"


def _interval(objective: Objective, sign: float, claimed: Floats, now: Floats) -> Interval:
    questions = len(claimed)
    if objective.quantile is not None:
        if questions < 2:
            return -math.inf, math.inf
        worse = sign * (objective.of(now) - objective.of(claimed))
        indices = resample_indices(questions, DRAWS, SEED)
        after, before = (
            objective.summary(amounts.take(indices, axis=0).reshape(DRAWS, -1))
            for amounts in (now, claimed)
        )
        draws = worse + widening(questions) * (sign * (after - before) - worse)
        low, high = np.quantile(draws, [0.025, 0.975])
        return float(low), float(high)
    each = sign * (now.mean(axis=1) - claimed.mean(axis=1))
    if objective.unit != "share":
        return mean_interval(each[:, np.newaxis])
    # Questions that got worse, and those that got better: where none did, some of those not asked may have.
    lost, won = (np.maximum(part, 0.0)[:, np.newaxis] for part in (each, -each))
    return difference_interval(
        float(lost.mean()), share_interval(lost), float(won.mean()), share_interval(won)
    )


def _needed(
    objective: Objective,
    sign: float,
    claimed: Floats,
    now: Floats,
    worse: float,
    interval: Interval,
    tolerated: float,
) -> int | None:
    questions = len(claimed)
    if objective.unit != "share":
        reach = interval[1] - worse if worse < tolerated else worse - interval[0]
        gap = abs(tolerated - worse)
        if not math.isfinite(reach) or gap * math.sqrt(MOST_NEEDED / questions) <= reach:
            return None
        return max(questions + 1, math.ceil(questions * (reach / gap) ** 2))
    each = sign * (now.mean(axis=1) - claimed.mean(axis=1))
    lost, won = float(np.maximum(each, 0.0).mean()), float(np.maximum(-each, 0.0).mean())

    def tells(count: int) -> bool:
        likely = difference_interval(
            lost, wilson(lost * count, count), won, wilson(won * count, count)
        )
        return _outcome(likely, tolerated) != "undecided"

    return _least(tells, questions + 1)


def _least(tells: Callable[[int], bool], low: int) -> int | None:
    """The least count from `low` on that tells, where all larger ones do; None beyond MOST_NEEDED."""
    high = low
    while not tells(high):
        low, high = high + 1, 2 * high
        if high > MOST_NEEDED:
            return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if tells(middle) else (middle + 1, high)
    return low
