from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tuner.front import non_dominated
from tuner.front import oriented
from tuner.objectives import OBJECTIVES
from tuner.racing import LATEST
from tuner.racing import Race

USUAL = ("accuracy", "latency_p50_s", "energy_wh")


def race(measured, names=USUAL, confidence=0.95):
    return Race([OBJECTIVES[name] for name in names], measured, confidence=confidence)


def values(amounts, names):
    """(objectives,) over all questions, smaller being better."""
    objectives = [OBJECTIVES[name] for name in names]
    summaries = np.array([each.summary(amounts[:, k]) for k, each in enumerate(objectives)])
    return oriented(summaries, [each.direction for each in objectives])


def dominates(one, other, names):
    a, b = values(one, names), values(other, names)
    return bool((a <= b).all() and (a < b).any())


def drawn(rng, trials, questions, names=USUAL, spread=1.0):
    """(trials, questions, objectives) amounts: questions are alike hard and long for all, configs differ."""
    hard, long = rng.normal(0, 1.5, questions), rng.normal(0, 0.4, questions)
    level, cost = rng.normal(0, spread, (2, trials, 1))
    reach = level - hard + rng.logistic(size=(trials, questions))
    seconds = np.exp(cost + long + 0.4 * rng.normal(size=(trials, questions)))
    columns = {"accuracy": (reach > 0).astype(float), "energy_wh": 7.0 * seconds**0.9}
    return np.stack([columns.get(name, seconds) for name in names], axis=2)


def stopped_after(amounts, measured, **options):
    """After how many questions a config is stopped, infinity where it is not."""
    under_way = race(measured, **options)
    looks = (n for n in range(1, len(amounts)) if under_way.beaten_by(amounts[:n]) is not None)
    return next(looks, np.inf)


seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)

columns = {
    "accuracy": st.sampled_from([0.0, 1.0]) | st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    "latency_mean_s": st.sampled_from([0.5, 1.0, 1.5, 20.0]),
    "latency_p50_s": st.integers(1, 4).map(float),
    "latency_p95_s": st.floats(0.1, 9.0),
    "energy_wh": st.floats(0.1, 9.0),
    "tokens_total": st.integers(0, 3).map(float),
}


@st.composite
def small_studies(draw):
    names = draw(st.lists(st.sampled_from(sorted(columns)), min_size=1, max_size=3, unique=True))
    trials = draw(st.integers(2, 4))
    cells = [
        [draw(st.tuples(*(columns[n] for n in names))) for _ in range(5)] for _ in range(trials)
    ]
    return tuple(names), np.array(cells)


@settings(max_examples=12, deadline=None)
@given(small_studies(), st.sampled_from([0.55, 0.8]))
def test_over_all_orders_of_the_questions_errors_are_no_more_than_allowed(study, confidence):
    names, amounts = study
    candidate, *others = amounts
    orders = [list(order) for order in permutations(range(5))]
    wrong = 0
    for order in orders:
        under_way = race(
            {trial: other[order] for trial, other in enumerate(others)}, names, confidence
        )
        named = {under_way.beaten_by(candidate[order][:n]) for n in range(1, 5)} - {None}
        wrong += any(not dominates(others[trial], candidate, names) for trial in named)
    assert wrong <= (1 - confidence) * len(orders)


def just_better(rng, name, questions):
    """A config and its rival, which is beaten by as little as can be in one objective and by far in accuracy or cost."""
    rival = drawn(rng, 1, questions, ("accuracy", name))[0]
    rival[:2, 0] = 0.0, 1.0
    config = rival.copy()
    config[:, 1] *= 5.0
    if name == "accuracy":
        config[:, 0] = rng.permutation(rival[:, 0])
        config[np.flatnonzero(config[:, 0] == 0.0)[0], 0] = 1.0
        return config, rival
    config[:, 0] = 0.0
    seconds = np.exp(1.5 * rng.normal(size=questions)) * rival[:, 1]
    summary = OBJECTIVES[name].summary
    config[:, 1] = seconds * float(summary(rival[:, 1])) / float(summary(seconds)) * (1 - 1e-9)
    return config, rival


@pytest.mark.parametrize(
    "name", ["accuracy", "latency_mean_s", "latency_p50_s", "latency_p95_s", "energy_wh"]
)
@pytest.mark.parametrize("questions", [24, 60])
def test_what_is_better_by_a_trifle_is_seldom_stopped_however_skewed(name, questions):
    rng = np.random.default_rng(3)
    names = ("accuracy", "latency_mean_s" if name == "accuracy" else name)
    wrong, draws, latest = 0, 400, int(LATEST * questions)
    for _ in range(draws):
        config, rival = just_better(rng, name, questions)
        assert not dominates(rival, config, names)
        order = rng.permutation(questions)
        # What was won at any time counts, so that one look at the end is a look after each question.
        wrong += race({0: rival[order]}, names).beaten_by(config[order][:latest]) is not None
    assert wrong / draws <= 0.05


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 4))
def test_nobody_is_stopped_by_a_twin(rng, twins):
    config = drawn(rng, 1, 12)[0]
    assert stopped_after(config, dict.fromkeys(range(twins), config), confidence=0.51) == np.inf


def test_nobody_is_stopped_by_a_twin_whose_losses_come_first():
    config = np.tile([1.0, 2.0], (12, 1))
    config[:3] = 0.0, 40.0
    names = ("accuracy", "energy_wh")
    assert stopped_after(config, {0: config}, names=names, confidence=0.51) == np.inf


