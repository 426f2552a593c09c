"""The service's tables, which stand beside those of its studies in the same database.

They are made whole, and a number says which: docs/decisions/0033 has why no migrations lead there yet.
"""

import sqlalchemy as sa

from tuner.errors import StoreError
from tuner.store.patience import shown

SERVICE_SCHEMA = 1
"""Goes up with whatever changes a table; a database of another one is refused."""

metadata = sa.MetaData()

schema = sa.Table(
    "tuner_service_schema",
    metadata,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
)

users = sa.Table(
    "tuner_service_users",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("token_sha256", sa.String(64), nullable=False),
    sa.Column("priority", sa.Float, nullable=False),
    sa.Column("added_s", sa.Float, nullable=False),
)

submissions = sa.Table(
    "tuner_service_submissions",
    metadata,
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("user", sa.String(64), nullable=False),
    sa.Column("priority", sa.Float, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("digest", sa.String(16), nullable=False),
    sa.Column("study", sa.String(400), nullable=False),
    sa.Column("fingerprint", sa.JSON, nullable=False),
    sa.Column("serves", sa.Boolean, nullable=False),
    sa.Column("submitted_s", sa.Float, nullable=False),
    sa.Column("changed_s", sa.Float, nullable=False),
)

verifications = sa.Table(
    "tuner_service_verifications",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study", sa.String(200), nullable=False, index=True),
    sa.Column("user", sa.String(64), nullable=False),
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("file", sa.String(400), nullable=False),
    sa.Column("questions", sa.Integer),
    sa.Column("every_s", sa.Float),
    sa.Column("next_s", sa.Float),
)

verified = sa.Table(
    "tuner_service_verified",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("verification", sa.Integer, nullable=False, index=True),
    sa.Column("started_s", sa.Float, nullable=False),
    sa.Column("took_s", sa.Float, nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("content", sa.JSON, nullable=False),
)


def make_tables(engine: sa.Engine) -> None:
    """Make what is not there yet. Raises StoreError for tables of another version, and for a database that is out of reach."""
    try:
        metadata.create_all(engine)
        with engine.begin() as connection:
            version = connection.execute(sa.select(schema.c.version)).scalar()
            if version is None:
                connection.execute(sa.insert(schema).values(version=SERVICE_SCHEMA))
    except sa.exc.SQLAlchemyError as error:
        raise StoreError(
            f"{shown(engine.url)}: {error.__cause__ or error}",
            hint="is it a database, does its server run, and may you write to it? `storage:` in the service's file names it",
        ) from None
    if version not in (None, SERVICE_SCHEMA):
        raise StoreError(
            f"{shown(engine.url)}: its service is of schema {version}, and this tuner knows {SERVICE_SCHEMA}",
            hint="use the tuner that wrote it, or name another storage in the service's file",
        )
