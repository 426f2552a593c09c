"""What a query took, as averaged over a pass, carried by an export, and read back for a forecast."""

from dataclasses import replace

import numpy as np
import pytest
import yaml

from tuner.costs import Costs
from tuner.costs import costs_of
from tuner.costs import measured_file
from tuner.costs import measured_row
from tuner.costs import measured_trial
from tuner.costs import names_a_row
from tuner.errors import UserError
from tuner.export import export
from tuner.records import Reading
from tuner.results import Front
from tuner.results import open_results
from tuner.rules import Rule
from workflows.errors import ConfigError

ROWS = [(1, 2, 3.6), (0, 2, 7.2), (1, 3, 10.8), (1, 2, 14.4)]


@pytest.fixture
def runs(keep, found):
    """The runs of a pass of four questions in one sitting, of which the fields may be changed."""
    study = keep(found("direct", {}, search=ROWS))
    store = open_results(study)
    runs = store.runs(store.trial_id(0), "search")
    store.close()

    def changed(**fields):
        return [
            replace(run, **{"window": 0, **{name: value(index) for name, value in fields.items()}})
            for index, run in enumerate(runs)
        ]

    return changed


def reading(joules, **others):
    return Reading(joules, "nvml-counter", "GPU-1", **others)


def test_costs_are_means_over_the_queries(runs):
    costs = costs_of(runs(cost_usd=lambda n: 0.01 * n), load={"concurrency": 4})
    assert (costs.n, costs.load) == (4, {"concurrency": 4})
    assert (costs.latency_mean_s, costs.llm_calls, costs.tool_calls) == (2.25, 1, 1)
    assert (costs.tokens_in, costs.tokens_out, costs.tokens_cached) == (30, 5, 0)
    assert costs.cost_usd == pytest.approx(0.015)
    assert costs.energy.gross_wh == pytest.approx(0.0025)
    assert (costs.energy.source, costs.energy.scope) == ("cpu-estimate", "server process 1")


def test_what_one_query_does_not_know_the_pass_does_not_know(runs):
    costs = costs_of(
        runs(
            tokens_in=lambda n: None if n == 2 else 30,
            cost_usd=lambda n: None,
            energy=lambda n: reading(None, problem="the counter was lost") if n == 1 else reading(1.0),
        ),
        load={},
    )  # fmt: skip
    assert (costs.tokens_in, costs.cost_usd) == (None, None)
    energy = costs.energy
    assert (energy.gross_wh, energy.interval_wh, energy.net_wh) == (None, None, None)
    assert energy.problem == "the counter was lost"


