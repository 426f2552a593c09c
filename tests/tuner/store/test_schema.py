import json
import zlib

import numpy as np
import optuna
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from tuner.errors import StoreError
from tuner.records import NOT_REUSED
from tuner.store import Store
from tuner.store import schema
from tuner.store import tables
from tuner.store.patience import DatabaseAwayError
from workflows.config import AgentConfig


@pytest.fixture
def migrated(url):
    """An engine on a database with Optuna's tables and ours."""
    schema.open_optuna_storage(url).engine.dispose()
    engine = schema.make_engine(url)
    schema.migrate(engine)
    yield engine
    engine.dispose()


def set_version(engine, version):
    with engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE tuner_alembic_version SET version_num = :version"), {"version": version}
        )


@pytest.fixture
def older(tmp_path, request):
    """Makes the tables of an older tuner, with a trial that has runs; gives an engine on them."""

    def make(url, revision, *runs):
        schema.open_optuna_storage(url).engine.dispose()
        engine = schema.make_engine(url)
        request.addfinalizer(engine.dispose)
        with engine.begin() as connection:
            for table in reversed(sa.inspect(connection).get_table_names()):
                if table.startswith("tuner_"):  # of the template
                    connection.execute(sa.text(f"DROP TABLE {table} CASCADE"))
            script = migrations()
            script.attributes["connection"] = connection
            command.upgrade(script, revision)
            insert(connection, "studies", study_id=7, study_name="s")
            insert(connection, "trials", trial_id=9, number=0, study_id=7, state="COMPLETE")
            config = {"workflow": "cot", "model": "m", "params": {}}
            trial = {"config": json.dumps(config), "config_hash": "x", "feasible": True}
            insert(connection, "tuner_trials", trial_id=9, **trial)
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT setval('trials_trial_id_seq', 9)"))
            for run in runs:
                insert(connection, "tuner_example_runs", trial_id=9, **{**OLD_RUN, **run})
        return engine

    return make


def migrations():
    config = Config()
    config.set_main_option(
        "script_location", str(schema.Path(schema.__file__).parent / "migrations")
    )
    config.set_main_option("path_separator", "os")
    return config


def insert(connection, table, **values):
    names = ", ".join(f'"{name}"' for name in values)
    marks = ", ".join(f":{name}" for name in values)
    connection.execute(sa.text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), values)


def test_migrations_make_the_tables_that_the_store_uses(migrated):
    ours = set(tables.metadata.tables)
    with migrated.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": tables.VERSION_TABLE,
                "compare_server_default": True,
                "include_object": lambda thing, name, kind, *_: kind != "table" or name in ours,
            },
        )
        # Foreign keys to Optuna's tables are the migrations' alone: those tables are not ours to describe.
        differences = [
            difference
            for difference in compare_metadata(context, tables.metadata)
            if difference[0] != "remove_fk"
        ]
    assert differences == []


def test_optunas_tables_have_the_columns_that_the_store_reads(migrated):
    inspector = sa.inspect(migrated)
    for table in (tables.optuna_studies, tables.optuna_trials):
        found = {column["name"] for column in inspector.get_columns(table.name)}
        assert found >= {column.name for column in table.columns}


@pytest.mark.parametrize("table", sorted(tables.metadata.tables))
def test_our_rows_hang_on_optunas(migrated, table):
    (key,) = sa.inspect(migrated).get_foreign_keys(table)
    above = "tuner_example_runs" if table == "tuner_traces" else ("studies", "trials")
    assert key["referred_table"] in above
    assert key["options"] == {"ondelete": "CASCADE"}


def test_the_schema_version_is_the_newest_revision(migrated):
    assert ScriptDirectory.from_config(migrations()).get_heads() == [tables.SCHEMA_VERSION]
    assert schema.stored_version(migrated) == tables.SCHEMA_VERSION


