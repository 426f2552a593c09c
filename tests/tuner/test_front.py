import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tuner import front

small = st.integers(-3, 3).map(float)


def tables(elements=small, rows=(1, 12), columns=(1, 4)):
    shape = st.tuples(st.integers(*rows), st.integers(*columns))
    return shape.flatmap(lambda s: hnp.arrays(np.float64, s, elements=elements))


def dominates(one, other):
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(
        a < b for a, b in zip(one, other, strict=True)
    )


@given(tables())
def test_non_dominated_is_what_comparing_all_pairs_finds(values):
    expected = [not any(dominates(other, point) for other in values) for point in values]
    assert front.non_dominated(values).tolist() == expected


@given(tables())
def test_some_point_is_always_on_the_front(values):
    assert front.non_dominated(values).any()


@given(tables(), st.randoms())
def test_the_front_does_not_depend_on_the_order(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    assert (
        front.non_dominated(values[order]).tolist() == front.non_dominated(values)[order].tolist()
    )


@given(tables(), st.floats(0.1, 10), st.floats(-5, 5))
def test_the_front_does_not_depend_on_units(values, scale, shift):
    expected = front.non_dominated(values).tolist()
    assert front.non_dominated(values * scale + shift).tolist() == expected
    assert front.non_dominated(values**3).tolist() == expected


@given(tables())
def test_twins_share_their_fate(values):
    once = front.non_dominated(values).tolist()
    assert front.non_dominated(np.concatenate([values, values])).tolist() == once * 2


def test_of_no_points_none_is_on_the_front():
    assert front.non_dominated(np.empty((0, 3))).tolist() == []


def test_oriented_turns_what_is_maximised():
    turned = front.oriented(np.array([[0.9, 2.0], [0.5, 1.0]]), ["maximize", "minimize"])
    assert turned.tolist() == [[-0.9, 2.0], [-0.5, 1.0]]


cubes = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 3)).flatmap(
    lambda shape: hnp.arrays(np.float64, shape, elements=small)
)


@given(cubes)
def test_membership_is_the_share_of_draws_in_which_a_point_is_on_the_front(draws):
    on_front = [
        [not any(dominates(other, point) for other in draw) for point in draw] for draw in draws
    ]
    assert front.membership(draws).tolist() == pytest.approx(np.mean(on_front, axis=0).tolist())


@given(cubes, st.integers(1, 4))
def test_without_doubt_membership_is_the_front(draws, times):
    certain = np.repeat(draws[:1], times, axis=0)
    expected = front.non_dominated(draws[0]).astype(float).tolist()
    assert front.membership(certain).tolist() == expected


def test_of_no_points_there_is_no_membership():
    assert front.membership(np.empty((5, 0, 3))).tolist() == []


def lucky(points=40, *, spread, seed=0):
    """Estimates that chance alone sets apart from what their cost lets one expect: (values, draws) in units of that chance."""
    rng = np.random.default_rng(seed)
    cost = np.arange(1.0, points + 1)
    truth = -0.5 * cost + spread * rng.normal(size=points)
    seen = truth + rng.normal(size=points)
    values = np.stack([seen, cost], axis=1)
    draws = np.repeat(values[np.newaxis], 300, axis=0)
    draws[:, :, 0] += rng.normal(size=(300, points))
    return truth, values, draws


def test_what_chance_sets_apart_is_moved_to_what_points_of_like_cost_have():
    truth, values, draws = lucky(spread=0.0)
    steady = front.steadied(draws, values, 0, range(40))
    assert np.array_equal(steady[:, :, 1], draws[:, :, 1])
    before = (draws[:, :, 0].mean(axis=0) - truth).std()
    after = (steady[:, :, 0].mean(axis=0) - truth).std()
    assert after < before / 2
    assert steady[:, :, 0].std(axis=0).mean() < 0.6 * draws[:, :, 0].std(axis=0).mean()


