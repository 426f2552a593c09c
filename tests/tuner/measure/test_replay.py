import time

import pytest

from tuner.errors import UserError
from tuner.measure import NoMeter
from tuner.measure import Sample
from tuner.measure import between
from tuner.measure.replay import ReplayMeter
from tuner.measure.replay import record
from tuner.measure.window import Window

GOOD = "# source: rapl\n# scope: package-0\n# tick_s: 0.001\nt_s,joules\n0,0\n1,50\n"


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now_s = 500.0

        def perf_counter(self):
            return self.now_s

    clock = Clock()
    monkeypatch.setattr("tuner.measure.replay.time", clock)
    return clock


@pytest.fixture
def recorded(tmp_path, nvml):
    """A recording of a scripted GPU, the file and the samples."""
    from tuner.measure import MeterSpec
    from tuner.measure import make_meter

    meter = make_meter(MeterSpec.model_validate({"nvml": ["GPU-rising"]}), pid=None)
    samples = []
    for _ in range(40):
        nvml.sleep(0.1)
        samples.append(meter.read())
    record(samples, meter, tmp_path / "power.csv")
    return tmp_path / "power.csv", samples


def test_what_was_recorded_is_played_again(recorded, clock):
    path, samples = recorded
    meter = ReplayMeter(path)
    assert (meter.source, meter.scope) == ("replay(nvml-counter)", "GPU-rising")
    assert meter.devices == ("GPU-rising",)
    assert meter.tick_s == pytest.approx(0.02, abs=0.0021)
    first = meter.read()
    clock.now_s += 0.1 * 20 + 1e-4
    last = meter.read()
    expected = samples[20].joules - samples[0].joules
    assert between(meter, first, last).gross_j == pytest.approx(expected, rel=1e-2)
    assert last.power_w == samples[20].power_w
    assert last.temperature_c == 60


def test_between_samples_joules_lie_on_a_line(tmp_path, clock):
    (tmp_path / "power.csv").write_text(GOOD)
    meter = ReplayMeter(tmp_path / "power.csv")
    clock.now_s += 0.25
    assert meter.read().joules == pytest.approx(12.5)


def test_after_its_end_a_recording_is_a_problem_and_no_zero(tmp_path, clock):
    (tmp_path / "power.csv").write_text(GOOD)
    meter = ReplayMeter(tmp_path / "power.csv")
    first = meter.read()
    clock.now_s += 1.5
    reading = between(meter, first, meter.read())
    assert (reading.gross_j, reading.problem) == (None, "the recording of 1 s has ended")


def test_what_was_wrong_when_it_was_recorded_is_wrong_when_it_is_played(tmp_path, clock):
    samples = [
        Sample(0.0, 0.0),
        Sample(1.0, 5.0, "process 7 computes on GPU-a"),
        Sample(2.0, None, "GPU is lost"),
        Sample(3.0, 9.0),
        Sample(4.0, 10.0),
    ]
    record(samples, NoMeter(), tmp_path / "power.csv")
    meter = ReplayMeter(tmp_path / "power.csv")
    clock.now_s += 0.5
    assert meter.read().problem is None
    clock.now_s += 1.0
    assert meter.read().problem == "process 7 computes on GPU-a"
    clock.now_s += 1.0
    assert (meter.read().joules, meter.read().problem) == (None, "GPU is lost")
    clock.now_s += 1.0
    assert meter.read().joules == pytest.approx(9.5)


def test_a_window_of_it_can_be_split(tmp_path):
    samples = [Sample(t / 10, 5.0 * t) for t in range(100)]
    record(samples, NoMeter(), tmp_path / "power.csv")
    with Window(ReplayMeter(tmp_path / "power.csv"), period_s=0.01) as window:
        time.sleep(0.1)
        reading, curve = window.stretch()
    assert reading.gross_j == pytest.approx(50 * reading.seconds, rel=1e-6)
    assert len(curve) > 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "source"),
        (GOOD.replace("# source: rapl\n", ""), "source"),
        (GOOD.replace("0.001", "often"), "often"),
        (GOOD.replace("1,50\n", ""), "fewer than two samples"),
        (GOOD.replace("1,50", "-1,50"), "times do not rise"),
        (GOOD.replace("1,50", "1,many"), "many"),
        (GOOD.replace("t_s", "when"), "t_s"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path, text, reason):
    (tmp_path / "power.csv").write_text(text)
    with pytest.raises(UserError, match="is no recording") as refused:
        ReplayMeter(tmp_path / "power.csv")
    assert "t_s,joules" in refused.value.hint
    if text:
        assert reason in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        ReplayMeter(tmp_path / "absent.csv")
