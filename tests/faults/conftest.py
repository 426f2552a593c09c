"""Studies as processes that may be killed, their servers, and what must hold of what they have kept whatever happens."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import pytest
import sqlalchemy as sa

from tuner.spec import LoadedStudy
from tuner.spec import load_study
from tuner.store import Store
from tuner.store.tables import example_runs
from tuner.store.tables import optuna_trials

ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = ROOT / "benchmarks" / "loopback.py"
TUNER = [sys.executable, "-c", "from tuner.cli import main; main()"]
ENVIRONMENT = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
MARK = "TUNER_FAULTS"
"""In the environment of every process that a driver starts, with the driver's own value."""

WITHIN_S = 600.0
"""On a machine that is busy with something else."""

FOR_EVER = 400
"""Trials of a study that is to run until a test has it end."""

SPLITS = ("search", "holdout", "edge")

SPACE = f"""\
format_version: 1
name: wide
workflows:
  cot: {{max_tokens: {list(range(64, 564))}}}
  self_consistency: {{samples: {{low: 1, high: 4}}}}
"""


def _load(place: str) -> ModuleType:
    loading = importlib.util.spec_from_file_location(place.replace("/", "_"), ROOT / place)
    assert loading is not None
    assert loading.loader is not None
    module = importlib.util.module_from_spec(loading)
    sys.modules[loading.name] = module  # its dataclasses look for it
    loading.loader.exec_module(module)
    return module


_tuner = _load("tests/tuner/conftest.py")
api_base, make_study, stand_in = _tuner.api_base, _tuner.make_study, _tuner.stand_in
serve_model, serve = _tuner.serve_model, _tuner.serve


def until(condition: Callable[[], Any], *, within_s: float = WITHIN_S) -> None:
    """Wait for it."""
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s, "it never came to that"
        time.sleep(0.02)


