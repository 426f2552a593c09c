import gc
import math
import os
import subprocess
import sys
from itertools import pairwise

import psutil
import pynvml
import pytest
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tuner.errors import UserError
from tuner.measure import MeterSpec
from tuner.measure import between
from tuner.measure import make_meter
from tuner.measure.nvml import AVERAGED_S
from tuner.measure.nvml import CALIBRATED_S
from tuner.measure.nvml import TICK_S
from tuner.measure.nvml import list_gpus

PERIOD_S = 0.1


def nvml_meter(uuids="all", pid=None):
    return make_meter(MeterSpec.model_validate({"nvml": uuids}), pid=pid)


def sampled(meter, nvml, seconds):
    """What a sampler sees in so many seconds, the ends included."""
    samples = [meter.read()]
    for _ in range(round(seconds / PERIOD_S)):
        nvml.sleep(PERIOD_S)
        samples.append(meter.read())
    return samples


def reading_of(meter, samples):
    return between(meter, samples[0], samples[-1], inside=samples[1:-1])


@pytest.mark.parametrize(
    ("uuids", "watts"),
    [
        (["GPU-steady"], lambda mean_t: 300),
        (["GPU-rising"], lambda mean_t: 50 + mean_t),
        (["GPU-rising", "GPU-steady"], lambda mean_t: 350 + mean_t),
        ("all", lambda mean_t: 350 + mean_t),
    ],
)
@pytest.mark.parametrize("seconds", [2.0, 7.2])
@pytest.mark.parametrize("counts", [True, False])
def test_joules_are_the_integral_of_the_power_of_the_chosen_gpus(
    nvml, uuids, watts, seconds, counts
):
    for gpu in nvml.gpus:
        gpu.counts = counts
    meter = nvml_meter(uuids)
    expected = seconds * watts(nvml.now_s + seconds / 2)
    joules = reading_of(meter, sampled(meter, nvml, seconds)).gross_j
    assert joules == pytest.approx(expected, rel=0.011)


@given(
    low=st.floats(20, 100),
    high=st.floats(100, 700),
    period_s=st.floats(0.5, 5),
    seconds=st.floats(1, 20),
    tick_s=st.sampled_from([0.01, 0.02, 0.1]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_a_square_wave_is_off_by_two_ticks_at_the_most(
    nvml, loads, low, high, period_s, seconds, tick_s
):
    nvml.gpus[0].load = load = loads.square(low, high, period_s)
    nvml.gpus[0].tick_s = tick_s
    meter = nvml_meter(["GPU-steady"])
    start_s = nvml.now_s
    samples = sampled(meter, nvml, seconds)
    expected = load.joules(nvml.now_s) - load.joules(start_s)
    reading = reading_of(meter, samples)
    assert reading.gross_j == pytest.approx(expected, abs=high * tick_s + 0.002)
    assert reading.stderr_j <= high * (tick_s + 0.002) / math.sqrt(6)


@pytest.mark.parametrize("tick_s", [0.01, 0.02, 0.1])
def test_the_tick_is_found_by_watching(nvml, tick_s):
    nvml.gpus[0].tick_s = tick_s
    nvml.gpus[1].tick_s = tick_s / 2
    began_s = nvml.now_s
    assert nvml_meter("all").tick_s == pytest.approx(tick_s, abs=0.0021)
    assert nvml.now_s - began_s <= CALIBRATED_S + 0.01


def test_a_counter_that_is_watched_in_vain_is_taken_for_the_slowest_known(nvml, loads):
    nvml.gpus[0].load = loads.constant(0)
    assert nvml_meter(["GPU-steady"]).tick_s == TICK_S


def test_the_error_of_a_window_is_that_of_its_ends_at_random_times(nvml):
    nvml.gpus[0].tick_s = 0.1
    meter = nvml_meter(["GPU-steady"])
    errors, stated = [], []
    for _ in range(300):
        first = meter.read()
        nvml.sleep(2.0377)  # every phase of the tick in turn
        reading = between(meter, first, meter.read())
        errors.append(reading.gross_j - 300 * 2.0377)
        stated.append(reading.stderr_j)
    rms = math.sqrt(sum(error**2 for error in errors) / len(errors))
    # Ends at random: each is uniformly late by up to a tick, so that their difference has variance tick²/6.
    assert rms == pytest.approx(300 * 0.1 / math.sqrt(6), rel=0.25)
    assert stated[0] == pytest.approx(300 * 0.1 / math.sqrt(6), rel=0.1)


def test_a_counter_that_stands_still_is_a_problem_and_not_a_saving(nvml, loads):
    meter = nvml_meter()
    nvml.gpus[1].load = loads.of(lambda t: 0, lambda t: 1e9)
    assert meter.read().joules is not None
    nvml.sleep(1.5)
    sample = meter.read()
    assert sample.joules is None
    assert sample.problem.startswith("GPU-rising: the energy counter has not moved for 1.5 s")


def test_a_reset_that_the_other_gpu_would_hide_is_found_and_not_forgotten(nvml, loads):
    meter = nvml_meter()
    first = meter.read()
    nvml.sleep(1)
    since = nvml.now_s
    nvml.gpus[0].load = loads.of(lambda t: 300, lambda t: 300 * (t - since + 1))
    nvml.gpus[1].load = loads.constant(1e6)
    assert meter.read().joules is None
    nvml.sleep(1e6)
    reading = between(meter, first, meter.read())
    assert reading.gross_j is None
    assert "GPU-steady: the energy counter went back" in reading.problem


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (pynvml.NVML_ERROR_GPU_IS_LOST, "GPU is lost"),
        (pynvml.NVML_ERROR_UNINITIALIZED, "Uninitialized"),
        (pynvml.NVML_ERROR_NOT_SUPPORTED, "Not Supported"),
    ],
)
def test_a_driver_that_goes_in_mid_run_is_a_problem_from_then_on(nvml, fault, reason, counts):
    for gpu in nvml.gpus:
        gpu.counts = counts
    meter = nvml_meter()
    samples = sampled(meter, nvml, 2.0)
    nvml.gpus[1].fault = fault
    samples += sampled(meter, nvml, 2.0)
    reading = reading_of(meter, samples)
    assert reading.gross_j is None
    assert reading.problem.startswith("GPU-rising: ")
    assert (reason if counts else "power is not known since") in reading.problem


