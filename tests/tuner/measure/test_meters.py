"""What every meter owes its callers, whatever it meters."""

import math
import os
import re
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tuner.errors import UserError
from tuner.measure import Meter
from tuner.measure import MeterSpec
from tuner.measure import NoMeter
from tuner.measure import Sample
from tuner.measure import between
from tuner.measure import make_meter
from tuner.measure.cpu import CpuMeter
from tuner.measure.replay import record
from tuner.measure.window import Window

WATTS = 50.0


@dataclass
class Metered:
    """A meter, and how the devices that it meters are made to use energy."""

    meter: Meter
    work: Callable[[], None]
    source: str
    devices: tuple[str, ...] = ()


def burn(cpu_s: float) -> None:
    end = time.process_time() + cpu_s
    while time.process_time() < end:
        pass


def make(content: Any, *, base: Path = Path()) -> Meter:
    return make_meter(MeterSpec.model_validate(content), pid=os.getpid(), base=base)


def counted(request: pytest.FixtureRequest, stack: ExitStack) -> Metered:
    nvml = request.getfixturevalue("nvml")
    devices = ("GPU-steady", "GPU-rising")
    return Metered(make({"nvml": "all"}), lambda: nvml.sleep(0.5), "nvml-counter", devices)


def integrated(request: pytest.FixtureRequest, stack: ExitStack) -> Metered:
    nvml = request.getfixturevalue("nvml")
    nvml.gpus[0].counts = nvml.gpus[1].counts = False
    devices = ("GPU-steady", "GPU-rising")
    return Metered(make({"nvml": "all"}), lambda: nvml.sleep(0.5), "nvml-power", devices)


def mixed(request: pytest.FixtureRequest, stack: ExitStack) -> Metered:
    nvml = request.getfixturevalue("nvml")
    nvml.gpus[1].counts = False
    devices = ("GPU-steady", "GPU-rising")
    return Metered(
        make({"nvml": "all"}), lambda: nvml.sleep(0.5), "nvml-counter+nvml-power", devices
    )


def rapl(request: pytest.FixtureRequest, stack: ExitStack) -> Metered:
    sysfs = request.getfixturevalue("sysfs")
    count_uj = 5_000_000

    def work() -> None:
        nonlocal count_uj
        count_uj += 1_000_000
        sysfs.count("intel-rapl:0", count_uj)

    return Metered(make({"rapl": "all"}), work, "rapl")


def dcgm(request: pytest.FixtureRequest, stack: ExitStack) -> Metered:
    monkeypatch = request.getfixturevalue("monkeypatch")
    monkeypatch.setattr("tuner.measure.dcgm.SHORTEST_PERIOD_S", 0.02)
    page = request.getfixturevalue("dcgm_text")

    def answer() -> tuple[int, str]:
        return 200, page({"GPU-a": WATTS * time.perf_counter(), "GPU-b": time.perf_counter()})

    site = stack.enter_context(request.getfixturevalue("site")(answer))
    content = {"dcgm": {"url": f"{site.url}/metrics", "interval_s": 0.05}}
    return Metered(make(content), lambda: time.sleep(0.1), "dcgm", ("GPU-a", "GPU-b"))


def tensorrt_llm(request: pytest.FixtureRequest, stack: ExitStack) -> Metered:
    request.getfixturevalue("monkeypatch").setattr("tuner.measure.tensorrt_llm.PERIOD_S", 0.02)
    page = request.getfixturevalue("trtllm_text")
    site = stack.enter_context(
        request.getfixturevalue("site")(lambda: (200, page(WATTS * time.perf_counter())))
    )
    content = {"tensorrt_llm": {"url": f"{site.url}/energy_metrics"}}
    return Metered(make(content), lambda: time.sleep(0.1), "trtllm")


def cpu(request: pytest.FixtureRequest, stack: ExitStack) -> Metered:
    return Metered(make({"cpu_estimate": {}}), lambda: burn(0.05), "cpu-estimate")


