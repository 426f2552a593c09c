"""Databases that are killed, cut off in the middle of a commit, or full: real servers, a real wire, a real disk."""

import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from tuner.errors import StoreError
from tuner.records import ExampleRun
from tuner.records import PassRecord
from tuner.records import Reading
from tuner.store import Store
from tuner.store import schema
from tuner.store.patience import Patience
from workflows.config import AgentConfig

CONFIG = AgentConfig(workflow="react", model="m")
COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"
"""What PostgreSQL says once a transaction is kept."""


def run_of(example: str, answer: str = "Elm") -> ExampleRun:
    reading = Reading(5.0, "rapl", "package")
    return ExampleRun(
        example, 0, answer, 1.0, None, 2.0, reading, 10, 3, 0, None, 1, 0, 1.0, 0.0, 0.0, (), ()
    )


@contextlib.contextmanager
def opened(url: str) -> Iterator[tuple[optuna.Study, Store]]:
    """A study that this process owns."""
    storage = schema.open_optuna_storage(url)
    study = optuna.create_study(
        study_name="s", storage=storage, directions=["maximize"], load_if_exists=True
    )
    store = Store.create(url, "s")
    store.register({}, spec={}, provenance={})
    row = store.row()
    assert store.claim("me", None if row is None else row.owner)
    storage.belongs_to(store.study_id, "me")
    try:
        yield study, store
    finally:
        store.close()
        storage.remove_session()
        storage.engine.dispose()


@pytest.mark.slow
def test_a_database_that_is_killed_over_and_over_loses_and_repeats_nothing(postgres: Any) -> None:
    """kill -9 of all its processes, 8 times while trials are asked, kept and told."""
    url = postgres.make_database("killed")
    with opened(url) as (study, store):
        is_over, failures = threading.Event(), []

        def work() -> None:
            try:
                number = 0
                while not is_over.is_set():
                    trial = study.ask()
                    trial.suggest_int("n", 0, 1000)
                    trial_id = store.trial_id(trial.number)
                    store.save_config(trial_id, CONFIG)
                    for _ in range(5):
                        number += 1
                        run = run_of(str(number))
                        store.save_run(trial_id, "search", run, owner="me", search_s=1.0)
                        kept.append((trial_id, str(number)))
                    store.finish(trial_id, values={"accuracy": 1.0})
                    study.tell(trial, 1.0)
            except BaseException as error:
                failures.append(error)
                raise

        kept: list[tuple[int, str]] = []
        worker = threading.Thread(target=work)
        worker.start()
        rng = random.Random(3)
        for _ in range(8):
            before = len(kept)
            time.sleep(rng.uniform(0.02, 0.4))
            postgres.kill()
            time.sleep(rng.uniform(0.0, 0.3))
            postgres.start()
            deadline = time.monotonic() + 30
            while len(kept) <= before and worker.is_alive():
                assert time.monotonic() < deadline
                time.sleep(0.01)
        is_over.set()
        worker.join()
        assert not [(repr(each), repr(each.__cause__)) for each in failures]
        records = store.trials()
        assert [trial.number for trial in records] == list(range(len(records)))
        assert {trial.state for trial in records} == {"complete"}
        found = [(t.trial_id, e) for t in records for e, _ in store.finished(t.trial_id, "search")]
        assert sorted(found) == sorted(kept)
        assert store.row().search_s == len(kept)  # type: ignore[union-attr]
        assert sum(each.runs for each in store.spent()) == len(kept)
        assert all(len(trial.params) == 1 for trial in study.trials)


