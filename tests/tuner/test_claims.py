"""Whether a claim holds: what is said of a system that did not change, of one that did, and of too few questions."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.claims import TOLERANCES
from tuner.claims import judge
from tuner.objectives import OBJECTIVES

ACCURACY, MEDIAN, MEAN = (OBJECTIVES[n] for n in ("accuracy", "latency_p50_s", "latency_mean_s"))


def column(values):
    return np.array(values, dtype=float)[:, np.newaxis]


def test_every_unit_has_a_tolerance():
    assert {objective.unit for objective in OBJECTIVES.values()} == set(TOLERANCES)


def test_the_same_answers_to_many_questions_hold():
    found = judge(ACCURACY, column([1, 0] * 40), column([1, 0] * 40))
    assert (found.outcome, found.worse, found.needed) == ("holds", 0.0, None)


def test_the_same_answers_to_few_questions_do_not_tell_and_it_is_said_how_many_would():
    found = judge(ACCURACY, column([1, 0] * 10), column([1, 0] * 10))
    assert found.outcome == "undecided"
    assert found.needed is not None
    assert found.interval[1] > 0.05
    for count, outcome in ((found.needed - 1, "undecided"), (found.needed, "holds")):
        same = column([1] * count)
        assert judge(ACCURACY, same, same).outcome == outcome


def test_what_fell_by_more_than_is_tolerated_fails_and_what_rose_holds():
    before, after = column([1] * 60 + [0] * 20), column([1] * 30 + [0] * 50)
    assert judge(ACCURACY, before, after).outcome == "fails"
    assert judge(ACCURACY, after, before).outcome == "holds"
    assert judge(ACCURACY, before, after, tolerance=0.9).outcome == "holds"


@pytest.mark.parametrize("objective", [MEDIAN, MEAN, OBJECTIVES["energy_wh"]])
@pytest.mark.parametrize(("factor", "outcome"), [(1.05, "holds"), (0.5, "holds"), (2.0, "fails")])
def test_costs_are_compared_question_by_question_as_parts_of_what_was_claimed(
    objective, factor, outcome
):
    rng = np.random.default_rng(0)
    before = rng.lognormal(0, 1, 30)
    found = judge(objective, column(before), column(factor * before * rng.lognormal(0, 0.02, 30)))
    assert found.outcome == outcome
    assert found.tolerated == pytest.approx(0.25 * found.claimed)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_one_question_tells_nothing_that_can_be_relied_on(objective):
    found = judge(objective, column([1.0]), column([0.5]))
    assert found.outcome == "undecided"


def test_answers_to_one_question_count_as_one_question():
    before = np.array([[1.0, 0.0], [1.0, 1.0]] * 40)
    now = column([0.5, 1.0] * 40)
    assert judge(ACCURACY, before, now).worse == 0.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
def test_the_outcome_is_what_the_interval_says(pairs):
    before, now = (column([pair[side] for pair in pairs]) for side in (0, 1))
    found = judge(ACCURACY, before, now)
    low, high = found.interval
    assert low <= found.worse <= high
    assert found.outcome == ("fails" if low > 0.05 else "holds" if high <= 0.05 else "undecided")
    assert (found.needed is None) or found.needed > len(pairs)
    assert math.copysign(1, found.worse) == 1 or found.worse < 0


@pytest.mark.parametrize("redrawn", [0.1, 0.4, 1.0])
def test_an_unchanged_system_is_seldom_called_worse_and_a_large_drop_is_found(redrawn):
    """`redrawn` is the share of questions whose answer is another draw each time."""
    rng = np.random.default_rng(7)
    for lost, outcome, least, most in ((0.0, "fails", 0.0, 0.05), (0.2, "fails", 0.5, 1.0)):
        outcomes = Counter()
        for _ in range(200):
            before = (rng.random(100) < 0.75).astype(float)
            now = np.where(rng.random(100) < redrawn, rng.random(100) < 0.75, before)
            now = np.where(rng.random(100) < lost / 0.75, 0.0, now)
            outcomes[judge(ACCURACY, column(before), column(now)).outcome] += 1
        assert least <= outcomes[outcome] / 200 <= most
