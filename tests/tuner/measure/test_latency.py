from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.measure.latency import Breakdown
from tuner.measure.latency import DeviceTime
from tuner.measure.latency import Latency
from tuner.measure.latency import breakdown
from tuner.measure.latency import device_time
from tuner.measure.latency import summarise
from tuner.records import ExampleRun
from tuner.records import Reading
from workflows.trace import Span

seconds = st.floats(min_value=0, max_value=1e5, allow_nan=False)


def idle_share(runs):
    time = device_time(runs)
    return None if time is None else time.idle_s / time.window_s


def make_run(*calls, started_s=0.0, latency_s=10.0, tools=(), window=0):
    """A run with model calls at (start, end) or (start, first chunk, end), and tool calls at (start, end)."""
    spans = [
        Span("llm", "x", start, end, "", "text", first[0] - start if first else None)
        for start, *first, end in calls
    ]
    spans += [Span("tool", "x", start, end, "", "text") for start, end in tools]
    return ExampleRun(
        example_id="1",
        repeat=0,
        answer="",
        score=0.0,
        error=None,
        latency_s=latency_s,
        energy=Reading(None, "none", "nothing", "not metered"),
        tokens_in=None,
        tokens_out=None,
        tokens_cached=None,
        cost_usd=None,
        llm_calls=len(calls),
        tool_calls=len(tools),
        llm_s=0.0,
        tool_only_s=0.0,
        started_s=started_s,
        checkpoints=(),
        spans=tuple(spans),
        window=window,
    )


def test_quantiles_lie_on_lines_between_the_sorted_values():
    summary = summarise([4.0, 1.0, 3.0, 2.0, 5.0])
    assert summary == Latency(n=5, mean_s=3.0, p50_s=3.0, p95_s=pytest.approx(4.8))
    assert summarise([2.5]) == Latency(1, 2.5, 2.5, 2.5)


def test_no_latencies_have_no_summary():
    with pytest.raises(ValueError, match="no latencies"):
        summarise([])


@given(st.lists(seconds, min_size=1), st.randoms(use_true_random=False))
def test_a_summary_lies_within_its_values_whatever_their_order(latencies_s, random):
    summary = summarise(latencies_s)
    low, high = min(latencies_s), max(latencies_s)
    slack = 1e-9 * (1 + high)
    assert low - slack <= summary.p50_s <= summary.p95_s + slack <= high + 2 * slack
    assert low - slack <= summary.mean_s <= high + slack
    shuffled = random.sample(latencies_s, len(latencies_s))
    assert summarise(shuffled).p95_s == pytest.approx(summary.p95_s)


@given(st.lists(seconds, min_size=1), seconds)
def test_a_summary_moves_with_its_values(latencies_s, shift):
    moved = summarise([value + shift for value in latencies_s])
    summary = summarise(latencies_s)
    assert moved.p50_s == pytest.approx(summary.p50_s + shift)
    assert moved.p95_s == pytest.approx(summary.p95_s + shift)


def test_one_query_is_idle_while_it_waits_for_tools():
    assert idle_share([make_run((0, 2), (5, 8), tools=[(2, 5)])]) == pytest.approx(0.5)


def test_calls_that_overlap_keep_the_device_busy_once():
    side_by_side = [make_run((0, 5)), make_run((1, 4), started_s=1.0, latency_s=9.0)]
    assert idle_share(side_by_side) == pytest.approx(0.5)


def test_queries_fill_the_gaps_of_one_another():
    run = make_run((0, 5), tools=[(5, 10)])
    other = make_run((0, 5), started_s=5.0, latency_s=5.0)
    assert idle_share([run]) == pytest.approx(0.5)
    assert idle_share([run, other]) == 0.0


def test_what_cannot_be_known_is_none():
    assert idle_share([]) is None
    assert idle_share([make_run(latency_s=0.0)]) is None
    assert idle_share([replace(make_run((0, 5)), spans=())]) is None


def test_a_query_that_never_asks_the_model_leaves_it_idle():
    assert idle_share([make_run(tools=[(0, 10)])]) == 1.0


