"""What a report gathers: kinds of points, advice, what was saved, how it was measured, and what it says is lacking."""

from contextlib import closing

import pytest

from tuner.errors import UserError
from tuner.report import read_report
from tuner.results import open_results


def report_of(study):
    with closing(open_results(study)) as store:
        return read_report(study, store)


def test_every_trial_is_a_point_of_its_kind_and_failed_ones_are_none(kinds):
    report = report_of(kinds)
    search = {s.point.trial.number: s.kind for s in report.shown if s.point.split == "search"}
    assert search == {
        0: "front",
        1: "beaten",
        2: "front",
        3: "near",
        4: "beaten",
        5: "infeasible",
        6: "stopped",
        7: "front",
        9: "beaten",
    }
    assert [s.point.trial.number for s in report.shown if s.kind == "holdout"] == [2, 1, 0]
    assert report.failures == (("2 of 4 questions failed: <b>no</b> route", (8,)),)
    assert report.counts == {
        "evaluated": 9,
        "derived": 1,
        "reused": 1,
        "stopped early": 1,
        "beyond a constraint": 1,
        "failed": 1,
    }


def test_a_stopped_trial_stands_with_the_questions_it_saw_and_without_membership(kinds):
    (stopped,) = (s for s in report_of(kinds).shown if s.kind == "stopped")
    assert (stopped.point.n, stopped.membership) == (2, None)
    assert stopped.point.values["latency_p50_s"] == pytest.approx(12 * 1.01)


def test_every_rule_that_needs_no_figures_of_ones_own_gives_advice(kinds):
    report = report_of(kinds)
    assert [each.rule for each in report.advice] == [
        "knee",
        "max-accuracy",
        "min-energy",
        "min-latency",
        "cheapest-within:0.02",
        "slo:latency_p50_s<=20",
    ]
    assert report.recommended is not None
    assert report.recommended.point.split == "holdout"
    assert all(each.choice is not None for each in report.advice)


def test_a_rule_that_does_not_apply_says_why(keep, found):
    report = report_of(keep(found("direct", {}, search=[(1, 1, 4)] * 4, feasible=False)))
    assert report.recommended is None
    assert "no point is within the constraints" in report.advice[0].refusal


def test_what_was_derived_reused_and_stopped_is_counted_as_saved(kinds):
    savings = {saving.by: saving for saving in report_of(kinds).savings}
    assert savings["stopping early"].is_estimate
    assert (savings["stopping early"].trials, savings["stopping early"].questions) == (1, 2)
    # Two questions of 12 s, a little apart, were asked; two more would have taken as long.
    assert savings["stopping early"].amounts["s"] == pytest.approx(12 * 2.02)
    assert savings["stopping early"].amounts["Wh"] == pytest.approx(160 / 3600)
    assert savings["stopping early"].amounts["$"] is None


def test_the_sums_tell_search_from_holdout_and_what_is_not_known(kinds):
    sums = {each.name: each for each in report_of(kinds).sums}
    assert sums["questions asked"].total == 8 * 4 + 2 * 2 + 3 * 4
    assert sums["questions asked"].holdout == 3 * 4
    assert sums["energy"].holdout == pytest.approx(4 * (4 + 40 + 40) / 3600)
    assert (sums["cost"].total, sums["cost"].unknown) == (None, 48)
    assert "GPU time" not in sums


def test_it_says_that_nothing_was_confirmed_yet(keep, found):
    study = keep(found("direct", {}, search=[(1, 1, 4)] * 4))
    (sentence,) = report_of(study).holdout
    assert "Nothing has been measured on the 4 holdout questions yet" in sentence
    assert "tuner validate" in sentence


def test_it_says_which_of_the_front_are_not_confirmed(keep, found):
    study = keep(
        found("direct", {}, search=[(0, 1, 4)] * 4, holdout=[(1, 1, 4)] * 4),
        found("react", {"max_steps": 2}, search=[(1, 9, 40)] * 4),
    )
    assert "Not confirmed yet: trial 1." in report_of(study).holdout[-1]


def test_a_study_that_still_runs_is_called_so(keep, found):
    study = keep(found("direct", {}, search=[(1, 1, 4)] * 4))
    with closing(open_results(study)) as store:
        assert read_report(study, store).unfinished is None
        assert store.claim("host:1:1", None)
        assert "still running" in read_report(study, store).unfinished
        store.release("host:1:1")


def test_a_study_without_a_complete_trial_is_refused_with_what_to_do(keep, found):
    study = keep(found("direct", {}, search=[(0, 1, 4)], failure="no route"))
    with pytest.raises(UserError, match="no complete trial") as caught:
        report_of(study)
    assert "tuner run" in caught.value.hint


def test_few_configs_say_nothing_of_knobs_and_many_do(keep, found, kinds):
    assert [each.objective for each in report_of(kinds).effects] == list(kinds.spec.objectives)
    few = keep(found("direct", {}, search=[(1, 1, 4)] * 4))
    assert report_of(few).effects == ()
    assert "say nothing of knobs" in report_of(few).no_effects


def test_the_conditions_say_where_how_and_on_what(kinds):
    facts = {term: what for each in report_of(kinds).conditions for term, what in each.facts}
    assert facts["machine"] == "Linux x86_64, 2 CPUs"
    assert facts["energy"] == "cpu-estimate, of server process 1"
    assert facts["prefix cache between trials"] == "shared"
    assert facts["load"] == "1 question at a time"
    assert facts["sampler"].endswith("seed 0")
    assert facts["racing"] == "none: the sampler gives questions a few at a time"
    assert facts["constraints"] == "latency_p50_s <= 20"
    assert len(facts["fingerprint, task"]) == 16


def test_questions_that_cannot_be_read_are_left_out_and_nothing_else(kinds, write, tmp_path):
    (tmp_path / "q.jsonl").unlink()
    report = write(kinds, tmp_path / "report.html")
    assert report.task is None
    assert "q.jsonl" in report.no_task
    assert "q.jsonl" in (tmp_path / "report.html").read_text()