def test_what_is_truly_apart_is_left_there():
    _, values, draws = lucky(spread=30.0)
    steady = front.steadied(draws, values, 0, range(40))
    assert np.abs(steady - draws).max() < 1.0  # a thirtieth of how far apart they are


def test_points_that_answered_alike_remain_equal_whatever_they_cost():
    _, values, draws = lucky(spread=0.0)
    values[1, 0] = values[0, 0]
    draws[:, 1, 0] = draws[:, 0, 0]
    steady = front.steadied(draws, values, 0, [0, 0, *range(2, 40)])
    assert np.array_equal(steady[:, 0], steady[:, 1] - [0, 1])
    assert front.membership(steady)[1] == 0.0


@given(tables(rows=(1, 5), columns=(3, 4)))
def test_few_points_are_left_as_they_are(values):
    draws = np.stack([values, values + 1.0])
    assert np.array_equal(front.steadied(draws, values, 0, range(len(values))), draws)


@given(tables(rows=(8, 16), columns=(2, 4)), st.integers(0, 2**16))
def test_steadied_draws_are_numbers_whatever_is_equal(values, seed):
    noise = np.random.default_rng(seed).integers(-1, 2, size=(5, *values.shape))
    steady = front.steadied(values + noise, values, 0, [0] * len(values))
    assert np.isfinite(steady).all()
    assert (np.ptp(steady[:, :, 0], axis=1) < 1e-9).all()


# Hypervolume

grid = st.integers(0, 4).map(float)


@given(tables(grid, rows=(1, 6), columns=(1, 4)))
def test_the_hypervolume_is_the_number_of_cells_that_points_dominate(values):
    """On whole numbers the volume is so many unit cells, counted one by one."""
    edges = np.stack(
        np.meshgrid(*[np.arange(4.0)] * values.shape[1], indexing="ij"), axis=-1
    ).reshape(-1, values.shape[1])
    cells = (edges[:, None] >= values[None]).all(axis=2).any(axis=1).sum()
    assert front.hypervolume(values, np.full(values.shape[1], 4.0)) == pytest.approx(cells)


@given(
    tables(st.floats(0, 1).map(lambda x: round(x, 3)), rows=(1, 12), columns=(2, 5)),
    st.floats(0.5, 1.2),
)
def test_the_hypervolume_is_what_optuna_computes(values, edge):
    from optuna._hypervolume import compute_hypervolume

    reference = np.full(values.shape[1], edge)
    inside = values[(values <= edge).all(axis=1)]
    # Points beyond the reference are cut to it here; Optuna takes none, and they add nothing.
    expected = compute_hypervolume(inside, reference) if len(inside) else 0.0
    assert front.hypervolume(values, reference) == pytest.approx(expected, abs=1e-9)


def test_the_hypervolume_is_the_share_of_random_places_that_points_dominate():
    rng = np.random.default_rng(1)
    values = rng.random((40, 3)) ** 0.5
    places = rng.random((100_000, 3))
    share = (places[:, None] >= values[None]).all(axis=2).any(axis=1).mean()
    assert front.hypervolume(values, np.ones(3)) == pytest.approx(share, abs=0.01)


def test_many_points_have_the_hypervolume_of_those_that_none_dominates():
    values = np.random.default_rng(2).random((3 * front.FEW, 3))
    kept = values[front.non_dominated(values)]
    assert len(kept) <= front.FEW
    whole, alone = (front.hypervolume(each, np.ones(3)) for each in (values, kept))
    assert whole == pytest.approx(alone)


def test_no_points_have_no_hypervolume():
    assert front.hypervolume(np.empty((0, 3)), np.ones(3)) == 0.0


@given(tables(rows=(1, 8), columns=(2, 3)), st.data())
def test_a_point_adds_to_the_hypervolume_only_where_none_dominates_it(values, data):
    place = data.draw(st.integers(0, len(values) - 1))
    reference = np.full(values.shape[1], 5.0)
    whole = front.hypervolume(values, reference)
    rest = np.delete(values, place, axis=0)
    without = front.hypervolume(rest, reference)
    assert without <= whole + 1e-9
    is_beaten = any((other <= values[place]).all() for other in rest)
    assert (whole - without > 1e-9) == (not is_beaten)


