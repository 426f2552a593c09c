import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tuner.effects import factors_of
from tuner.effects import read_effects
from tuner.effects import terms_of
from tuner.errors import UserError
from tuner.results import open_results

CONFIGS = (
    ("direct", {}),
    ("direct", {"few_shot": 2}),
    ("direct", {"few_shot": 2, "demonstrations": "nearest"}),
    *(("react", {"max_steps": steps}) for steps in range(1, 7)),
)


def effects(study):
    store = open_results(study)
    found = read_effects(study, store)
    store.close()
    return {each.objective: each for each in found}


def knobs(found):
    return {each.knob: {value.value: value for value in each.values} for each in found.knobs}


@pytest.fixture
def measured(keep, found):
    """A study of the nine configs, whose rows a function of workflow and knobs gives."""

    def make(rows):
        return keep(*(found(name, knobs, search=rows(name, **knobs)) for name, knobs in CONFIGS))

    return make


def additive(name, few_shot=0, demonstrations="fixed", max_steps=0):
    seconds = {"direct": 1.0, "react": 3.0}[name] * 1.5 ** (max_steps or 3.5) * 1.2**few_shot
    if demonstrations == "nearest":
        seconds *= 4
    right = {"direct": 1, "react": 2}[name] + (max_steps > 3)
    return [(float(n < right), seconds, 10 * seconds) for n in range(4)]


def test_an_effect_is_told_against_the_average_over_the_values(measured):
    found = effects(measured(additive))
    latency = found["latency_p50_s"]
    assert (latency.scale, latency.configs, latency.answers) == ("ratio", 9, 36)
    by_knob = knobs(latency)
    assert set(by_knob) == {
        "workflow",
        "direct.few_shot",
        "direct.demonstrations",
        "react.max_steps",
    }
    for steps in range(1, 7):
        effect = by_knob["react.max_steps"][steps]
        assert effect.effect == pytest.approx(1.5 ** (steps - 3.5), rel=0.1)
        low, high = effect.interval
        assert low < effect.effect < high
        assert (effect.configs, effect.answers) == (1, 4)
    nearest = by_knob["direct.demonstrations"]["nearest"]
    assert nearest.effect == pytest.approx(2, rel=0.1)
    assert by_knob["direct.few_shot"][2].configs == 2
    assert by_knob["workflow"]["react"].effect > 1 > by_knob["workflow"]["direct"].effect


def test_shares_differ_by_differences(measured):
    accuracy = effects(measured(additive))["accuracy"]
    assert accuracy.scale == "difference"
    steps = knobs(accuracy)["react.max_steps"]
    assert steps[6].effect - steps[1].effect == pytest.approx(0.25, abs=0.1)
    assert sum(value.effect for value in steps.values()) == pytest.approx(0)


def test_importances_are_shares_and_the_first_knob_decides_most(measured):
    for found in effects(measured(additive)).values():
        shares = [each.importance for each in found.knobs]
        assert sum(shares) == pytest.approx(1)
        assert shares == sorted(shares, reverse=True)
        assert len(shares) == 4


def test_where_configs_do_not_differ_no_knob_has_an_effect(measured):
    found = effects(measured(lambda name, **knobs: [(1, 2, 3), (0, 2, 3), (1, 2, 3), (0, 2, 3)]))
    assert {name: each.knobs for name, each in found.items()} == {
        "accuracy": (),
        "latency_p50_s": (),
        "energy_wh": (),
    }
    assert found["accuracy"].answers == 36


def test_a_config_that_was_asked_easy_questions_only_is_set_right(keep, found):
    """All answer alike; one was stopped after the two questions that all answer rightly and quickly."""
    rows = [(1, 1, 1), (1, 1, 1), (0, 9, 9), (0, 9, 9)]
    trials = [
        found(name, knobs, search=rows[: 2 if index == 4 else 4])
        for index, (name, knobs) in enumerate(CONFIGS)
    ]
    for each in effects(keep(*trials)).values():
        assert each.answers == 34
        assert each.knobs == ()


def test_a_reading_that_is_missing_leaves_a_config_out_of_that_objective_alone(keep, found):
    trials = [
        found(name, knobs, search=[*additive(name, **knobs)[:3], (0, 1, None if n == 8 else 1)])
        for n, (name, knobs) in enumerate(CONFIGS)
    ]
    by_name = effects(keep(*trials))
    assert by_name["energy_wh"].configs == 8
    assert by_name["accuracy"].configs == 9
    assert 6 not in knobs(by_name["energy_wh"])["react.max_steps"]


def test_only_first_answers_count(measured):
    study = measured(additive)
    before = effects(study)
    store = open_results(study)
    assert store.claim("again", None)
    for trial in store.trials():
        run = store.runs(trial.trial_id, "search")[0]
        again = replace(run, repeat=1, score=1 - run.score, latency_s=100.0)
        store.save_run(trial.trial_id, "search", again, owner="again", search_s=0.0)
    store.close()
    assert effects(study) == before


