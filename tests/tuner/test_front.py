import numpy as np
import pytest
from hypothesis import assume
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
    points = range(draws.shape[1])
    shares = np.mean([front.non_dominated(draw) for draw in draws], axis=0)
    assert front.membership(draws, points).tolist() == pytest.approx(shares.tolist())


@given(cubes, st.integers(1, 4))
def test_without_doubt_membership_is_the_front(draws, times):
    certain = np.repeat(draws[:1], times, axis=0)
    expected = front.non_dominated(draws[0]).astype(float).tolist()
    assert front.membership(certain, range(draws.shape[1])).tolist() == expected


def test_membership_is_asked_for_some_points_and_answers_in_their_order():
    draws = np.array([[[0.0], [1.0], [2.0]], [[0.0], [-1.0], [2.0]]])
    assert front.membership(draws, [1, 0, 2]).tolist() == [0.5, 0.5, 0.0]
    assert front.membership(draws, []).tolist() == []


shares = st.floats(0, 1).map(lambda share: round(share, 3))


@given(tables(shares, rows=(1, 8), columns=(2, 4)), st.sampled_from([2.0, 0.5, 1024.0]))
def test_the_knee_does_not_depend_on_units(values, scale):
    """Powers of two, so that scaling itself rounds nothing."""
    scaled = values.copy()
    scaled[:, 0] *= scale
    assert front.knee(scaled) == front.knee(values)


@given(tables(shares, rows=(2, 8), columns=(2, 4)))
def test_the_knee_is_never_worst_in_anything_where_a_balanced_point_exists(values):
    span = values.max(axis=0) - values.min(axis=0)
    assume((span > 0).all())
    scaled = (values - values.min(axis=0)) / span
    assume(bool((np.linalg.norm(scaled, axis=1) < 0.999).any()))
    assert (scaled[front.knee(values)] < 1).all()


def test_the_knee_is_the_balanced_point():
    extremes = [[0.0, 10.0, 5.0], [3.0, 0.0, 5.0], [1.0, 2.0, 5.0]]
    assert front.knee(np.array(extremes)) == 2
    assert front.knee(np.array([[7.0, 7.0]])) == 0
    assert front.knee(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])) == 0  # a tie: the first


@given(tables(rows=(1, 8), columns=(2, 3)), st.data())
def test_an_extreme_is_best_and_among_equals_not_dominated(values, data):
    column = data.draw(st.integers(0, values.shape[1] - 1))
    index = front.extreme(values, column)
    assert values[index, column] == values[:, column].min()
    assert not any(dominates(other, values[index]) for other in values)


def test_the_extreme_of_equals_is_their_knee():
    values = np.array([[0.0, 9.0, 0.0], [0.0, 0.0, 9.0], [0.0, 2.0, 2.0], [1.0, 0.0, 0.0]])
    assert front.extreme(values, 0) == 2


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 3))
def test_resampled_positions_are_questions_and_repeat_with_their_seed(count, draws, seed):
    indices = front.resample_indices(count, draws, seed)
    assert indices.shape == (draws, count)
    assert ((indices >= 0) & (indices < count)).all()
    assert (indices == front.resample_indices(count, draws, seed)).all()


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [  # Newcombe 1998 (Statistics in Medicine 17), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_published_intervals(successes, count, low, high):
    assert front.wilson(successes, count) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_turns_with_it(pair):
    successes, count = pair
    low, high = front.wilson(successes, count)
    assert 0 <= low <= successes / count <= high <= 1
    assert low < high
    turned = front.wilson(count - successes, count)
    assert (1 - turned[1], 1 - turned[0]) == pytest.approx((low, high))
