"""Whether an agent was told how right its answers were; until then none could be."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the mark to example runs."""
    op.add_column(
        "tuner_example_runs",
        sa.Column("oracle", sa.Boolean, nullable=False, server_default=sa.false()),
    )
