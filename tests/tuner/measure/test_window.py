"""What a window of a meter gives: stretches that add up, a cross-check, idle power."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.measure import NoMeter
from tuner.measure import Sample
from tuner.measure import between
from tuner.measure.window import IDLE_LIMIT_S
from tuner.measure.window import Window
from tuner.measure.window import _cross_checked
from tuner.measure.window import idle_power_w
from tuner.measure.window import total
from tuner.records import Reading


class Steady:
    """So many watts by the real clock, and what it says of its power."""

    source = "steady"
    scope = "a heater"
    devices = ()

    def __init__(self, watts: float, *, tick_s: float = 0.0) -> None:
        self.watts = watts
        self.tick_s = tick_s
        self.foreign: str | None = None

    def read(self) -> Sample:
        now_s = time.perf_counter()
        return Sample(now_s, self.watts * now_s, self.foreign, self.watts, 60.0)


def test_stretches_add_up_to_the_window_and_their_samples_are_its_curve() -> None:
    with Window(Steady(50.0), idle_w=20.0, period_s=0.01) as window:
        stretches = []
        for _ in range(3):
            time.sleep(0.05)
            stretches.append(window.stretch())
        whole = window.whole()
    readings = [reading for reading, _ in stretches]
    added = total(readings)
    assert added.gross_j == pytest.approx(sum(r.gross_j or 0 for r in readings))
    assert whole.gross_j == pytest.approx(added.gross_j, rel=0.05)
    curve = [sample for _, samples in stretches for sample in samples]
    assert len(curve) >= 9
    assert curve == sorted(curve)
    for seconds, joules in curve:
        assert joules == pytest.approx(50 * seconds, abs=1e-6)
    assert curve[-1][1] == pytest.approx(added.gross_j)
    assert whole.idle_j == pytest.approx(20 * whole.seconds)
    assert whole.net_j == pytest.approx(30 * whole.seconds)
    assert whole.temperature_c == 60


def test_a_moment_that_is_not_ours_spoils_its_stretch_and_no_other() -> None:
    meter = Steady(50.0)
    with Window(meter, period_s=0.01) as window:
        good, _ = window.stretch()
        meter.foreign = "another process computes there"
        time.sleep(0.05)
        meter.foreign = None
        time.sleep(0.03)
        spoilt, samples = window.stretch()
        later, _ = window.stretch()
        whole = window.whole()
    assert good.gross_j is not None
    assert (spoilt.gross_j, spoilt.problem) == (None, "another process computes there")
    assert samples
    assert later.gross_j is not None
    assert whole.problem == "another process computes there"


def test_without_a_meter_there_is_a_reason_and_no_thread() -> None:
    with Window(NoMeter(), period_s=0.001) as window:
        reading, samples = window.stretch()
    assert reading.gross_j is None
    assert reading.problem
    assert samples == ()


@pytest.mark.parametrize(("said_w", "apart"), [(300.0, None), (290.0, None), (250.0, "17 % apart")])
def test_a_count_that_power_does_not_confirm_is_flagged(said_w: float, apart: str | None) -> None:
    samples = [Sample(t / 10, 30.0 * t, power_w=said_w) for t in range(101)]
    reading = between(Steady(300.0), samples[0], samples[-1])
    warning = _cross_checked(reading, samples).warning
    assert warning is None if apart is None else warning is not None and apart in warning


def test_a_window_too_short_to_compare_is_not_flagged() -> None:
    samples = [Sample(t / 10, 30.0 * t, power_w=1.0) for t in range(11)]
    reading = between(Steady(300.0), samples[0], samples[-1])
    assert _cross_checked(reading, samples).warning is None


@pytest.mark.slow
async def test_idle_power_is_what_is_drawn_with_nothing_to_do() -> None:
    assert await idle_power_w(Steady(75.0)) == pytest.approx(75.0)
    assert await idle_power_w(NoMeter()) is None
    assert await idle_power_w(Steady(75.0, tick_s=IDLE_LIMIT_S)) is None


@given(
    st.lists(st.tuples(st.floats(0.01, 100), st.floats(1, 1000)), min_size=1, max_size=20),
    st.floats(0.001, 0.2),
)
def test_the_error_of_a_sum_is_that_of_one_stretch_as_long(
    parts: list[tuple[float, float]], tick_s: float
) -> None:
    meter = Steady(0.0, tick_s=tick_s)
    t_s = joules = 0.0
    samples = [Sample(0.0, 0.0)]
    for seconds, watts in parts:
        t_s += seconds
        joules += seconds * watts
        samples.append(Sample(t_s, joules))
    added = total([between(meter, a, b, idle_w=2.0) for a, b in pairwise(samples)])
    whole = between(meter, samples[0], samples[-1], idle_w=2.0)
    for name in ("gross_j", "idle_j", "net_j", "stderr_j", "seconds"):
        assert getattr(added, name) == pytest.approx(getattr(whole, name))


def test_the_error_is_power_times_tick_over_root_six() -> None:
    reading = between(Steady(0.0, tick_s=0.1), Sample(0.0, 0.0), Sample(10.0, 3000.0))
    assert reading.stderr_j == pytest.approx(300 * 0.1 / 6**0.5)
    assert between(Steady(0.0, tick_s=0.1), Sample(0.0, 5.0), Sample(0.05, 5.0)).stderr_j is None


def test_a_missing_part_leaves_no_sum() -> None:
    missing = Reading(None, "rapl", "package", "unplugged", 1.0)
    added = total([Reading(5.0, "rapl", "package", seconds=1.0), missing])
    assert (added.gross_j, added.problem) == (None, "unplugged")
    with pytest.raises(ValueError, match="no readings"):
        total([])
