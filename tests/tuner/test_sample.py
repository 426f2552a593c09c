"""Contenders: what is left out of the resampling changes nothing that is shown."""

import numpy as np
import pytest

from tuner import front
from tuner import sample as sampling
from tuner.objectives import OBJECTIVES
from tuner.records import TrialRecord
from tuner.sample import Sample
from tuner.sample import _Tables

QUESTIONS = 60
NAMES = ("accuracy", "latency_p50_s", "energy_wh")


def drawn(seed, trials, names=NAMES, *, luck=1.0, twins=0):
    """A study in which what costs more is better, up to a point, and luck is large; some answer as others do."""
    rng = np.random.default_rng(seed)
    hardness = rng.normal(0, 1.2, QUESTIONS)
    length = np.exp(rng.normal(0, 0.4, QUESTIONS))
    budget = np.exp(rng.uniform(0, 3, trials))
    skill = 0.5 * np.log(budget) - 1 + rng.normal(0, 0.4, trials)
    reach = skill[:, None] - hardness + luck * rng.logistic(size=(trials, QUESTIONS))
    amounts = {
        "accuracy": (reach > 0).astype(float),
        "latency_p50_s": budget[:, None] * length * np.exp(rng.normal(0, 0.2, reach.shape)),
        "energy_wh": budget[:, None] * length * np.exp(rng.normal(0, 0.1, reach.shape)),
        "cost_usd": np.zeros(reach.shape),
    }
    for each in amounts.values():
        each[:twins] = each[twins : 2 * twins]
    return sample_of(amounts, names)


def sample_of(amounts, names):
    trials = len(amounts["accuracy"])
    return Sample(
        split="search",
        questions=QUESTIONS,
        objectives=tuple(OBJECTIVES[name] for name in names),
        constraints={},
        trials=tuple(
            TrialRecord(n, n, "complete", None, {}, True, None, None, {}) for n in range(trials)
        ),
        _tables=_Tables({n: n for n in range(trials)}, {name: amounts[name] for name in names}),
        _others={},
    )


@pytest.fixture
def both(monkeypatch):
    """Something made of contenders only, and of all trials."""

    def both(make):
        with monkeypatch.context() as patch:
            patch.setattr(sampling, "FEW", 10**9)
            whole = make()
        return make(), whole

    return both


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "names",
    [
        NAMES,
        NAMES[:2],
        ("accuracy", "energy_wh"),
        ("accuracy", "cost_usd"),
        ("latency_p50_s", "energy_wh"),
        ("accuracy",),
    ],
)
def test_memberships_are_those_of_all_trials(seed, names, both):
    study = drawn(seed, 700, names, twins=20)
    some, whole = both(study.memberships)
    np.testing.assert_allclose(some, whole, atol=1e-12)


@pytest.mark.parametrize("trials", [701, 1003])
def test_who_answered_alike_is_as_likely_wherever_it_stands(trials):
    study = drawn(3, trials)
    best = int(study.memberships().argmax())
    for table in study._tables.amounts.values():
        table[-1] = table[best]
    shares = drawn(3, trials).memberships()
    again = study.memberships()
    assert again[-1] == again[best] > 0
    assert again[best] == pytest.approx(shares[best], abs=0.05)


def test_most_trials_of_a_large_study_are_no_contenders():
    study = drawn(1, 2000, luck=0.3)
    left = study.contenders()
    assert len(left) < 1000
    assert set(np.flatnonzero(front.non_dominated(study.values()))) <= set(left)


@pytest.mark.parametrize("seed", range(3))
def test_contenders_have_the_hypervolume_of_all_in_every_draw(seed):
    study = drawn(seed, 500)
    values = study.values()
    reference = values.max(axis=0)
    left = study.contenders()
    assert len(left) < 500
    for draw in study.draws(sampling.DRAWS)[:40]:
        assert front.hypervolume(draw[left], reference) == pytest.approx(
            front.hypervolume(draw, reference), rel=1e-12
        )


def test_a_floor_is_broken_by_hardly_any_draw():
    study = drawn(0, 400)
    draws = study.draws(sampling.DRAWS)[:, :, 1]
    assert (draws < study._floors(1)).mean() <= 1e-4


def test_trials_with_repeats_stay_in_and_count_by_question(both):
    study = drawn(2, 400)
    answers = {
        name: np.repeat(table[7][:, None], 3, axis=1)
        for name, table in study._tables.amounts.items()
    }
    rows = {n: n for n in range(400) if n != 7}
    repeated = Sample(
        study.split,
        study.questions,
        study.objectives,
        study.constraints,
        study.trials,
        _Tables(rows, study._tables.amounts),
        {7: answers},
    )
    assert 7 in repeated.contenders()
    np.testing.assert_allclose(repeated.values()[7], study.values()[7])
    some, whole = both(repeated.memberships)
    np.testing.assert_allclose(some, whole, atol=1e-12)


def test_membership_of_many_points_is_that_of_each_draws_front():
    draws = drawn(3, 300).draws(50)
    expected = np.mean([front.non_dominated(draw) for draw in draws], axis=0)
    np.testing.assert_array_equal(front.membership(draws), expected)
