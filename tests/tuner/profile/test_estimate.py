"""Figures with intervals: closed forms, and what is never claimed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.intervals import wilson
from tuner.profile.estimate import Value
from tuner.profile.estimate import blurred
from tuner.profile.estimate import mean
from tuner.profile.estimate import quantile
from tuner.profile.estimate import ratio
from tuner.profile.estimate import share

amounts = st.lists(st.floats(0.01, 1e6), min_size=2, max_size=30)


@given(amounts)
def test_an_interval_holds_its_figure(values):
    for found in (mean(values), quantile(values, 0.5), ratio(values, values[::-1])):
        low, high = found.interval
        assert low <= found.value <= high


@given(amounts)
def test_a_mean_is_the_mean(values):
    assert mean(values).value == pytest.approx(np.mean(values))


@given(amounts)
def test_a_ratio_to_itself_is_one_without_doubt(values):
    found = ratio(values, values)
    assert (found.value, *found.interval) == pytest.approx((1, 1, 1))


def test_right_and_wrong_answers_have_wilsons_interval():
    assert share([1.0, 0.0, 1.0, 1.0]) == Value(0.75, wilson(3, 4))
    assert share([0.0, 0.0]).interval[1] > 0.5
    assert share([0.5, 1.0]).value == 0.75


def test_no_p99_under_a_hundred_and_no_p95_under_twenty():
    assert quantile(list(range(99)), 0.99).value is None
    assert quantile(list(range(99)), 0.99).why == "n = 99, and it takes 100"
    assert quantile(list(range(100)), 0.99).value == pytest.approx(98.01)
    assert quantile(list(range(19)), 0.95).value is None
    assert quantile(list(range(21)), 0.95).value == pytest.approx(19)
    assert quantile([1.0, 3.0], 0.5).value == 2


def test_what_was_not_measured_is_none_with_a_reason_and_never_zero():
    assert mean([1.0, None], why="no meter") == Value(None, why="no meter")
    assert mean([]) == Value(None, why="no questions")
    assert ratio([1.0, 1.0], [0.0, 0.0]).value is None
    assert share([1.0, None]).value is None


def test_a_single_question_has_no_interval():
    assert mean([3.0]) == Value(3.0)


def test_a_meters_error_widens_an_interval():
    low, high = blurred(Value(10.0, (9.0, 12.0)), 0.1).interval
    assert low == pytest.approx(10 - np.hypot(1, 1.959964))
    assert high == pytest.approx(10 + np.hypot(2, 1.959964))
    assert blurred(Value(10.0, (9.0, 12.0)), None).interval == (9.0, 12.0)
    assert blurred(Value(None, why="none"), 0.1).value is None
