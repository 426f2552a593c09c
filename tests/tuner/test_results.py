import numpy as np
import pytest

from tuner import intervals
from tuner.errors import StoreError
from tuner.results import Front
from tuner.results import every_point
from tuner.results import hypervolume_gain
from tuner.results import open_results
from tuner.spec import load_study

NAMES = ("accuracy", "latency_p50_s", "energy_wh")


@pytest.fixture
def points(keep):
    """The search front and the confirmed points of a study in which trials found this."""

    def read(*found, names=NAMES):
        study = keep(*found)
        store = open_results(study)
        spec = study.spec.model_copy(update={"objectives": names})
        study = study.model_copy(update={"spec": spec})
        front = Front.read(study, store)
        store.close()
        return list(front.search), list(front.confirmed)

    return read


@pytest.fixture
def read(keep):
    """The front of a study in which trials found this, and whose file goes on with `extra`."""

    def read(*found, extra=""):
        study = keep(*found, extra=extra)
        store = open_results(study)
        front = Front.read(study, store)
        store.close()
        return front

    return read


@pytest.fixture
def gain(keep):
    """What the last so many trials added to the front."""

    def read(*found, last):
        study = keep(*found)
        store = open_results(study)
        gain = hypervolume_gain(study, store, last)
        store.close()
        return gain

    return read


def test_the_front_holds_what_no_other_trial_dominates_best_accuracy_first(points, found):
    cheap = found("direct", {}, search=[(0, 1, 3.6), (0, 1, 3.6), (0, 1, 3.6), (1, 1, 3.6)])
    good = found("react", {"max_steps": 2}, search=[(1, 3, 36), (1, 3, 36), (1, 3, 36), (0, 4, 36)])
    bad = found("react", {"max_steps": 3}, search=[(0, 9, 40)] * 4)
    search, again = points(cheap, good, bad)
    assert [point.trial.number for point in search] == [1, 0]
    best = search[0]
    assert best.values == pytest.approx({"accuracy": 0.75, "latency_p50_s": 3.0, "energy_wh": 0.01})
    assert best.n == 4
    assert best.split == "search"
    assert best.on_front
    assert best.trial.sources == {"energy": "cpu-estimate"}
    assert again == []


def test_every_objective_has_the_interval_of_its_kind(points, found):
    seconds = [1.0, 2.0, 3.0, 4.0]
    trial = found("direct", {}, search=[(1, s, 10 * s) for s in seconds])
    ((point,), _) = points(trial)
    each = np.array(seconds)[:, None]
    assert point.intervals == {
        "accuracy": intervals.wilson(4, 4),
        "latency_p50_s": intervals.quantile_interval(each, 0.5),
        "energy_wh": intervals.mean_interval(10 * each / 3600),
    }


def test_a_question_weighs_the_same_however_often_it_was_answered(read, found):
    often = found(
        "direct",
        {},
        search=[(1, 9, 9), (0, 1, 1), (0, 1, 1), (0, 1, 1)],
        repeats={0: [(1, 9, 9), (0, 9, 9)]},
    )
    (point,) = read(often).search
    assert point.values["accuracy"] == pytest.approx((2 / 3) / 4)
    assert point.values["latency_p50_s"] == 1.0
    assert point.values["energy_wh"] == pytest.approx(3 / 3600)
    assert point.n == 4


def test_repeats_tell_more_of_the_questions_asked(read, found):
    mixed = [(1, 1, 1), (0, 2, 2), (1, 3, 3), (0, 4, 4)]
    turned = [(1 - right, s, j) for right, s, j in mixed]
    (once,) = read(found("direct", {}, search=mixed)).search
    (again,) = read(
        found("direct", {}, search=mixed, repeats={k: [row] for k, row in enumerate(turned)})
    ).search
    low, high = again.intervals["accuracy"]
    assert again.values["accuracy"] == 0.5
    assert once.intervals["accuracy"][0] < low < high < once.intervals["accuracy"][1]


def test_a_config_with_repeats_is_compared_with_one_without_question_by_question(read, found):
    """Twice as fast on every question, in every answer: so it is in every resample."""
    seconds = [1.0, 5.0, 20.0, 60.0]
    slow = found("react", {"max_steps": 1}, search=[(0, s, s) for s in seconds])
    fast = found(
        "react",
        {"max_steps": 2},
        search=[(0, s / 2, s / 2) for s in seconds],
        repeats={1: [(0, 2.5, 2.5)], 3: [(0, 30, 30), (0, 30, 30)]},
    )
    front = read(slow, fast)
    assert [(point.trial.number, point.membership) for point in front.candidates] == [(1, 1.0)]