# Groups


def test_what_adds_most_to_the_hypervolume_comes_first_and_what_adds_nothing_not_at_all():
    # A point that holds most, one that holds a corner, one dominated, a twin of the first, one best in one thing only.
    values = np.array([[0.2, 0.2], [0.0, 0.9], [0.5, 0.5], [0.2, 0.2], [1.0, 0.0]])
    order = front.adding_most(np.stack([values] * 3), least=0.005)
    assert set(order) == {0, 1, 4}
    assert order[0] == 0
    # In draws: what is good in half of them adds half as much.
    sometimes = np.array(
        [[[0.3, 0.3], [0.0, 0.5], [0.5, 0.0]], [[1.0, 1.0], [0.0, 0.5], [0.5, 0.0]]]
    )
    assert set(front.adding_most(sometimes, least=0.005)) == {0, 1, 2}
    assert front.adding_most(sometimes, least=0.4)[0] in (1, 2)
    assert len(front.adding_most(sometimes, least=0.9)) == 1


@given(tables(columns=(3, 3)))
def test_the_points_that_add_most_hold_what_all_hold_and_are_no_twins(values):
    order = front.adding_most(values[None], least=0.0)
    assert len(np.unique(values[order], axis=0)) == len(order)
    worst = values.max(axis=0) + 0.5 * np.ptp(values, axis=0)
    assert front.hypervolume(values[order], worst) >= 0.9 * front.hypervolume(values, worst)


def test_points_are_told_apart_by_an_objective_in_which_one_is_nearly_always_better():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(400, 3, 2))
    draws = noise + np.array([[0.0, 0.0], [0.5, 0.5], [0.0, 9.0]])
    assert front.alike(draws).tolist() == [
        [True, True, False],
        [True, True, False],
        [False, False, True],
    ]


def test_points_that_are_never_better_are_not_told_apart():
    certain = np.repeat(np.array([[[1.0, 2.0], [1.0, 2.0], [1.0, 2.1]]]), 50, axis=0)
    assert front.alike(certain).tolist() == [
        [True, True, False],
        [True, True, False],
        [False, False, True],
    ]


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_of_points_that_are_the_same_few_pairs_are_told_apart(confidence):
    """Their estimates differ by chance, and draws surround the estimates: the chance of a wrong distinction is bounded."""
    rng = np.random.default_rng(3)
    wrong = []
    for _ in range(400):
        estimates = rng.normal(size=(1, 2, 3))
        draws = estimates + rng.normal(size=(1000, 2, 3))
        wrong.append(not front.alike(draws, confidence)[0, 1])
    assert 0 < np.mean(wrong) <= 1 - confidence + 0.02


relations = st.integers(1, 7).flatmap(
    lambda size: hnp.arrays(np.bool_, (size, size)).map(
        lambda flags: flags | flags.T | np.eye(size, dtype=bool)
    )
)


@given(relations)
def test_groups_are_the_largest_sets_of_points_that_are_all_the_same(same):
    size = len(same)
    subsets = [tuple(k for k in range(size) if bits >> k & 1) for bits in range(1, 2**size)]
    cliques = [each for each in subsets if all(same[a, b] for a in each for b in each)]
    largest = [a for a in cliques if not any(set(a) < set(b) for b in cliques)]
    assert front.groups(same) == sorted(each for each in largest if len(each) > 1)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 3))
def test_resampled_positions_are_questions_and_repeat_with_their_seed(count, draws, seed):
    indices = front.resample_indices(count, draws, seed)
    assert indices.shape == (draws, count)
    assert ((indices >= 0) & (indices < count)).all()
    assert (indices == front.resample_indices(count, draws, seed)).all()
