import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tuner.measure.attribution import Calls
from tuner.measure.attribution import attribute
from tuner.measure.attribution import attribute_all
from tuner.measure.attribution import split_energy
from tuner.records import ExampleRun
from tuner.records import Reading
from workflows.base import Checkpoint
from workflows.trace import Span


def call(start_s, end_s, tokens=None, *, cached=0, written=0, error=None):
    """A model call; `tokens` are those that were computed, read or written."""
    tokens_in = None if tokens is None else tokens + cached - written
    counts = (tokens_in, None if tokens is None else written, None if tokens is None else cached)
    return Span("llm", "m", start_s, end_s, "", "text", None, *counts, error=error)


def tool(start_s, end_s):
    return Span("tool", "search", start_s, end_s, "", "")


def make_run(example_id, *spans, samples=(), cuts=(), started_s=0.0, window=0, gross_j=1.0):
    def count(name):
        amounts = [getattr(span, name) for span in spans if span.kind == "llm" and not span.error]
        return None if None in amounts else sum(amounts)

    kinds = [span.kind for span in spans]
    return ExampleRun(
        example_id=example_id,
        repeat=0,
        answer="",
        score=0.0,
        error=None,
        latency_s=10.0,
        energy=Reading(gross_j, "nvml-counter", "GPU-0"),
        tokens_in=count("tokens_in"),
        tokens_out=count("tokens_out"),
        tokens_cached=count("tokens_cached"),
        cost_usd=None,
        llm_calls=kinds.count("llm"),
        tool_calls=kinds.count("tool"),
        llm_s=0.0,
        tool_only_s=0.0,
        started_s=started_s,
        checkpoints=tuple(Checkpoint(n + 1, "", 0, cut_s) for n, cut_s in enumerate(cuts)),
        spans=spans,
        window=window,
        samples=tuple(samples),
    )


STEADY = [(1.0, 300.0), (4.0, 1200.0), (10.0, 3000.0)]
"""300 W for ten seconds."""


def joules(runs, **options):
    """(of model calls, of tool waits) by query, and idle joules."""
    found = attribute(runs, **options)
    return {q.example_id: (q.llm_j, q.tool_j) for q in found.queries}, found.idle_j


def about(llm_j, tool_j):
    return pytest.approx((llm_j, tool_j), rel=1e-12)


# ---- closed forms ----


def test_a_query_alone_has_what_was_used_while_it_was_computed():
    found = attribute([make_run("a", call(0, 7), samples=STEADY)])
    (query,) = found.queries
    assert (query.example_id, query.repeat) == ("a", 0)
    assert query.llm_j == query.joules == pytest.approx(2100)
    assert query.tool_j == 0
    assert found.idle_j == pytest.approx(900)
    assert found.gross_j == 3000
    assert found.by == "spans"


def test_calls_in_flight_at_once_share():
    runs = [make_run("a", call(0, 6), samples=STEADY), make_run("b", call(4, 10), samples=STEADY)]
    assert joules(runs) == ({"a": about(1500, 0), "b": about(1500, 0)}, 0)
    runs[1] = make_run("b", call(4, 10), call(4, 6), samples=STEADY)
    assert joules(runs) == ({"a": about(1400, 0), "b": about(1600, 0)}, 0)


def test_calls_share_in_proportion_to_the_tokens_that_were_computed():
    light = call(0, 10, tokens=100, cached=5000, written=40)
    runs = [
        make_run("a", light, samples=STEADY),
        make_run("b", call(0, 10, tokens=200), samples=STEADY),
    ]
    assert joules(runs, by="tokens") == ({"a": about(1000, 0), "b": about(2000, 0)}, 0)
    assert joules(runs, by="spans") == ({"a": about(1500, 0), "b": about(1500, 0)}, 0)


def test_one_call_without_counts_makes_all_shares_equal():
    runs = [
        make_run("a", call(0, 10, tokens=100), samples=STEADY),
        make_run("b", call(0, 10), samples=STEADY),
    ]
    found = attribute(runs, by="tokens")
    assert found.by == "spans"
    assert [q.joules for q in found.queries] == pytest.approx([1500, 1500])


