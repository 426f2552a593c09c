import gc

import pynvml
import pytest

from tuner.errors import UserError
from tuner.measure import between
from tuner.measure.nvml import NvmlMeter
from tuner.measure.nvml import list_gpus


def joules_over(meter, nvml, seconds):
    first = meter.read()
    nvml.now_s += seconds
    return between(meter, first, meter.read()).gross_j


@pytest.mark.parametrize(
    ("uuids", "watts"),
    [
        (("GPU-steady",), lambda mean_t: 300),
        (("GPU-rising",), lambda mean_t: 50 + mean_t),
        (("GPU-rising", "GPU-steady"), lambda mean_t: 350 + mean_t),
        ("all", lambda mean_t: 350 + mean_t),
    ],
)
@pytest.mark.parametrize("seconds", [0.5, 7.25])
def test_joules_are_the_integral_of_the_power_of_the_chosen_gpus(nvml, uuids, watts, seconds):
    expected = seconds * watts(nvml.now_s + seconds / 2)
    assert joules_over(NvmlMeter(uuids), nvml, seconds) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("tick_s", [0.01, 0.1])
def test_a_window_is_off_by_at_most_power_times_tick(nvml, tick_s):
    nvml.gpus[0].tick_s = tick_s
    meter = NvmlMeter(("GPU-steady",))
    for _ in range(20):
        assert joules_over(meter, nvml, 0.333) == pytest.approx(
            300 * 0.333, abs=300 * tick_s + 0.002
        )


def test_a_counter_that_stands_still_is_a_problem_and_not_a_saving(nvml):
    meter = NvmlMeter("all")
    nvml.gpus[1].energy_j = lambda t: 7.0
    assert meter.read().joules is not None
    nvml.now_s += 1.5
    sample = meter.read()
    assert sample.joules is None
    assert sample.problem.startswith("GPU-rising: the energy counter has not moved for 1.5 s")


def test_a_reset_that_the_other_gpu_would_hide_is_found_and_not_forgotten(nvml):
    meter = NvmlMeter("all")
    first = meter.read()
    nvml.now_s += 1
    since = nvml.now_s
    nvml.gpus[0].energy_j = lambda t: 300 * (t - since + 1)
    nvml.gpus[1].energy_j = lambda t: 1e6 * t
    assert meter.read().joules is None
    nvml.now_s += 1e6
    reading = between(meter, first, meter.read())
    assert reading.gross_j is None
    assert "GPU-steady: the energy counter went back" in reading.problem


def test_a_gpu_that_falls_off_the_bus_is_a_problem_from_then_on(nvml):
    meter = NvmlMeter("all")
    first = meter.read()
    nvml.now_s += 1
    nvml.gpus[1].fault = pynvml.NVML_ERROR_GPU_IS_LOST
    reading = between(meter, first, meter.read())
    assert reading.gross_j is None
    assert reading.problem == "GPU-rising: GPU is lost"


def test_a_gpu_without_a_counter_is_refused_before_the_first_trial(nvml):
    nvml.gpus[0].fault = pynvml.NVML_ERROR_NOT_SUPPORTED
    with pytest.raises(UserError, match="GPU-steady has no energy counter: Not Supported"):
        NvmlMeter("all")
    assert NvmlMeter(("GPU-rising",)).read().joules is not None


def test_an_unknown_gpu_is_refused_with_the_known_ones(nvml):
    with pytest.raises(UserError, match=r"no GPU 'GPU-x' .* known: GPU-steady, GPU-rising"):
        NvmlMeter(("GPU-steady", "GPU-x"))
    with pytest.raises(UserError) as refused:
        NvmlMeter(("MIG-1",))
    assert "name its GPU" in refused.value.hint


def test_all_of_no_gpus_is_refused(nvml):
    nvml.gpus.clear()
    with pytest.raises(UserError, match="sees no GPU"):
        NvmlMeter("all")


def test_a_machine_without_a_driver_is_refused(monkeypatch):
    def no_library():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "_LoadNvmlLibrary", no_library)
    with pytest.raises(UserError, match=r"driver cannot be used .* Library Not Found") as refused:
        NvmlMeter("all")
    assert "meter: none" in refused.value.hint
    with pytest.raises(UserError, match="Library Not Found"):
        list_gpus()


def test_a_driver_that_refuses_to_list_its_gpus_is_refused(nvml, monkeypatch):
    monkeypatch.setattr(nvml, "nvmlDeviceGetCount_v2", lambda count: pynvml.NVML_ERROR_TIMEOUT)
    for use in (list_gpus, lambda: NvmlMeter("all")):
        with pytest.raises(UserError, match="driver cannot be used on this machine: Timeout"):
            use()
    assert nvml.users == 0


def test_the_scope_names_the_gpus_and_says_that_a_sliced_one_is_metered_whole(nvml):
    nvml.gpus[1].mig = True
    assert NvmlMeter("all").scope == "GPU-steady, GPU-rising (the whole GPU, all its MIG slices)"
    assert NvmlMeter(("GPU-steady",)).scope == "GPU-steady"


def test_the_library_is_held_while_a_meter_lives_and_no_longer(nvml):
    meter = NvmlMeter("all")
    list_gpus()
    assert nvml.users == 1
    del meter
    gc.collect()
    assert nvml.users == 0
    with pytest.raises(UserError):
        NvmlMeter(("GPU-x",))
    assert nvml.users == 0


def test_the_list_says_which_counters_work_and_leaves_out_what_is_not_ours(nvml):
    nvml.gpus[0].fault = pynvml.NVML_ERROR_NOT_SUPPORTED
    steady, rising = list_gpus()
    assert (steady.uuid, steady.name, steady.problem) == (
        "GPU-steady",
        "Scripted GPU",
        "Not Supported",
    )
    assert rising.problem is None
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
    meter = NvmlMeter((gpus[0].uuid,))
    first = meter.read()
    time.sleep(1.0)
    reading = between(meter, first, meter.read())
    assert reading.gross_j is not None
    assert 1 < reading.gross_j < 2000
