"""Pareto arithmetic on plain arrays: dominance, hypervolume, membership, groups; knows nothing of trials.

Throughout, `values` is (points, objectives) and already turned so that smaller is better (`oriented`), and `draws` is
(draws, points, objectives): joint draws of every point's values. Paired draws (the same questions resampled for all
points) keep what configs have in common from looking like doubt.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


FEW = 100
"""Points up to which a hypervolume takes less time than to find those that are not dominated."""


def oriented(values: Floats, directions: Sequence[Literal["maximize", "minimize"]]) -> Floats:
    """The values with maximised objectives negated; the last axis runs over objectives."""
    signs = np.array([-1.0 if direction == "maximize" else 1.0 for direction in directions])
    return np.asarray(values * signs)


def non_dominated(values: Floats) -> Flags:
    """For each point, whether no other is at least as good everywhere and better somewhere.

    Equal points do not dominate each other: twins are both on the front, or neither is.
    """
    keep = np.zeros(len(values), dtype=np.bool_)
    # Whatever dominates a point stands before it, so that the first of those left is on the front.
    left = np.lexsort(values.T[::-1])
    while len(left):
        keep[left[0]] = True
        point, others = values[left[0]], values[left[1:]]
        beaten = (others >= point).all(axis=1) & (others > point).any(axis=1)
        left = left[1:][~beaten]
    return keep


def hypervolume(values: Floats, reference: Floats) -> float:
    """Volume of what lies between `reference`, (objectives,), and any of the points; 0 for no points.

    Exact, for any number of objectives: slices across the last one, each a hypervolume of one objective less (While et
    al. 2006, IEEE Transactions on Evolutionary Computation 10). What a point has beyond the reference counts for nothing.
    """
    sides = np.maximum(reference - values, 0.0)
    return _volume(sides if len(sides) <= FEW else sides[non_dominated(-sides)])


def _volume(sides: Floats) -> float:
    """Volume of the union of boxes that have a corner in common, by their sides: (boxes, objectives)."""
    sides = sides[np.argsort(-sides[:, -1])]
    heights = _steps_down(sides[:, -1])
    objectives = sides.shape[1]
    if objectives == 1:
        return float(heights.sum())
    if objectives == 2:
        areas = np.maximum.accumulate(sides[:, 0])
    elif objectives == 3:
        areas = _areas(sides[:, :2])
    else:
        areas = np.array([_volume(sides[: n + 1, :-1]) for n in range(len(sides))], dtype=float)
    return float(heights @ areas)


def _areas(sides: Floats) -> Floats:
    """Areas of the unions of the first rectangle, of the first two, and so on, by their sides: (rectangles, 2)."""
    order = np.argsort(-sides[:, 0])
    widths, lengths = _steps_down(sides[order, 0]), sides[order, 1]
    is_within = order <= np.arange(len(sides))[:, np.newaxis]
    return np.asarray(np.maximum.accumulate(np.where(is_within, lengths, 0.0), axis=1) @ widths)


def _steps_down(sides: Floats) -> Floats:
    """From each of some descending numbers to the next, and from the last to 0."""
    return np.asarray(-np.diff(sides, append=0.0))


def membership(draws: Floats) -> Floats:
    """Probability that each point is on the front: the share of draws in which no other dominates it."""
    return np.asarray(np.mean([non_dominated(draw) for draw in draws], axis=0))


def alike(draws: Floats, confidence: float = 0.95) -> Flags:
    """(points, points): whether two points cannot be told apart.

    They can where one is better than the other in one objective in nearly every draw: so many that it would happen by
    chance in 1 − `confidence` of cases at most, for either direction and all objectives together (Bonferroni).
    """
    count, points, objectives = draws.shape
    most = count * (1 - (1 - confidence) / (2 * objectives))
    same = np.ones((points, points), dtype=np.bool_)
    for objective in range(objectives):
        column = draws[:, :, objective]
        better = np.stack([(column < column[:, [index]]).sum(axis=0) for index in range(points)])
        apart = better >= most
        same &= ~(apart | apart.T)
    return same


def groups(same: Flags) -> list[tuple[int, ...]]:
    """Largest sets of points any two of which are the same, of two points or more; a point may be in several.

    The maximal cliques (Bron and Kerbosch 1973) of a symmetric relation: a compact letter display's letters.
    """
    neighbours = [set(np.flatnonzero(row).tolist()) - {index} for index, row in enumerate(same)]

    def extend(clique: set[int], candidates: set[int], excluded: set[int]) -> Iterator[set[int]]:
        if not candidates and not excluded:
            yield clique
            return
        pivot = max(candidates | excluded, key=lambda point: len(neighbours[point] & candidates))
        for point in candidates - neighbours[pivot]:
            near = neighbours[point]
            yield from extend(clique | {point}, candidates & near, excluded & near)
            candidates = candidates - {point}
            excluded = excluded | {point}

    found = extend(set(), set(range(len(same))), set())
    return sorted(tuple(sorted(clique)) for clique in found if len(clique) > 1)


def resample_indices(count: int, draws: int, seed: int) -> npt.NDArray[np.int64]:
    """(draws, count) positions drawn with replacement from `count` questions: a paired bootstrap's rows."""
    return np.random.default_rng(seed).integers(0, count, size=(draws, count))