def test_a_call_that_computed_nothing_still_has_its_time():
    refused = replace(call(0, 10, error="refused"), output="")
    runs = [make_run("a", refused, call(5, 10, tokens=1), samples=STEADY)]
    runs.append(make_run("b", call(5, 10, tokens=1), samples=STEADY))
    found = attribute(runs, by="tokens")
    assert found.by == "tokens"
    assert [q.joules for q in found.queries] == pytest.approx([2500, 500])


def test_a_wait_for_tools_is_paid_by_who_waits_unless_the_device_works_for_another():
    waits = make_run("a", call(0, 2), tool(2, 6), samples=STEADY)
    other = make_run("b", call(4, 5), samples=STEADY)
    assert joules([waits, other]) == ({"a": about(600, 900), "b": about(300, 0)}, 1200)


def test_a_query_that_waits_for_three_tools_counts_once():
    three = make_run("a", tool(0, 4), tool(1, 4), tool(2, 4), samples=STEADY)
    one = make_run("b", tool(0, 4), samples=STEADY)
    assert joules([three, one]) == ({"a": about(0, 600), "b": about(0, 600)}, 1800)


def test_tools_while_the_same_query_is_computed_cost_nothing():
    run = make_run("a", call(0, 6), tool(2, 8), samples=STEADY)
    assert joules([run]) == ({"a": about(1800, 600)}, pytest.approx(600))


def test_power_that_changes_goes_to_who_was_there():
    samples = [(2.0, 100.0), (4.0, 900.0), (6.0, 900.0), (8.0, 1000.0)]
    runs = [make_run("a", call(0, 3), samples=samples[:1]), make_run("b", call(3, 7))]
    runs[1] = replace(runs[1], samples=tuple(samples[1:]))
    assert joules(runs) == ({"a": about(500, 0), "b": about(450, 0)}, pytest.approx(50))


def test_times_of_spans_and_checkpoints_count_from_the_start_of_their_run():
    run = make_run("a", call(0, 2), started_s=5.0, samples=STEADY, cuts=[1.0])
    found = attribute([run])
    assert found.queries[0].joules == pytest.approx(600)
    assert found.queries[0].checkpoints_j == (pytest.approx(300),)
    assert found.idle_j == pytest.approx(2400)


def test_what_lies_outside_the_curve_has_no_energy():
    run = make_run("a", call(-5, 1), call(9, 30), call(40, 50), samples=STEADY, cuts=[0.5, 60.0])
    assert joules([run]) == ({"a": about(600, 0)}, pytest.approx(2400))
    assert attribute([run]).queries[0].checkpoints_j == pytest.approx((150, 600))


def test_a_query_without_calls_has_nothing():
    runs = [make_run("a", samples=STEADY, cuts=[3.0]), make_run("b", call(0, 10), samples=STEADY)]
    found = attribute(runs)
    assert (found.queries[0].joules, found.queries[0].checkpoints_j) == (0, (0,))
    assert found.queries[1].joules == pytest.approx(3000)


def test_checkpoints_cut_calls_and_waits():
    run = make_run("a", call(0, 4), tool(4, 8), samples=STEADY, cuts=[2.0, 4.0, 5.0, 5.0, 9.0])
    (query,) = attribute([run]).queries
    assert query.checkpoints_j == pytest.approx((600, 1200, 1500, 1500, 2400))


def test_a_heavy_call_after_much_light_work_keeps_its_joule():
    """A plain difference of running sums would be off by one part in 10,000 here."""
    samples = [(1.0, 1e6), (2.0, 1e6 + 1)]
    light = make_run("a", call(0, 1, tokens=1), samples=samples)
    heavy = make_run("b", call(1, 2, tokens=10**6), samples=samples)
    assert joules([light, heavy], by="tokens") == ({"a": about(1e6, 0), "b": about(1, 0)}, 0)


