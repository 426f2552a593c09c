"""Whole programs on a GPU that is not there: pynvml loads a library built here, everything else is as users have it."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tuner.results import open_results
from tuner.spec import load_study

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SOURCE = Path(__file__).parent / "measure" / "nvml.c"
TUNER = str(Path(sys.executable).parent / "tuner")
WATTS = 320.0
DELAY_S = 0.2
QUESTIONS = 15

SPACE = """\
format_version: 1
name: small
workflows: {cot: {max_tokens: [64, 128, 256]}}
"""
STUDY = f"""\
format_version: 1
name: heated
task: {{name: jsonl, path: questions.jsonl, examples: {QUESTIONS}, holdout: 0}}
search_space: space.yaml
models: {{loopback: {{model: openai/loopback, api_base: "API_BASE", meter: {{nvml: all}}}}}}
objectives: [accuracy, latency_p50_s, energy_wh]
sampler: {{name: grid}}
budget: {{trials: 3}}
storage: sqlite:///tuner.db
"""


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which there is a GPU."""
    if not sys.platform.startswith("linux"):
        pytest.skip("a driver's library of this name is looked for on Linux only")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) to build a driver's library with")
    folder = tmp_path_factory.mktemp("driver")
    library = str(folder / "libnvidia-ml.so.1")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, str(SOURCE)], check=True)
    (folder / "events").mkdir()
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder),
        "NVML_WATTS": str(WATTS),
        "NVML_TICK_S": "0.02",
        "NVML_EVENTS": str(folder / "events"),
    }


@dataclass(frozen=True)
class Ran:
    """A study after its run."""

    study: Path
    said: list[str]
    code: int

    def line(self, start: str) -> str:
        return next(line for line in self.said if line.partition("] ")[2].startswith(start))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Ran]:
    """Three trials: an undisturbed one, one during which another process computes, one after a reset of the driver."""
    folder = tmp_path_factory.mktemp("user")
    events = Path(environment["NVML_EVENTS"])
    with serving("--delay-s", str(DELAY_S)) as address:
        rows = [{"question": f"Question {n}?", "answer": "forty-two"} for n in range(QUESTIONS)]
        (folder / "questions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        (folder / "space.yaml").write_text(SPACE)
        (folder / "study.yaml").write_text(STUDY.replace("API_BASE", address))
        yield run(folder / "study.yaml", environment, events)


@contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """The address of a loopback server."""
    command = [sys.executable, str(BENCHMARKS / "loopback.py"), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield json.loads(server.stdout.readline())["api_base"]
        finally:
            server.terminate()


def run(study: Path, environment: dict[str, str], events: Path) -> Ran:
    command = [TUNER, "run", str(study)]
    said: list[str] = []
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if "] trial 0" in line:
                (events / "foreign").touch()
                time.sleep(1.2)  # seen within a second, and gone before the trial is over
                (events / "foreign").unlink()
            elif "] trial 1" in line:
                (events / "reset").touch()
            elif "] trial 2" in line:
                (events / "reset").unlink()
        process.wait(timeout=120)
    return Ran(study, said, process.returncode)


@pytest.mark.slow
class TestRun:
    def test_energy_is_power_times_time(self, ran: Ran, environment: dict[str, str]) -> None:
        assert ran.code == 0, "".join(ran.said)
        study = load_study(ran.study)
        with closing(open_results(study)) as store:
            trial = store.trials()[0]
            runs = store.runs(trial.trial_id, "search")
            (sitting,) = store.passes(trial.trial_id, "search")
        pass_s = max(each.started_s + each.latency_s for each in runs)
        assert pass_s >= DELAY_S * QUESTIONS
        assert trial.values is not None
        expected_wh = WATTS * pass_s / QUESTIONS / 3600
        assert trial.values["energy_wh"] == pytest.approx(expected_wh, rel=0.03)
        assert sitting.energy.gross_j == pytest.approx(WATTS * pass_s, rel=0.03)
        assert sitting.energy.warning is None
        assert sitting.energy.temperature_c == 61
        assert sitting.idle_w == pytest.approx(WATTS, rel=0.03)
        assert sitting.energy.stderr_j == pytest.approx(WATTS * 0.02 / 6**0.5, rel=0.25)

    def test_the_front_names_its_source(self, ran: Ran, environment: dict[str, str]) -> None:
        shown = subprocess.run(
            [TUNER, "front", str(ran.study), "--json"],
            env=environment,
            capture_output=True,
            check=True,
        )
        content = json.loads(shown.stdout)
        assert content["trials"]["complete"] == 1
        assert content["trials"]["failed"] == 2
        (point,) = content["points"]
        assert point["trial"] == 0
        assert point["sources"] == {"energy": "nvml-counter"}

    def test_a_process_of_somebody_elses_fails_the_trial_that_it_falls_into(self, ran: Ran) -> None:
        name = psutil.Process(1).name()
        assert f"process 1 ({name}) computes on GPU-0-of-the-test" in ran.line("trial 1")

    def test_a_reset_of_the_driver_fails_the_trial_with_that_reason(self, ran: Ran) -> None:
        assert "GPU-0-of-the-test: the energy counter went back" in ran.line("trial 2")


def test_the_doctor_shows_what_the_gpu_tells(environment: dict[str, str]) -> None:
    shown = subprocess.run(
        [TUNER, "doctor", "--json"], env=environment, capture_output=True, check=True
    )
    (row,) = [row for row in json.loads(shown.stdout) if row["what"].startswith("meter nvml")]
    assert (row["what"], row["usable"]) == ("meter nvml: GPU-0-of-the-test", True)
    told = r"Heater; counts every (\d+) ms; power: instantaneous; computing: nobody"
    found = re.fullmatch(told, row["detail"])
    assert found
    assert 10 <= int(found[1]) <= 60


@pytest.mark.slow
def test_the_gpu_benchmark_measures_a_server_that_runs(environment: dict[str, str]) -> None:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--quick", "--json", "--api-base"]
    with serving() as address:
        ran = subprocess.run([*command, address], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert [gpu["uuid"] for gpu in result["gpus"]] == ["GPU-0-of-the-test"]
    assert list(result["workflows"]) == ["direct", "cot", "react"]
    for row in result["workflows"].values():
        joules = 3600 * row["wh_per_query"] * row["questions"]
        assert joules == pytest.approx(WATTS * row["pass_s"], rel=0.05)
        assert row["source"] == "nvml-counter"
    assert result["counter_and_power"]["apart_share"] < 0.02
    assert result["failed"] == []
