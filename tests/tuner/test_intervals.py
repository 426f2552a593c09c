import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import binom

from tuner import intervals

inf = math.inf


def column(*amounts):
    return np.array(amounts, dtype=float)[:, None]


def tables(elements, questions=(2, 20), answers=(1, 3)):
    shape = st.tuples(st.integers(*questions), st.integers(*answers))
    return shape.flatmap(lambda s: hnp.arrays(np.float64, s, elements=elements))


verdicts = st.sampled_from([0.0, 1.0])
scores = st.integers(0, 4).map(lambda quarters: quarters / 4)
amounts = st.integers(0, 1000).map(float)


# Shares


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
    assert intervals.wilson(successes, count) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_turns_with_it(pair):
    successes, count = pair
    low, high = intervals.wilson(successes, count)
    assert 0 <= low <= successes / count <= high <= 1
    assert low < high
    turned = intervals.wilson(count - successes, count)
    assert (1 - turned[1], 1 - turned[0]) == pytest.approx((low, high))


@given(tables(verdicts, answers=(1, 1)))
def test_one_answer_to_each_question_has_wilsons_interval(table):
    assert intervals.share_interval(table) == intervals.wilson(table.sum(), len(table))


@given(tables(scores))
def test_the_interval_of_a_share_holds_it_and_lies_in_0_to_1(table):
    low, high = intervals.share_interval(table)
    assert 0 <= low <= table.mean() + 1e-12
    assert table.mean() - 1e-12 <= high <= 1


@given(tables(verdicts, answers=(1, 1)), st.integers(2, 4))
def test_repeats_that_always_agree_tell_nothing_new(table, repeats):
    again = np.repeat(table, repeats, axis=1)
    assert intervals.share_interval(again) == intervals.share_interval(table)


@given(tables(verdicts, answers=(2, 4)))
def test_answers_are_worth_no_less_than_questions_and_no_more_than_answers(table):
    assert len(table) <= intervals.effective_count(table) <= table.size


def test_repeats_that_disagree_as_by_chance_tell_nearly_as_much_as_new_questions():
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 2, size=(300, 4)).astype(float)
    assert intervals.effective_count(answers) > 900


def test_scores_in_between_tell_more_than_right_and_wrong_with_the_same_mean():
    low, high = intervals.share_interval(column(*[0.4, 0.5, 0.6, 0.5] * 6))
    widest = intervals.wilson(12, 24)
    assert widest[0] < low < 0.5 < high < widest[1]
    assert intervals.share_interval(column(*[0.5] * 24)) == (0.5, 0.5)


# Means


def test_without_skewness_the_interval_of_a_mean_is_students():
    # t of 4 degrees of freedom at 97.5 %: 2.776
    low, high = intervals.mean_interval(column(1, 2, 3, 4, 5))
    half = 2.776 * math.sqrt(2.5 / 5)
    assert (low, high) == pytest.approx((3 - half, 3 + half), abs=1e-3)


def test_rare_large_amounts_push_the_upper_end_away_and_not_the_lower():
    low, high = intervals.mean_interval(column(*[1.0] * 10, 2.0, 9.0))
    assert high - 1.75 > 2 * (1.75 - low)


@given(tables(amounts), st.sampled_from([0.5, 4.0, 1024.0]))
def test_the_interval_of_a_mean_holds_it_and_goes_with_the_unit(table, unit):
    low, high = intervals.mean_interval(table)
    assert low <= table.mean() + 1e-9
    assert table.mean() - 1e-9 <= high
    assert intervals.mean_interval(table * unit) == pytest.approx((low * unit, high * unit))


@given(tables(amounts, questions=(2, 10), answers=(2, 3)))
def test_repeats_count_by_the_mean_of_each_question(table):
    each = table.mean(axis=1, keepdims=True)
    assert intervals.mean_interval(table) == pytest.approx(intervals.mean_interval(each))


def test_a_mean_of_equal_amounts_has_no_width_and_one_of_a_single_question_no_ends():
    assert intervals.mean_interval(column(2, 2, 2)) == (2, 2)
    assert intervals.mean_interval(np.array([[1.0, 2.0]])) == (0, inf)
    assert intervals.mean_interval(np.array([[-1.0]])) == (-inf, inf)


# Quantiles


@pytest.mark.parametrize("count", [20, 50, 100, 400])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_ends_of_a_quantiles_interval_are_where_the_binomial_distribution_has_them(
    count, share
):
    low, high = intervals.quantile_interval(column(*range(1, count + 1)), share)
    # The chance that at most k amounts lie below the quantile is binomial.
    assert binom.cdf(math.floor(low) - 2, count, share) <= 0.025 <= binom.cdf(low, count, share)
    if high < inf:
        assert binom.cdf(math.floor(high) - 2, count, share) <= 0.975
        assert binom.cdf(math.ceil(high), count, share) >= 0.975


@pytest.mark.parametrize(("count", "known"), [(12, False), (71, False), (72, True), (200, True)])
def test_the_upper_end_of_a_p95_takes_72_amounts(count, known):
    low, high = intervals.quantile_interval(column(*range(count)), 0.95)
    assert 0 < low < 0.95 * count
    assert (high < inf) == known


@pytest.mark.parametrize(
    ("count", "low_known", "high_known"),
    [(1, False, False), (4, False, False), (5, True, False), (6, True, True)],
)
def test_ends_of_a_median_are_known_from_six_amounts_on(count, low_known, high_known):
    low, high = intervals.quantile_interval(column(*range(1, count + 1)), 0.5)
    assert (low > 0, high < inf) == (low_known, high_known)
    lower, _ = intervals.quantile_interval(column(*range(-count, 0)), 0.5)
    assert (lower > -inf) == low_known


@given(tables(amounts), st.sampled_from([0.5, 0.95]))
def test_the_interval_of_a_quantile_holds_it(table, share):
    low, high = intervals.quantile_interval(table, share)
    assert low <= np.quantile(table, share) <= high


@given(tables(amounts, questions=(6, 20), answers=(1, 1)), st.integers(2, 4))
def test_repeats_that_always_agree_tell_nothing_new_of_a_quantile(table, repeats):
    once = intervals.quantile_interval(table, 0.5)
    again = intervals.quantile_interval(np.repeat(table, repeats, axis=1), 0.5)
    ordered = np.sort(table[:, 0])
    steps = np.diff(ordered).max()  # ranks of repeated amounts lie a little differently between two
    assert again == pytest.approx(once, abs=steps + 1e-9)


# Differences


def test_the_difference_of_two_shares_has_newcombes_interval():
    # Newcombe 1998 (Statistics in Medicine 17, 873), table II, method 10: 56/70 − 48/80
    one, other = intervals.wilson(56, 70), intervals.wilson(48, 80)
    found = intervals.difference_interval(56 / 70, one, 48 / 80, other)
    assert found == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_what_one_end_does_not_tell_the_difference_does_not_tell():
    assert intervals.difference_interval(2.0, (1.0, inf), 3.0, (2.5, 3.5))[1] == inf
    assert intervals.difference_interval(2.0, (1.0, 4.0), 3.0, (2.5, inf))[0] == -inf


@pytest.mark.parametrize(("questions", "factor"), [(2, 9.168), (12, 1.1729), (24, 1.0781)])
def test_resamples_of_few_questions_lie_too_close_together(questions, factor):
    """√(n ÷ (n − 1)) for deviations from their own mean, and t ÷ z: 12.706, 2.2010 and 2.0687 to 1.9600."""
    assert intervals.widening(questions) == pytest.approx(factor, abs=1e-3)
