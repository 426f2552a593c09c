import dataclasses
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.intervals import mean_interval
from tuner.intervals import quantile_interval
from tuner.intervals import share_interval
from tuner.objectives import OBJECTIVES
from tuner.records import ExampleRun
from tuner.records import Reading

amounts = st.floats(0, 1e6)


def run(**changes) -> ExampleRun:
    plain = ExampleRun(
        example_id="e",
        repeat=0,
        answer="a",
        score=1.0,
        error=None,
        latency_s=2.0,
        energy=Reading(7.2, "cpu-estimate", "server"),
        tokens_in=10,
        tokens_out=3,
        tokens_cached=4,
        cost_usd=0.01,
        llm_calls=1,
        tool_calls=0,
        llm_s=1.0,
        tool_only_s=0.0,
        started_s=0.0,
        checkpoints=(),
        spans=(),
    )
    return dataclasses.replace(plain, **changes)


def test_every_objective_is_known_by_its_own_name():
    assert {name: objective.name for name, objective in OBJECTIVES.items()} == {
        name: name for name in OBJECTIVES
    }
    assert {n for n, objective in OBJECTIVES.items() if objective.direction == "maximize"} == {
        "accuracy"
    }


@pytest.mark.parametrize(
    ("name", "runs", "value"),
    [
        ("accuracy", [{"score": 1.0}, {"score": 0.0}, {"score": 0.5}, {"score": 0.5}], 0.5),
        ("latency_mean_s", [{"latency_s": 1.0}, {"latency_s": 4.0}], 2.5),
        ("latency_p50_s", [{"latency_s": s} for s in (9.0, 1.0, 2.0)], 2.0),
        ("latency_p95_s", [{"latency_s": float(s)} for s in range(101)], 95.0),
        ("energy_wh", [{"energy": Reading(j, "rapl", "")} for j in (3600.0, 0.0)], 0.5),
        ("cost_usd", [{"cost_usd": 0.02}, {"cost_usd": 0.0}], 0.01),
        ("tokens_total", [{"tokens_in": 10, "tokens_out": 4}, {"tokens_in": 0, "tokens_out": 0}], 7.0),
    ],
)  # fmt: skip
def test_formulas(name, runs, value):
    assert OBJECTIVES[name].value([run(**changes) for changes in runs]) == pytest.approx(value)


MISSING = {
    "energy_wh": [{"energy": Reading(None, "none", "nothing", "no meter")}],
    "cost_usd": [{"cost_usd": None}],
    "tokens_total": [{"tokens_in": None}, {"tokens_out": None}],
}


@pytest.mark.parametrize(
    ("name", "changes"), [(name, change) for name, all_ in MISSING.items() for change in all_]
)
def test_one_run_without_a_reading_leaves_no_value(name, changes):
    assert OBJECTIVES[name].value([run(), run(**changes), run()]) is None


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - {"accuracy"}))
def test_what_was_measured_as_zero_is_zero(name):
    nothing = run(
        latency_s=0.0, energy=Reading(0.0, "rapl", ""), cost_usd=0.0, tokens_in=0, tokens_out=0
    )
    assert OBJECTIVES[name].value([nothing, nothing]) == 0.0


def test_a_question_weighs_the_same_however_often_it_was_answered():
    often = [run(example_id="a", repeat=r, latency_s=9.0, score=1.0) for r in range(3)]
    once = [run(example_id=name, latency_s=s, score=0.0) for name, s in (("b", 1.0), ("c", 2.0))]
    runs = [often[2], once[1], often[0], once[0], often[1]]
    assert OBJECTIVES["accuracy"].value(runs) == pytest.approx(1 / 3)
    assert OBJECTIVES["latency_mean_s"].value(runs) == pytest.approx(4.0)
    assert OBJECTIVES["latency_p50_s"].value(runs) == 2.0
    assert OBJECTIVES["accuracy"].answers(runs).tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 0]]


@given(
    st.lists(st.lists(amounts, min_size=1, max_size=3), min_size=1, max_size=5),
)
def test_a_mean_is_that_of_the_questions_means(answers):
    runs = [
        run(example_id=str(question), repeat=repeat, latency_s=latency_s)
        for question, row in enumerate(answers)
        for repeat, latency_s in enumerate(row)
    ]
    expected = np.mean([np.mean(row) for row in answers])
    assert OBJECTIVES["latency_mean_s"].value(runs) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "interval"),
    [
        ("accuracy", share_interval),
        ("latency_p50_s", partial(quantile_interval, share=0.5)),
        ("latency_p95_s", partial(quantile_interval, share=0.95)),
        *((n, mean_interval) for n in ("latency_mean_s", "energy_wh", "cost_usd", "tokens_total")),
    ],
)
def test_intervals_are_those_of_the_kind_of_figure(name, interval):
    answers = np.array([[0.0, 1.0], [1.0, 1.0], [0.5, 0.0]] * 30)
    assert OBJECTIVES[name].interval(answers) == interval(answers)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_no_runs_have_no_value(name):
    assert OBJECTIVES[name].value([]) is None


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
@given(st.lists(st.lists(amounts, min_size=3, max_size=3), min_size=1, max_size=4))
def test_resampled_amounts_go_through_the_same_formula(name, rows):
    """A summary of a table is the summary of each of its rows."""
    summary = OBJECTIVES[name].summary
    together = summary(np.array(rows))
    assert together.shape == (len(rows),)
    assert together.tolist() == [float(summary(np.array(row))) for row in rows]


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
@given(st.lists(amounts, min_size=1, max_size=20))
def test_a_value_lies_between_the_smallest_and_the_largest(name, latencies):
    runs = [
        run(
            score=s / 1e6,
            latency_s=s,
            energy=Reading(s, "rapl", ""),
            cost_usd=s,
            tokens_in=int(s),
            tokens_out=0,
        )
        for s in latencies
    ]
    each = [OBJECTIVES[name].value([one]) for one in runs]
    value = OBJECTIVES[name].value(runs)
    slack = 1e-9 * max(each)
    assert min(each) - slack <= value <= max(each) + slack
