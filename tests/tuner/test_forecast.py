"""Arithmetic of a forecast: linear in all it is told, PUE once, and the paper's own table of powers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.costs import measured_row
from tuner.errors import UserError
from tuner.forecast import Amount
from tuner.forecast import Measured
from tuner.forecast import Traffic
from tuner.forecast import project
from tuner.forecast import saved
from tuner.published import load_paper

positive = st.floats(min_value=1e-6, max_value=1e9)


@st.composite
def amounts(draw: st.DrawFn) -> Amount:
    value = draw(positive)
    if draw(st.booleans()):
        return Amount(value)
    return Amount(
        value, (value * draw(st.floats(0, 1)), value * draw(st.floats(min_value=1, max_value=9)))
    )


def metered(energy_wh: Amount | float | None = 2.0, **others: object) -> Measured:
    if isinstance(energy_wh, float):
        energy_wh = Amount(energy_wh)
    told = {
        "source": "nvml-counter",
        "scope": "GPU-1",
        "load": "4 at a time",
        "basis": "9 questions",
    }
    return Measured(name="it", energy_wh=energy_wh, **{**told, **others})


def close(amount: Amount) -> object:
    interval = None if amount.interval is None else pytest.approx(amount.interval)
    return Amount(pytest.approx(amount.value), interval)


TRAFFIC = Traffic(queries_per_day=24.0, pue=1.0, grid_g_per_kwh=500.0, price_usd_per_kwh=0.2)


def test_a_forecast_by_hand() -> None:
    measured = metered(
        Amount(2.0, (1.0, 4.0)), latency_mean_s=60.0, throughput_qps=0.0001, gpus=2, cost_usd=0.5
    )
    forecast = project(measured, TRAFFIC)
    assert forecast.power_w == close(Amount(2.0, (1.0, 4.0)))
    assert forecast.energy_kwh == close(Amount(17.52, (8.76, 35.04)))
    assert forecast.carbon_kg == close(Amount(8.76, (4.38, 17.52)))
    assert forecast.electricity_usd == close(Amount(3.504, (1.752, 7.008)))
    assert forecast.tokens_usd == pytest.approx(0.5 * 24 * 365)
    assert forecast.waiting_h == pytest.approx(24 * 365 / 60)
    assert (forecast.deployments, forecast.gpus, forecast.unknown) == (3, 6, None)


@given(energy=amounts(), queries=positive, factor=st.floats(1, 1000))
def test_a_forecast_is_linear_in_its_traffic_and_its_energy(
    energy: Amount, queries: float, factor: float
) -> None:
    once = project(metered(energy), Traffic(queries, 1.2, 400, 0.1))
    more = project(metered(energy), Traffic(queries * factor, 1.2, 400, 0.1))
    dearer = project(metered(energy.times(factor)), Traffic(queries, 1.2, 400, 0.1))
    for name in ("power_w", "energy_kwh", "carbon_kg", "electricity_usd"):
        expected = close(getattr(once, name).times(factor))
        assert getattr(more, name) == expected
        assert getattr(dearer, name) == expected


@given(energy=amounts(), pue=st.floats(1, 3), grid=st.floats(0, 1000), price=st.floats(0, 2))
def test_pue_counts_once_in_everything_electric_and_nowhere_else(
    energy: Amount, pue: float, grid: float, price: float
) -> None:
    measured = metered(energy, latency_mean_s=3.0, throughput_qps=0.01, gpus=1, cost_usd=0.1)
    bare = project(measured, Traffic(1e4, 1.0, grid, price))
    housed = project(measured, Traffic(1e4, pue, grid, price))
    for name in ("power_w", "energy_kwh", "carbon_kg", "electricity_usd"):
        assert getattr(housed, name) == close(getattr(bare, name).times(pue))
    for name in ("tokens_usd", "waiting_h", "gpus"):
        assert getattr(housed, name) == getattr(bare, name)


@given(one=amounts(), other=amounts(), seconds=positive)
def test_what_one_saves_the_other_takes(one: Amount, other: Amount, seconds: float) -> None:
    both = [
        (measured, project(measured, TRAFFIC))
        for measured in (
            metered(one, latency_mean_s=seconds, cost_usd=1.0),
            metered(other, latency_mean_s=2.0, cost_usd=3.0),
        )
    ]
    there, back = saved(both[0], both[1]), saved(both[1], both[0])
    for name in ("energy_kwh", "carbon_kg", "electricity_usd"):
        gain, loss = getattr(there, name), getattr(back, name)
        assert gain.value == -loss.value
        if gain.interval is None:
            assert loss.interval is None
        else:
            assert gain.interval == pytest.approx((-loss.interval[1], -loss.interval[0]))
            assert gain.interval[0] <= gain.value <= gain.interval[1]
    assert there.waiting_h == -back.waiting_h
    assert there.tokens_usd == -back.tokens_usd
    nothing = saved(both[0], both[0])
    assert (nothing.energy_kwh.value, nothing.waiting_h, nothing.caveats) == (0, 0, ())


@given(energy=amounts(), stderr=positive)
def test_a_meters_error_widens_an_interval_and_makes_none(energy: Amount, stderr: float) -> None:
    blurred = energy.blurred(stderr)
    assert blurred.value == energy.value
    if energy.interval is None:
        assert blurred.interval is None
    else:
        rounding = 1e-12 * energy.interval[1]
        assert 0 <= blurred.interval[0] <= energy.interval[0] + rounding
        assert blurred.interval[1] >= energy.interval[1] - rounding


def test_errors_add_up_by_their_squares() -> None:
    assert Amount(10.0, (7.0, 13.0)).blurred(4 / 1.959964) == close(Amount(10.0, (5.0, 15.0)))
    difference = Amount(10.0, (7.0, 14.0)).less(Amount(6.0, (3.0, 10.0)))
    assert difference == close(Amount(4.0, (-1.0, 9.0)))


@pytest.mark.parametrize("cell", load_paper("kim2025").table4, ids=lambda cell: cell.power)
def test_the_papers_powers_come_out_as_it_prints_them(cell) -> None:
    forecast = project(
        measured_row(f"kim2025:{cell.row}"), Traffic(cell.queries_per_day, 1.0, 0, 0)
    )
    _, unit = cell.power.split()
    shown = forecast.power_w.value / {"MW": 1e6, "GW": 1e9}[unit]
    assert f"{shown:.1f} {unit}" == cell.power
    assert forecast.power_w.interval is None  # the paper states no error


def test_the_paper_has_all_twelve() -> None:
    cells = load_paper("kim2025").table4
    assert len({(cell.row, cell.queries_per_day) for cell in cells}) == 12
    assert {cell.row for cell in cells} == set(load_paper("kim2025").table3)


@pytest.mark.parametrize(
    ("others", "deployments", "gpus", "why"),
    [
        ({"throughput_qps": 2.0, "gpus": 4}, 5, 20, None),
        ({"throughput_qps": 2.0}, 5, None, "its meter names no GPUs"),
        ({"gpus": 4}, None, None, "its throughput was not measured"),
    ],
)
def test_gpus_are_counted_where_throughput_and_their_number_are_known(
    others, deployments, gpus, why
) -> None:
    forecast = project(metered(2.0, **others), Traffic(86_400 * 9.5, 1.0, 0, 0))
    assert (forecast.deployments, forecast.gpus) == (deployments, gpus)
    assert forecast.unknown is None if why is None else why in forecast.unknown


@given(qps=st.floats(0.001, 1000), times=st.integers(1, 10_000))
def test_rounding_costs_no_server(qps: float, times: int) -> None:
    forecast = project(metered(2.0, throughput_qps=qps), Traffic(86_400 * qps * times, 1, 0, 0))
    assert forecast.deployments == times


@pytest.mark.parametrize(
    "measured",
    [
        metered(None, source="none", problem="no meter"),
        metered(None, problem="the counter was lost"),
        metered(2.0, source="none"),
        metered(2.0, source=""),
    ],
)
def test_energy_without_a_source_is_not_projected(measured) -> None:
    with pytest.raises(UserError, match=r"it: its energy was not measured \(source: ") as caught:
        project(measured, TRAFFIC)
    assert measured.problem is None or measured.problem in str(caught.value)
    assert "meter" in caught.value.hint


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ((-1.0, 1, 0, 0), "queries_per_day"),
        ((float("nan"), 1, 0, 0), "queries_per_day"),
        ((float("inf"), 1, 0, 0), "queries_per_day"),
        ((1.0, 0.99, 0, 0), "pue"),
        ((1.0, 1, -1, 0), "grid_g_per_kwh"),
        ((1.0, 1, 0, -1), "price_usd_per_kwh"),
    ],
)
def test_a_traffic_that_cannot_be_is_refused(given, name) -> None:
    with pytest.raises(UserError, match=f"{name}: .* is not a number of "):
        Traffic(*given)


def test_what_is_hard_to_compare_is_said() -> None:
    one, other = metered(2.0), metered(1.0, source="cpu-estimate", load="1 at a time")
    caveats = saved((one, project(one, TRAFFIC)), (other, project(other, TRAFFIC))).caveats
    assert [text.partition(" of the two")[0] for text in caveats] == [
        "the energy's source",
        "the load",
    ]
    assert "nvml-counter and cpu-estimate" in caveats[0]