def test_a_gpu_that_tells_nothing_is_refused_before_the_first_trial(nvml):
    nvml.gpus[0].fault = pynvml.NVML_ERROR_NOT_SUPPORTED
    with pytest.raises(UserError, match=r"GPU-steady tells neither its energy \(Not Supported\)"):
        nvml_meter()
    assert nvml_meter(["GPU-rising"]).read().joules is not None


class TestPower:
    def test_confirms_the_count_where_the_gpu_tells_it(self, nvml):
        meter = nvml_meter()
        sample = sampled(meter, nvml, 0.2)[-1]
        assert sample.power_w == pytest.approx(300 + 50 + nvml.now_s, rel=0.01)
        assert sample.temperature_c == 60

    def test_is_the_average_where_the_driver_knows_no_other(self, nvml):
        nvml.gpus[0].instant = False
        nvml.gpus[0].average_w = 222.0
        meter = nvml_meter(["GPU-steady"])
        assert sampled(meter, nvml, 0.2)[-1].power_w == 222.0
        nvml.gpus[0].counts = False
        meter = nvml_meter(["GPU-steady"])
        assert (meter.source, meter.tick_s) == ("nvml-power", AVERAGED_S)
        samples = sampled(meter, nvml, 1.0)
        assert reading_of(meter, samples).gross_j == pytest.approx(222, rel=0.01)

    def test_may_be_unknown(self, nvml):
        nvml.gpus[0].instant = nvml.gpus[0].average = False
        nvml.gpus[0].temperature_c = None
        meter = nvml_meter(["GPU-steady"])
        sample = sampled(meter, nvml, 0.2)[-1]
        assert (sample.power_w, sample.temperature_c) == (None, None)
        assert sample.joules is not None

    def test_is_not_asked_for_more_often_than_drivers_can_bear(self, nvml):
        meter = nvml_meter(["GPU-steady"])
        for _ in range(100):
            nvml.sleep(0.013)
            meter.read()
        asked = nvml.power_asked_s
        assert min(b - a for a, b in pairwise(asked)) >= 0.05

    def test_of_zero_is_not_believed(self, nvml, loads):
        nvml.gpus[0].counts = False
        meter = nvml_meter(["GPU-steady"])
        first = meter.read()
        sampled(meter, nvml, 1.0)
        steady = nvml.gpus[0].load
        nvml.gpus[0].load = loads.constant(0)
        sampled(meter, nvml, 0.5)
        nvml.gpus[0].load = steady
        sampled(meter, nvml, 0.5)
        reading = between(meter, first, meter.read())
        assert reading.gross_j == pytest.approx(600, rel=0.01)
        nvml.gpus[0].load = loads.constant(0)
        nvml.gpus[0].average_w = 0.0
        late = sampled(meter, nvml, 1.5)[-1]
        assert late.joules is None
        assert "power is not known since 1.5 s" in late.problem

    def test_that_nobody_looked_at_is_not_made_up(self, nvml):
        nvml.gpus[0].counts = False
        meter = nvml_meter(["GPU-steady"])
        first = meter.read()
        nvml.sleep(3.0)
        spoilt = meter.read()
        assert "power was not looked at for 3.0 s" in between(meter, first, spoilt).problem
        after = sampled(meter, nvml, 2.0)
        assert reading_of(meter, after).gross_j == pytest.approx(600, rel=0.01)


