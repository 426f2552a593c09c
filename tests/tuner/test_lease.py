"""One driver at a time: real processes on real databases, stopped, continued, killed, and with clocks that jump."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest

from tuner.errors import StoreError
from tuner.lease import Lease
from tuner.store import Store
from tuner.store import schema
from workflows.config import AgentConfig

LENGTH_S = 2.0
"""Long enough for a machine that is busy with other tests."""

DRIVER = '''
"""Holds the study, makes a trial, and keeps a run every so often until it is told not to."""
import sys, time
from dataclasses import replace

import optuna

from tuner.errors import StoreError
from tuner.lease import Lease
from tuner.records import ExampleRun, Reading
from tuner.store import Store
from tuner.store.schema import open_optuna_storage
from workflows.config import AgentConfig

optuna.logging.set_verbosity(optuna.logging.ERROR)
url, host, length_s, pause_s = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
RUN = ExampleRun("", 0, "Elm", 1.0, None, 2.0, Reading(5.0, "rapl", "package"), 10, 3, 0, None, 1, 0, 1.0, 0.0, 0.0, (), ())
if "jump" in sys.argv[5:]:
    real = time.time
    time.time = lambda: real() + 1e6 * (int(real() * 10) % 3 - 1)
storage = open_optuna_storage(url)
store = Store.create(url, "s")
try:
    with Lease(store, storage, host=host, length_s=length_s) as lease:
        study = optuna.load_study(study_name="s", storage=storage)
        trial = study.ask()
        trial_id = store.trial_id(trial.number)
        store.save_config(trial_id, AgentConfig(workflow="react", model="m"))
        print("holds", flush=True)
        number = 0
        while True:
            run = replace(RUN, example_id=f"{host} {number}")
            store.save_run(trial_id, "search", run, owner=lease.owner, search_s=1.0)
            print("kept", number, flush=True)
            number += 1
            if "asks" in sys.argv[5:]:
                study.ask()
            time.sleep(pause_s)
except StoreError as error:
    print("refused", error, error.hint, flush=True)
    sys.exit(2)
'''


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with a study named s."""
    if request.param == "sqlite":
        address = f"sqlite:///{tmp_path}/tuner.db"
    else:
        address = request.getfixturevalue("postgres").make_database(tmp_path.name[-50:])
    storage = schema.open_optuna_storage(address)
    optuna.create_study(study_name="s", storage=storage, directions=["maximize"])
    store = Store.create(address, "s")
    store.register({}, spec={}, provenance={})
    store.close()
    storage.remove_session()
    storage.engine.dispose()
    return address


Drive = Callable[..., Any]


@pytest.fixture
def drive(url: str, tmp_path: Path) -> Iterator[Drive]:
    """Starts drivers, each said to be on some host; they are ended with the test."""
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    started: list[subprocess.Popen[str]] = []

    @contextmanager
    def drive(host: str, *more: str, pause_s: float = 0.05) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, str(script), url, host, str(LENGTH_S), str(pause_s), *more]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            started.append(process)
            yield process
            process.kill()

    yield drive
    for process in started:
        process.kill()


def line(process: subprocess.Popen[str], beginning: str) -> str:
    """The next line of a driver that begins so, within a minute of others."""
    assert process.stdout is not None
    deadline = time.monotonic() + 60
    for text in process.stdout:
        if text.startswith(beginning):
            return text
        assert time.monotonic() < deadline, f"the driver goes on, and was to say {beginning}"
    raise AssertionError(process.stderr.read() if process.stderr else "")


@contextmanager
def opened(url: str) -> Iterator[Store]:
    store = Store.open(url, "s")
    yield store
    store.close()


@pytest.mark.slow
def test_a_second_driver_is_refused_while_the_first_one_lives(url: str, drive: Drive) -> None:
    with drive("here") as first:
        line(first, "kept")
        with drive("here") as second:
            said = line(second, "refused")
            assert f"being run by process {first.pid} on here, started 20" in said
            assert f"kill {first.pid}" in said
        with drive("there") as third:  # cannot see its process, but that it beats
            assert "sign of life" in line(third, "refused")
        line(first, "kept")


