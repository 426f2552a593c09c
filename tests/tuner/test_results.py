import numpy as np
import pytest

from tuner import front
from tuner.errors import StoreError
from tuner.results import Front
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


def test_shares_of_right_answers_have_wilson_intervals_and_others_bootstrap(points, found):
    trial = found("direct", {}, search=[(1, 1, 1), (1, 2, 2), (1, 3, 3), (1, 4, 4)])
    ((point,), _) = points(trial)
    assert point.intervals["accuracy"] == front.wilson(4, 4)
    low, high = point.intervals["latency_p50_s"]
    assert 1 <= low < 2.5 < high <= 4


def test_scores_between_right_and_wrong_have_bootstrap_intervals(points, found):
    ((point,), _) = points(found("direct", {}, search=[(0.5, 1, 1)] * 4))
    assert point.intervals["accuracy"] == (0.5, 0.5)


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