def test_windows_are_looked_at_one_by_one_and_added_up():
    first = make_run((0, 5))
    second = make_run((0, 15), started_s=2.0, latency_s=30.0, window=1)
    assert idle_share([first, second]) == pytest.approx(20 / 40)
    assert idle_share([first, replace(second, window=0)]) == pytest.approx(15 / 32)


def test_a_latency_is_broken_down_into_who_was_waited_for():
    run = make_run((0, 4), (1, 3), (5, 6), tools=[(3, 5), (2, 4), (8, 9)])
    assert breakdown(run) == Breakdown(
        llm_only_s=pytest.approx(3),
        overlap_s=pytest.approx(2),
        tool_only_s=pytest.approx(2),
        other_s=pytest.approx(3),
    )


def test_what_lies_outside_a_run_is_not_its_latency():
    run = make_run((-1, 2), (11, 12), tools=[(9, 15)])
    assert breakdown(run) == Breakdown(2, 0, 1, 7)


def test_without_spans_nothing_is_broken_down():
    assert breakdown(make_run()) == Breakdown(0, 0, 0, 10)
    assert breakdown(replace(make_run(tools=[(0, 1)]), spans=())) is None


def test_a_device_reads_prompts_until_one_call_is_written():
    # Read: 0–1, 2–4, 7–8. Written: 1–3, 4–5, 8–9. So what was read from 2 to 3 hides behind what was written.
    runs = [make_run((0, 1, 3)), make_run((0, 2, 3), (5, 6, 7), started_s=2.0, latency_s=8.0)]
    assert device_time(runs) == DeviceTime(window_s=10, prefill_s=3, decode_s=4, idle_s=3)


def test_device_times_of_windows_add_up():
    runs = [make_run((0, 1, 3)), make_run((0, 1, 3), started_s=1.0, window=1)]
    assert device_time(runs) == DeviceTime(window_s=20, prefill_s=2, decode_s=4, idle_s=14)


def test_replies_that_were_not_streamed_leave_prefill_and_decode_unknown():
    run = make_run((0, 1, 3), (4, 6))
    assert device_time([run]) == DeviceTime(window_s=10, prefill_s=None, decode_s=None, idle_s=5)


def test_a_call_that_brought_no_text_was_never_written():
    run = make_run((0, 1, 3), (4, 6))
    silent = replace(run.spans[1], output="", error="refused")
    run = replace(run, spans=(run.spans[0], silent))
    assert device_time([run]) == DeviceTime(window_s=10, prefill_s=3, decode_s=2, idle_s=5)


@st.composite
def runs(draw):
    latency_s = draw(st.floats(min_value=0.1, max_value=100))
    edges = st.floats(min_value=0, max_value=latency_s)
    calls = [sorted(times) for times in draw(st.lists(st.tuples(edges, edges, edges), max_size=5))]
    return make_run(
        *calls,
        started_s=draw(st.floats(min_value=0, max_value=100)),
        latency_s=latency_s,
        tools=[(0, latency_s)],
    )


@given(st.lists(runs(), min_size=1, max_size=6))
def test_idle_is_a_share_and_unions_count_where_sums_would_not(pass_runs):
    share = idle_share(pass_runs)
    assert 0 <= share <= 1
    assert idle_share([*pass_runs, *pass_runs]) == share
    start_s = min(run.started_s for run in pass_runs)
    window_s = max(run.started_s + run.latency_s for run in pass_runs) - start_s
    calls = [span for run in pass_runs for span in run.spans if span.kind == "llm"]
    sum_s = sum(span.end_s - span.start_s for span in calls)
    longest_s = max((span.end_s - span.start_s for span in calls), default=0.0)
    assert 1 - sum_s / window_s - 1e-9 <= share <= 1 - longest_s / window_s + 1e-9


@given(st.lists(runs(), min_size=1, max_size=6))
def test_parts_of_a_time_add_up_to_it(pass_runs):
    time = device_time(pass_runs)
    assert time.prefill_s + time.decode_s + time.idle_s == pytest.approx(time.window_s)
    for run in pass_runs:
        parts = breakdown(run)
        sum_s = parts.llm_only_s + parts.overlap_s + parts.tool_only_s + parts.other_s
        assert sum_s == pytest.approx(run.latency_s)