class TestProcesses:
    @pytest.fixture
    def server(self):
        """A process of ours that has a child, as an engine has workers."""
        code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
        with subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            process.stdout.readline()
            yield process.pid
            process.stdin.close()

    @pytest.fixture
    def stranger(self):
        """A process that nobody here started, as far as its parents tell."""
        return 1

    def test_that_were_there_when_a_server_elsewhere_was_warm_are_taken_for_it(
        self, nvml, stranger
    ):
        nvml.gpus[0].pids = [stranger, 3_999_998]
        meter = nvml_meter()
        assert reading_of(meter, sampled(meter, nvml, 3.0)).problem is None

    def test_that_come_later_spoil_what_they_are_seen_in(self, nvml, stranger):
        meter = nvml_meter()
        before = sampled(meter, nvml, 2.0)
        nvml.gpus[1].pids = [stranger]
        during = sampled(meter, nvml, 2.0)
        nvml.gpus[1].pids = []
        after = sampled(meter, nvml, 2.0)
        assert reading_of(meter, before).problem is None
        assert during[-1].joules is not None
        spoilt = reading_of(meter, before + during + after)
        assert spoilt.gross_j is None
        name = psutil.Process(stranger).name()
        assert spoilt.problem == f"process 1 ({name}) computes on GPU-rising"
        assert reading_of(meter, after[11:]).problem is None

    def test_of_another_namespace_are_named_by_number(self, nvml):
        meter = nvml_meter()
        nvml.gpus[0].pids = [3_999_998]
        sample = sampled(meter, nvml, 1.0)[-1]
        assert sample.problem == "process 3999998 computes on GPU-steady"

    def test_of_the_server_and_of_the_study_may_come_and_go(self, nvml, server):
        meter = nvml_meter(pid=server)
        child = psutil.Process(server).children()[0].pid
        nvml.gpus[0].pids = [server, child, os.getpid()]
        assert reading_of(meter, sampled(meter, nvml, 3.0)).problem is None

    def test_below_those_that_were_there_may_come(self, nvml):
        above = psutil.Process().parents()
        if len(above) < 2:
            pytest.skip("this process has no grandparent")
        nvml.gpus[0].pids = [above[1].pid]
        meter = nvml_meter()
        nvml.gpus[0].pids.append(above[0].pid)
        assert reading_of(meter, sampled(meter, nvml, 2.0)).problem is None
        nvml.gpus[0].pids = []
        meter = nvml_meter()
        nvml.gpus[0].pids = [above[0].pid]
        assert reading_of(meter, sampled(meter, nvml, 2.0)).problem is not None

    def test_beside_a_server_of_ours_are_refused(self, nvml, server, stranger):
        nvml.gpus[0].pids = [server]
        nvml.gpus[1].pids = [stranger]
        with pytest.raises(UserError, match=r"process 1 \(.*\) computes on GPU-rising") as refused:
            nvml_meter(pid=server)
        assert "another GPU" in refused.value.hint
        meter = nvml_meter(["GPU-steady"], pid=server)
        assert reading_of(meter, sampled(meter, nvml, 2.0)).problem is None

    def test_are_not_judged_where_the_server_is_not_recognised(self, nvml, server, stranger):
        nvml.gpus[0].pids = [stranger, 3_999_998]
        meter = nvml_meter(pid=server)
        assert reading_of(meter, sampled(meter, nvml, 2.0)).problem is None

    def test_that_cannot_be_seen_are_no_problem(self, nvml):
        nvml.gpus[0].pids = None
        meter = nvml_meter()
        assert reading_of(meter, sampled(meter, nvml, 2.0)).problem is None


def test_an_unknown_gpu_is_refused_with_the_known_ones(nvml):
    with pytest.raises(UserError, match="no GPU 'GPU-x'") as refused:
        nvml_meter(["GPU-steady", "GPU-x"])
    assert refused.value.hint.startswith("known: GPU-steady, GPU-rising")
    with pytest.raises(UserError, match="no GPU 'MIG-9'"):
        nvml_meter(["MIG-9"])


