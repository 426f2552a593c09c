"""kill -9 at random moments of everything that a study is made of: nothing finished is lost or counted twice, nothing is left.

FAULT_KILLS says how often each kind is killed, and without it none is; `make faults` has more than 100 in all.
"""

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tuner.spec import load_study

KILLS = int(os.environ.get("FAULT_KILLS", "0"))
NOTICED = "the study goes on with 1 of 2 servers"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "FAULT_KILLS" not in os.environ,
        reason="takes minutes (make faults); a few kills are in test_study, test_patience and test_ray",
    ),
]

Make = Callable[..., Any]


@pytest.fixture
def tally() -> Callable[[str, Any], None]:
    """Notes how often what was killed, and what was kept meanwhile, where FAULT_TALLY names a file."""
    began_s = time.monotonic()

    def note(what: str, kept: Any) -> None:
        line = {
            "killed": what,
            "kills": KILLS,
            "answers": kept.seen,
            "seconds": round(time.monotonic() - began_s),
        }
        if "FAULT_TALLY" in os.environ:
            with Path(os.environ["FAULT_TALLY"]).open("a") as file:
                file.write(json.dumps(line) + "\n")

    return note


def strike(
    driver: Any, kept: Any, wait: Any, rng: np.random.Generator, blow: Callable[[], None]
) -> None:
    """So many blows at random moments, each some answers after the last one."""
    for _ in range(KILLS):
        aim = kept.count() + int(rng.integers(1, 6))
        wait(lambda aim=aim: kept.count() >= aim or not driver.is_running)
        time.sleep(float(rng.uniform(0, 0.2)))
        assert driver.is_running, driver.said
        kept.remember()
        blow()


def strike_driver(driver: Any, kept: Any, rng: np.random.Generator, *, starts_s: float) -> None:
    """The same of the driver itself: some blows fall into its start, most a few answers later."""
    for _ in range(KILLS):
        aim = kept.count() + int(rng.integers(-1, 6))
        end_s = time.monotonic() + float(rng.uniform(0, starts_s))
        while driver.is_running and (
            kept.count() < aim or (aim <= kept.seen and time.monotonic() < end_s)
        ):
            time.sleep(0.005)
        assert driver.is_running, driver.said
        kept.remember()
        driver.kill()
        kept.remember()
        driver.start()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_driver_that_is_killed(
    make: Make,
    served: Make,
    drive: Make,
    keeps: Make,
    rng: np.random.Generator,
    tally: Make,
    database: str,
    request: pytest.FixtureRequest,
) -> None:
    storage = ""
    if database == "postgresql":
        storage = request.getfixturevalue("postgres").make_database("faults_driver")
    servers = [served("--delay-s", "0.05") for _ in range(2)]
    study = make(*(each.address for each in servers), storage=storage)
    driver, kept = drive(study), keeps(study)
    strike_driver(driver, kept, rng, starts_s=4.0)
    driver.finish()
    kept.require_whole()
    tally(f"driver, {database}", kept)


def test_a_model_server_at_an_address_that_is_killed(
    make: Make, served: Make, drive: Make, keeps: Make, wait: Make, rng: np.random.Generator, tally: Make
) -> None:  # fmt: skip
    servers = [served("--delay-s", "0.05") for _ in range(2)]
    study = make(*(each.address for each in servers))
    driver, kept = drive(study), keeps(study)

    def blow() -> None:
        server = servers[int(rng.integers(len(servers)))]
        noticed = driver.said.count(NOTICED)
        server.kill()
        # One that is back before anybody looks has failed a question, which max_retries, 0 here, would have asked again.
        end_s = time.monotonic() + 10
        while driver.said.count(NOTICED) == noticed and time.monotonic() < end_s:
            time.sleep(0.02)
        time.sleep(float(rng.uniform(0, 1)))
        server.start()

    strike(driver, kept, wait, rng, blow)
    driver.finish()
    kept.require_whole()
    assert NOTICED in driver.said
    tally("model server at an address", kept)