class Wire:
    """A connection to a server that may be cut when the server has committed, before the client hears of it."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cuts = 0
        self._is_armed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_next_commit(self) -> None:
        self._is_armed = True

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for source, sink, is_answer in ((client, server, False), (server, client, True)):
                    threading.Thread(
                        target=self._pass_on, args=(source, sink, is_answer), daemon=True
                    ).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                if is_answer and self._is_armed and COMMITTED in content:
                    self._is_armed = False
                    self.cuts += 1
                    break
                sink.sendall(content)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
                each.close()


@pytest.fixture
def wire(postgres: Any) -> Iterator[Wire]:
    wire = Wire(postgres.port)
    yield wire
    wire.close()


@pytest.mark.slow
def test_what_was_committed_though_the_answer_was_lost_is_not_done_again(
    postgres: Any, wire: Wire
) -> None:
    url = postgres.make_database("cut").replace(str(postgres.port), str(wire.port))
    with opened(url) as (study, store):
        calls = 0

        def cut(work: Callable[[], Any]) -> Any:
            nonlocal calls
            calls += 1
            wire.cut_next_commit()
            result = work()
            assert wire.cuts == calls
            return result

        for number in range(2):
            trial = cut(study.ask)
            assert trial.number == number
            cut(lambda trial=trial: trial.suggest_int("n", 0, 9))
            trial_id = store.trial_id(number)
            cut(lambda trial_id=trial_id: store.save_config(trial_id, CONFIG))
            for example in ("a", "b"):
                cut(
                    lambda trial_id=trial_id, example=example: store.save_run(
                        trial_id, "search", run_of(example), owner="me", search_s=1.0
                    )
                )
            sitting = PassRecord(0, Reading(5.0, "rapl", "package"), None, {}, {}, {})
            cut(
                lambda trial_id=trial_id, sitting=sitting: store.save_pass(
                    trial_id, "search", sitting
                )
            )
            cut(lambda trial_id=trial_id: store.finish(trial_id, values={"accuracy": 1.0}))
            cut(lambda trial=trial: trial.set_user_attr("a", 1))
            cut(lambda trial=trial: study.tell(trial, 1.0))
        cut(lambda: store.register({"space": "1"}, spec={}, provenance={}))
        assert cut(lambda: store.claim("you", "me"))
        study._storage._backend.belongs_to(store.study_id, "you")  # type: ignore[attr-defined]
        cut(lambda: study.enqueue_trial({"n": 3}))
        assert cut(study.ask).suggest_int("n", 0, 9) == 3
        states = [trial.state for trial in study.get_trials()]
        assert states == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.RUNNING]
        assert [each.runs for each in store.spent()] == [2, 2]
        assert store.row().search_s == 4.0  # type: ignore[union-attr]
        assert len(store.passes(1, "search")) == 1


@pytest.mark.slow
def test_patience_has_an_end_that_says_what_to_do(postgres: Any) -> None:
    url = postgres.make_database("gone")
    with opened(url) as (_, store):
        store._patience = Patience(limit_s=0.5)
        postgres.kill()
        try:
            with pytest.raises(StoreError, match=r"waited for \d+ s") as caught:
                store.trials()
        finally:
            postgres.start()
        assert "run the same command again" in caught.value.hint
        assert store.trials() == []


def test_a_database_that_cannot_be_opened_is_not_waited_for(postgres: Any) -> None:
    began_s = time.monotonic()
    for url in (
        postgres.url("no_such_database"),
        postgres.url("postgres", user="nobody_there"),
        postgres.url().replace(str(postgres.port), "9"),
    ):
        for open_ in (
            lambda url=url: Store.open(url, "s"),
            lambda url=url: schema.open_optuna_storage(url),
        ):
            with pytest.raises(StoreError) as caught:
                open_()
            assert "does its server run" in caught.value.hint
    assert time.monotonic() - began_s < 20


def test_a_password_comes_from_the_environment(
    postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.execute("CREATE ROLE guarded LOGIN SUPERUSER PASSWORD 'open sesame'")
    postgres.make_database("secret")
    url = postgres.url("secret", user="guarded")
    with pytest.raises(StoreError, match="password"):
        schema.open_optuna_storage(url)
    monkeypatch.setenv("PGPASSWORD", "open sesame")
    with opened(url) as (_, store):
        assert store.trials() == []
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        for table in ("tuner_studies", "studies"):
            rows = connection.execute(sa.text(f"SELECT * FROM {table}")).all()
            assert "sesame" not in str(rows)
    engine.dispose()


# Full disks


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of 12 MB."""
    folder = Path(tempfile.mkdtemp(prefix="tuner-full-"))
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        folder.rmdir()
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
    shutil.rmtree(folder)


def fill(url: str) -> int:
    """How many runs were kept before the disk was full; what was kept stays readable."""
    with opened(url) as (study, store):
        trial_id = store.trial_id(study.ask().number)
        store.save_config(trial_id, CONFIG)
        rng = random.Random(0)

        def keep(number: int) -> None:
            answer = "".join(map(chr, rng.choices(range(33, 127), k=50_000)))
            run = run_of(str(number), answer)
            store.save_run(trial_id, "search", run, owner="me", search_s=1.0)

        kept = 0
        with pytest.raises(StoreError, match="disk is full") as caught:  # noqa: PT012
            for kept in range(1000):
                keep(kept)
        assert "make room there, then run the same command again" in caught.value.hint
        assert len(store.finished(trial_id, "search")) == kept
        assert len(store.runs(trial_id, "search")) == kept
        return kept


def go_on(url: str, kept: int) -> None:
    """The next run is kept as if nothing had been."""
    with opened(url) as (_, store):
        (trial,) = store.trials()
        store.save_run(trial.trial_id, "search", run_of("more"), owner="me", search_s=1.0)
        assert [each.runs for each in store.spent()] == [kept + 1]
        assert store.row().search_s == kept + 1  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_full_disk_is_named_and_loses_nothing_on_sqlite(small_disk: Path) -> None:
    url = f"sqlite:///{small_disk}/tuner.db"
    kept = fill(url)
    assert kept > 50
    subprocess.run(["mount", "-o", "remount,size=24m", str(small_disk)], check=True)
    go_on(url, kept)


@pytest.mark.slow
def test_a_full_disk_is_named_and_loses_nothing_on_postgresql(
    small_disk: Path, postgres: Any
) -> None:
    shutil.chown(small_disk, postgres._as.get("user"), postgres._as.get("group"))
    postgres.execute(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
    postgres.execute('CREATE DATABASE "full" TEMPLATE template0 TABLESPACE small')
    try:
        kept = fill(postgres.url("full"))
        subprocess.run(["mount", "-o", "remount,size=24m", str(small_disk)], check=True)
        go_on(postgres.url("full"), kept)
    finally:
        postgres.execute('DROP DATABASE "full" WITH (FORCE)')
        postgres.execute("DROP TABLESPACE small")