# ---- what cannot be known, and what is a mistake ----


def test_what_cannot_be_known_is_none():
    run = make_run("a", call(0, 5), samples=STEADY)
    assert attribute([]) is None
    assert attribute([run, replace(run, samples=())]) is None
    assert attribute([run, make_run("b", samples=STEADY, gross_j=None)]) is None
    assert attribute([run, replace(run, spans=())]) is None
    assert attribute([replace(run, samples=((0.0, 0.0),))]) is None
    assert attribute([replace(run, samples=((1.0, 5.0), (2.0, 4.0)))]) is None


def test_readings_of_one_moment_are_one_sample():
    run = make_run("a", call(0, 5), samples=[(0.0, 0.0), (5.0, 90.0), (5.0, 100.0)])
    assert attribute([run, replace(run, example_id="b")]).gross_j == 100


def test_windows_are_not_mixed():
    runs = [make_run("a", samples=STEADY), make_run("b", samples=STEADY, window=1)]
    with pytest.raises(ValueError, match="several windows"):
        attribute(runs)


def test_many_windows_are_attributed_one_by_one():
    runs = [
        make_run("a", call(0, 10), samples=STEADY),
        make_run("b", call(0, 1), samples=STEADY, window=1),
        make_run("c", call(0, 1), samples=STEADY, window=2, gross_j=None),
    ]
    found = attribute_all(runs)
    assert {key: query.joules for key, query in found.items()} == {
        ("a", 0): pytest.approx(3000),
        ("b", 0): pytest.approx(300),
    }


def columns(*rows):
    query, start_s, end_s, weight = zip(*rows, strict=True)
    return Calls(*(np.array(column) for column in (query, start_s, end_s, weight)))


def split(t_s=(0.0, 1.0), curve_j=(0.0, 1.0), weight=1, cuts=()):
    calls = columns((0, 0.0, 1.0, weight))
    return split_energy(
        np.array(t_s),
        np.array(curve_j),
        llm=calls,
        tools=calls,
        queries=1,
        cut_query=np.zeros(len(cuts), dtype=np.int64),
        cut_s=np.array(cuts, dtype=np.float64),
    )


def test_columns_out_of_order_are_refused():
    assert split(cuts=[0.25, 0.5]).llm_j == pytest.approx([0.25, 0.25, 0.5])
    with pytest.raises(ValueError, match="times of a curve"):
        split(t_s=(1.0, 1.0))
    with pytest.raises(ValueError, match="do not fall"):
        split(curve_j=(1.0, 0.0))
    with pytest.raises(ValueError, match="at least 1"):
        split(weight=0)
    with pytest.raises(ValueError, match="cuts ascend"):
        split(cuts=[0.5, 0.25])


def test_no_energy_is_negative_where_interpolation_overshoots_by_a_rounding():
    t_s, curve_j = np.array([0.31, 1.0]), np.array([332.0, 2022.0])
    almost_s = np.nextafter(1.0, 0.0)
    assert np.interp(almost_s, t_s, curve_j) > 2022
    calls = columns((0, 0.0, almost_s, 1))
    none = np.zeros(0, dtype=np.int64)
    options = {"queries": 1, "cut_query": none, "cut_s": np.zeros(0)}
    found = split_energy(t_s, curve_j, llm=calls, tools=calls, **options)
    assert found.idle_j >= 0
    assert found.llm_j.tolist() == [pytest.approx(1690)]


# ---- properties ----

# Few distinct values, so that spans touch, nest and coincide; and any at all that a clock shows.
moments = st.integers(-8, 56).map(lambda quarter: quarter / 4) | st.floats(-2, 14).map(
    lambda time_s: round(time_s, 9)
)
weights = st.integers(1, 10**6) | st.sampled_from([1, 2, 10**6])


@st.composite
def spans(draw):
    start_s, end_s = sorted((draw(moments), draw(moments)))
    return draw(st.sampled_from([call(start_s, end_s, draw(weights)), tool(start_s, end_s)]))