def test_a_model_server_of_ours_that_is_killed(
    make: Make, stand_in: Any, drive: Make, keeps: Make, wait: Make, rng: np.random.Generator, tally: Make
) -> None:  # fmt: skip
    study = make("http://127.0.0.1:9/v1")
    command = ", ".join(stand_in.command)
    text = study.path.read_text()
    program = f"serve: vllm, model: a/b, endpoint: completion, command: [{command}]"
    start = text.index("model: openai/loopback")
    end = text.index(", max_retries")
    study.path.write_text(text[:start] + program + text[end:])
    study = load_study(study.path)
    driver, kept = drive(study), keeps(study)

    def blow() -> None:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(stand_in.starts()[-1]["pid"]).send_signal(signal.SIGKILL)

    strike(driver, kept, wait, rng, blow)
    driver.finish()
    kept.require_whole()
    starts = stand_in.starts()
    # Whether the run that is ended still starts it again after the last kill, or only the one after it does, is a race.
    assert len(starts) - KILLS in (1, 2)
    assert not any(psutil.pid_exists(start["pid"]) for start in starts)
    tally("model server of the study's own", kept)


def test_a_database_that_is_killed(
    make: Make, served: Make, drive: Make, keeps: Make, wait: Make, rng: np.random.Generator, tally: Make, postgres: Any
) -> None:  # fmt: skip
    servers = [served("--delay-s", "0.05") for _ in range(2)]
    storage = postgres.make_database("faults_database")
    study = make(*(each.address for each in servers), storage=storage)
    driver, kept = drive(study), keeps(study)

    def blow() -> None:
        postgres.kill()
        time.sleep(float(rng.uniform(0, 1)))
        postgres.start()

    strike(driver, kept, wait, rng, blow)
    driver.finish()
    kept.require_whole()
    tally("database (PostgreSQL)", kept)


def test_a_database_that_is_restarted_in_order(
    make: Make, served: Make, drive: Make, keeps: Make, wait: Make, postgres: Any
) -> None:
    server = served("--delay-s", "0.05")
    study = make(server.address, trials=3, storage=postgres.make_database("faults_restart"))
    driver, kept = drive(study), keeps(study)
    wait(lambda: kept.count() > 3)
    kept.remember()
    postgres.stop()
    time.sleep(0.5)
    postgres.start()
    driver.require_end()
    kept.require_whole()


@pytest.mark.ray
def test_a_worker_on_ray_that_is_killed(
    make: Make, served: Make, drive: Make, keeps: Make, wait: Make, rng: np.random.Generator, tally: Make, cluster: Any
) -> None:  # fmt: skip
    servers = [served("--delay-s", "0.05") for _ in range(2)]
    ray = f'{{address: "{cluster.address}", num_cpus: 1}}'
    study = make(*(each.address for each in servers), ray=ray)
    driver, kept = drive(study), keeps(study)

    def blow() -> None:
        wait(cluster.workers)
        workers = cluster.workers()
        with suppress(psutil.NoSuchProcess, IndexError):
            workers[int(rng.integers(len(workers)))].send_signal(signal.SIGKILL)

    strike(driver, kept, wait, rng, blow)
    driver.finish()
    kept.require_whole()
    wait(lambda: not cluster.workers())
    tally("worker on Ray", kept)


@pytest.mark.ray
def test_a_machine_of_the_cluster_that_is_killed(
    make: Make, served: Make, drive: Make, keeps: Make, wait: Make, rng: np.random.Generator, tally: Make, cluster: Any
) -> None:  # fmt: skip
    servers = [served("--delay-s", "0.2") for _ in range(2)]
    ray = f'{{address: "{cluster.address}", num_cpus: 2}}'
    study = make(*(each.address for each in servers), ray=ray)
    driver, kept = drive(study), keeps(study)

    def blow() -> None:
        machine = cluster.add(num_cpus=2)
        wait(lambda: len(cluster.workers()) == 2)
        aim = kept.count() + int(rng.integers(1, 20))
        wait(lambda: kept.count() >= aim)
        kept.remember()
        cluster.remove(machine)
        wait(lambda: len(cluster.workers()) == 1)

    strike(driver, kept, wait, rng, blow)
    driver.finish()
    kept.require_whole()
    wait(lambda: not cluster.workers())
    tally("machine of the cluster", kept)


@pytest.mark.ray
def test_a_driver_on_ray_that_is_killed(
    make: Make, served: Make, drive: Make, keeps: Make, wait: Make, rng: np.random.Generator, tally: Make, cluster: Any
) -> None:  # fmt: skip
    servers = [served("--delay-s", "0.05") for _ in range(2)]
    ray = f'{{address: "{cluster.address}", num_cpus: 1}}'
    study = make(*(each.address for each in servers), ray=ray)
    driver, kept = drive(study), keeps(study)
    strike_driver(driver, kept, rng, starts_s=12.0)
    driver.finish()
    kept.require_whole()
    wait(lambda: not cluster.workers())
    tally("driver on Ray", kept)