def test_throughput_leaves_out_the_time_between_sittings(runs):
    alone = costs_of(runs(started_s=lambda n: 3.0 * n), load={})
    assert alone.throughput_qps == pytest.approx(4 / 11)
    together = costs_of(runs(started_s=lambda n: 0.0), load={})
    assert together.throughput_qps == pytest.approx(4 / 3)
    twice = runs(started_s=lambda n: 3.0 * (n % 2), window=lambda n: n // 2)
    assert costs_of(twice, load={}).throughput_qps == pytest.approx(4 / (5 + 5))


def test_the_meters_error_is_that_of_each_sittings_outer_edges(runs):
    def energy(n):
        return reading(36.0, seconds=2.0, idle_j=7.2, stderr_j=3.6)

    once = costs_of(runs(energy=energy), load={}).energy
    assert once.stderr_wh == pytest.approx(0.001 / 4)
    assert (once.idle_wh, once.net_wh) == pytest.approx((0.002, 0.008))
    twice = costs_of(runs(energy=energy, window=lambda n: n // 2), load={}).energy
    assert twice.stderr_wh == pytest.approx(once.stderr_wh * np.sqrt(2))
    assert twice.gross_wh == pytest.approx(once.gross_wh)


@pytest.mark.parametrize(
    ("load", "text"),
    [
        ({"concurrency": 8, "rate": None}, "8 at a time"),
        ({"concurrency": None, "rate": 0.5, "warm_up": 3}, "0.5 a second"),
        ({}, "not stated"),
    ],
)
def test_the_load_is_told_in_words(study, tmp_path, load, text):
    out = tmp_path / "best.yaml"
    export(study, open_results(study), rule=Rule.parse("max-accuracy"), out=out)
    content = yaml.safe_load(out.read_text())
    content["provenance"]["measured"]["holdout"]["costs"]["load"] = load
    out.write_text(yaml.safe_dump(content))
    assert measured_file(out).load == text


def test_one_query_has_no_interval(runs):
    costs = costs_of(runs()[:1], load={})
    assert costs.energy.gross_wh is not None
    assert costs.energy.interval_wh is None


def test_no_runs_have_no_costs():
    with pytest.raises(ValueError, match="no runs"):
        costs_of([], load={})


@pytest.fixture
def study(keep, found):
    """A study with a confirmed trial, one that is not, one that failed, and a replay of the first."""
    return keep(
        found("direct", {}, search=ROWS, holdout=[(1, 4, 36.0)] * 3 + [(0, 4, 72.0)]),
        found("react", {"max_steps": 2}, search=[(0, 9, 360.0)] * 4),
        found("react", {"max_steps": 3}, search=ROWS[:1], failure="3 of 4 examples failed"),
        found("direct", {}, search=[], replay_of=0),
    )


@pytest.fixture
def of_trial(study):
    store = open_results(study)
    yield lambda number: measured_trial(study, store, store.trials()[number])
    store.close()


def test_a_trial_is_taken_from_where_it_was_confirmed(of_trial):
    confirmed, searched = of_trial(0), of_trial(1)
    assert confirmed.basis == "4 holdout questions"
    assert confirmed.energy_wh.value == pytest.approx(0.0125)
    assert (confirmed.source, confirmed.load) == ("cpu-estimate", "1 at a time")
    assert confirmed.name == "trial 0 of kept (direct)"
    assert (searched.basis, searched.latency_mean_s) == ("4 search questions", 9)
    assert replace(of_trial(3), name="") == replace(confirmed, name="")


def test_a_trial_that_was_told_when_it_was_right_is_marked(keep, found):
    study = keep(found("reflexion", {"feedback": "oracle"}, search=ROWS))
    store = open_results(study)
    measured = measured_trial(study, store, store.trials()[0])
    store.close()
    assert measured.name == "trial 0 of kept (reflexion, oracle)"


def test_a_trial_that_is_not_complete_has_nothing_to_forecast(of_trial):
    with pytest.raises(UserError, match="trial 2 is failed; a forecast needs a complete one"):
        of_trial(2)


def test_an_export_carries_what_its_trial_took(study, of_trial, tmp_path):
    out = tmp_path / "best.yaml"
    store = open_results(study)
    export(study, store, rule=Rule.parse("max-accuracy"), out=out)
    (point,) = Front.read(study, store).confirmed
    store.close()
    measured = measured_file(out)
    assert replace(measured, name="") == replace(of_trial(0), name="")
    assert measured.name == f"{out} (direct)"
    # The cpu-estimate of these runs says nothing of its own error: the questions' alone is left.
    assert measured.energy_wh.interval == pytest.approx(point.intervals["energy_wh"])
    told = yaml.safe_load(out.read_text())["provenance"]["measured"]["holdout"]["costs"]
    assert Costs.model_validate(told).energy.gross_wh == pytest.approx(0.0125)


def test_a_file_of_an_earlier_version_says_how_to_get_a_newer_one(study, tmp_path):
    out = tmp_path / "best.yaml"
    export(study, open_results(study), rule=Rule.parse("max-accuracy"), out=out)
    content = yaml.safe_load(out.read_text())
    content["provenance"]["measured"]["holdout"]["costs"]["energy"].pop("source")
    out.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=r"holdout\.costs\.energy\.source: Field required"):
        measured_file(out)
    content["provenance"]["measured"]["holdout"].pop("costs")
    content["provenance"]["rule"] = "slo:latency_p50_s<=5"
    out.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=r"holdout\.costs: is missing") as caught:
        measured_file(out)
    assert caught.value.hint == f"export it again: tuner export STUDY --rule 'slo:latency_p50_s<=5' --out {out}"  # fmt: skip


ODD = (
    *(None, 7, "text", [], [1], {"odd": 1}, {"holdout": "text"}, {"m": 3}, {"rate": "text"}),
    {"scope": [1], "gpus": "text"},
)


@pytest.mark.parametrize("value", ODD, ids=repr)
@pytest.mark.parametrize(
    "keys",
    [
        ("rule",),
        ("energy",),
        ("energy", "m"),
        ("measured",),
        ("measured", "holdout"),
        ("measured", "holdout", "costs"),
        ("measured", "holdout", "costs", "load"),
        ("measured", "holdout", "costs", "energy"),
        ("measured", "holdout", "costs", "energy", "interval_wh"),
    ],
)
def test_a_strangers_file_may_say_anything_and_is_read_or_refused(study, tmp_path, keys, value):
    out = tmp_path / "best.yaml"
    export(study, open_results(study), rule=Rule.parse("max-accuracy"), out=out)
    content = yaml.safe_load(out.read_text())
    *outer, last = keys
    at = content["provenance"]
    for key in outer:
        at = at[key]
    at[last] = value
    out.write_text(yaml.safe_dump(content))
    said = ""
    try:
        said = measured_file(out).basis
    except UserError as error:
        said = str(error)
    assert "questions" in said or f"{out}: provenance." in said


@pytest.mark.parametrize(
    ("energy", "gpus"),
    [
        ({"m": {"source": "s", "scope": "GPU-1", "gpus": 2}}, 2),
        ({"m": {"source": "s", "scope": "GPU-1"}}, None),
        ({"m": {"source": "s", "scope": "GPU-1", "gpus": None}}, None),
        ({"m": {"source": "s", "scope": "GPU-1", "gpus": 2}, "n": {"scope": "GPU-1", "gpus": 2}}, 2),
        ({"m": {"source": "s", "scope": "GPU-1", "gpus": 2}, "n": {"scope": "GPU-2", "gpus": 1}}, 3),
        ({"m": {"source": "s", "scope": "GPU-1", "gpus": 2}, "n": {"scope": "GPU-2"}}, None),
    ],
)  # fmt: skip
def test_gpus_are_those_of_all_models_each_once(study, tmp_path, energy, gpus):
    out = tmp_path / "best.yaml"
    export(study, open_results(study), rule=Rule.parse("max-accuracy"), out=out)
    content = yaml.safe_load(out.read_text())
    content["provenance"]["energy"] = energy
    content["models"] = dict.fromkeys(energy, content["models"]["m"])
    content["config"]["params"] = {"judge_model": "n"} if "n" in energy else {}
    out.write_text(yaml.safe_dump(content))
    assert measured_file(out).gpus == gpus


def test_a_papers_row_says_what_the_paper_states():
    measured = measured_row("kim2025:llama-3.1-70b/reflexion")
    assert (measured.energy_wh.value, measured.latency_mean_s) == (348.41, 720.0)
    assert (measured.load, measured.throughput_qps) == ("not stated", None)
    assert "2506.04301" in measured.basis
    with pytest.raises(UserError, match="kim2025 has no row 'gpt'") as refused:
        measured_row("kim2025:gpt")
    assert refused.value.hint.startswith("one of: kim2025:llama")


@pytest.mark.parametrize(
    ("text", "is_row"),
    [("kim2025:a/b", True), ("kim2024:x", True), ("best.yaml", False), (r"C:\best.yaml", False)],
)
def test_a_row_is_told_from_a_file(text, is_row):
    assert names_a_row(text) == is_row


def test_no_export_at_all_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        measured_file(tmp_path / "none.yaml")