def test_what_an_older_tuner_kept_is_still_there(url, older):
    """A run of schema 0001, before agents could be told when they are right."""
    older(url, "0001", {})
    store = Store.create(url, "s")
    (run,) = store.runs(9, "search")
    assert (run.answer, run.score, run.oracle) == ("Oak", 1.0, False)
    assert (run.spans[0].output, run.spans[0].speculative) == (" Oak", False)
    assert run.reused == NOT_REUSED
    assert (run.window, run.samples, run.energy.idle_j, run.energy.net_j) == (0, (), None, None)
    store.close()


def test_totals_and_columns_of_older_runs_are_those_that_keeping_them_now_would_make(url, older):
    """Runs of schema 0004: known and unknown, failed, derived, partly reused, repeated, extra and held out."""
    runs = [
        {"example_id": "b", "energy_j": 5.0, "energy_s": 1.5, "tokens_in": 10, "tokens_out": 3},
        {"example_id": "B", "reused_s": 2.0, "energy_j": 4.0, "reused_j": 4.0},
        {"example_id": "a", "reused_s": 0.5, "cost_usd": 0.5, "reused_usd": 0.125, "window": 3},
        {"example_id": "a", "repeat": 1, "error": "no route", "score": 0.0, "latency_s": 0.0},
        {"example_id": "a", "split": "holdout", "energy_source": "rapl"},
        {"example_id": "a", "split": "edge", "energy_j": 2.0, "window": 1},
    ]
    older(url, "0004", *runs)
    storage = schema.open_optuna_storage(url)
    store = Store.create(url, "s")
    store.register({}, spec={}, provenance={})
    assert store.claim("me", None)
    optuna_study = optuna.load_study(study_name="s", storage=storage)
    optuna_study.ask()
    again = store.trial_id(1)
    store.save_config(again, AgentConfig(workflow="cot", model="m"))
    for split in ("search", "holdout", "edge"):
        for run in store.runs(9, split):
            store.save_run(again, split, run, owner="me", search_s=0.0)
    store.finish(again, values={"accuracy": 0.5})
    found = {row["trial_id"]: {} for row in rows_of(url, "tuner_totals")}
    for row in rows_of(url, "tuner_totals"):
        kept = {name: row[name] for name in row if name not in ("trial_id", "last_run", "split")}
        found[row["trial_id"]][row["split"]] = kept
    assert found[9] == found[again]
    packed = [dict(row, trial_id=0) for row in rows_of(url, "tuner_columns")]
    assert packed[0] == packed[1]
    names = ["score", "latency_s", "energy_j", "tokens_in", "cost_usd", "repeat"]
    fields = store.fields("search", names)
    np.testing.assert_array_equal(fields[9], fields[again])
    assert store.asked("search")[9] == [("B", 0), ("a", 0), ("a", 1), ("b", 0)]
    assert fields[9][:, 0].tolist() == [1.0, 1.0, 0.0, 1.0]
    assert fields[9][:, 5].tolist() == [0.0, 0.0, 1.0, 0.0]
    assert store.trials()[0].sources == {"energy": "none"}
    assert store.next_window(9, "search") == 4
    store.close()
    storage.remove_session()
    storage.engine.dispose()


def rows_of(url, table):
    engine = schema.make_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(sa.text(f"SELECT * FROM {table} ORDER BY trial_id")).all()
    engine.dispose()
    return [row._asdict() for row in rows]


def test_a_migration_that_is_cut_off_is_undone(url, older, monkeypatch):
    engine = older(url, "0004", {})
    monkeypatch.setattr(np, "array", None)  # fails when it packs, after most is done
    with pytest.raises(TypeError):
        Store.create(url, "s")
    monkeypatch.undo()
    assert schema.stored_version(engine) == "0004"
    assert "tuner_totals" not in sa.inspect(engine).get_table_names()
    store = Store.create(url, "s")
    assert [run.answer for run in store.runs(9, "search")] == ["Oak"]
    store.close()