@st.composite
def windows(draw):
    """Runs of one window, with its samples dealt out among them."""
    steps = draw(st.lists(st.tuples(moments, st.floats(0, 1e6)), min_size=1, max_size=8))
    times_s = sorted({t_s for t_s, _ in steps if t_s > 0} | {draw(st.floats(1, 12))})
    levels = itertools.accumulate(draw(st.floats(0, 1e6)) for _ in times_s)
    samples = list(zip(times_s, levels, strict=True))
    runs = []
    for n in range(draw(st.integers(1, 5))):
        runs.append(
            make_run(
                f"q{n}",
                *draw(st.lists(spans(), max_size=6)),
                cuts=sorted(draw(st.lists(moments, max_size=4))),
                started_s=draw(st.sampled_from([0.0, 0.1, 3.0])),
                samples=draw(st.permutations(samples))[: draw(st.integers(1, len(samples)))],
            )
        )
    rest = draw(st.sampled_from(range(len(runs))))
    runs[rest] = replace(runs[rest], samples=tuple(samples))
    return runs


def elementary(runs, by):
    """The same by the definition, stretch by stretch in exact arithmetic: (query, kind) → joules, until any time."""
    curve = sorted({(0.0, 0.0)} | {sample for run in runs for sample in run.samples})
    calls = [
        (
            q,
            span.kind,
            run.started_s + span.start_s,
            run.started_s + span.end_s,
            1 if by == "spans" else (span.tokens_in or 0) + (span.tokens_out or 0),
        )
        for q, run in enumerate(runs)
        for span in run.spans
    ]
    cuts = {run.started_s + c.elapsed_s for run in runs for c in run.checkpoints}
    edges = {t for t, _ in curve} | {t for _, _, *times, _ in calls for t in times} | cuts
    grid = sorted(t for t in edges if 0 <= t <= curve[-1][0])
    stretches = []
    for left, right in itertools.pairwise(grid):
        paid = {}
        (t0, j0), (t1, j1) = next(
            pair for pair in itertools.pairwise(curve) if pair[0][0] <= left and right <= pair[1][0]
        )
        energy = (Fraction(j1) - Fraction(j0)) * (Fraction(right) - Fraction(left))
        energy /= Fraction(t1) - Fraction(t0)
        here = [each for each in calls if each[2] <= left and right <= each[3]]
        computed = [(q, weight) for q, kind, _, _, weight in here if kind == "llm"]
        waiting = {q for q, *_ in here}
        for q, weight in computed:
            share = energy * weight / sum(w for _, w in computed)
            paid[q, "llm"] = paid.get((q, "llm"), 0) + share
        if not computed:
            for q in waiting:
                paid[q, "tool"] = energy / len(waiting)
            if not waiting:
                paid["idle"] = energy
        stretches.append((right, paid))

    def until(key, time_s):
        return float(sum(paid.get(key, 0) for right, paid in stretches if right <= time_s))

    return until


@pytest.mark.slow
@given(windows(), st.sampled_from(["spans", "tokens"]))
@settings(deadline=None)
def test_it_is_what_the_definition_says_and_nothing_is_lost(runs, by):
    found = attribute(runs, by=by)
    until = elementary(runs, by)
    gross_j = found.gross_j
    assert found.by == by
    assert gross_j == max(j for run in runs for _, j in run.samples)
    parts = [found.idle_j, *(query.joules for query in found.queries)]
    assert abs(math.fsum(parts) - gross_j) <= 1e-9 * gross_j

    def same(expected_j):
        return pytest.approx(expected_j, rel=1e-9, abs=1e-12 * gross_j)

    assert found.idle_j == same(until("idle", math.inf))
    for q, (run, query) in enumerate(zip(runs, found.queries, strict=True)):
        assert query.llm_j == same(until((q, "llm"), math.inf))
        assert query.tool_j == same(until((q, "tool"), math.inf))
        cuts_s = [run.started_s + each.elapsed_s for each in run.checkpoints]
        so_far = [until((q, "llm"), t) + until((q, "tool"), t) for t in cuts_s]
        assert list(query.checkpoints_j) == [same(each) for each in so_far]
        climb = [0.0, *query.checkpoints_j, query.joules]
        assert climb == sorted(climb)


