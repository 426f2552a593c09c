import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.measure.count import CountError
from tuner.measure.integral import GAP_S
from tuner.measure.integral import Integral

steps = st.lists(
    st.tuples(st.floats(0.001, GAP_S / 2), st.floats(0, 1000) | st.none()), min_size=1, max_size=40
)


@given(steps, st.floats(1, 1000))
def test_it_never_goes_back_and_stays_between_the_lowest_and_the_highest_power(steps, first_w):
    integral = Integral(0.0, first_w)
    now_s, unknown_s, seen = 0.0, 0.0, [first_w]
    for step_s, watts in steps:
        now_s += step_s
        unknown_s = 0.0 if watts is not None else unknown_s + step_s
        if unknown_s > GAP_S:
            return
        before_j = integral.joules
        assert integral.extend(now_s, watts) is None
        assert integral.joules >= before_j
        seen += [] if watts is None else [watts]
    assert min(seen) * now_s - 1e-6 <= integral.joules <= max(seen) * now_s + 1e-6


@given(
    st.floats(0, 500), st.floats(-5, 20), st.lists(st.floats(0.01, 0.5), min_size=1, max_size=30)
)
def test_a_power_that_changes_evenly_is_integrated_exactly(watts, slope, gaps_s):
    now_s = 0.0
    integral = Integral(now_s, watts)
    for gap_s in gaps_s:
        now_s += gap_s
        integral.extend(now_s, watts + slope * now_s)
    expected = watts * now_s + slope * now_s**2 / 2
    assert integral.joules == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_what_nobody_saw_is_said_and_not_added():
    integral = Integral(0.0, 100.0)
    assert integral.extend(5.0, 100.0) == "power was not looked at for 5.0 s"
    assert integral.joules == 0
    assert integral.extend(6.0, 100.0) is None
    assert integral.joules == 100


def test_a_power_that_is_unknown_for_long_is_an_error_until_it_is_known_again():
    integral = Integral(0.0, 100.0)
    integral.extend(0.9, None)
    with pytest.raises(CountError, match=r"not known since 1\.5 s"):
        integral.extend(1.5, None)
    with pytest.raises(CountError):
        integral.extend(2.4, None)
    assert integral.extend(2.5, 100.0) is not None
    assert integral.extend(3.5, 100.0) is None
    assert integral.joules == pytest.approx(90 + 100)
