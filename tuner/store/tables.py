"""Our tables, which stand beside Optuna's in the same database and hang on its studies and trials."""

import sqlalchemy as sa

SCHEMA_VERSION = "0005"
"""Revision of the newest migration; a test holds the two together."""

VERSION_TABLE = "tuner_alembic_version"
"""Optuna keeps its own migrations under the name `alembic_version`."""

metadata = sa.MetaData()

optuna_studies = sa.Table(
    "studies",
    sa.MetaData(),
    sa.Column("study_id", sa.Integer, primary_key=True),
    sa.Column("study_name", sa.String(512)),
)

optuna_trials = sa.Table(
    "trials",
    sa.MetaData(),
    sa.Column("trial_id", sa.Integer, primary_key=True),
    sa.Column("study_id", sa.Integer),
    sa.Column("number", sa.Integer),
    sa.Column("state", sa.String(8)),
)

optuna_trial_params = sa.Table(
    "trial_params",
    sa.MetaData(),
    sa.Column("trial_id", sa.Integer),
)

optuna_trial_attributes = sa.Table(
    "trial_system_attributes",
    sa.MetaData(),
    sa.Column("trial_id", sa.Integer),
    sa.Column("key", sa.String(512)),
    sa.Column("value_json", sa.Text),
)

optuna_study_attributes = sa.Table(
    "study_system_attributes",
    sa.MetaData(),
    sa.Column("study_system_attribute_id", sa.Integer, primary_key=True),
    sa.Column("study_id", sa.Integer),
    sa.Column("key", sa.String(512)),
    sa.Column("value_json", sa.Text),
)

studies = sa.Table(
    "tuner_studies",
    metadata,
    sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("fingerprint", sa.JSON, nullable=False),
    sa.Column("spec", sa.JSON, nullable=False),
    sa.Column("provenance", sa.JSON, nullable=False),
    sa.Column("owner", sa.String(200)),
    sa.Column("owner_seen_at", sa.Float),
    sa.Column("search_s", sa.Float, nullable=False),
    sa.Column("beat", sa.Integer, nullable=False, server_default="0"),
)

trials = sa.Table(
    "tuner_trials",
    metadata,
    sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("config", sa.JSON, nullable=False),
    sa.Column("config_hash", sa.String(16), nullable=False, index=True),
    sa.Column("objectives", sa.JSON),
    sa.Column("feasible", sa.Boolean, nullable=False),
    sa.Column("replay_of", sa.Integer),
    sa.Column("failure", sa.Text),
    sa.Column("derived_from", sa.Integer),
    sa.Column("reused_from", sa.Text),
    sa.Column("stopped", sa.Text),
    sa.Column("is_derived_from", sa.Boolean),  # all that its runs say of smaller budgets is kept
)

example_runs = sa.Table(
    "tuner_example_runs",
    metadata,
    sa.Column("run_id", sa.Integer, primary_key=True),
    sa.Column("trial_id", sa.Integer, nullable=False),
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
    sa.Column("oracle", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("window", sa.Integer, nullable=False, server_default="0"),
    sa.Column("energy_s", sa.Float, nullable=False, server_default="0"),
    sa.Column("energy_idle_j", sa.Float),
    sa.Column("energy_stderr_j", sa.Float),
    sa.Column("energy_temperature_c", sa.Float),
    sa.Column("energy_warning", sa.Text),
    sa.Column("reused_s", sa.Float, nullable=False, server_default="0"),
    sa.Column("reused_j", sa.Float, nullable=False, server_default="0"),
    sa.Column("reused_tokens", sa.Integer, nullable=False, server_default="0"),
    sa.Column("reused_usd", sa.Float, nullable=False, server_default="0"),
    sa.UniqueConstraint("trial_id", "split", "example_id", "repeat", name="tuner_one_run_each"),
)

traces = sa.Table(
    "tuner_traces",
    metadata,
    sa.Column("run_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
)
"""What is long of a run, apart from the figures that whole studies are read for."""

AMOUNTS = ("seconds", "latency_s", "joules", "tokens", "usd")
"""What runs take, as it is summed up."""

totals = sa.Table(
    "tuner_totals",
    metadata,
    sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("split", sa.String(16), primary_key=True),
    sa.Column("runs", sa.Integer, nullable=False),
    sa.Column("last_run", sa.Integer, nullable=False),
    sa.Column("last_window", sa.Integer, nullable=False),
    sa.Column("failed", sa.Integer, nullable=False),
    sa.Column("asked", sa.Integer, nullable=False),
    sa.Column("energy_source", sa.String(40), nullable=False),
    *(
        sa.Column(f"{name}_{part}", kind, nullable=False)
        for name in AMOUNTS
        for part, kind in (
            ("total", sa.Float),
            ("known", sa.Integer),
            ("spent", sa.Float),
            ("unknown", sa.Integer),
            ("dearest", sa.Float),
        )
    ),
)
"""What the runs of a trial on a split come to, kept up in the transaction that keeps a run."""

COLUMNS = ("score", "latency_s", "energy_j", "tokens_in", "tokens_out", "cost_usd", "repeat")
"""Figures of runs that are packed for a whole trial."""

columns = sa.Table(
    "tuner_columns",
    metadata,
    sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("split", sa.String(16), primary_key=True),
    sa.Column("runs", sa.Integer, nullable=False),
    *(sa.Column(name, sa.LargeBinary) for name in COLUMNS),
)
"""The same figures as in the rows of a trial's runs, side by side: written once it has ended, valid while it has so many runs."""

passes = sa.Table(
    "tuner_passes",
    metadata,
    sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("split", sa.String(16), primary_key=True),
    sa.Column("window", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("content", sa.JSON, nullable=False),
)

OWNER = (
    sa.select(studies.c.owner)
    .where(studies.c.study_id == sa.bindparam("study_id"))
    .with_for_update(read=True)
)
"""Who owns a study, which nobody may change until the transaction ends."""
