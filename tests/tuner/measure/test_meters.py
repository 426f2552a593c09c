"""What every meter owes its callers, whatever it meters."""

import os
import time
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from tuner.errors import UserError
from tuner.measure import Meter
from tuner.measure import MeterSpec
from tuner.measure import NoMeter
from tuner.measure import Sample
from tuner.measure import between
from tuner.measure import make_meter
from tuner.measure.cpu import CpuMeter

METERS = {"nvml": {"nvml": "all"}, "cpu": {"cpu_estimate": {}}, "none": "none"}


def burn(cpu_s: float) -> None:
    end = time.process_time() + cpu_s
    while time.process_time() < end:
        pass


@pytest.fixture(params=METERS)
def meter(request: pytest.FixtureRequest, nvml) -> Meter:
    return make_meter(MeterSpec.model_validate(METERS[request.param]), pid=os.getpid())


@pytest.fixture
def work(nvml) -> Callable[[], None]:
    def use_energy() -> None:
        burn(0.05)
        nvml.now_s += 0.5

    return use_energy


def test_every_meter_says_what_it_is(meter):
    assert meter.source in {"nvml-counter", "cpu-estimate", "none"}
    assert meter.scope


def test_time_and_energy_never_go_back(meter, work):
    samples = []
    for _ in range(4):
        samples.append(meter.read())
        work()
    times = [sample.t_s for sample in samples]
    assert times == sorted(times)
    joules = [sample.joules for sample in samples if sample.joules is not None]
    assert joules == sorted(joules)
    assert len(joules) in (0, 4)


def test_missing_energy_is_none_with_a_reason_and_present_energy_is_not_zero(meter, work):
    first = meter.read()
    work()
    reading = between(meter, first, meter.read())
    assert (reading.source, reading.scope) == (meter.source, meter.scope)
    if isinstance(meter, NoMeter):
        assert reading.gross_j is None
        assert reading.problem
    else:
        assert reading.gross_j is not None
        assert reading.gross_j > 0
        assert reading.problem is None


def test_adjoining_windows_add_up(meter, work):
    a = meter.read()
    work()
    b = meter.read()
    work()
    c = meter.read()
    whole = between(meter, a, c).gross_j
    parts = [between(meter, a, b).gross_j, between(meter, b, c).gross_j]
    if whole is None:
        assert parts == [None, None]
    else:
        assert sum(parts) == pytest.approx(whole)


@pytest.mark.parametrize(
    ("first", "last", "reason"),
    [
        (Sample(0, 5.0), Sample(1, 4.0), "went back by 1 J"),
        (Sample(0, None, "unplugged"), Sample(1, 4.0), "unplugged"),
        (Sample(0, 5.0), Sample(1, None, "unplugged"), "unplugged"),
        (Sample(0, None), Sample(1, None), "no joules"),
    ],
)
def test_an_invalid_window_has_no_joules(first, last, reason):
    reading = between(NoMeter(), first, last)
    assert reading.gross_j is None
    assert reason in reading.problem


def test_without_a_spec_a_server_of_ours_is_estimated_and_any_other_is_not_metered():
    assert isinstance(make_meter(None, pid=os.getpid()), CpuMeter)
    assert isinstance(make_meter(None, pid=None), NoMeter)
    assert isinstance(make_meter(MeterSpec("none"), pid=os.getpid()), NoMeter)


def test_the_cpu_estimate_of_a_server_elsewhere_is_refused():
    with pytest.raises(UserError, match="needs a server that the study starts") as refused:
        make_meter(MeterSpec.model_validate({"cpu_estimate": {}}), pid=None)
    assert "serve:" in refused.value.hint


@pytest.mark.parametrize(
    "content",
    [
        "none",
        {"nvml": "all"},
        {"nvml": ["GPU-1", "GPU-2"]},
        {"cpu_estimate": {}},
        {"cpu_estimate": {"watts_per_core": 4.5}},
    ],
)
def test_a_spec_survives_its_own_dump(content):
    spec = MeterSpec.model_validate(content)
    assert MeterSpec.model_validate_json(spec.model_dump_json()) == spec
    assert MeterSpec.model_validate(spec.model_dump()) == spec


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("rapl", "none, {nvml: …} or {cpu_estimate: …}"),
        ({"rapl": {}}, "none, {nvml: …} or {cpu_estimate: …}"),
        (None, "none, {nvml: …} or {cpu_estimate: …}"),
        ({"nvml": []}, "at least 1"),
        ({"nvml": ["GPU-1", "GPU-1"]}, "twice"),
        ({"nvml": "all", "cpu_estimate": {}}, "not permitted"),
        ({"cpu_estimate": {"watts_per_core": 0.0}}, "greater than 0"),
        ({"cpu_estimate": {"watts_per_core": float("inf")}}, "finite"),
    ],
)
def test_a_spec_that_means_nothing_is_refused(content, reason):
    with pytest.raises(ValidationError, match=reason):
        MeterSpec.model_validate(content)
