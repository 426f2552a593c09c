"""Paired differences: none between the same, turned round with their sides, and true as often as they say."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tuner import compare
from tuner.compare import compare_by
from tuner.compare import compare_studies
from tuner.compare import compare_trials
from tuner.compare import difference
from tuner.errors import UserError
from tuner.objectives import OBJECTIVES
from tuner.rules import Rule
from tuner.store import Store

SHARE, MEAN, MEDIAN, P95 = (
    OBJECTIVES[name] for name in ("accuracy", "latency_mean_s", "latency_p50_s", "latency_p95_s")
)
SCORES = arrays(np.float64, (12, 2), elements=st.sampled_from([0.0, 1.0, 0.5]))
SECONDS = arrays(np.float64, (12, 2), elements=st.floats(0.01, 100.0))
FEW = settings(max_examples=25, deadline=None)


@pytest.fixture(autouse=True)
def _fewer_draws(monkeypatch):
    monkeypatch.setattr(compare, "DRAWS", 400)


def opened(study):
    return Store.open(study.storage_url, study.spec.name)


@FEW
@given(SCORES, SECONDS)
def test_the_same_answers_do_not_differ(scores, seconds):
    for objective, amounts in ((SHARE, scores), (MEAN, seconds), (MEDIAN, seconds)):
        found = difference(objective, amounts, amounts.copy())
        low, high = found.interval
        assert found.value == 0.0
        assert low <= 0.0 <= high
        assert found.better is None


@FEW
@given(SCORES, SCORES, SECONDS, SECONDS)
def test_swapped_sides_turn_the_sign(scores, more_scores, seconds, more_seconds):
    for objective, one, other in (
        (SHARE, scores, more_scores),
        (MEAN, seconds, more_seconds),
        (MEDIAN, seconds, more_seconds),
    ):
        there, back = difference(objective, one, other), difference(objective, other, one)
        assert there.value == pytest.approx(-back.value)
        assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))
        turned = {None: None, "first": "second", "second": "first"}
        assert there.better == turned[back.better]


@FEW
@given(SECONDS)
def test_what_all_take_more_of_each_question_is_found(seconds):
    found = difference(MEAN, seconds, seconds + 1.0)
    assert found.better == "first"
    assert found.interval == pytest.approx((-1.0, -1.0))  # however much questions differ


def test_what_so_few_questions_do_not_tell_is_infinite():
    seconds = np.random.default_rng(1).exponential(size=(30, 1))
    everything = (-math.inf, math.inf)
    assert difference(P95, seconds, seconds + 1).interval == everything
    assert difference(MEDIAN, seconds[:5], seconds[:5] + 1).interval == everything
    assert difference(MEAN, seconds[:1], seconds[:1] + 1).interval == everything
    assert difference(P95, seconds, seconds + 1).better is None


def scores_of(random, chances):
    return (random.random(len(chances)) < chances).astype(float)[:, None]


@pytest.mark.parametrize("questions", [24, 60])
def test_intervals_hold_the_true_difference_of_shares_as_often_as_they_say(questions):
    random = np.random.default_rng(7)
    held = 0
    for _ in range(400):
        hard = random.beta(
            1.5, 1.5, size=questions
        )  # a question that is hard for one is for the other
        one, other = scores_of(random, np.minimum(1, hard + 0.2)), scores_of(random, hard)
        true = np.minimum(1, random.beta(1.5, 1.5, size=20000) + 0.2).mean() - 0.5
        low, high = difference(SHARE, one, other).interval
        held += low <= true <= high
    assert 0.92 <= held / 400 <= 0.985


@pytest.mark.parametrize("objective", [MEAN, MEDIAN], ids=["mean", "median"])
def test_intervals_hold_the_true_difference_of_times_as_often_as_they_say(objective):
    random = np.random.default_rng(3)
    held, rounds = 0, 250
    for _ in range(rounds):
        length = random.lognormal(0.0, 0.5, size=(30, 1))
        one = 1.5 * length * random.lognormal(0.0, 0.2, size=(30, 1))
        other = length * random.lognormal(0.0, 0.2, size=(30, 1))
        spread = math.exp((0.5**2 + 0.2**2) / 2) if objective is MEAN else 1.0
        low, high = difference(objective, one, other).interval
        held += low <= 0.5 * spread <= high
    assert 0.9 <= held / rounds <= 0.99


@pytest.fixture
def study(keep, found):
    """React beats direct on every question, at twice the time; one trial has seen two questions only."""
    right, wrong = [(1, 2, 12)] * 4, [(0, 1, 4)] * 4
    return keep(
        found("direct", {"few_shot": 0}, search=wrong, holdout=wrong),
        found("react", {"max_steps": 2}, search=right, holdout=right),
        found("react", {"max_steps": 3}, search=right[:2], stopped="beaten by trial 1"),
        found("react", {"max_steps": 2}, search=[], replay_of=1),
        found("react", {"max_steps": 4}, search=right),
        found("react", {"max_steps": 5}, search=[], failure="the server was gone"),
    )


def by_quantity(pair):
    return {each.quantity: each for each in pair.differences}


def test_trials_stand_beside_the_first_on_the_questions_that_both_have_answered(study):
    store = opened(study)
    found = compare_trials(study, store, [1, 0, 3])
    assert found.split == "holdout"
    assert [(pair.first, pair.second, pair.n) for pair in found.pairs] == [
        ("trial 1", "trial 0", 4),
        ("trial 1", "trial 3", 4),
    ]
    accuracy = by_quantity(found.pairs[0])["accuracy"]
    assert (accuracy.first, accuracy.second, accuracy.value) == (1.0, 0.0, 1.0)
    assert accuracy.better == "first"
    assert by_quantity(found.pairs[0])["energy_wh"].better == "second"
    assert all(each.value == 0.0 for each in found.pairs[1].differences)  # a replay has its answers
    assert by_quantity(found.pairs[0]).keys() >= {"latency_p50_s", "latency_mean_s", "tokens_total"}

    partial = compare_trials(study, store, [1, 2])
    assert (partial.split, partial.pairs[0].n) == ("search", 2)
    store.close()


@pytest.mark.parametrize(
    ("numbers", "split", "message"),
    [
        ([1, 9], None, "there is no trial 9"),
        ([1, 5], None, "trial 5 has answered no search questions"),
        ([1, 4], "holdout", "trial 4 has answered no holdout questions"),
    ],
)
def test_trials_that_cannot_be_compared_are_refused(study, numbers, split, message):
    store = opened(study)
    with pytest.raises(UserError, match=message):
        compare_trials(study, store, numbers, split)
    store.close()


def test_values_of_a_knob_stand_beside_each_other_by_what_differs_in_nothing_else(study):
    store = opened(study)
    (pair,) = compare_by(study, store, "max_steps")
    assert (pair.first, pair.second, pair.configs, pair.n) == ("max_steps=2", "max_steps=4", 1, 4)
    assert all(each.better is None for each in pair.differences)
    with pytest.raises(UserError, match="the study does not vary it") as refused:
        compare_by(study, store, "model")
    assert "max_steps, workflow" in refused.value.hint
    with pytest.raises(UserError, match="no two whole trials differ in it alone"):
        compare_by(study, store, "few_shot")
    store.close()


def test_configs_weigh_the_same_however_often_they_were_asked(study):
    one, other = np.array([[1.0], [0.0]]), np.array([[0.0, 1.0], [0.0, 0.0]])
    assert compare._side_by_side([one, other]).tolist() == [[1, 1, 0, 1], [0, 0, 0, 0]]


def test_a_study_beside_itself_holds_as_much(study):
    store = opened(study)
    found = compare_studies([study, study], [store, store], Rule.parse("max-accuracy"))
    assert [choice.point.trial.number for choice in found.choices] == [1, 1]
    assert found.split == "holdout"
    assert all(each.value == 0.0 for each in found.pairs[0].differences)
    first, second = found.volumes
    assert first == second
    assert 0.0 < first.value <= 1.0
    assert found.volume_differences == ((0.0, (0.0, 0.0)),)
    store.close()


def test_studies_of_other_questions_are_not_compared(study, monkeypatch):
    store = opened(study)
    row = store.row()
    other = type(row)(**{**{k: getattr(row, k) for k in row.__slots__}, "fingerprint": {"task": "x"}})  # fmt: skip
    rows = iter([row, other])
    monkeypatch.setattr(Store, "row", lambda self: next(rows))
    with pytest.raises(UserError, match="were asked different questions"):
        compare_studies([study, study], [store, store], Rule.parse("knee"))
    store.close()
