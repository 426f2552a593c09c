"""What is known of energy besides the joules, and what holds for a sitting as a whole."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns to example runs, and the table of passes."""
    for column in (
        sa.Column("window", sa.Integer, nullable=False, server_default="0"),
        sa.Column("energy_s", sa.Float, nullable=False, server_default="0"),
        sa.Column("energy_idle_j", sa.Float),
        sa.Column("energy_stderr_j", sa.Float),
        sa.Column("energy_temperature_c", sa.Float),
        sa.Column("energy_warning", sa.Text),
    ):
        op.add_column("tuner_example_runs", column)
    op.create_table(
        "tuner_passes",
        sa.Column(
            "trial_id",
            sa.Integer,
            sa.ForeignKey("trials.trial_id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("split", sa.String(16), primary_key=True),
        sa.Column("window", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("content", sa.JSON, nullable=False),
    )