def test_who_may_still_be_as_good_is_not_beaten():
    config, rival = np.ones((12, 1)), np.ones((12, 1))
    config[[0, 2, 3, 5, 6, 8]] = (
        0.0  # as many mistakes as the rival makes in all, after three quarters
    )
    rival[[0, 1, 3, 7, 10, 11]] = 0.0
    assert stopped_after(config, {0: rival}, names=("accuracy",)) == np.inf


@settings(max_examples=25, deadline=None)
@given(seeds, st.floats(0.51, 0.98), st.floats(0.001, 0.01))
def test_more_confidence_never_stops_sooner(rng, confidence, more):
    config, *others = drawn(rng, 4, 16)
    measured = dict(enumerate(others))
    sooner = stopped_after(config, measured, confidence=confidence)
    assert sooner <= stopped_after(config, measured, confidence=confidence + more)


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_what_is_beaten_stays_beaten(rng):
    config, *others = drawn(rng, 4, 16)
    under_way = race(dict(enumerate(others)), confidence=0.6)
    beaten = [under_way.beaten_by(config[:n]) is not None for n in range(13)]
    assert beaten == sorted(beaten)


@settings(max_examples=25, deadline=None)
@given(seeds, st.randoms())
def test_rivals_may_come_in_any_order(rng, random):
    config, *others = drawn(rng, 5, 16)
    measured = list(enumerate(others))
    shuffled = random.sample(measured, len(measured))
    for n in (3, 6, 9, 12):
        expected = race(dict(measured), confidence=0.6).beaten_by(config[:n])
        assert race(dict(shuffled), confidence=0.6).beaten_by(config[:n]) == expected


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(-8, 8), st.integers(-8, 8))
def test_units_do_not_matter(rng, seconds, watt_hours):
    scale = np.array([1.0, 2.0**seconds, 2.0**watt_hours])
    config, *others = drawn(rng, 4, 16)
    scaled = {trial: other * scale for trial, other in enumerate(others)}
    for n in (3, 6, 9, 12):
        expected = race(dict(enumerate(others)), confidence=0.6).beaten_by(config[:n])
        assert race(scaled, confidence=0.6).beaten_by(config[:n] * scale) == expected


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_who_is_named_is_dominated_by_nobody(rng):
    config, *others = drawn(rng, 8, 16, spread=2.0)
    named = race(dict(enumerate(others)), confidence=0.6).beaten_by(config[:12])
    assume(named is not None)
    assert non_dominated(np.stack([values(other, USUAL) for other in others]))[named]


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_who_can_no_longer_catch_up_is_stopped(rng):
    rival = drawn(rng, 1, 20)[0]
    rival[::3, 0] = 0.0
    config = rival.copy()
    config[:, 0], config[:, 1:] = 0.0, 3.0 * rival[:, 1:]
    lost = np.cumsum([1 - config[:, 0], config[:, 2]], axis=1)
    allowed = np.array([(1 - rival[:, 0]).sum(), rival[:, 2].sum()])
    slow = np.cumsum(config[:, 1] > np.median(rival[:, 1]))
    out_of_reach = (lost > allowed[:, None]).all(axis=0) & (slow > 10)
    first = int(out_of_reach.argmax()) + 1 if out_of_reach[:15].any() else np.inf
    assert stopped_after(config, {5: rival}, confidence=1 - 1e-12) <= first


def poor(questions=30):
    """A config that is wrong and slow throughout, and a rival that is right and quick."""
    good = np.tile([1.0, 1.0, 2.0], (questions, 1))
    return good * [0.0, 3.0, 3.0], good


def test_a_poor_config_is_stopped_soon():
    bad, good = poor()
    assert stopped_after(bad, {7: good}) <= 8
    assert race({7: good}).beaten_by(bad[:8]) == 7


@pytest.mark.parametrize("column", [0, 1, 2])
def test_one_good_trait_is_enough_to_go_on(column):
    bad, good = poor()
    bad[:, column] = good[:, column] * (1.0 if column == 0 else 0.99)
    good[0, 0] = 0.0
    assert stopped_after(bad, {7: good}) == np.inf


@pytest.mark.parametrize("column", [0, 1, 2])
def test_what_was_not_measured_stops_nobody(column):
    bad, good = poor()
    unknown = good.copy()
    unknown[20, column] = np.nan
    assert stopped_after(bad, {7: unknown}) == np.inf
    unmeasured = bad.copy()
    unmeasured[0, column] = np.nan
    assert stopped_after(unmeasured, {7: good}) == np.inf


def test_what_lies_behind_a_question_under_way_does_not_count():
    bad, good = poor()
    bad[1] = np.nan
    assert race({7: good}).beaten_by(bad) == race({7: good}).beaten_by(bad[:1])


def test_without_rivals_or_questions_nobody_is_stopped():
    bad, good = poor()
    assert race({}).beaten_by(bad[:6]) is None
    assert race({7: good}).beaten_by(bad[:0]) is None


def test_late_nobody_is_stopped_any_more():
    bad, good = poor(questions=40)
    assert race({7: good}).beaten_by(bad[:30]) == 7
    assert race({7: good}).beaten_by(bad[:31]) is None
    assert race({7: good}).beaten_by(bad) is None


def test_a_price_of_nothing_is_matched_by_nothing():
    free = np.tile([1.0, 0.0], (30, 1))
    names = ("accuracy", "cost_usd")
    assert stopped_after(free * [0.0, 1.0], {1: free}, names=names) <= 6
    half_right = free.copy()
    half_right[::2, 0] = 0.0
    assert stopped_after(free, {1: half_right}, names=names) == np.inf