def test_nothing_is_said_of_few_configs(keep, found):
    study = keep(found("direct", {}, search=[(1, 1, 1)] * 4))
    with pytest.raises(UserError, match="evaluated configs: 1; fewer than 8") as caught:
        effects(study)
    assert caught.value.hint


# The model

SPACE = [
    {"workflow": "direct", "direct.shots": shots} for shots in range(4)
] + [
    {"workflow": "react", "react.steps": steps, "react.thoughts": thoughts}
    | ({"react.length": length} if thoughts else {})
    for steps in range(1, 7)
    for thoughts in (True, False)
    for length in ((24, 48, 96) if thoughts else (0,))
]  # fmt: skip


def resampled(scores, draws=200):
    picks = np.random.default_rng(0).integers(0, scores.shape[1], size=(draws, scores.shape[1]))
    return np.vstack([scores.mean(axis=1), scores[:, picks].mean(axis=2).T])


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32),
    st.floats(-100, 100),
    st.floats(0.01, 100),
    st.randoms(use_true_random=False),
)
def test_terms_add_up_to_zero_and_follow_the_scale(seed, level, scale, random):
    scores = np.random.default_rng(seed).random((len(SPACE), 12))
    weights = np.ones(len(SPACE))
    before = terms_of(factors_of(SPACE), resampled(scores), weights)
    order = random.sample(range(len(SPACE)), len(SPACE))
    after = terms_of(
        factors_of([SPACE[index] for index in order]),
        level + scale * resampled(scores)[:, order],
        weights,
    )
    by_name = {each.factor.name: each for each in after}
    for each in before:
        assert each.terms.sum() == pytest.approx(0, abs=1e-9)
        other = by_name[each.factor.name]
        assert other.factor.values == each.factor.values
        np.testing.assert_allclose(other.terms, scale * each.terms, rtol=1e-6, atol=1e-7 * scale)
        np.testing.assert_allclose(other.errors, scale * each.errors, rtol=1e-6)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Worlds with easy and hard questions, knobs that help with some of them, and configs with parts of their own."""
    factors = factors_of(SPACE)
    features = np.hstack([factor.features() for factor in factors])
    everything = np.column_stack([np.ones(len(SPACE)), features])
    held = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        eta = features @ rng.normal(0, 0.5, features.shape[1]) - 0.5
        eta = eta[:, None] + rng.normal(0, 0.3, (len(SPACE), 1)) + rng.normal(0, 1, 3000)
        eta += features @ rng.normal(0, 0.5, (features.shape[1], 3000))
        chance = 1 / (1 + np.exp(-eta))
        true = np.linalg.lstsq(everything, chance.mean(axis=1), rcond=None)[0][1:]
        tried = rng.permutation(len(SPACE))[:20]
        scores = (rng.random((20, 24)) < chance[tried, :24]).astype(float)
        found = terms_of(
            factors_of([SPACE[index] for index in tried]), resampled(scores), np.ones(20)
        )
        truth, start = {}, 0
        for factor in factors:
            basis = factor.basis()
            terms = basis @ true[start : start + basis.shape[1]]
            truth[factor.name] = dict(zip(factor.values, terms, strict=True))
            start += basis.shape[1]
        for each in found:
            own = np.array([truth[each.factor.name][value] for value in each.factor.values])
            held += list(abs(each.terms - (own - own.mean())) <= 1.96 * each.errors)
    assert 0.9 < np.mean(held) < 0.98


def test_a_knob_that_only_some_configs_have_says_nothing_of_others():
    factors = {factor.name: factor for factor in factors_of(SPACE)}
    assert set(factors) == {
        "workflow",
        "direct.shots",
        "react.steps",
        "react.thoughts",
        "react.length",
    }
    length = factors["react.length"]
    assert length.values == (24, 48, 96)
    has = ["react.length" in flat for flat in SPACE]
    assert (length.codes >= 0).tolist() == has
    assert not length.features()[~np.array(has)].any()
    assert factors["react.thoughts"].values == (False, True)


def test_a_number_with_many_values_is_looked_at_in_ranges():
    numbers = [math.sqrt(n) for n in range(40)]
    flats = [{"t": number} for number in numbers] + [{}]
    (factor,) = factors_of(flats)
    assert factor.values == ("0–3", "3.16–4.36", "4.47–5.39", "5.48–6.24")
    assert np.bincount(factor.codes[:-1]).tolist() == [10, 10, 10, 10]
    assert factor.codes[-1] == -1
    assert factor.codes[:-1].tolist() == sorted(factor.codes[:-1])


def test_neighbours_of_an_ordered_knob_are_alike():
    (ordered,) = factors_of([{"k": n} for n in range(6)])
    (names,) = factors_of([{"k": name} for name in "abcdef"])
    for factor, alike in ((ordered, True), (names, False)):
        covariance = factor.basis() @ factor.basis().T
        assert np.diag(covariance).mean() == pytest.approx(1)
        assert covariance.sum(axis=0) == pytest.approx(np.zeros(6), abs=1e-9)
        assert (covariance[0, 1] > covariance[0, 5] + 0.1) == alike
