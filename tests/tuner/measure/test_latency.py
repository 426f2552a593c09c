import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.measure.latency import Latency
from tuner.measure.latency import idle_share
from tuner.measure.latency import summarise
from tuner.records import ExampleRun
from tuner.records import Reading
from workflows.trace import Span

seconds = st.floats(min_value=0, max_value=1e5, allow_nan=False)


def make_run(*calls, started_s=0.0, latency_s=10.0, tools=()):
    """A run with model calls and tool calls at (start, end), in seconds since it started."""
    spans = tuple(
        Span(kind=kind, name="x", start_s=start, end_s=end, input="", output="")
        for kind, times in (("llm", calls), ("tool", tools))
        for start, end in times
    )
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
        spans=spans,
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
    stripped = make_run((0, 5))
    object.__setattr__(stripped, "spans", ())
    assert idle_share([stripped]) is None


def test_a_query_that_never_asks_the_model_leaves_it_idle():
    assert idle_share([make_run(tools=[(0, 10)])]) == 1.0


@st.composite
def runs(draw):
    latency_s = draw(st.floats(min_value=0.1, max_value=100))
    edges = st.floats(min_value=0, max_value=latency_s)
    calls = [sorted(pair) for pair in draw(st.lists(st.tuples(edges, edges), max_size=5))]
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