@pytest.mark.slow
@given(windows(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_order_does_not_matter(runs, random):
    def shuffled(items):
        return random.sample(items, len(items))

    def by_query(attribution):
        return {q.example_id: (q.llm_j, q.tool_j, *q.checkpoints_j) for q in attribution.queries}

    mixed = [
        replace(run, spans=tuple(shuffled(run.spans)), samples=tuple(shuffled(run.samples)))
        for run in shuffled(runs)
    ]
    straight, crooked = attribute(runs, by="tokens"), attribute(mixed, by="tokens")
    slack = 1e-12 * straight.gross_j
    assert crooked.gross_j == straight.gross_j
    assert crooked.idle_j == pytest.approx(straight.idle_j, abs=slack)
    for name, parts in by_query(straight).items():
        assert by_query(crooked)[name] == pytest.approx(parts, abs=slack)


@given(windows(), st.floats(0.001, 0.999))
@settings(deadline=None)
def test_adjoining_windows_add_up_to_the_whole(runs, share):
    curve = sorted({(0.0, 0.0)} | {sample for run in runs for sample in run.samples})
    t_s, curve_j = np.array(curve).T
    seam_s = share * t_s[-1]
    seam_j = float(np.interp(seam_s, t_s, curve_j))
    before = [(t, j) for t, j in curve if t < seam_s] + [(seam_s, seam_j)]
    after = [(t - seam_s, j - seam_j) for t, j in curve if t > seam_s]
    first = attribute([replace(run, samples=tuple(before)) for run in runs], by="tokens")
    second = attribute(
        [
            replace(run, samples=tuple(after), started_s=run.started_s - seam_s, window=1)
            for run in runs
        ],
        by="tokens",
    )
    whole = attribute(runs, by="tokens")
    # Times lose a rounding when the origin moves, and so does what is used at a steep place.
    steepest_w = float(np.max(np.diff(curve_j) / np.diff(t_s)))
    slack = 1e-9 * whole.gross_j + 1e-13 * steepest_w
    assert first.idle_j + second.idle_j == pytest.approx(whole.idle_j, abs=slack)
    for a, b, both in zip(first.queries, second.queries, whole.queries, strict=True):
        assert a.llm_j + b.llm_j == pytest.approx(both.llm_j, abs=slack)
        assert a.tool_j + b.tool_j == pytest.approx(both.tool_j, abs=slack)


def test_nothing_is_lost_among_many_calls_of_any_weight():
    rng = np.random.default_rng(1)
    count, queries = 20_000, 50
    t_s = np.append(0.0, np.cumsum(rng.exponential(0.1, count)))
    curve_j = np.append(0.0, np.cumsum(10 ** rng.uniform(-6, 6, count)))

    def draw():
        start_s = rng.uniform(-100, t_s[-1], count)
        return Calls(
            query=rng.integers(0, queries, count),
            start_s=start_s,
            end_s=start_s + 10 ** rng.uniform(-4, 1, count),
            weight=(10 ** rng.uniform(0, 6, count)).astype(np.int64),
        )

    cut_query = np.repeat(np.arange(queries), 20)
    cut_s = np.sort(rng.uniform(0, t_s[-1], (queries, 20)), axis=1).ravel()
    options = {"queries": queries, "cut_query": cut_query, "cut_s": cut_s}
    found = split_energy(t_s, curve_j, llm=draw(), tools=draw(), **options)
    assert len(found.llm_j) == len(found.tool_j) == queries * 21
    assert min(found.llm_j.min(), found.tool_j.min()) >= 0
    parts = [*found.llm_j, *found.tool_j, found.idle_j]
    assert math.fsum(parts) == pytest.approx(curve_j[-1], rel=1e-12)
