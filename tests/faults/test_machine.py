"""Machines that fail: meters, clocks and disks; data that changes; and drivers that are told to end, or are one too many."""

import gc
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest

from tuner.errors import StoreError
from tuner.errors import UserError
from tuner.events import ExampleFinished
from tuner.spec import LoadedStudy
from tuner.spec import load_study
from tuner.store import Store
from tuner.study import run_study
from tuner.termination import GRACE_S

Make = Callable[..., Any]

SPACE = """\
format_version: 1
name: one call a question
workflows:
  cot: {max_tokens: [64, 65, 66, 67, 68, 69, 70, 71]}
"""


FULL = pytest.mark.skipif("FAULT_KILLS" not in os.environ, reason="takes minutes: make faults")

ANSWERS = 5
HELD = ("--script", "200", *["200"] * ANSWERS, *["hang"] * 50)
"""Arguments of a server that leaves its next question without an answer, so that a study is there for as long as a test wants."""


def let_go(server: Any, driver: Any, wait: Make) -> None:
    """Have a study that is held go on."""
    server.kill()
    wait(lambda: "the study waits" in driver.said or not driver.is_running)
    server.restart("--delay-s", "0.05")


def runs(study: LoadedStudy) -> list[Any]:
    store = Store.open(study.storage_url, study.spec.name)
    found = [
        run
        for trial in store.trials()
        for split in ("search", "holdout")
        for run in store.runs(trial.trial_id, split)
    ]
    store.close()
    return found


def failures(study: LoadedStudy) -> list[str | None]:
    store = Store.open(study.storage_url, study.spec.name)
    found = [trial.failure for trial in store.trials()]
    store.close()
    return found


# Meters


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, load_conftest: Callable[[str], Any]) -> Any:
    """A GPU of 300 W behind NVML, on the real clock; its `fault` is what it answers with from then on."""
    measure = load_conftest("tests/tuner/measure/conftest.py")

    class OnTheClock(measure.ScriptedNvml):  # type: ignore[misc, name-defined]
        now_s = property(lambda self: time.perf_counter(), lambda self, _: None)

    gpu = measure.ScriptedGpu("GPU-1", measure.constant(300), tick_s=0.001)
    monkeypatch.setattr(pynvml, "nvmlLib", OnTheClock([gpu]))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    yield gpu
    gc.collect()  # a meter that lives on in a cycle lets go of its library now


@pytest.fixture
def metered(make_study: Make, served: Make, gpu: Any) -> Callable[[str], LoadedStudy]:
    """Writes a study with a GPU and these objectives."""

    def make(objectives: str) -> LoadedStudy:
        study = make_study(server=served("--delay-s", "0.05").address, trials=6, space=SPACE)
        text = study.path.read_text().replace("retries: 0", "retries: 0, meter: {nvml: all}")
        study.path.write_text(text.replace("[accuracy, tokens_total]", objectives))
        return load_study(study.path)

    return make


@pytest.fixture
def run(gpu: Any) -> Callable[[LoadedStudy], None]:
    """Runs a study whose GPU is lost after 15 answers."""
    answers = 0

    def report(event: object) -> None:
        nonlocal answers
        answers += isinstance(event, ExampleFinished)
        if answers == 15:
            gpu.fault = pynvml.NVML_ERROR_GPU_IS_LOST

    return lambda study: run_study(study, report=report)


@pytest.mark.slow
def test_a_meter_that_vanishes_fails_the_trials_that_need_it_and_says_why(
    metered: Callable[[str], LoadedStudy], run: Callable[[LoadedStudy], None]
) -> None:
    study = metered("[accuracy, energy_wh]")
    with pytest.raises(UserError, match=r"3 trials in a row failed; .*GPU is lost") as ended:
        run(study)
    assert "run the same command again" in ended.value.hint
    why = failures(study)
    assert why[0] is None
    assert all("energy_wh was not measured on example" in str(each) for each in why[1:])
    found = runs(study)
    assert sum(run.energy.gross_j is not None for run in found) >= 14
    lost = [run for run in found if run.energy.gross_j is None]
    assert lost
    assert all("GPU is lost" in run.energy.problem for run in lost)
    assert not [run.error for run in found if run.error]  # the questions were answered


