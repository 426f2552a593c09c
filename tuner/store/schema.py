"""Opening a database: engine settings, Optuna's storage beside ours, and migrations of our tables."""

import time
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import sqlalchemy as sa

from tuner.errors import StoreError
from tuner.store.patience import shown
from tuner.store.patience import translate_errors
from tuner.store.tables import SCHEMA_VERSION
from tuner.store.tables import VERSION_TABLE

if TYPE_CHECKING:
    from tuner.store.own_trials import OwnersStorage

BUSY_TIMEOUT_S = 60

STUCK_S = 60.0
"""How long PostgreSQL keeps a transaction whose process says nothing more: one that was stopped, or whose machine is gone,
would hold its locks for ever, and with them the study."""
"""How long a SQLite connection waits for another one's transaction, before `patience` counts."""

MIGRATION_LOCK = 0x74756E6572
"""Of PostgreSQL's advisory locks, the one of whoever migrates."""

MADE_WITHIN_S = 5.0
LOOKS = 10
"""How long a run waits for another that makes the tables, and how often it looks meanwhile."""

_MADE_BY_ANOTHER = ("already exists", "UNIQUE constraint failed", "duplicate key", "no such table")
"""What databases say of tables, and rows in them, that another run makes at the same time."""


def make_engine(url: str) -> sa.Engine:
    """An engine whose SQLite connections wait for each other, keep foreign keys and survive a crash."""
    engine = sa.create_engine(url, **engine_arguments(url))
    tune_sqlite(engine)
    translate_errors(engine)
    return engine


def engine_arguments(url: str) -> dict[str, Any]:
    """Arguments of `create_engine` for this kind of database."""
    if sa.make_url(url).get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": BUSY_TIMEOUT_S}}
    arguments: dict[str, Any] = {"pool_pre_ping": True}
    if sa.make_url(url).get_driver_name().startswith("psycopg"):
        milliseconds = round(1000 * STUCK_S)
        setting = f"-c idle_in_transaction_session_timeout={milliseconds}"
        arguments["connect_args"] = {"options": setting}
    return arguments


def tune_sqlite(engine: sa.Engine) -> None:
    """Write-ahead logging (readers and the writer do not block each other) and foreign keys, on every connection."""
    if engine.dialect.name != "sqlite":
        return

    def set_pragmas(connection: Any, _record: Any) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    sa.event.listen(engine, "connect", set_pragmas)
    engine.dispose()  # connections that were pooled before the listener came


def open_optuna_storage(url: str) -> "OwnersStorage":
    """Optuna's storage in this database. Raises StoreError for one that a newer Optuna wrote."""
    try:
        storage = _make_optuna_storage(url)
    except RuntimeError as error:
        raise StoreError(
            f"{shown(url)}: {error}", hint="upgrade Optuna, or name another storage in the study"
        ) from None
    except sa.exc.SQLAlchemyError as error:
        raise StoreError(
            f"{shown(url)}: {error.__cause__ or error}",
            hint="is it a database, does its server run, and may you write to it? `storage:` in the study names it",
        ) from None
    tune_sqlite(storage.engine)
    return storage


def _make_optuna_storage(url: str) -> "OwnersStorage":
    """Optuna looks for its tables and makes those that lack: of runs that do so at once, the later ones look again."""
    from tuner.store.own_trials import OwnersStorage

    for _ in range(LOOKS):
        try:
            return OwnersStorage(url, engine_kwargs=engine_arguments(url))
        except sa.exc.SQLAlchemyError as error:
            said = str(error)
            if not any(mark in said for mark in _MADE_BY_ANOTHER):
                raise
            time.sleep(MADE_WITHIN_S / LOOKS)
    return OwnersStorage(url, engine_kwargs=engine_arguments(url))


def stored_version(engine: sa.Engine) -> str | None:
    """The schema version of our tables, None where there are none. Raises StoreError for a database that cannot be read."""
    try:
        if not sa.inspect(engine).has_table(VERSION_TABLE):
            return None
        with engine.connect() as connection:
            version: str | None = connection.execute(
                sa.text(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608 (a constant)
            ).scalar()
            return version
    except sa.exc.SQLAlchemyError as error:
        raise StoreError(
            f"{shown(engine.url)}: {error.__cause__ or error}",
            hint="is it a database, does its server run, and may you read it? `storage:` in the study names it",
        ) from None


def refuse_newer(engine: sa.Engine, version: str | None) -> None:
    """Raise StoreError for tables that a newer tuner wrote."""
    if version is not None and version > SCHEMA_VERSION:
        raise StoreError(
            f"{shown(engine.url)}: was written by a newer tuner "
            f"(schema {version}, this one knows {SCHEMA_VERSION})",
            hint="upgrade tuner, or name another storage in the study",
        )


def migrate(engine: sa.Engine) -> None:
    """Bring our tables to SCHEMA_VERSION. Raises StoreError when they are newer."""
    version = stored_version(engine)
    refuse_newer(engine, version)
    if version == SCHEMA_VERSION:
        return
    from alembic import command  # 0.3 s of import, for a new or an old database only
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            # The driver begins none for DDL: a migration that is killed would be half done.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