def replayed(request: pytest.FixtureRequest, stack: ExitStack) -> Metered:
    tmp_path = request.getfixturevalue("tmp_path")
    recorded = rapl(request, stack).meter
    samples = [Sample(7.0 + t / 10, 3.0 + WATTS * t / 10) for t in range(100)]
    record(samples, recorded, tmp_path / "power.csv")
    meter = make({"replay": "power.csv"}, base=tmp_path)
    return Metered(meter, lambda: time.sleep(0.02), "replay(rapl)")


def none(request: pytest.FixtureRequest, stack: ExitStack) -> Metered:
    return Metered(make("none"), lambda: None, "none")


@pytest.fixture(
    params=[counted, integrated, mixed, rapl, dcgm, tensorrt_llm, cpu, replayed, none],
    ids=lambda make: make.__name__,
)
def metered(request: pytest.FixtureRequest) -> Iterator[Metered]:
    with ExitStack() as stack:
        yield request.param(request, stack)


def test_every_meter_says_what_it_is(metered: Metered) -> None:
    meter = metered.meter
    assert meter.source == metered.source
    assert meter.scope
    assert meter.devices == metered.devices
    for device in meter.devices:
        assert device in meter.scope
    assert math.isfinite(meter.tick_s)
    assert meter.tick_s > 0 or isinstance(meter, NoMeter)


def test_time_and_energy_never_go_back(metered: Metered) -> None:
    samples = []
    for _ in range(4):
        samples.append(metered.meter.read())
        metered.work()
    times = [sample.t_s for sample in samples]
    assert times == sorted(times)
    joules = [sample.joules for sample in samples if sample.joules is not None]
    assert joules == sorted(joules)
    assert len(joules) == (0 if metered.source == "none" else 4)


def test_missing_energy_is_none_with_a_reason_and_present_energy_is_not_zero(
    metered: Metered,
) -> None:
    first = metered.meter.read()
    metered.work()
    reading = between(metered.meter, first, metered.meter.read())
    assert (reading.source, reading.scope) == (metered.source, metered.meter.scope)
    if metered.source == "none":
        assert reading.gross_j is None
        assert reading.problem
    else:
        assert reading.gross_j is not None
        assert reading.gross_j > 0
        assert reading.problem is None
        assert reading.stderr_j is not None
        assert reading.stderr_j > 0


def test_adjoining_windows_add_up(metered: Metered) -> None:
    meter, work = metered.meter, metered.work
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
        assert sum(part for part in parts if part is not None) == pytest.approx(whole)


def test_power_and_temperature_are_plausible_or_not_there(metered: Metered) -> None:
    metered.meter.read()
    metered.work()
    sample = metered.meter.read()
    assert sample.power_w is None or 1 < sample.power_w < 5000
    assert sample.temperature_c is None or 0 < sample.temperature_c < 120


def test_a_window_of_it_is_a_stretch_like_any_other(metered: Metered) -> None:
    with Window(metered.meter) as window:
        metered.work()
        reading, samples = window.stretch()
    assert (reading.gross_j is None) == (metered.source == "none")
    assert (reading.problem is None) == (metered.source != "none")
    assert bool(samples) == (metered.source != "none")


@pytest.mark.parametrize(
    ("first", "last", "reason"),
    [
        (Sample(0, 5.0), Sample(1, 4.0), "went back by 1 J"),
        (Sample(0, None, "unplugged"), Sample(1, 4.0), "unplugged"),
        (Sample(0, 5.0), Sample(1, None, "unplugged"), "unplugged"),
        (Sample(0, None), Sample(1, None), "no joules"),
        (Sample(0, 5.0, "somebody else's"), Sample(1, 6.0), "somebody else's"),
        (Sample(0, 5.0), Sample(1, 6.0, "somebody else's"), "somebody else's"),
    ],
)
def test_an_invalid_window_has_no_joules(first: Sample, last: Sample, reason: str) -> None:
    reading = between(NoMeter(), first, last)
    assert reading.gross_j is None
    assert reading.problem is not None
    assert reason in reading.problem


