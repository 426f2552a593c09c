import json
import sqlite3
import zlib

import optuna
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from tuner.errors import StoreError
from tuner.records import NOT_REUSED
from tuner.store import Store
from tuner.store import schema
from tuner.store import tables


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/tuner.db"


@pytest.fixture
def migrated(url):
    """An engine on a database with Optuna's tables and ours."""
    schema.open_optuna_storage(url).engine.dispose()
    engine = schema.make_engine(url)
    schema.migrate(engine)
    yield engine
    engine.dispose()


def set_version(url, version):
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE tuner_alembic_version SET version_num = ?", (version,))
    connection.close()


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
    assert key["referred_table"] in ("studies", "trials")
    assert key["options"] == {"ondelete": "CASCADE"}


def test_the_schema_version_is_the_newest_revision(migrated):
    config = Config()
    config.set_main_option(
        "script_location", str(schema.Path(schema.__file__).parent / "migrations")
    )
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [tables.SCHEMA_VERSION]
    assert schema.stored_version(migrated) == tables.SCHEMA_VERSION


def test_what_an_older_tuner_kept_is_still_there(url, migrated):
    """A run of schema 0001, before agents could be told when they are right."""
    with migrated.begin() as connection:
        since = [f"energy_{name}" for name in SINCE_0003] + [
            f"reused_{name}" for name in SINCE_0004
        ]
        for column in ("oracle", "window", *since):
            connection.execute(sa.text(f'ALTER TABLE tuner_example_runs DROP COLUMN "{column}"'))
        for column in ("derived_from", "reused_from", "stopped"):
            connection.execute(sa.text(f"ALTER TABLE tuner_trials DROP COLUMN {column}"))
        connection.execute(sa.text("DROP TABLE tuner_passes"))
        for row in (
            "studies (study_id, study_name) VALUES (7, 's')",
            "trials (trial_id, number, study_id, state) VALUES (9, 0, 7, 'COMPLETE')",
            "tuner_trials (trial_id, config, config_hash, feasible) "
            'VALUES (9, \'{"workflow": "cot", "model": "m", "params": {}}\', \'x\', 1)',
        ):
            connection.execute(sa.text(f"INSERT INTO {row}"))
        values = {
            "trial_id": 9,
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
        named = ", ".join(values)
        marks = ", ".join(f":{name}" for name in values)
        connection.execute(
            sa.text(f"INSERT INTO tuner_example_runs ({named}) VALUES ({marks})"), values
        )
    set_version(url, "0001")
    (run,) = Store.create(url, "s").runs(9, "search")
    assert (run.answer, run.score, run.oracle) == ("Oak", 1.0, False)
    assert (run.spans[0].output, run.spans[0].speculative) == (" Oak", False)
    assert run.reused == NOT_REUSED
    assert (run.window, run.samples, run.energy.idle_j, run.energy.net_j) == (0, (), None, None)


SINCE_0003 = ("s", "idle_j", "stderr_j", "temperature_c", "warning")
SINCE_0004 = ("s", "j", "tokens", "usd")

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


def test_migrating_again_changes_nothing(migrated):
    before = sa.inspect(migrated).get_table_names()
    schema.migrate(migrated)
    assert sa.inspect(migrated).get_table_names() == before


def test_tables_of_a_newer_tuner_are_refused_for_reading_and_writing(url, migrated):
    set_version(url, "9999")
    for open_ in (Store.open, Store.create):
        with pytest.raises(StoreError, match=r"newer tuner \(schema 9999, this one knows 0004\)"):
            open_(url, "s")


def test_tables_of_an_older_tuner_are_read_after_a_run_only(url, migrated):
    set_version(url, "0000")
    with pytest.raises(StoreError, match="holds no study of this version") as caught:
        Store.open(url, "s")
    assert "tuner run" in caught.value.hint


def test_a_database_that_only_optuna_has_used_holds_no_study(url):
    storage = schema.open_optuna_storage(url)
    optuna.create_study(study_name="s", storage=storage)
    storage.engine.dispose()
    with pytest.raises(StoreError, match="holds no study of this version"):
        Store.open(url, "s")


def test_a_missing_file_says_what_to_run(url, tmp_path):
    with pytest.raises(StoreError, match="there is no such file yet") as caught:
        Store.open(url, "s")
    assert "tuner run" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused(url, tmp_path):
    (tmp_path / "tuner.db").write_text("not a database, but longer than its header would be" * 9)
    for open_ in (lambda: Store.open(url, "s"), lambda: schema.open_optuna_storage(url)):
        with pytest.raises(StoreError, match="file is not a database"):
            open_()


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
