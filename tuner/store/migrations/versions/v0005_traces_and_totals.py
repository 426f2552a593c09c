"""Traces apart from figures, running totals of what runs took, figures packed by trial, a lease's beat, and what was derived."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

COLUMNS = ("score", "latency_s", "energy_j", "tokens_in", "tokens_out", "cost_usd", "repeat")
PARTS: Mapping[str, type[Any]] = {
    "total": sa.Float,
    "known": sa.Integer,
    "spent": sa.Float,
    "unknown": sa.Integer,
    "dearest": sa.Float,
}
NEW = "(r.latency_s <= 0 OR r.reused_s < r.latency_s)"
SECONDS = "(CASE WHEN r.energy_s > 0 THEN r.energy_s ELSE r.latency_s END)"
OLD_SHARE = "(CASE WHEN r.latency_s > 0 THEN r.reused_s / r.latency_s ELSE 0.0 END)"
AMOUNTS = {
    "seconds": (SECONDS, f"{SECONDS} * {OLD_SHARE}"),
    "latency_s": ("r.latency_s", "r.reused_s"),
    "joules": ("r.energy_j", "r.reused_j"),
    "tokens": ("(r.tokens_in + r.tokens_out)", "r.reused_tokens"),
    "usd": ("r.cost_usd", "r.reused_usd"),
}


def upgrade() -> None:
    """Make the tables, and fill them from the runs that there are; all in SQL but for the packing."""
    op.add_column(
        "tuner_studies", sa.Column("beat", sa.Integer, nullable=False, server_default="0")
    )
    op.add_column("tuner_trials", sa.Column("is_derived_from", sa.Boolean))
    op.create_table(
        "tuner_traces",
        sa.Column(
            "run_id",
            sa.Integer,
            sa.ForeignKey("tuner_example_runs.run_id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    op.execute(
        "INSERT INTO tuner_traces (run_id, content) SELECT run_id, trace FROM tuner_example_runs"
    )
    op.drop_column("tuner_example_runs", "trace")
    _make_totals()
    _make_columns()
    if op.get_bind().dialect.name == "postgresql":
        # Else every row keeps the room of its trace.
        op.execute("CLUSTER tuner_example_runs USING tuner_example_runs_pkey")


def _make_totals() -> None:
    op.create_table(
        "tuner_totals",
        *_key(),
        sa.Column("runs", sa.Integer, nullable=False),
        sa.Column("last_run", sa.Integer, nullable=False),
        sa.Column("last_window", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("asked", sa.Integer, nullable=False),
        sa.Column("energy_source", sa.String(40), nullable=False),
        *(
            sa.Column(f"{name}_{part}", kind, nullable=False)
            for name in AMOUNTS
            for part, kind in PARTS.items()
        ),
    )
    sums = {
        "runs": "count(*)",
        "last_run": "max(r.run_id)",
        "last_window": 'max(r."window")',
        "failed": "sum(CASE WHEN r.error IS NULL THEN 0 ELSE 1 END)",
        "asked": "sum(CASE WHEN r.reused_s < r.latency_s THEN 1 ELSE 0 END)",
        "energy_source": "min(r.energy_source)",
    }
    for name, (value, reused) in AMOUNTS.items():
        sums[f"{name}_total"] = f"coalesce(sum({value}), 0)"
        sums[f"{name}_known"] = f"count({value})"
        sums[f"{name}_spent"] = (
            f"coalesce(sum(CASE WHEN {NEW} THEN {value} - {reused} ELSE 0 END), 0)"
        )
        sums[f"{name}_unknown"] = f"sum(CASE WHEN {NEW} AND {value} IS NULL THEN 1 ELSE 0 END)"
        sums[f"{name}_dearest"] = f"coalesce(max({value}), 0)"
    op.execute(
        f"INSERT INTO tuner_totals (trial_id, split, {', '.join(sums)}) "  # noqa: S608 (constants)
        f"SELECT r.trial_id, r.split, {', '.join(sums.values())} "
        "FROM tuner_example_runs AS r GROUP BY r.trial_id, r.split"
    )


def _make_columns() -> None:
    op.create_table(
        "tuner_columns",
        *_key(),
        sa.Column("runs", sa.Integer, nullable=False),
        *(sa.Column(name, sa.LargeBinary) for name in COLUMNS),
    )
    connection = op.get_bind()
    ended = connection.execute(
        sa.text(
            "SELECT t.trial_id FROM trials AS t JOIN tuner_totals AS s ON s.trial_id = t.trial_id "
            "WHERE s.split = 'search' AND t.state IN ('COMPLETE', 'FAIL', 'PRUNED')"
        )
    )
    names = ", ".join(COLUMNS)
    marks = ", ".join(f":{name}" for name in COLUMNS)
    insert = sa.text(
        f"INSERT INTO tuner_columns (trial_id, split, runs, {names}) "  # noqa: S608 (constants)
        f"VALUES (:trial_id, 'search', :runs, {marks})"
    )
    select = sa.text(
        f"SELECT example_id, {names} FROM tuner_example_runs "  # noqa: S608 (constants)
        "WHERE trial_id = :trial_id AND split = 'search'"
    )
    for (trial_id,) in ended.all():
        rows = sorted(
            connection.execute(select, {"trial_id": trial_id}).all(),
            key=lambda row: (row.example_id, row.repeat),
        )
        table = np.array([tuple(row)[1:] for row in rows], dtype="<f8")
        packed = {
            name: None if np.isnan(column).all() else column.tobytes()
            for name, column in zip(COLUMNS, table.T, strict=True)
        }
        if not table[:, COLUMNS.index("repeat")].any():
            packed["repeat"] = None
        connection.execute(insert, {"trial_id": trial_id, "runs": len(rows), **packed})


def _key() -> tuple[sa.Column[Any], sa.Column[Any]]:
    return (
        sa.Column(
            "trial_id",
            sa.Integer,
            sa.ForeignKey("trials.trial_id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("split", sa.String(16), primary_key=True),
    )