@pytest.mark.slow
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_who_was_killed_is_followed_at_once_here_and_after_a_lease_elsewhere(
    url: str, drive: Drive
) -> None:
    with drive("here") as first:
        line(first, "kept")
        first.kill()
        first.wait()
        with opened(url) as store, Lease(store, host="here") as lease:
            assert store.row().owner == lease.owner  # type: ignore[union-attr]
    with drive("here") as second:
        line(second, "kept")
        second.kill()
        second.wait()
        began_s = time.monotonic()
        with opened(url) as store, Lease(store, host="there", length_s=LENGTH_S):
            assert LENGTH_S <= time.monotonic() - began_s < 5 * LENGTH_S


@pytest.mark.slow
def test_who_was_stopped_for_longer_than_the_lease_loses_it_and_writes_nothing_more(
    url: str, drive: Drive
) -> None:
    with drive("here", "asks") as first:
        for _ in range(5):
            line(first, "kept")
        os.kill(first.pid, signal.SIGSTOP)
        with drive("there", "asks") as second:
            line(second, "kept")
            with opened(url) as store:
                before = [trial.trial_id for trial in store.trials()]
                known = store.finished(before[0], "search")
            os.kill(first.pid, signal.SIGCONT)
            said = line(first, "refused")
            assert "taken over by another run" in said
            assert first.wait() == 2
            for _ in range(3):
                line(second, "kept")
            os.kill(second.pid, signal.SIGSTOP)
            with opened(url) as store:
                assert store.finished(before[0], "search") == known
                counts = store.run_counts("search")
                found = {trial.trial_id for trial in store.trials()}
                runs = sum(counts.values())
                assert store.row().search_s == runs  # type: ignore[union-attr]
                assert {each.trial_id: each.runs for each in store.spent()} == {
                    trial_id: count for trial_id, count in counts.items() if trial_id in found
                }


def test_no_kind_of_writing_is_left_to_who_lost_the_study(url: str) -> None:
    storage = schema.open_optuna_storage(url)
    with opened(url) as store, opened(url) as other:
        with Lease(store, storage) as lease:
            optuna_study = optuna.load_study(study_name="s", storage=storage)
            trial = optuna_study.ask()
            trial_id = store.trial_id(0)
            assert other.claim("elsewhere:1:1", lease.owner)
            for write in (
                lambda: store.save_config(trial_id, AgentConfig(workflow="react", model="m")),
                lambda: store.finish(trial_id, values={"accuracy": 1.0}),
                lambda: optuna_study.tell(trial, [1.0]),
                lambda: trial.suggest_int("n", 1, 2),
                lambda: trial.set_user_attr("a", 1),
                lambda: optuna_study.enqueue_trial({"n": 1}),
                optuna_study.ask,
            ):
                with pytest.raises(StoreError, match="taken over by another run"):
                    write()
        assert other.row().owner == "elsewhere:1:1"  # type: ignore[union-attr]
        (found,) = other.trials()
        assert (found.state, found.config, found.values) == ("running", None, None)
    storage.remove_session()
    storage.engine.dispose()


@pytest.mark.slow
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_clock_that_jumps_by_days_changes_nothing(url: str, drive: Drive) -> None:
    with drive("here", "jump") as first:
        line(first, "kept")
        for jump in ((), ("jump",)):
            with drive("there", *jump) as second:
                assert "sign of life" in line(second, "refused")
        line(first, "kept")
        os.kill(first.pid, signal.SIGSTOP)
        with drive("there", "jump") as third:
            line(third, "kept")


@pytest.mark.slow
def test_a_database_that_is_away_does_not_end_the_beating(postgres: Any) -> None:
    url = postgres.make_database("away")
    storage = schema.open_optuna_storage(url)
    optuna.create_study(study_name="s", storage=storage, directions=["maximize"])
    store = Store.create(url, "s")
    store.register({}, spec={}, provenance={})
    with Lease(store, length_s=0.4):
        before = store.row().beat  # type: ignore[union-attr]
        postgres.kill()
        time.sleep(0.5)
        postgres.start()
        deadline = time.monotonic() + 10
        while store.row().beat <= before:  # type: ignore[union-attr]
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert store.row().owner is None  # type: ignore[union-attr]
    store.close()
    storage.remove_session()
    storage.engine.dispose()
