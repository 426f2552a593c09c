"""Pareto arithmetic on plain arrays: dominance, membership, the choice of a point; knows nothing of trials.

Throughout, `values` is (points, objectives) and already turned so that smaller is better (`oriented`).
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def oriented(values: Floats, directions: Sequence[Literal["maximize", "minimize"]]) -> Floats:
    """The values with maximised objectives negated; the last axis runs over objectives."""
    signs = np.array([-1.0 if direction == "maximize" else 1.0 for direction in directions])
    return np.asarray(values * signs)


def non_dominated(values: Floats) -> Flags:
    """For each point, whether no other is at least as good everywhere and better somewhere.

    Equal points do not dominate each other: twins are both on the front, or neither is.
    """
    keep = np.ones(len(values), dtype=np.bool_)
    for index, point in enumerate(values):
        if keep[index]:
            beaten = np.asarray((values >= point).all(axis=1) & (values > point).any(axis=1))
            keep = keep & ~beaten
    return keep


def membership(draws: Floats, points: Sequence[int]) -> Floats:
    """Probability that each of `points` is on the front, from joint draws of every point's values.

    `draws` is (draws, points, objectives): the share of draws in which no point dominates it. Paired
    draws (the same questions resampled for all points) keep what configs have in common from
    looking like doubt.
    """
    shares = []
    for index in points:
        point = draws[:, index : index + 1, :]
        beaten = np.asarray((draws <= point).all(axis=2) & (draws < point).any(axis=2))
        shares.append(1.0 - float(beaten.any(axis=1).mean()))
    return np.array(shares, dtype=np.float64)


def knee(values: Floats) -> int:
    """Index of the point nearest to the ideal one, each objective scaled to the range of the points given.

    Scale-free; an extreme of one objective that is worst in another lies at distance 1 or more, so
    a balanced point wins wherever there is one. Ties go to the first.
    """
    low = values.min(axis=0)
    span = values.max(axis=0) - low
    scaled = np.divide(values - low, span, out=np.zeros_like(values), where=span > 0)
    return int(np.argmin(np.linalg.norm(scaled, axis=1)))


def extreme(values: Floats, objective: int) -> int:
    """Index of the best point in one objective; among equals the one nearest to the knee of them."""
    best = np.flatnonzero(values[:, objective] == values[:, objective].min())
    return int(best[knee(values[best])])


def resample_indices(count: int, draws: int, seed: int) -> npt.NDArray[np.int64]:
    """(draws, count) positions drawn with replacement from `count` questions: a paired bootstrap's rows."""
    return np.random.default_rng(seed).integers(0, count, size=(draws, count))


def wilson(successes: float, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Confidence interval of a share (Wilson 1927); honest at 0 and 1, where the bootstrap has no width."""
    share = successes / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    # Rounding must not put the share itself outside, at 0 and 1 where it is an end.
    return max(0.0, min(share, float(centre - half))), min(1.0, max(share, float(centre + half)))
