"""Trials that were derived, reused or ended early, and what of a run was paid for by an earlier one."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns to trials and example runs."""
    for column in (
        sa.Column("derived_from", sa.Integer),
        sa.Column("reused_from", sa.Text),
        sa.Column("stopped", sa.Text),
    ):
        op.add_column("tuner_trials", column)
    for column in (
        sa.Column("reused_s", sa.Float, nullable=False, server_default="0"),
        sa.Column("reused_j", sa.Float, nullable=False, server_default="0"),
        sa.Column("reused_tokens", sa.Integer, nullable=False, server_default="0"),
        sa.Column("reused_usd", sa.Float, nullable=False, server_default="0"),
    ):
        op.add_column("tuner_example_runs", column)
