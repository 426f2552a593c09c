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

NEAR = 0.1
"""Membership from which a config that others dominate is worth another measurement."""

MOST_NEAR = 10
"""Configs near the front at most, the likeliest: the holdout pass measures them all."""

PROBES = 256
"""Points of the unit cube by which hypervolumes of draws are told apart."""

MARGIN = 0.5
"""How far beyond the worst of some points the reference for their hypervolume lies, in parts of their range."""

LEAST_KEPT = 0.05
"""Share of what sets an estimate apart that is believed, however noisy: all equal would be certainty again."""


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


def steadied(draws: Floats, values: Floats, objective: int, twins: Sequence[int]) -> Floats:
    """The draws, with one objective's estimates moved towards what points of like cost have, by what chance spreads them.

    Whatever looks better than points that cost as much was lucky, more likely than not (Fay and Herriot 1979, Journal of
    the American Statistical Association 74). A plane over the ranks of the other objectives says what is like, and
    how far estimates lie from it, beside how far draws do, says how much of that is chance. Points to which `twins` gives
    the same number answered alike, and remain equal. A plane through few points says nothing: of fewer than two for each objective, draws stay as they are.
    """
    moved = draws.copy()
    moved[:, :, objective] = steadied_objective(draws[:, :, objective], values, objective, twins)
    return moved


def steadied_objective(
    drawn: Floats, values: Floats, objective: int, twins: Sequence[int]
) -> Floats:
    """The same of (draws, points), the draws of that objective alone."""
    points, objectives = values.shape
    if points < 2 * objectives:
        return drawn
    plane = _plane(np.delete(values, objective, axis=1))
    free = points - plane.shape[1]
    seen = values[:, objective]
    noise = drawn - seen
    fit, common = plane @ (plane.T @ seen), (noise @ plane) @ plane.T
    apart, own = seen - fit, noise - common
    spread = float(apart @ apart)
    chance = float(own.var(axis=0).sum()) * max(free - 2, 0) / free
    keep = max(LEAST_KEPT, 1 - chance / spread) if spread > 0 else 1.0
    found = fit + common + keep * apart + np.sqrt(keep) * own
    order = np.argsort(twins, kind="stable")
    _, starts, counts = np.unique(np.asarray(twins)[order], return_index=True, return_counts=True)
    for place in np.flatnonzero(counts > 1).tolist():
        same = order[starts[place] : starts[place] + counts[place]]
        found[:, same] = found[:, same].mean(axis=1, keepdims=True)
    return np.asarray(found)


def _plane(values: Floats) -> Floats:
    """Orthonormal (points, terms) that span a constant and the ranks of each column."""
    columns = [np.ones(len(values))]
    for column in values.T:
        ordered = np.sort(column)
        columns.append(np.searchsorted(ordered, column) + np.searchsorted(ordered, column, "right"))
    left, sizes, _ = np.linalg.svd(np.stack(columns, axis=1), full_matrices=False)
    return np.asarray(left[:, sizes > 1e-9 * sizes[0]])


def membership(draws: Floats) -> Floats:
    """Probability that each point is on the front: the share of draws in which no other dominates it."""
    if draws.shape[1] <= FEW:
        return np.asarray(np.mean([non_dominated(draw) for draw in draws], axis=0))
    best = strongest(draws.mean(axis=0))
    times = np.zeros(draws.shape[1])
    for draw in draws:
        left = unbeaten(list(np.ascontiguousarray(draw.T)), draw[best])
        times[left[non_dominated(draw[left])]] += 1
    return times / len(draws)


def strongest(values: Floats) -> npt.NDArray[np.intp]:
    """Places of the points that no other dominates, those first that are at least as good as most others."""
    best = np.flatnonzero(non_dominated(values))
    beaten = [int((values >= values[place]).all(axis=1).sum()) for place in best]
    return np.asarray(best[np.argsort(beaten, kind="stable")[::-1]])


def unbeaten(columns: Sequence[Floats], best: Floats) -> npt.NDArray[np.intp]:
    """Places of the points, given by objective, that none of the best dominates.

    The first of these come alone, those after them in ever larger groups: few points are left for the larger ones.
    """
    left = np.arange(len(columns[0]))
    first, size = 0, 1
    while first < len(best):
        group = best[first : first + size]
        worse = np.ones((len(group), len(left)), dtype=np.bool_)
        other = np.zeros_like(worse)
        for column, figures in zip(columns, group.T, strict=True):
            worse &= figures[:, np.newaxis] <= column
            other |= figures[:, np.newaxis] < column
        kept = ~(worse & other).any(axis=0)
        left, columns = left[kept], [column[kept] for column in columns]
        first, size = first + size, 2 * size
    return left


def adding_most(draws: Floats, least: float) -> list[int]:
    """Places of points in the order in which each adds most to the hypervolume expected of those before it.

    It ends where one would add less than a share `least` of what all hold. Objectives count by their range over the
    points' means, and the reference lies MARGIN of it beyond the worst: there the best in one objective, which
    is the worst in others, counts too. By random probes: exact volumes of every draw
    would take a thousand times as long, and the order needs no more.
    """
    means = draws.mean(axis=0)
    low, spread = means.min(axis=0), np.ptp(means, axis=0)
    scaled = (draws - low) / np.where(spread > 0, spread, 1.0)
    probes = (1 + MARGIN) * np.random.default_rng(0).random((PROBES, draws.shape[2]))
    covered = np.ones((draws.shape[1], len(draws), PROBES), dtype=np.bool_)
    for objective, column in enumerate(probes.T):
        covered &= scaled[:, :, objective].T[:, :, None] <= column
    left = covered.reshape(len(covered), -1)
    whole = left.any(axis=0).sum()
    order: list[int] = []
    while left.size:
        adds = left.sum(axis=1)
        best = int(adds.argmax())
        if order and adds[best] < max(1.0, least * whole):
            break
        order.append(best)
        left = left[:, ~left[best]]
    return order


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