class Driver:
    """`tuner run` of a study in a process of its own, which may be killed and started again."""

    def __init__(self, study: LoadedStudy, *, environment: dict[str, str] | None = None) -> None:
        self.study = study
        self._log = study.path.parent / f"driver-{uuid.uuid4().hex[:8]}.log"
        self._environment = {
            **os.environ,
            **ENVIRONMENT,
            MARK: self._log.name,
            **(environment or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Driver":
        """Run the study, or go on with it."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*TUNER, "run", str(self.study.path)],
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=self._environment,
            )
        return self

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not come to its end."""
        return self._process is not None and self._process.poll() is None

    @property
    def said(self) -> str:
        """All that it has said so far, in all of its lives."""
        return self._log.read_text()

    def kill(self) -> None:
        """End it at once, by -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def ask_to_end(self) -> None:
        """SIGTERM."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Its exit status."""
        assert self._process is not None
        return self._process.wait(timeout=WITHIN_S)

    def require_end(self) -> None:
        """It comes to its end, all is well, and nothing that it started is left."""
        status = self.wait()
        assert status == 0, self.said
        self.require_alone()

    def finish(self) -> None:
        """Have a study that goes on for ever end with the trials that it has."""
        self.ask_to_end()
        # While it starts, it does not hear of signals yet: then the system ends it.
        assert self.wait() in (128 + signal.SIGTERM, -signal.SIGTERM), self.said
        text = self.study.path.read_text()
        self.study.path.write_text(text.replace(f"trials: {FOR_EVER}", "trials: 1"))
        self.start()
        self.require_end()

    def require_alone(self) -> None:
        """Nothing that it started is left."""
        until(lambda: not self.left(), within_s=60)

    def left(self) -> list[psutil.Process]:
        """Processes that it started, in any of its lives, and that live."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self._log.name and process.pid != self._running():
                    found.append(process)
        return found

    def _running(self) -> int | None:
        return self.pid if self.is_running else None

    def close(self) -> None:
        """End whatever is left of it."""
        if self.is_running:
            self.kill()
        for each in self.left():
            with suppress(psutil.Error):
                each.kill()


class Kept:
    """What a study's database holds, and has been seen to hold."""

    def __init__(self, study: LoadedStudy) -> None:
        self._study = study
        self._seen: dict[Any, Any] = {}
        self._engine = sa.create_engine(study.storage_url, pool_pre_ping=True)

    def close(self) -> None:
        """Let go of its connections."""
        self._engine.dispose()

    def count(self) -> int:
        """Answers that are kept; as many as were seen where the database is not there."""
        with suppress(sa.exc.SQLAlchemyError), self._engine.connect() as connection:
            query = sa.select(sa.func.count()).select_from(example_runs)
            return int(connection.execute(query).scalar_one())
        return len(self._seen)

    def remember(self) -> None:
        """See all that is kept by now: what was seen before is among it, unchanged."""
        rows = self._rows()
        assert self._seen.items() <= rows.items()
        self._seen = rows

    @property
    def seen(self) -> int:
        """Answers that were seen."""
        return len(self._seen)

    def _rows(self) -> dict[Any, Any]:
        columns = example_runs.c
        key = (columns.trial_id, columns.split, columns.example_id, columns.repeat)
        content = (columns.answer, columns.score, columns.error, columns.latency_s)
        tokens = (columns.tokens_in, columns.tokens_out, columns.window)
        with self._engine.connect() as connection:
            if not sa.inspect(connection).has_table(example_runs.name):
                return {}
            rows = connection.execute(sa.select(*key, *content, *tokens)).all()
        found = {tuple(row[:4]): tuple(row[4:]) for row in rows}
        assert len(found) == len(rows), "an answer is kept twice"
        return found

    def require_whole(self) -> None:
        """Nothing seen is lost or changed, nothing counts twice, every trial is told, and no failure was made up."""
        self.remember()
        with self._engine.connect() as connection:
            states = Counter(connection.scalars(sa.select(optuna_trials.c.state)))
        assert set(states) == {"COMPLETE"}
        store = Store.open(self._study.storage_url, self._study.spec.name)
        try:
            self._require_whole(store)
        finally:
            store.close()

    def _require_whole(self, store: Store) -> None:
        spent = {(each.trial_id, each.split): each for each in store.spent()}
        counted = 0
        trials = store.trials()
        assert [trial.number for trial in trials] == list(range(len(trials)))
        for trial in trials:
            for split in SPLITS:
                runs = store.runs(trial.trial_id, split)
                if split != "edge":
                    assert [run.error for run in runs] == [None] * len(runs)
                if not runs:
                    continue
                amounts = spent.pop((trial.trial_id, split))
                counted += amounts.runs
                assert amounts.runs == len(runs)
                tokens = [(run.tokens_in or 0) + (run.tokens_out or 0) for run in runs]
                assert amounts.amounts["tokens"].total == sum(tokens)
                latency_s = sum(run.latency_s for run in runs)
                assert amounts.amounts["latency_s"].total == pytest.approx(latency_s)
        assert not spent
        assert counted == self.seen


class Server:
    """A model's server at an address, which may be killed and started there again."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self.address, self._port = "", "0"
        self.start()

    def start(self) -> None:
        """Serve, at the port that it had."""
        command = [sys.executable, str(LOOPBACK), "--port", self._port, *self._arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.address = json.loads(self._process.stdout.readline())["api_base"]
        self._port = self.address.rpartition(":")[2].removesuffix("/v1")

    def restart(self, *arguments: str) -> None:
        """Serve with other arguments from now on, at the same address."""
        self._arguments = arguments
        self.start()

    def kill(self) -> None:
        """End it at once, by -9, where it is not ended yet."""
        if self._process.poll() is not None:
            return
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def close(self) -> None:
        """End it."""
        self.kill()


@pytest.fixture
def drive() -> Iterator[Callable[..., Driver]]:
    """Starts runs of studies; what is left of them ends with the test."""
    drivers: list[Driver] = []

    def start(study: LoadedStudy, **environment: str) -> Driver:
        drivers.append(Driver(study, environment=environment).start())
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.close()


@pytest.fixture
def keeps() -> Iterator[Callable[[LoadedStudy], Kept]]:
    """Watches what studies keep."""
    watches: list[Kept] = []

    def watch(study: LoadedStudy) -> Kept:
        watches.append(Kept(study))
        return watches[-1]

    yield watch
    for each in watches:
        each.close()


@pytest.fixture
def served() -> Iterator[Callable[..., Server]]:
    """Starts servers; they end with the test."""
    servers: list[Server] = []

    def start(*arguments: str) -> Server:
        servers.append(Server(*arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def make(make_study: Callable[..., LoadedStudy]) -> Callable[..., LoadedStudy]:
    """Writes a study whose model is at these addresses, at each of which one trial at a time is timed."""

    def make(
        *addresses: str, ray: str = "", storage: str = "", trials: int = FOR_EVER
    ) -> LoadedStudy:
        study = make_study(server="HERE", space=SPACE, trials=trials)
        ends = ", ".join(f'{{api_base: "{address}"}}' for address in addresses)
        text = study.path.read_text().replace('api_base: "HERE"', f"endpoints: [{ends}]")
        text = text.replace("[accuracy, tokens_total]", "[accuracy, latency_p50_s]")
        text += "racing: false\n"
        if ray:
            text += f"executor: {{ray: {ray}}}\n"
        if storage:
            text = text.replace("sqlite:///tuner.db", storage)
        study.path.write_text(text)
        return load_study(study.path)

    return make


@pytest.fixture
def load_conftest() -> Callable[[str], ModuleType]:
    """What other tests share, by its place."""
    return _load


@pytest.fixture
def wait() -> Callable[..., None]:
    """`until`, for tests that cannot import it from here."""
    return until


@pytest.fixture
def rng() -> np.random.Generator:
    """The same moments in every run of the tests."""
    return np.random.default_rng(7)