def test_a_certain_member_has_membership_one_and_twins_are_both_members(points, found):
    same = [(1, 1, 1), (0, 2, 2), (1, 3, 3), (0, 4, 4)]
    search, _ = points(
        found("react", {"max_steps": 1}, search=same), found("react", {"max_steps": 2}, search=same)
    )
    assert [point.membership for point in search] == [1.0, 1.0]


def test_membership_pairs_the_questions(points, found):
    """One config is faster on every question, so it is so in every resample, however much questions differ."""
    seconds = np.array([1.0, 5.0, 20.0, 60.0])
    slow = found("react", {"max_steps": 1}, search=[(0, s, 1) for s in seconds])
    fast = found("react", {"max_steps": 2}, search=[(0, 0.9 * s, 1) for s in seconds])
    _, again = points(
        found("direct", {}, search=slow.search, holdout=slow.search),
        found("react", {"max_steps": 2}, search=fast.search, holdout=fast.search),
    )
    assert [(point.trial.number, point.on_front, point.membership) for point in again] == [
        (1, True, 1.0),
        (0, False, 0.0),
    ]
    assert {point.split for point in again} == {"holdout"}


def test_trials_that_broke_a_constraint_failed_or_repeat_another_are_no_points(points, found):
    fine = found("direct", {}, search=[(1, 5, 5)] * 4)
    broke = found("react", {"max_steps": 1}, search=[(1, 1, 1)] * 4, feasible=False)
    failed = found("react", {"max_steps": 2}, search=[(1, 1, 1)] * 4, failure="it fell")
    replay = found("direct", {}, search=[], replay_of=0)
    search, _ = points(fine, broke, failed, replay)
    assert [point.trial.number for point in search] == [0]


def test_a_pass_that_was_interrupted_is_no_point(points, found):
    whole = found("direct", {}, search=[(0, 5, 5)] * 4, holdout=[(0, 5, 5)] * 4)
    part = found("react", {"max_steps": 1}, search=[(1, 1, 1)] * 4, holdout=[(1, 1, 1)] * 3)
    search, again = points(whole, part)
    assert [point.trial.number for point in search] == [1]
    assert [point.trial.number for point in again] == [0]


def test_a_reading_that_is_missing_is_no_point_and_never_zero(points, found):
    metered = found("direct", {}, search=[(0, 5, 5)] * 4)
    lost = found("react", {"max_steps": 1}, search=[(1, 1, 1)] * 3 + [(1, 1, None)])
    search, _ = points(metered, lost)
    assert [point.trial.number for point in search] == [0]


def test_what_was_not_asked_for_need_not_be_measured(points, found):
    lost = found("react", {"max_steps": 1}, search=[(1, 1, 1)] * 3 + [(1, 1, None)])
    search, _ = points(lost, names=NAMES[:2])
    assert [point.values for point in search] == [{"accuracy": 1.0, "latency_p50_s": 1.0}]


def test_a_trial_that_was_stopped_is_no_point_and_a_derived_or_reused_one_is(read, found):
    front = read(
        found("direct", {}, search=[(1, 5, 5)] * 4, reused_from="old/3"),
        found("react", {"max_steps": 1}, search=[(1, 4, 6)] * 4, derived_from=0),
        found("react", {"max_steps": 2}, search=[(1, 1, 1)] * 4, stopped="beaten by trial 0"),
        found("react", {"max_steps": 3}, search=[(1, 1, 1)] * 3, stopped="beaten by trial 0"),
    )
    assert {point.trial.number for point in front.search} == {0, 1}
    assert front.candidates == front.search


# Near the front, and groups


def test_what_is_dominated_perhaps_by_chance_is_near_the_front(read, found):
    """Right once less, in questions that a resample may leave out; the third never has a chance."""
    lucky = found("react", {"max_steps": 1}, search=[(1, 2, 2), (1, 2, 2), (1, 2, 2), (0, 2, 2)])
    unlucky = found("react", {"max_steps": 2}, search=[(0, 2, 2), (1, 2, 2), (1, 2, 2), (0, 2, 2)])
    slow = found("react", {"max_steps": 3}, search=[(0, 3, 3), (1, 3, 3), (1, 3, 3), (0, 3, 3)])
    front = read(lucky, unlucky, slow)
    assert [point.trial.number for point in front.search] == [0]
    (near,) = front.near
    assert (near.trial.number, near.on_front) == (1, False)
    assert near.membership == pytest.approx(0.75**4, abs=0.1)  # that the question is not drawn
    assert front.candidates == (*front.search, near)


