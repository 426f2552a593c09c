import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tuner.errors import UserError
from tuner.measure import between
from tuner.measure.rapl import RaplMeter
from tuner.measure.rapl import list_zones


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now_s=100.0)
    clock.perf_counter = lambda: clock.now_s
    monkeypatch.setattr("tuner.measure.rapl.time", clock)
    return clock


def test_all_is_packages_and_their_memory_and_nothing_twice(sysfs):
    meter = RaplMeter("all", folder=sysfs.folder)
    assert meter.scope == "package-0, package-0/dram, package-1"
    first = meter.read()
    sysfs.count("intel-rapl:0", 5_000_000 + 3_000_000)
    sysfs.count("intel-rapl:0:0", 1_000_000 + 50_000_000)  # cores: within the package
    sysfs.count("intel-rapl:0:1", 2_000_000 + 500_000)
    sysfs.count("intel-rapl:1", 7_000_000 + 4_000_000)
    sysfs.count("intel-rapl:2", 9_000_000 + 90_000_000)  # the platform: around the packages
    assert between(meter, first, meter.read()).gross_j == pytest.approx(7.5)


def test_zones_are_chosen_by_name(sysfs):
    meter = RaplMeter(("psys",), folder=sysfs.folder)
    first = meter.read()
    sysfs.count("intel-rapl:2", 10_000_000)
    assert (meter.scope, between(meter, first, meter.read()).gross_j) == ("psys", 1.0)


@pytest.mark.parametrize(
    ("zones", "reason", "hint"),
    [
        (("package-9",), "no zone 'package-9' here", "known: package-0, package-0/core"),
        (("package-0", "package-0"), "package-0 would be counted twice", "name a package"),
        (
            ("package-0", "package-0/core"),
            "package-0/core would be counted twice",
            "name a package",
        ),
        (("psys", "package-0"), "psys would be counted twice", "name a package"),
    ],
)
def test_zones_that_cannot_be_added_up_are_refused(sysfs, zones, reason, hint):
    with pytest.raises(UserError, match=reason) as refused:
        RaplMeter(zones, folder=sysfs.folder)
    assert refused.value.hint.startswith(hint)


@given(st.lists(st.integers(0, 999_999), min_size=1, max_size=30), st.integers(0, 999_999))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_a_counter_that_goes_round_is_unrolled(sysfs, steps_uj, start_uj):
    sysfs.zone("intel-rapl:0", "package-0", start_uj, range_uj=1_000_000)
    meter = RaplMeter(("package-0",), folder=sysfs.folder)
    first = meter.read()
    count_uj = start_uj
    for step_uj in steps_uj:
        count_uj = (count_uj + step_uj) % 1_000_000
        sysfs.count("intel-rapl:0", count_uj)
        last = meter.read()
    assert last.joules - first.joules == pytest.approx(sum(steps_uj) / 1e6)


def test_a_counter_that_may_have_gone_round_unseen_is_a_problem_once(sysfs, clock):
    meter = RaplMeter("all", folder=sysfs.folder)
    first = meter.read()
    clock.now_s += 262  # 262 kJ take 262.1 s at 1 kW
    assert between(meter, first, meter.read()).problem is None
    clock.now_s += 263
    reading = between(meter, first, meter.read())
    assert reading.gross_j is None
    assert "not read for 263 s, and may have gone round unseen" in reading.problem
    first = meter.read()
    assert between(meter, first, meter.read()).gross_j == 0


def test_a_counter_that_goes_away_is_a_problem(sysfs):
    meter = RaplMeter("all", folder=sysfs.folder)
    first = meter.read()
    (sysfs.folder / "intel-rapl:0" / "energy_uj").unlink()
    reading = between(meter, first, meter.read())
    assert reading.gross_j is None
    assert "cannot be read" in reading.problem
    (sysfs.folder / "intel-rapl:0" / "energy_uj").write_text("nonsense")
    assert meter.read().joules is None


def test_counters_for_root_alone_are_refused_with_the_cure(sysfs, monkeypatch):
    # Tests may run as root, whom no mode keeps out.
    read = Path.read_text

    def read_text(path, *arguments, **options):
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", read_text)
    with pytest.raises(UserError, match="intel-rapl:0/energy_uj can be read by root") as refused:
        RaplMeter("all", folder=sysfs.folder)
    assert "chmod a+r" in refused.value.hint
    assert set(list_zones()) == {
        "package-0",
        "package-0/core",
        "package-0/dram",
        "package-1",
        "psys",
    }
    assert all("Permission denied" in problem for problem in list_zones().values())


def test_a_machine_without_counters_is_refused(tmp_path):
    with pytest.raises(UserError, match="no energy counters of processors"):
        RaplMeter("all", folder=tmp_path / "absent")


def test_a_read_is_cheap(sysfs):
    meter = RaplMeter("all", folder=sysfs.folder)
    before_s = time.thread_time()
    for _ in range(100):
        meter.read()
    assert (time.thread_time() - before_s) / 100 < 0.002