@pytest.mark.slow
def test_without_an_objective_that_needs_it_the_study_goes_on(
    metered: Callable[[str], LoadedStudy], run: Callable[[LoadedStudy], None]
) -> None:
    study = metered("[accuracy, latency_p50_s]")
    run(study)
    assert failures(study) == [None] * len(failures(study))
    lost = [run for run in runs(study) if run.energy.gross_j is None]
    assert lost
    assert all("GPU is lost" in run.energy.problem for run in lost)


# Clocks and disks


@pytest.fixture(scope="module")
def jumping(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A library that sets a process's clock forward and back."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    return str(library)


@FULL
@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_clock_that_is_set_forward_and_back_changes_nothing(
    make: Make,
    served: Make,
    drive: Make,
    keeps: Make,
    wait: Make,
    jumping: str,
    database: str,
    request: pytest.FixtureRequest,
) -> None:
    storage = ""
    if database == "postgresql":
        storage = request.getfixturevalue("postgres").make_database("faults_clock")
    server = served(*HELD)
    study = make(server.address, trials=2, storage=storage)
    began_s = time.monotonic()
    driver, kept = drive(study, LD_PRELOAD=jumping), keeps(study)
    wait(lambda: kept.count() == ANSWERS)
    for environment in ({}, {"LD_PRELOAD": jumping}):
        second = drive(study, **environment)
        assert second.wait() == 2
        assert f"being run by process {driver.pid}" in second.said
    let_go(server, driver, wait)
    driver.require_end()
    took_s = time.monotonic() - began_s
    kept.require_whole()
    found = runs(study)
    assert all(0 < run.latency_s < took_s for run in found)
    assert all(0 <= run.started_s < took_s for run in found)
    store = Store.open(study.storage_url, study.spec.name)
    row = store.row()
    store.close()
    assert row is not None
    assert 0 < row.search_s < took_s


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of 2 MB."""
    folder = Path(tempfile.mkdtemp(prefix="tuner-full-"))
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        folder.rmdir()
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    folder.rmdir()


@FULL
@pytest.mark.slow
def test_a_full_disk_ends_the_study_which_goes_on_once_there_is_room(
    make: Make, served: Make, drive: Make, keeps: Make, wait: Make, small_disk: Path
) -> None:
    require_room(make, served, drive, keeps, wait, small_disk)


@FULL
@pytest.mark.slow
@pytest.mark.ray
def test_a_full_disk_ends_a_study_on_ray_and_leaves_no_worker(
    make: Make, served: Make, drive: Make, keeps: Make, wait: Make, small_disk: Path, cluster: Any
) -> None:
    ray = f'{{address: "{cluster.address}", num_cpus: 1}}'
    require_room(make, served, drive, keeps, wait, small_disk, ray=ray)
    wait(lambda: not cluster.workers())


def require_room(
    make: Make, served: Make, drive: Make, keeps: Make, wait: Make, small_disk: Path, ray: str = ""
) -> None:
    """A run whose disk is full ends and says so; the same command goes on once there is room."""
    storage = f"sqlite:///{small_disk}/tuner.db"
    server = served(*HELD)
    study = make(server.address, trials=4, storage=storage, ray=ray)
    driver, kept = drive(study), keeps(study)
    wait(lambda: kept.count() == ANSWERS)
    kept.remember()
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    let_go(server, driver, wait)
    assert driver.wait() == 2, driver.said
    assert "disk is full" in driver.said
    assert "make room there, then run the same command again" in driver.said
    assert "Traceback" not in driver.said
    driver.require_alone()
    kept.remember()
    ballast.unlink()
    driver.start()
    driver.require_end()
    kept.require_whole()


# What changes between runs


@pytest.mark.slow
def test_a_dataset_that_changed_is_refused_and_named(make: Make, served: Make) -> None:
    study = make(served().address, trials=2)
    run_study(study)
    before = runs(study)
    questions = study.path.parent / "questions.jsonl"
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    rows[3]["answer"] = "another"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(StoreError, match="another task") as refused:
        run_study(make_larger(study))
    assert "undo the change" in refused.value.hint
    assert runs(study) == before
    rows[3]["answer"] = "forty-two"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_study(make_larger(study))
    assert len(runs(study)) > len(before)


def make_larger(study: LoadedStudy) -> LoadedStudy:
    study.path.write_text(study.path.read_text().replace("trials: 2", "trials: 3"))
    return load_study(study.path)


# Drivers


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=FULL)])
def test_of_drivers_that_start_at_once_one_runs(
    make: Make,
    served: Make,
    drive: Make,
    keeps: Make,
    wait: Make,
    database: str,
    request: pytest.FixtureRequest,
) -> None:
    storage = ""
    if database == "postgresql":
        storage = request.getfixturevalue("postgres").make_database("faults_two")
    server = served(*HELD)
    study = make(server.address, trials=2, storage=storage)
    kept = keeps(study)
    drivers = [drive(study) for _ in range(3)]
    wait(lambda: sum(driver.is_running for driver in drivers) == 1)
    (first,) = [driver for driver in drivers if driver.is_running]
    for driver in drivers:
        if driver is not first:
            assert driver.wait() == 2, driver.said
            who = rf"run by process {first.pid} on \S+, started \d{{4}}-|claimed by another process just now"
            assert re.search(who, driver.said), driver.said
            assert "Traceback" not in driver.said
    wait(lambda: kept.count() == ANSWERS)
    let_go(server, first, wait)
    first.require_end()
    kept.require_whole()


@pytest.mark.slow
def test_who_is_told_to_end_keeps_what_is_under_way_and_is_gone_on_from(
    make: Make, served: Make, drive: Make, keeps: Make, wait: Make
) -> None:
    servers = [served("--delay-s", "0.4") for _ in range(2)]
    study = make(*(each.address for each in servers), trials=3)
    require_grace(study, drive, keeps, wait)


@FULL
@pytest.mark.slow
@pytest.mark.ray
def test_who_is_told_to_end_does_so_on_ray_as_well(
    make: Make, served: Make, drive: Make, keeps: Make, wait: Make, cluster: Any
) -> None:
    servers = [served("--delay-s", "0.4") for _ in range(2)]
    ray = f'{{address: "{cluster.address}", num_cpus: 1}}'
    study = make(*(each.address for each in servers), trials=3, ray=ray)
    require_grace(study, drive, keeps, wait)
    wait(lambda: not cluster.workers())


def require_grace(study: LoadedStudy, drive: Make, keeps: Make, wait: Make) -> None:
    """Told to end, a run ends with the status of that, with what was under way kept; the same command goes on."""
    driver, kept = drive(study), keeps(study)
    wait(lambda: kept.count() > 3)
    kept.remember()
    driver.ask_to_end()
    assert driver.wait() == 128 + signal.SIGTERM, driver.said
    assert "asked to end (SIGTERM)" in driver.said
    assert "Traceback" not in driver.said
    driver.require_alone()
    before = kept.seen
    kept.remember()
    assert kept.seen > before
    assert not [run.error for run in runs(study) if run.error]  # nothing was broken off
    driver.start()
    driver.require_end()
    kept.require_whole()


@FULL
@pytest.mark.slow
def test_who_is_told_twice_ends_at_once(
    make: Make, served: Make, drive: Make, keeps: Make, wait: Make
) -> None:
    server = served(*HELD)
    study = make(server.address, trials=3)
    driver, kept = drive(study), keeps(study)
    wait(lambda: kept.count() == ANSWERS)
    time.sleep(0.5)  # the next question hangs now, for 120 s
    kept.remember()
    driver.ask_to_end()
    wait(lambda: "asked to end" in driver.said)
    began_s = time.monotonic()
    driver.ask_to_end()
    assert driver.wait() == 128 + signal.SIGTERM
    assert time.monotonic() - began_s < GRACE_S - 2
    require_as_it_was(driver, kept)
    server.kill()
    server.restart()
    driver.start()
    driver.require_end()
    kept.require_whole()


@FULL
@pytest.mark.slow
def test_who_is_told_to_end_while_the_study_waits_for_a_server_ends(
    make: Make, served: Make, drive: Make, keeps: Make, wait: Make
) -> None:
    server = served(*HELD)
    study = make(server.address, trials=2)
    driver, kept = drive(study), keeps(study)
    wait(lambda: kept.count() == ANSWERS)
    server.kill()
    wait(lambda: "the study waits" in driver.said)
    kept.remember()
    driver.ask_to_end()
    assert driver.wait() == 128 + signal.SIGTERM
    require_as_it_was(driver, kept)


def require_as_it_was(driver: Any, kept: Any) -> None:
    driver.require_alone()
    kept.remember()
    assert "Traceback" not in driver.said