def test_points_share_a_letter_where_nothing_tells_them_apart(read, found):
    rows = [(1, 2, 2), (0, 3, 3), (1, 4, 4), (0, 5, 5)]
    front = read(
        found("react", {"max_steps": 1}, search=rows),
        found("react", {"max_steps": 2}, search=rows),
        found("react", {"max_steps": 3}, search=[(r, s / 2, 3 * j) for r, s, j in rows]),
    )
    assert {point.trial.number: point.group for point in front.search} == {0: "a", 1: "a", 2: ""}


def test_only_the_likeliest_are_near_the_front(read, found, monkeypatch):
    monkeypatch.setattr("tuner.front.MOST_NEAR", 2)
    best = found("direct", {}, search=[(1, 1, 1), (1, 1, 1), (1, 1, 1), (0, 1, 1)])
    wrong = [
        [(1, 1, 1), (1, 1, 1), (1, 1, 1), (0, 1, 2)],
        [(1, 1, 1), (1, 1, 1), (1, 1, 2), (0, 1, 2)],
    ]
    others = [found("react", {"max_steps": 1 + n}, search=wrong[n % 2]) for n in range(4)]
    front = read(best, *others)
    assert [point.trial.number for point in front.search] == [0]
    assert [point.trial.number for point in front.near] == [
        1,
        3,
    ]  # one question may be left out, not two


# Constraints

BOUND = "constraints: {latency_p95_s: '<= 4'}\n"


def test_what_breaks_a_constraint_is_no_point_but_shown_with_what_it_lacks(read, found):
    front = read(
        found("direct", {}, search=[(0, 3, 3)] * 4),
        found("react", {"max_steps": 1}, search=[(1, 6, 1)] * 4, feasible=False),
        found("react", {"max_steps": 2}, search=[(1, 5, 1)] * 4, feasible=False),
        extra=BOUND,
    )
    assert [point.trial.number for point in front.candidates] == [0]
    assert [(point.trial.number, point.excess) for point in front.infeasible] == [
        (2, {"latency_p95_s": 1.0}),
        (1, {"latency_p95_s": 2.0}),
    ]
    assert [point.feasible for point in (*front.search, *front.infeasible)] == [True, False, False]
    assert front.search[0].values["latency_p95_s"] == 3.0


def test_what_breaks_a_constraint_on_the_holdout_questions_is_not_on_their_front(read, found):
    fine = found("direct", {}, search=[(0, 3, 3)] * 4, holdout=[(0, 3, 3)] * 4)
    slower = found(
        "react", {"max_steps": 1}, search=[(1, 2, 2)] * 4, holdout=[(1, 2, 2)] * 3 + [(1, 9, 2)]
    )
    front = read(fine, slower, extra=BOUND)
    assert [(p.trial.number, p.on_front, p.feasible) for p in front.confirmed] == [
        (1, False, False),
        (0, True, True),
    ]
    assert [p.membership for p in front.confirmed] == [0.0, 1.0]
    assert front.confirmed[0].excess["latency_p95_s"] == pytest.approx(7.95 - 4)


def test_all_of_what_was_confirmed_may_break_a_constraint(read, found):
    rows = [(1, 2, 2)] * 4
    front = read(found("direct", {}, search=rows, holdout=[(1, 9, 2)] * 4), extra=BOUND)
    assert [(p.on_front, p.membership, p.excess) for p in front.confirmed] == [
        (False, 0.0, {"latency_p95_s": 5.0})
    ]


# From search to holdout


def test_the_drop_is_how_much_worse_a_config_is_than_the_search_had_it(read, found):
    luck = [(1, 2, 36), (1, 2, 36), (1, 2, 36), (0, 2, 36)]
    truth = [(1, 3, 18), (0, 3, 18), (0, 3, 18), (0, 3, 18)]
    ((point,)) = read(found("direct", {}, search=luck, holdout=truth)).confirmed
    assert {name: drop.value for name, drop in point.drop.items()} == pytest.approx(
        {"accuracy": 0.5, "latency_p50_s": 1.0, "energy_wh": -0.005}
    )
    assert point.drop["accuracy"].interval == intervals.difference_interval(
        0.75, intervals.wilson(3, 4), 0.25, intervals.wilson(1, 4)
    )
    (searched,) = read(found("direct", {}, search=luck)).search
    assert searched.drop == {}


