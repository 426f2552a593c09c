from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.replication import LEAST_GAIN
from tuner.replication import gain
from tuner.replication import to_replicate
from tuner.results import Point
from tuner.store import Store


def test_the_gain_is_the_share_that_one_more_answer_takes_off_the_variance():
    """Against the formula's variance, at several numbers of repeats."""
    rng = np.random.default_rng(1)
    between, within, questions = 2.0, 3.0, 20_000
    truth = rng.normal(0, np.sqrt(between), questions)
    others = np.zeros(questions)
    for repeats in (2, 3, 6):
        answers = truth[:, None] + rng.normal(0, np.sqrt(within), (questions, repeats))
        before, after = (between + within / n for n in (repeats, repeats + 1))
        assert gain(answers, others) == pytest.approx(1 - after / before, rel=0.05)


def test_what_questions_have_in_common_for_all_configs_is_no_doubt():
    """A question that is hard for every config says nothing about which is better."""
    rng = np.random.default_rng(2)
    hard = rng.normal(0, 100, 50)
    answers = hard[:, None] + rng.normal(0, 1, (50, 2))
    assert gain(answers, hard) > 0.2
    assert gain(answers, np.zeros(50)) < 0.01


@given(st.integers(3, 20), st.integers(2, 5), st.randoms(use_true_random=False))
def test_answers_that_repeat_are_worth_nothing(questions, repeats, random):
    once = np.array([[random.random()] for _ in range(questions)])
    others = np.array([random.random() for _ in range(questions)])
    assert gain(np.repeat(once, repeats, axis=1), others) == pytest.approx(0.0, abs=1e-9)


@given(
    st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9)), min_size=3, max_size=20),
    st.floats(0.01, 100),
)
def test_the_gain_is_a_share_and_does_not_depend_on_the_unit(pairs, factor):
    answers, others = np.array(pairs), np.zeros(len(pairs))
    found = gain(answers, others)
    assert found >= 0
    assert gain(answers * factor, others) == pytest.approx(found, rel=1e-6, abs=1e-9)


def test_nothing_is_known_before_two_questions_were_answered_twice():
    answers = np.array([[1.0, np.nan], [2.0, np.nan], [3.0, 4.0]])
    assert gain(answers, np.zeros(3)) is None
    assert gain(answers[:, :1], np.zeros(3)) is None
    answers[0, 1] = 0.0
    assert gain(answers, np.zeros(3)) > 0


@pytest.fixture
def study(keep, found):
    """Three trials on four questions each, of which one takes one the longest and one another."""
    return keep(
        *(
            found("react", {"max_steps": steps}, search=[(1, s, 4 * s) for s in seconds])
            for steps, seconds in enumerate([(2, 3, 4, 5), (4, 3, 5, 2), (3, 5, 2, 4)], 1)
        )
    )


@pytest.fixture
def store(study):
    with closing(Store.open(study.storage_url, study.spec.name)) as opened:
        assert opened.claim("test", None)
        yield opened


def points_of(store, *memberships):
    values = {"accuracy": 0.75, "latency_p50_s": 3.0, "energy_wh": 0.01}
    return [
        Point(
            trial=trial,
            split="search",
            values=values,
            intervals={},
            on_front=True,
            membership=membership,
            n=4,
        )
        for trial, membership in zip(store.trials(), memberships, strict=False)
    ]


def repeat(store, number, repeat, *, scores=None, questions=4):
    """Another answer to a trial's questions, at slightly other cost; the same ones unless scores are given."""
    trial_id = store.trial_id(number)
    first = [run for run in store.runs(trial_id, "search") if run.repeat == 0]
    for place, run in enumerate(first[:questions]):
        again = replace(
            run,
            repeat=repeat,
            score=run.score if scores is None else scores[place],
            latency_s=run.latency_s * (1.001 if place % 2 else 0.999),
        )
        store.save_run(trial_id, "search", again, owner="test", search_s=0.0)


def test_the_most_uncertain_come_first_and_the_certain_not_at_all(store):
    points = points_of(store, 0.85, 1.0, 0.45)
    assert to_replicate(store, points, repeats=2, most=9) == [2, 0]
    assert to_replicate(store, points, repeats=2, most=1) == [2]
    assert to_replicate(store, points_of(store, 0.05, 0.95, 1.0), repeats=2, most=9) == []
    assert to_replicate(store, [], repeats=2, most=9) == []


def test_a_question_is_not_answered_more_often_than_is_asked_for(store):
    points = points_of(store, 0.5, 1.0)
    assert to_replicate(store, points, repeats=1, most=9) == []
    repeat(store, 0, 1, scores=[0, 1, 0, 1], questions=3)
    assert to_replicate(store, points, repeats=2, most=9) == [0]


def test_what_a_repeat_did_not_measure_is_not_asked_for_again(store):
    trial_id = store.trial_id(0)
    for run in store.runs(trial_id, "search"):
        lost = replace(run, repeat=1, energy=replace(run.energy, gross_j=None))
        store.save_run(trial_id, "search", lost, owner="test", search_s=0.0)
    points = points_of(store, 0.5, 1.0)
    backwards = [replace(point, values=dict(reversed(point.values.items()))) for point in points]
    assert to_replicate(store, backwards, repeats=2, most=9) == []
    assert to_replicate(store, backwards, repeats=3, most=9) == [0]


def test_a_first_repeat_tells_whether_another_is_worth_it(store):
    points = points_of(store, 0.5, 0.4, 1.0)
    repeat(store, 0, 1)  # answers are the same, and costs nearly so
    repeat(store, 1, 1, scores=[0, 1, 1, 0])
    assert to_replicate(store, points, repeats=9, most=9) == [1]


def test_a_config_with_nothing_to_be_compared_with_is_left_alone(store):
    assert to_replicate(store, points_of(store, 0.5), repeats=3, most=9) == []


def test_repeats_end_by_themselves(store):
    """Even where answers differ for ever, each further one tells less."""
    points = points_of(store, 0.5, 1.0)
    rng = np.random.default_rng(3)
    for number in range(1, 60):
        if not to_replicate(store, points, repeats=99, most=1):
            break
        repeat(store, 0, number, scores=rng.integers(0, 2, 4))
    assert 1 < number < 1 / LEAST_GAIN + 1
