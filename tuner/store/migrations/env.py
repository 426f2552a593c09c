"""Alembic's entry point: runs our migrations on the connection that `tuner.store.schema` hands over."""

from alembic import context

from tuner.store.tables import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