# Gain


def test_a_trial_that_dominates_all_others_by_far_is_a_gain(gain, found):
    rows = np.array([(1, 10, 100), (1, 12, 110), (1, 9, 90), (1, 11, 100)], dtype=float)
    first = found("react", {"max_steps": 1}, search=rows.tolist())
    other = found("react", {"max_steps": 2}, search=(rows * [1, 1.1, 0.9]).tolist())
    worst = found("react", {"max_steps": 3}, search=(rows * [0, 3, 3]).tolist())
    better = found("react", {"max_steps": 4}, search=(rows * [1, 0.1, 0.1]).tolist())
    value, low, high = gain(first, other, worst, better, last=1)
    assert value > 0.2
    assert 0 < low < high
    assert gain(first, better, other, worst, last=2)[0] == 0.0


def test_before_there_is_a_front_there_is_no_gain(gain, found):
    one = found("react", {"max_steps": 1}, search=[(1, 1, 1)] * 4)
    two = found("react", {"max_steps": 2}, search=[(0, 2, 2)] * 4)
    assert gain(last=1) is None
    assert gain(one, last=1) is None
    assert gain(one, two, last=2) is None
    assert gain(two, one, last=1) is None  # the worst of all: it had no volume


def test_without_holdout_questions_there_is_a_front_and_nothing_confirmed(keep, found):
    study = keep(found("direct", {}, search=[(1, 1, 1)] * 4))
    sizes = study.task_options.model_copy(update={"holdout": 0})
    front = Front.read(study.model_copy(update={"task_options": sizes}))
    assert len(front.search) == 1
    assert front.confirmed == ()


def test_an_empty_study_has_no_points(points):
    assert points() == ([], [])


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("few_shot: [0, 2]", "few_shot: [0, 4]", "search space"),
        ("hosted_vllm/m", "hosted_vllm/n", "models"),
        ("energy_wh]", "tokens_total]", "objectives"),
    ],
)
def test_results_of_another_study_are_not_read_as_this_ones(keep, tmp_path, old, new, part):
    keep()
    for name in ("study.yaml", "space.yaml"):
        file = tmp_path / name
        file.write_text(file.read_text().replace(old, new))
    with pytest.raises(StoreError, match=f"holds this study with another {part};"):
        open_results(load_study(tmp_path / "study.yaml"))


def test_a_study_without_holdout_questions_has_a_front_and_nothing_confirmed(keep, found):
    study = keep(found("direct", {}, search=[(1, 1, 1)] * 4))
    options = study.task_options.model_copy(update={"holdout": 0})
    store = open_results(study)
    front = Front.read(study.model_copy(update={"task_options": options}), store)
    store.close()
    assert [point.trial.number for point in front.search] == [0]
    assert front.confirmed == ()


def test_every_point_has_those_that_are_on_no_front_too(keep, found):
    study = keep(
        found("direct", {}, search=[(1, 1, 4)] * 4),
        found("react", {"max_steps": 1}, search=[(0, 9, 40)] * 4),
        found("react", {"max_steps": 2}, search=[(1, 30, 90)] * 4, feasible=False),
        found("react", {"max_steps": 3}, search=[(1, 2, 8), (0, 4, 8)], stopped="beaten"),
        found("react", {"max_steps": 4}, search=[(0, 1, 4)], failure="no route"),
        extra='constraints: {latency_p50_s: "<= 20"}\n',
    )
    store = open_results(study)
    points = every_point(study, store)
    (front,) = Front.read(study, store).search
    store.close()
    assert [(p.trial.number, p.n, p.on_front, p.membership) for p in points] == [
        (0, 4, True, 1.0),
        (1, 4, False, 0.0),
        (2, 4, False, 0.0),
        (3, 2, False, 0.0),
    ]
    assert points[0] == front
    assert points[2].excess == {"latency_p50_s": 10.0}
    assert points[3].values == {"accuracy": 0.5, "latency_p50_s": 3.0, "energy_wh": 8 / 3600}
