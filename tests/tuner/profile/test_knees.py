"""Sweeps of a profile: what is measured next follows from what is kept, wherever it was interrupted."""

from dataclasses import replace

import pytest

from tuner.profile.knees import knee_notes
from tuner.profile.knees import search_knee

CAPACITY = 3.0


@pytest.fixture
def alone(profiled):
    """A config at one question at a time, 24 of them, a second each."""
    of = next(each for each in profiled().measured if each.workflow == "react")
    run, query = of.runs[0], of.queries[0]
    return replace(
        of,
        runs=tuple(replace(run, example_id=f"e{n}", latency_s=1.0) for n in range(24)),
        queries=tuple(replace(query, example_id=f"e{n}", latency_s=1.0) for n in range(24)),
    )


def under(of, load):
    """What a server of that capacity makes of a rate."""
    slow_s = 1.0 if load.rate <= CAPACITY else 10.0
    return replace(
        of,
        runs=tuple(replace(run, latency_s=slow_s) for run in of.runs),
        load={
            "offered_per_s": load.rate,
            "achieved_per_s": min(load.rate, CAPACITY),
            "under_way_mean": load.rate * slow_s,
            "span_s": 24 / load.rate,
            "client_limited": False,
            "reason": None,
        },
    )


def test_the_knee_is_bracketed_from_half_a_question_per_latency_on(alone):
    loads = []

    def measured(number, load):
        assert number == len(loads)
        loads.append(load)
        return under(alone, load)

    found = search_knee(alone, measured)
    assert [load.rate for load in loads[:4]] == [0.5, 1.0, 2.0, 4.0]
    assert found.following is None
    assert found.sweep.knee.rate_per_s <= CAPACITY < found.sweep.knee.bracket_per_s[1]
    assert found.sweep.knee.bracket_per_s[1] <= 1.1 * found.sweep.knee.rate_per_s
    (note,) = knee_notes([found])
    assert note.startswith(f"{alone.label} on {alone.model}: the knee is at ")
    assert "n = 24; 100 questions would be enough" in note


def test_an_interrupted_sweep_goes_on_with_the_point_that_is_missing(alone):
    loads = []

    def all_of_them(number, load):
        loads.append(load)
        return under(alone, load)

    search_knee(alone, all_of_them)
    for kept in range(len(loads)):
        found = search_knee(alone, lambda n, load, k=kept: under(alone, load) if n < k else None)
        assert found.following == loads[kept]
        assert len(found.points) == kept


def test_a_load_whose_trial_failed_ends_the_sweep_and_says_so(alone):
    def measured(number, load):
        at = under(alone, load)
        return replace(at, queries=(), problem="too many failed") if number == 2 else at

    found = search_knee(alone, measured)
    assert (found.following, len(found.points)) == (None, 2)
    assert "the sweep ended at 2 a second: too many failed" in knee_notes([found])[0]


def test_a_config_that_failed_alone_has_no_knee(alone):
    found = search_knee(replace(alone, queries=(), problem="no server"), lambda n, load: None)
    assert (found.points, found.following) == ((), None)
    assert knee_notes([found]) == [
        f"{alone.label} on {alone.model}: no knee was found (no server)."
    ]
