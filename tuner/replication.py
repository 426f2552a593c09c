"""Which configs earn another answer to every question: those whose place on the front is uncertain, while answers differ.

Apart from `results`, which says how uncertain it is: this decides what to spend on it. Resampling the questions
shows two kinds of doubt at once. That other questions would have been answered otherwise, no repeat of
these questions tells; that the same ones would have been, it does.
"""

from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from tuner.front import Floats
from tuner.objectives import OBJECTIVES
from tuner.objectives import Objective
from tuner.results import Point
from tuner.store import Store

Asked = Mapping[int, Sequence[tuple[str, int]]]
"""The (example, repeat) of every answer, by trial."""

UNCERTAIN = (0.1, 0.9)
"""Memberships between which a config may be on the front or not."""

LEAST_GAIN = 0.05
"""Share of a variance that another answer to every question must take off. A deterministic server takes off nothing."""


ROUNDING = 1e-24
"""Variance, as a share of the mean square, below which it is none."""


def to_replicate(store: Store, points: Sequence[Point], *, repeats: int, most: int) -> list[int]:
    """Numbers of the trials, at most so many and the most uncertain first, whose questions are to be asked once more.

    `points` are the front and what cannot be told from it, on the search questions; `repeats` is how
    often a question may be answered. A first repeat is always worth it, since it tells how much
    answers differ; a later one while it sharpens at least one objective's comparison with the others.
    """
    if not points:
        return []
    asked = store.asked("search")
    answers = _answers(store, points, asked, [OBJECTIVES[name] for name in points[0].values])
    low, high = UNCERTAIN
    uncertain = [point for point in points if low <= point.membership <= high]
    uncertain.sort(key=lambda point: abs(point.membership - 0.5))
    chosen = []
    for point in uncertain:
        own = answers[point.trial.number]
        others = [each for number, each in answers.items() if number != point.trial.number]
        times = Counter(example for example, _ in asked[point.trial.trial_id])
        if min(times.values()) < repeats and _is_worth_it(own, others):
            chosen.append(point.trial.number)
    return chosen[:most]


def gain(answers: Floats, others: Floats) -> float | None:
    """What share of the variance of a config's mean difference from others one more answer to every question takes off.

    `answers` is (questions, repeats), NaN where a question has fewer; `others` holds the others' mean amount for each
    question. With R answers to each of n questions that variance is (B + W / R) / n: B between questions, which
    stays, and W between answers to the same one (Searle, Casella and McCulloch 1992, Variance Components, ch. 3).
    None while fewer than two questions have been answered twice.
    """
    counts = _counts(answers)
    twice = counts >= 2
    if twice.sum() < 2:
        return None
    within = float(np.nanvar(answers[twice], axis=1, ddof=1).mean())
    of_difference = float(np.var(np.nanmean(answers, axis=1) - others, ddof=1))
    repeats = float(counts.mean())
    # Means that are equal differ by how they are rounded.
    if of_difference <= ROUNDING * float(np.nanmean(answers**2)):
        return 0.0
    return within / (repeats * (repeats + 1)) / of_difference


def _is_worth_it(own: Floats, others: Sequence[Floats]) -> bool:
    if not others:
        return False
    means = np.mean([np.nanmean(each, axis=2) for each in others], axis=0)
    gains = [gain(amounts, mean) for amounts, mean in zip(own, means, strict=True)]
    return any(each is None or each >= LEAST_GAIN for each in gains)


def _counts(answers: Floats) -> Floats:
    return np.asarray((~np.isnan(answers)).sum(axis=-1), dtype=np.float64)


def _answers(
    store: Store, points: Sequence[Point], asked: Asked, objectives: Sequence[Objective]
) -> dict[int, Floats]:
    """(objectives, questions, repeats) amounts by trial, NaN where a question was not answered so often, or not measured."""
    names = list(dict.fromkeys(field for objective in objectives for field in objective.fields))
    fields = store.fields("search", names)
    found = {}
    for point in points:
        keys = asked[point.trial.trial_id]
        columns = dict(zip(names, fields[point.trial.trial_id].T, strict=True))
        place = {example: row for row, example in enumerate(sorted({each for each, _ in keys}))}
        rows, repeats = [place[example] for example, _ in keys], [repeat for _, repeat in keys]
        amounts = np.full((len(objectives), len(place), max(repeats) + 1), np.nan)
        for each, objective in zip(amounts, objectives, strict=True):
            each[rows, repeats] = objective.amounts(*(columns[name] for name in objective.fields))
        found[point.trial.number] = amounts
    return found
