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

CELLS = 2**20
"""Numbers that `hypervolumes` holds at once, for each of some arrays."""


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


# Hypervolume


def hypervolume(values: Floats, reference: Floats) -> float:
    """Volume of what lies between `reference`, (objectives,), and any of the points; 0 for no points.

    Exact, for any number of objectives: slices across the last one, each a hypervolume of one objective less (While et
    al. 2006, IEEE Transactions on Evolutionary Computation 10). What a point has beyond the reference counts for nothing.
    """
    return float(hypervolumes(values[np.newaxis], reference)[0])


def hypervolumes(draws: Floats, reference: Floats) -> Floats:
    """The hypervolume of the points of each draw: (draws,)."""
    if draws.shape[1] == 0:
        return np.zeros(len(draws))
    sides = np.maximum(reference - draws, 0.0)
    at_once = max(1, CELLS // draws.shape[1] ** 2)
    parts = [_volumes(sides[at : at + at_once]) for at in range(0, len(sides), at_once)]
    return np.concatenate([*parts, np.zeros(0)])


def _volumes(sides: Floats) -> Floats:
    """Volumes of unions of boxes with a corner in common, by their sides: (sets, boxes, objectives)."""
    order = np.argsort(-sides[:, :, -1], axis=1)
    sides = np.take_along_axis(sides, order[:, :, np.newaxis], axis=1)
    heights = _steps_down(sides[:, :, -1])
    boxes, objectives = sides.shape[1:]
    if objectives == 1:
        return np.asarray(heights.sum(axis=1))
    if objectives == 2:
        areas = np.maximum.accumulate(sides[:, :, 0], axis=1)
    elif objectives == 3:
        areas = _areas(sides[:, :, :2])
    else:
        slices = [_volumes(sides[:, : count + 1, :-1]) for count in range(boxes)]
        areas = np.stack(slices, axis=1)
    return np.asarray((heights * areas).sum(axis=1))


def _areas(sides: Floats) -> Floats:
    """Areas of the unions of the first rectangle, of the first two, and so on: (sets, rectangles)."""
    order = np.argsort(-sides[:, :, 0], axis=1)
    widths = _steps_down(np.take_along_axis(sides[:, :, 0], order, axis=1))
    lengths = np.take_along_axis(sides[:, :, 1], order, axis=1)
    is_first = order[:, np.newaxis, :] <= np.arange(sides.shape[1])[:, np.newaxis]
    tallest = np.maximum.accumulate(np.where(is_first, lengths[:, np.newaxis], 0.0), axis=2)
    return np.asarray(np.matmul(tallest, widths[:, :, np.newaxis])[:, :, 0])


def _steps_down(sides: Floats) -> Floats:
    """From each of some descending numbers to the next, from the last to 0, along the last axis."""
    return np.asarray(-np.diff(sides, axis=-1, append=0.0))


# What cannot be known for sure


def membership(draws: Floats, points: Sequence[int]) -> Floats:
    """Probability that each of `points` is on the front: the share of draws in which no point dominates it."""
    values = np.ascontiguousarray(np.moveaxis(draws, 2, 0))
    rivals = _ever_on_front(values)
    place = {int(index): at for at, index in enumerate(rivals)}
    values = np.ascontiguousarray(values[:, :, rivals])
    shares = [
        1.0 - float(_beaten(values, values[:, :, [place[index]]]).any(axis=1).mean())
        if index in place
        else 0.0
        for index in points
    ]
    return np.array(shares, dtype=np.float64)


def _ever_on_front(values: Floats) -> npt.NDArray[np.intp]:
    """Points that no single other one dominates in every draw; `values` is (objectives, draws, points).

    The rest are on no draw's front, and what they dominate is dominated without them.
    """
    keep = np.ones(values.shape[2], dtype=np.bool_)
    for index in np.flatnonzero(non_dominated(values.mean(axis=1).T)):
        keep &= ~_beaten(-values, -values[:, :, [index]]).all(axis=0)
    return np.flatnonzero(keep)


def _beaten(values: Floats, by: Floats) -> Flags:
    """Where `values` are at most `by` in every objective, and below in one: arrays with objectives first."""
    at_most = np.logical_and.reduce([mine <= other for mine, other in zip(values, by, strict=True)])
    below = np.logical_or.reduce([mine < other for mine, other in zip(values, by, strict=True)])
    return np.asarray(at_most & below)


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