@pytest.mark.parametrize(
    ("visible", "chosen"),
    [
        (None, ("GPU-steady", "GPU-rising")),
        ("1", ("GPU-rising",)),
        ("1,0", ("GPU-rising", "GPU-steady")),
        ("GPU-ris", ("GPU-rising",)),
    ],
)
def test_visible_gpus_are_those_that_a_server_is_left(nvml, monkeypatch, visible, chosen):
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert nvml_meter("visible").devices == chosen


@pytest.mark.parametrize(
    ("visible", "order", "message"),
    [
        ("", "PCI_BUS_ID", "leaves no GPU"),
        ("7", "PCI_BUS_ID", "there is no GPU 7"),
        ("0", None, "has numbers, which CUDA gives to the fastest GPU first"),
        ("GPU-none", None, "no GPU 'GPU-none'"),
    ],
)
def test_visible_gpus_that_cannot_be_told_are_refused(nvml, monkeypatch, visible, order, message):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    if order is not None:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    with pytest.raises(UserError, match=message):
        nvml_meter("visible")


def test_all_of_no_gpus_is_refused(nvml):
    nvml.gpus.clear()
    with pytest.raises(UserError, match="sees no GPU"):
        nvml_meter()


def test_a_machine_without_a_driver_is_refused(monkeypatch):
    def no_library():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "_LoadNvmlLibrary", no_library)
    with pytest.raises(UserError, match=r"driver cannot be used .* Library Not Found") as refused:
        nvml_meter()
    assert "meter: none" in refused.value.hint
    with pytest.raises(UserError, match="Library Not Found"):
        list_gpus()


def test_a_driver_that_refuses_to_list_its_gpus_is_refused(nvml, monkeypatch):
    monkeypatch.setattr(nvml, "nvmlDeviceGetCount_v2", lambda count: pynvml.NVML_ERROR_TIMEOUT)
    for use in (list_gpus, nvml_meter):
        with pytest.raises(UserError, match="driver cannot be used on this machine: Timeout"):
            use()
    assert nvml.users == 0


def test_a_slice_is_metered_by_its_whole_gpu_once_and_the_scope_says_so(nvml):
    nvml.gpus[1].slices = ("MIG-1", "MIG-2")
    whole = "GPU-rising (the whole GPU, all its MIG slices)"
    assert nvml_meter().scope == f"GPU-steady; {whole}"
    assert nvml_meter(["GPU-steady"]).scope == "GPU-steady"
    meter = nvml_meter(["MIG-1", "MIG-2"])
    assert (meter.scope, meter.devices) == (whole, ("GPU-rising",))
    assert reading_of(meter, sampled(meter, nvml, 2.0)).gross_j == pytest.approx(
        2 * (50 + nvml.now_s - 1), rel=0.02
    )


def test_the_library_is_held_while_a_meter_lives_and_no_longer(nvml):
    meter = nvml_meter()
    list_gpus()
    assert nvml.users == 2
    del meter
    gc.collect()
    assert nvml.users == 0
    with pytest.raises(UserError):
        nvml_meter(["GPU-x"])
    assert nvml.users == 0


def test_the_list_says_what_each_gpu_tells_and_leaves_out_what_is_not_ours(nvml):
    nvml.gpus[0].counts = nvml.gpus[0].instant = False
    nvml.gpus[0].pids = None
    nvml.gpus[1].pids = [3_999_998]
    steady, rising = list_gpus()
    assert (steady.uuid, steady.name, steady.problem) == (
        "GPU-steady",
        "Scripted GPU",
        "Not Supported",
    )
    assert (steady.tick_s, steady.power, steady.processes) == (None, "1 s average", None)
    assert rising.problem is None
    assert rising.tick_s == pytest.approx(0.02, abs=0.0021)
    assert (rising.power, rising.processes) == ("instantaneous", ("3999998",))
    nvml.gpus[0].fault = pynvml.NVML_ERROR_NO_PERMISSION
    assert [gpu.uuid for gpu in list_gpus()] == ["GPU-rising"]


@pytest.mark.gpu
def test_a_real_gpu_draws_power():
    import time

    try:
        gpus = [gpu for gpu in list_gpus() if gpu.problem is None]
    except UserError as error:
        pytest.skip(str(error))
    if not gpus:
        pytest.skip("no GPU here has an energy counter")
    meter = nvml_meter([gpus[0].uuid])
    first = meter.read()
    time.sleep(1.0)
    reading = between(meter, first, meter.read())
    assert reading.gross_j is not None
    assert 1 < reading.gross_j < 2000