def test_without_a_spec_a_server_of_ours_is_estimated_and_any_other_is_not_metered() -> None:
    assert isinstance(make_meter(None, pid=os.getpid()), CpuMeter)
    assert isinstance(make_meter(None, pid=None), NoMeter)
    assert isinstance(make_meter(MeterSpec("none"), pid=os.getpid()), NoMeter)


def test_the_cpu_estimate_of_a_server_elsewhere_is_refused() -> None:
    with pytest.raises(UserError, match="needs a server that the study starts") as refused:
        make_meter(MeterSpec.model_validate({"cpu_estimate": {}}), pid=None)
    assert refused.value.hint is not None
    assert "serve:" in refused.value.hint


@pytest.mark.parametrize(
    "content",
    [
        "none",
        {"nvml": "all"},
        {"nvml": ["GPU-1", "GPU-2"]},
        {"rapl": "all"},
        {"rapl": ["package-0", "package-0/dram"]},
        {"dcgm": {"url": "http://gpu1:9400/metrics"}},
        {"dcgm": {"url": "http://gpu1:9400/metrics", "gpus": ["GPU-1"], "interval_s": 1}},
        {"tensorrt_llm": {"url": "http://gpu1:8000/energy_metrics"}},
        {"cpu_estimate": {}},
        {"cpu_estimate": {"watts_per_core": 4.5}},
        {"replay": "power.csv"},
    ],
)
def test_a_spec_survives_its_own_dump(content: Any) -> None:
    spec = MeterSpec.model_validate(content)
    assert MeterSpec.model_validate_json(spec.model_dump_json()) == spec
    assert MeterSpec.model_validate(spec.model_dump()) == spec


KNOWN = r"none or one of {nvml: …}, {rapl: …}, {dcgm: …}, {tensorrt_llm: …}, {cpu_estimate: …}, {replay: …}"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("rapl", KNOWN),
        ({"zeus": {}}, KNOWN),
        (None, KNOWN),
        ({"nvml": []}, "at least 1"),
        ({"nvml": ["GPU-1", "GPU-1"]}, "twice"),
        ({"nvml": "all", "cpu_estimate": {}}, "not permitted"),
        ({"rapl": {}}, "should be 'all'"),
        ({"dcgm": {}}, "required"),
        ({"dcgm": {"url": "gpu1:9400/metrics"}}, "pattern"),
        ({"dcgm": {"url": "http://gpu1:9400/metrics", "interval_s": 0}}, "greater than 0"),
        ({"replay": ""}, "at least 1"),
        ({"cpu_estimate": {"watts_per_core": 0.0}}, "greater than 0"),
        ({"cpu_estimate": {"watts_per_core": float("inf")}}, "finite"),
    ],
)
def test_a_spec_that_means_nothing_is_refused(content: Any, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        MeterSpec.model_validate(content)


def test_the_schema_knows_every_kind() -> None:
    parts = MeterSpec.model_json_schema()["$defs"]
    for key in ("nvml", "rapl", "dcgm", "tensorrt_llm", "cpu_estimate", "replay"):
        assert any(key in part.get("properties", {}) for part in parts.values())


def test_the_meters_in_the_guide_can_be_asked_for() -> None:
    guide = Path(__file__).resolve().parents[3] / "docs" / "measuring-energy.md"
    cells = [line.split("|")[2] for line in guide.read_text().splitlines() if "| `" in line]
    shown = [yaml.safe_load(text) for cell in cells for text in re.findall(r"`({.+?}|none)`", cell)]
    kinds = {next(iter(each)) if isinstance(each, dict) else each for each in shown}
    for content in shown:
        MeterSpec.model_validate(content)
    assert kinds == {"nvml", "dcgm", "tensorrt_llm", "rapl", "cpu_estimate", "replay", "none"}
