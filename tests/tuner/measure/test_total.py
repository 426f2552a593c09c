import os

import pytest

from tuner.measure import MeterSpec
from tuner.measure import NoMeter
from tuner.measure import Sample
from tuner.measure import between
from tuner.measure import make_meter
from tuner.measure.total import total


class Fixed:
    """A meter whose joules are set by hand."""

    tick_s = 0.0

    def __init__(self, scope, source="fixed", *, devices=(), **said):
        self.scope = scope
        self.source = source
        self.devices = devices
        self.joules = 0.0
        self.said = said

    def read(self):
        return Sample(0.0, self.joules, **self.said)


def nvml_meter(uuids):
    return make_meter(MeterSpec.model_validate({"nvml": uuids}), pid=None)


def counted(meter, change):
    first = meter.read()
    change()
    return between(meter, first, meter.read()).gross_j


def test_one_meter_is_its_own_total():
    meter = Fixed("a")
    assert total([meter]) is meter
    assert total([meter, meter]) is meter


def test_meters_of_different_devices_add_up():
    small, large = Fixed("a"), Fixed("b", "other")
    meter = total([small, large])
    assert (meter.source, meter.scope) == ("fixed+other", "a; b")

    def use():
        small.joules, large.joules = 3.0, 4.0

    assert counted(meter, use) == 7


def test_without_one_of_them_there_is_no_total():
    meter = total([Fixed("a"), NoMeter()])
    reading = between(meter, meter.read(), meter.read())
    assert reading.gross_j is None
    assert reading.problem == "no energy is metered for this model"


@pytest.mark.parametrize(
    ("first", "second", "watts"),
    [
        (["GPU-steady"], ["GPU-steady"], 300),
        ("all", ["GPU-steady"], 300 + 50),
        (["GPU-steady"], ["GPU-rising"], 300 + 50),
        ("all", "all", 300 + 50),
    ],
)
def test_a_gpu_that_serves_two_models_is_counted_once(nvml, loads, first, second, watts):
    nvml.gpus[1].load = loads.constant(50)
    meter = total([nvml_meter(first), nvml_meter(second)])

    def wait():
        nvml.now_s += 2

    assert counted(meter, wait) == pytest.approx(2 * watts)


def test_a_gpu_that_two_sources_meter_is_counted_once():
    here, there = (
        Fixed("GPU-1", devices=("GPU-1",)),
        Fixed("GPU-1 at gpu1", "dcgm", devices=("GPU-1",)),
    )
    assert total([here, there]) is here
    both = total([here, Fixed("GPU-2 at gpu1", "dcgm", devices=("GPU-2",))])
    assert both.devices == ("GPU-1", "GPU-2")


def test_what_one_part_says_holds_for_all():
    hot = Fixed("a", power_w=100.0, temperature_c=80.0)
    cool = Fixed("b", power_w=20.0, temperature_c=50.0)
    sample = total([hot, cool]).read()
    assert (sample.power_w, sample.temperature_c, sample.problem) == (120, 80, None)
    assert total([hot, Fixed("c")]).read().power_w is None
    foreign = Fixed("d", problem="process 7 computes on d")
    reading = total([hot, foreign]).read()
    assert (reading.joules, reading.problem) == (0, "process 7 computes on d")
    lost = Fixed("e", problem="lost")
    lost.joules = None
    reading = total([foreign, lost]).read()
    assert (reading.joules, reading.problem) == (None, "lost")


def test_a_gpu_and_a_process_are_two_devices(nvml):
    cpu = make_meter(MeterSpec.model_validate({"cpu_estimate": {}}), pid=os.getpid())
    meter = total([nvml_meter("all"), cpu])
    assert meter.source == "nvml-counter+cpu-estimate"
    assert meter.read().joules is not None
