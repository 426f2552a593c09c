"""Studies, trials and example runs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the three tables, hanging on Optuna's so that deleting a study there deletes ours."""
    op.create_table(
        "tuner_studies",
        sa.Column(
            "study_id",
            sa.Integer,
            sa.ForeignKey("studies.study_id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("fingerprint", sa.JSON, nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("provenance", sa.JSON, nullable=False),
        sa.Column("owner", sa.String(200)),
        sa.Column("owner_seen_at", sa.Float),
        sa.Column("search_s", sa.Float, nullable=False),
    )
    op.create_table(
        "tuner_trials",
        sa.Column(
            "trial_id",
            sa.Integer,
            sa.ForeignKey("trials.trial_id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("config_hash", sa.String(16), nullable=False, index=True),
        sa.Column("objectives", sa.JSON),
        sa.Column("feasible", sa.Boolean, nullable=False),
        sa.Column("replay_of", sa.Integer),
        sa.Column("failure", sa.Text),
    )
    op.create_table(
        "tuner_example_runs",
        sa.Column("run_id", sa.Integer, primary_key=True),
        sa.Column(
            "trial_id",
            sa.Integer,
            sa.ForeignKey("trials.trial_id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("split", sa.String(16), nullable=False),
        sa.Column("example_id", sa.String(200), nullable=False),
        sa.Column("repeat", sa.Integer, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("score", sa.Float, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("latency_s", sa.Float, nullable=False),
        sa.Column("energy_j", sa.Float),
        sa.Column("energy_source", sa.String(40), nullable=False),
        sa.Column("energy_scope", sa.Text, nullable=False),
        sa.Column("energy_problem", sa.Text),
        sa.Column("tokens_in", sa.Integer),
        sa.Column("tokens_out", sa.Integer),
        sa.Column("tokens_cached", sa.Integer),
        sa.Column("cost_usd", sa.Float),
        sa.Column("llm_calls", sa.Integer, nullable=False),
        sa.Column("tool_calls", sa.Integer, nullable=False),
        sa.Column("llm_s", sa.Float, nullable=False),
        sa.Column("tool_only_s", sa.Float, nullable=False),
        sa.Column("started_s", sa.Float, nullable=False),
        sa.Column("trace", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("trial_id", "split", "example_id", "repeat", name="tuner_one_run_each"),
    )
