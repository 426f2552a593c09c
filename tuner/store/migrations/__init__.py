"""Alembic's migrations of our tables; run by `tuner.store.schema.migrate`."""