OLD_TRACE = zlib.compress(
    json.dumps(
        {
            "spans": [
                {
                    "kind": "llm",
                    "name": "m",
                    "start_s": 0.0,
                    "end_s": 2.0,
                    "input": "Where?",
                    "output": " Oak",
                }
            ],
            "checkpoints": [],
        }
    ).encode()
)


OLD_RUN = {
    "split": "search",
    "example_id": "e",
    "repeat": 0,
    "answer": "Oak",
    "score": 1.0,
    "latency_s": 2.0,
    "energy_source": "none",
    "energy_scope": "nothing",
    "llm_calls": 1,
    "tool_calls": 0,
    "llm_s": 2.0,
    "tool_only_s": 0.0,
    "started_s": 0.0,
    "trace": OLD_TRACE,
}


def test_migrating_again_changes_nothing(migrated):
    before = sa.inspect(migrated).get_table_names()
    schema.migrate(migrated)
    assert sa.inspect(migrated).get_table_names() == before


def test_tables_of_a_newer_tuner_are_refused_for_reading_and_writing(url, migrated):
    set_version(migrated, "9999")
    for open_ in (Store.open, Store.create):
        with pytest.raises(StoreError, match=r"newer tuner \(schema 9999, this one knows 0005\)"):
            open_(url, "s")


def test_tables_of_an_older_tuner_are_read_after_a_run_only(url, migrated):
    set_version(migrated, "0000")
    with pytest.raises(StoreError, match="holds no study of this version") as caught:
        Store.open(url, "s")
    assert "tuner run" in caught.value.hint


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_database_that_only_optuna_has_used_holds_no_study(url):
    storage = schema.open_optuna_storage(url)
    optuna.create_study(study_name="s", storage=storage)
    storage.engine.dispose()
    with pytest.raises(StoreError, match="holds no study of this version"):
        Store.open(url, "s")


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_missing_file_says_what_to_run(url, tmp_path):
    with pytest.raises(StoreError, match="there is no such file yet") as caught:
        Store.open(url, "s")
    assert "tuner run" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_file_that_is_no_database_is_refused(url, tmp_path):
    (tmp_path / "tuner.db").write_text("not a database, but longer than its header would be" * 9)
    for open_ in (lambda: Store.open(url, "s"), lambda: schema.open_optuna_storage(url)):
        with pytest.raises(StoreError, match="file is not a database"):
            open_()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_connections_wait_keep_foreign_keys_and_survive_a_crash(migrated):
    with migrated.connect() as connection:
        pragmas = ("foreign_keys", "journal_mode", "synchronous", "busy_timeout")
        found = {p: connection.execute(sa.text(f"PRAGMA {p}")).scalar() for p in pragmas}
    assert found == {
        "foreign_keys": 1,
        "journal_mode": "wal",
        "synchronous": 1,
        "busy_timeout": 1000 * schema.BUSY_TIMEOUT_S,
    }


def test_a_password_is_not_shown():
    assert schema.shown("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"


@pytest.mark.slow
def test_a_process_that_stops_in_mid_transaction_holds_nobody_up_for_ever(postgres, monkeypatch):
    monkeypatch.setattr(schema, "STUCK_S", 1.0)
    url = postgres.make_database("stuck")
    stopped, other = schema.make_engine(url), schema.make_engine(url)
    with other.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE held (n integer)")
        connection.exec_driver_sql("INSERT INTO held VALUES (1)")
    holder = stopped.connect()
    holder.exec_driver_sql("UPDATE held SET n = 2")
    with other.begin() as connection:
        connection.exec_driver_sql("UPDATE held SET n = 3")
    with pytest.raises(DatabaseAwayError):
        holder.exec_driver_sql("UPDATE held SET n = 4")
    holder.invalidate()
    holder.close()
    with other.connect() as connection:
        assert connection.exec_driver_sql("SELECT n FROM held").scalar() == 3
    stopped.dispose()
    other.dispose()
