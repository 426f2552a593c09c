import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.measure.server import ServerSample
from tuner.measure.server.reading import read_window


def test_averages_are_over_time_and_counts_are_differences() -> None:
    samples = [
        (10.0, ServerSample(0, 0, 0.0, 0.0, 1000, 50, 100, 1.0, 4)),
        (11.0, ServerSample(4, 2, 0.4, 400, 1000, 60, 150, 2.0, 6)),
        (13.0, ServerSample(0, 0, 0.0, 0.0, 1000, 80, 200, 4.0, 8)),
    ]

    reading = read_window("vllm", samples, bytes_per_token=10)

    assert reading.kv_tokens_mean == pytest.approx((1 * 200 + 2 * 200) / 3)
    assert reading.kv_tokens_max == 400
    assert reading.kv_bytes_mean == pytest.approx(2000)
    assert reading.kv_bytes_max == 4000
    assert reading.kv_source == "metrics"
    assert reading.kv_capacity_bytes == 10_000
    assert reading.prefix_hit_share == pytest.approx(0.3)
    assert reading.queue_time_mean_s == pytest.approx(0.75)
    assert (reading.running_mean, reading.running_max) == (pytest.approx(2), 4)
    assert (reading.waiting_mean, reading.waiting_max) == (pytest.approx(1), 2)
    assert (reading.scrapes, reading.seconds, reading.problem) == (3, 3.0, None)
    assert json.loads(json.dumps(asdict(reading)))["engine"] == "vllm"


def test_window_with_nothing_between_its_edges_has_no_averages() -> None:
    samples = [
        (0.0, ServerSample(0, 0, 0.0, 0.0, 1000, 0, 0, 0.0, 0)),
        (0.3, ServerSample(0, 0, 0.0, 0.0, 1000, 30, 40, 0.0, 1)),
    ]

    reading = read_window("vllm", samples, bytes_per_token=10)

    assert reading.kv_tokens_mean is reading.running_max is reading.kv_source is None
    assert reading.prefix_hit_share == 0.75


def test_no_question_has_no_share_of_hits() -> None:
    sample = ServerSample(0, 0, 0.0, 0.0, 1000, 7, 9, 2.0, 3)

    reading = read_window("vllm", [(0.0, sample), (1.0, sample)])

    assert reading.prefix_hit_share is reading.queue_time_mean_s is reading.problem is None


def test_counter_that_was_not_there_yet_counted_nothing() -> None:
    samples = [(0.0, ServerSample()), (1.0, ServerSample(prefix_hits=3, prefix_queries=4))]

    assert read_window("sglang", samples).prefix_hit_share == 0.75


@given(st.lists(st.floats(0, 1e9), min_size=2, max_size=8))
def test_counts_that_go_back_are_a_restart_and_never_a_figure(counts: list[float]) -> None:
    samples = [
        (float(n), ServerSample(1, 1, prefix_hits=0.0, prefix_queries=each))
        for n, each in enumerate(counts)
    ]

    reading = read_window("vllm", samples)

    if counts == sorted(counts):
        assert reading.problem is None
        assert reading.prefix_hit_share in (None, 0.0)
    else:
        assert "restarted" in str(reading.problem)
        assert reading.running_mean is reading.prefix_hit_share is None


@given(
    st.lists(st.tuples(st.floats(0.01, 10), st.floats(0, 1e6)), min_size=3, max_size=20),
    st.floats(1, 1e5),
)
def test_average_lies_within_what_was_seen(rows: list[tuple[float, float]], size: float) -> None:
    samples, now_s = [], 0.0
    for pause_s, tokens in rows:
        now_s += pause_s
        samples.append((now_s, ServerSample(kv_used_tokens=tokens)))
    seen = [tokens for _, tokens in rows]

    reading = read_window("vllm", samples, bytes_per_token=size)

    assert reading.kv_tokens_max == max(seen)
    assert reading.kv_tokens_mean is not None
    assert min(seen) - 1e-6 <= reading.kv_tokens_mean <= max(seen) + 1e-6
    assert reading.kv_bytes_mean == pytest.approx(reading.kv_tokens_mean * size)
