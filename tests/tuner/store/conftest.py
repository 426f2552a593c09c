"""Databases of both kinds, each with Optuna's tables and ours."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa

from tuner.store import Store
from tuner.store import schema

TEMPLATE = "ready"


@pytest.fixture(scope="session")
def template(postgres: Any) -> str:
    """A PostgreSQL database that others are copied from, since making tables takes longer than copying them."""
    url = postgres.make_database(TEMPLATE)
    schema.open_optuna_storage(url).engine.dispose()
    engine = schema.make_engine(url)
    schema.migrate(engine)
    engine.dispose()
    return TEMPLATE


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database's address, once of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/tuner.db"
        return
    template = request.getfixturevalue("template")
    server = request.getfixturevalue("postgres")
    name = tmp_path.name[-50:]
    yield server.make_database(name, template)
    server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture
def optuna_study(url: str) -> Iterator[optuna.Study]:
    """A study as Optuna has it."""
    storage = schema.open_optuna_storage(url)
    yield optuna.create_study(study_name="s", storage=storage, directions=["maximize", "minimize"])
    storage.remove_session()
    storage.engine.dispose()


@pytest.fixture
def store(url: str, optuna_study: optuna.Study) -> Iterator[Store]:
    """A study that this process owns."""
    store = Store.create(url, "s")
    store.register({"space": "1"}, spec={"name": "s"}, provenance={})
    assert store.claim("me", None)
    yield store
    store.close()


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    """Connections of one's own to the database."""
    engine = schema.make_engine(url)
    yield engine
    engine.dispose()
