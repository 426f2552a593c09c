"""Joules that a meter counts are shared among the queries under way, and add up to what it counted."""

import time

import pytest

from tuner.measure import Sample
from tuner.openai_api.energy import Energy

WATTS = 100.0


class Steady:
    """Counts WATTS, unless told to fail."""

    source, scope, tick_s, devices = "test", "this test", 0.0, ()

    def __init__(self):
        self.fails = False

    def read(self):
        now_s = time.perf_counter()
        if self.fails:
            return Sample(now_s, None, "the counter was lost")
        return Sample(now_s, now_s * WATTS)


@pytest.fixture
def counted():
    return [], []


def watch(meter, counted):
    queries, idle = counted
    return Energy(meter, query_j=queries.append, idle_j=idle.append, period_s=0.02)


def test_two_at_once_share_and_idle_time_is_nobodys(counted):
    queries, idle = counted
    with watch(Steady(), counted) as energy:
        time.sleep(0.1)
        with energy.query(), energy.query():
            time.sleep(0.2)
        time.sleep(0.1)
    assert queries == [pytest.approx(WATTS * 0.1, rel=0.3)] * 2
    assert sum(idle) == pytest.approx(WATTS * 0.2, rel=0.4)


def test_a_query_that_could_not_be_metered_has_no_joules(counted):
    queries, _ = counted
    meter = Steady()
    with watch(meter, counted) as energy:
        with energy.query():
            time.sleep(0.05)
            meter.fails = True
            time.sleep(0.05)
            meter.fails = False
        time.sleep(0.1)
        assert queries == []
        with energy.query():
            time.sleep(0.05)
        time.sleep(0.1)
    assert len(queries) == 1
