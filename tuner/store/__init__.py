"""What a study keeps: every example as it finishes, every trial's config and values, and who runs the study.

The only module that reads or writes our tables. Writing is idempotent where a crash may repeat it: a finished
example is kept once, however often it is reported.
"""

import json
import time
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from tuner.errors import StoreError
from tuner.records import ExampleRun
from tuner.records import PassRecord
from tuner.records import Reading
from tuner.records import Reused
from tuner.records import TrialRecord
from tuner.store import schema
from tuner.store.codec import pack_trace
from tuner.store.codec import unpack_trace
from tuner.store.schema import shown
from tuner.store.spending import Spending
from tuner.store.spending import spending_of
from tuner.store.spending import spending_query
from tuner.store.tables import SCHEMA_VERSION
from tuner.store.tables import example_runs
from tuner.store.tables import optuna_studies
from tuner.store.tables import optuna_study_attributes
from tuner.store.tables import optuna_trials
from tuner.store.tables import passes
from tuner.store.tables import studies
from tuner.store.tables import trials
from workflows.config import AgentConfig

EDGE = "edge"
"""The split under which extra runs are kept, so that no count, value or resumption sees them."""

_STATES = {
    "WAITING": "waiting",
    "RUNNING": "running",
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
}


@dataclass(frozen=True, slots=True)
class StudyRow:
    """A study as it is kept."""

    fingerprint: Mapping[str, str]
    spec: Mapping[str, Any]
    provenance: Mapping[str, Any]
    owner: str | None
    owner_seen_at: float | None
    search_s: float
    """Time spent searching, over all runs."""


class Store:
    """One study's records in a database that Optuna's storage shares."""

    def __init__(self, engine: sa.Engine, study: str) -> None:
        self._engine = engine
        self._study_id = self._find(study)

    @classmethod
    def open(cls, url: str, study: str) -> "Store":
        """An existing study, to be read. Raises StoreError when there is none, or of another version."""
        file = sa.make_url(url).database
        if sa.make_url(url).get_backend_name() == "sqlite" and not _exists(file):
            raise StoreError(
                f"{shown(url)}: there is no such file yet", hint="run it first: tuner run STUDY"
            )
        engine = schema.make_engine(url)
        version = schema.stored_version(engine)
        schema.refuse_newer(engine, version)
        if version is None or version < SCHEMA_VERSION:
            raise StoreError(
                f"{shown(url)}: holds no study of this version of tuner",
                hint="tuner run STUDY makes it, or brings it up to date",
            )
        return cls(engine, study)

    @classmethod
    def create(cls, url: str, study: str) -> "Store":
        """A study that Optuna's storage already has, with our tables brought up to date."""
        engine = schema.make_engine(url)
        schema.migrate(engine)
        return cls(engine, study)

    def close(self) -> None:
        """Let go of the database's connections."""
        self._engine.dispose()

    def _find(self, study: str) -> int:
        with self._engine.connect() as connection:
            query = sa.select(optuna_studies.c.study_id).where(optuna_studies.c.study_name == study)
            found = connection.execute(query).scalar()
        if found is None:
            raise StoreError(
                f"{shown(self._engine.url)}: holds no study named {study!r}",
                hint="run it first: tuner run STUDY",
            )
        return int(found)

    # The study

    def row(self) -> StudyRow | None:
        """The study as it is kept, None before `register`."""
        with self._engine.connect() as connection:
            row = connection.execute(
                sa.select(studies).where(studies.c.study_id == self._study_id)
            ).first()
        if row is None:
            return None
        content = dict(row._mapping)
        content.pop("study_id")
        return StudyRow(**content)

    def require(self, fingerprint: Mapping[str, str]) -> StudyRow | None:
        """The study as it is kept; raises StoreError naming the parts of the fingerprint that differ from it."""
        row = self.row()
        known = {} if row is None else row.fingerprint
        changed = [part for part, value in fingerprint.items() if known.get(part, value) != value]
        if changed:
            raise StoreError(
                f"{shown(self._engine.url)}: holds this study with another {' and another '.join(changed)}; "
                "its results cannot be mixed with others",
                hint="give the study a new name or another storage, or undo the change",
            )
        return row

    def register(
        self,
        fingerprint: Mapping[str, str],
        *,
        spec: Mapping[str, Any],
        provenance: Mapping[str, Any],
    ) -> None:
        """Keep what the study is and where it runs.

        Parts of the fingerprint that were not known before are added, and so are models in the provenance. Raises
        StoreError naming the parts that are known and differ.
        """
        self._sweep()
        row = self.require(fingerprint)
        if row is None:
            self._insert_study(fingerprint, spec, provenance)
            return
        known = {**row.fingerprint, **fingerprint}
        merged = {**row.provenance, **provenance}
        if "models" in merged:  # each is known once its server has been started
            before, now = row.provenance.get("models", {}), provenance.get("models", {})
            merged["models"] = {**before, **now}
        with self._engine.begin() as connection:
            connection.execute(
                self._update_study(fingerprint=known, spec=dict(spec), provenance=merged)
            )

    def _insert_study(
        self,
        fingerprint: Mapping[str, str],
        spec: Mapping[str, Any],
        provenance: Mapping[str, Any],
    ) -> None:
        with self._engine.begin() as connection:
            connection.execute(
                sa.insert(studies).values(
                    study_id=self._study_id,
                    fingerprint=dict(fingerprint),
                    spec=dict(spec),
                    provenance=dict(provenance),
                    search_s=0.0,
                )
            )

    def _sweep(self) -> None:
        """Delete rows of studies that were deleted where foreign keys are not kept: on a bare SQLite connection.

        They would pass to the next study and trials that get their numbers. A study that has spent
        time searching has a trial, so one without is new, and the row is not its own.
        """
        all_trials = sa.select(optuna_trials.c.trial_id)
        lost = (studies.c.search_s > 0) & studies.c.study_id.not_in(
            sa.select(optuna_trials.c.study_id)
        )
        gone = studies.c.study_id.not_in(sa.select(optuna_studies.c.study_id))
        with self._engine.begin() as connection:
            for table in (example_runs, passes, trials):
                connection.execute(sa.delete(table).where(table.c.trial_id.not_in(all_trials)))
            connection.execute(sa.delete(studies).where(gone | lost))

    def _update_study(self, **values: Any) -> sa.Update:
        return sa.update(studies).where(studies.c.study_id == self._study_id).values(**values)

    def claim(self, owner: str, previous: str | None) -> bool:
        """Become the study's owner if it is still `previous`'s; whether that worked."""
        update = self._update_study(owner=owner, owner_seen_at=time.time())
        condition = studies.c.owner.is_(None) if previous is None else studies.c.owner == previous
        with self._engine.begin() as connection:
            return connection.execute(update.where(condition)).rowcount == 1

    def release(self, owner: str) -> None:
        """Stop being the owner."""
        with self._engine.begin() as connection:
            connection.execute(
                self._update_study(owner=None, owner_seen_at=None).where(studies.c.owner == owner)
            )

    # What Optuna's dashboard keeps with the study

    def attributes(self, beginning: str) -> dict[str, Any]:
        """Optuna's system attributes of the study whose keys begin so."""
        columns = optuna_study_attributes.c
        query = sa.select(columns.key, columns.value_json).where(
            columns.study_id == self._study_id, columns.key.startswith(beginning, autoescape=True)
        )
        with self._engine.connect() as connection:
            return {row.key: json.loads(row.value_json) for row in connection.execute(query)}

    def save_attributes(self, values: Mapping[str, Any]) -> None:
        """Set Optuna's system attributes of the study, all in one transaction: its own way takes one for each."""
        columns = optuna_study_attributes.c
        of_study = columns.study_id == self._study_id
        rows = {key: json.dumps(value) for key, value in values.items()}
        update = (
            sa.update(optuna_study_attributes)
            .where(of_study, columns.key == sa.bindparam("known"))
            .values(value_json=sa.bindparam("text"))
        )
        with self._engine.begin() as connection:
            known = set(connection.scalars(sa.select(columns.key).where(of_study)))
            changed = [{"known": key, "text": rows[key]} for key in rows if key in known]
            new = [
                {"study_id": self._study_id, "key": key, "value_json": rows[key]}
                for key in rows
                if key not in known
            ]
            if changed:
                connection.execute(update, changed)
            if new:
                connection.execute(sa.insert(optuna_study_attributes), new)

    # Trials

    def trial_id(self, number: int) -> int:
        """The database's id of the trial of that number."""
        query = sa.select(optuna_trials.c.trial_id).where(
            optuna_trials.c.study_id == self._study_id, optuna_trials.c.number == number
        )
        with self._engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def save_config(
        self,
        trial_id: int,
        config: AgentConfig,
        *,
        derived_from: int | None = None,
        reused_from: str | None = None,
    ) -> None:
        """Keep a trial's config before its first example runs, and whose runs it has where none are to be made."""
        values = {
            "config": config.model_dump(),
            "config_hash": config.hash(),
            "feasible": True,
            "derived_from": derived_from,
            "reused_from": reused_from,
        }
        with self._engine.begin() as connection:
            query = sa.select(trials.c.trial_id).where(trials.c.trial_id == trial_id)
            if connection.execute(query).first() is None:
                connection.execute(sa.insert(trials).values(trial_id=trial_id, **values))

    def finish(
        self,
        trial_id: int,
        *,
        values: Mapping[str, float] | None = None,
        feasible: bool = True,
        replay_of: int | None = None,
        failure: str | None = None,
        stopped: str | None = None,
    ) -> None:
        """Keep how a trial ended, before Optuna is told."""
        with self._engine.begin() as connection:
            connection.execute(
                sa.update(trials)
                .where(trials.c.trial_id == trial_id)
                .values(
                    objectives=None if values is None else dict(values),
                    feasible=feasible,
                    replay_of=replay_of,
                    failure=failure,
                    stopped=stopped,
                )
            )

    def trials(self) -> list[TrialRecord]:
        """Every trial of the study, in the order of their numbers."""
        query = (
            sa.select(optuna_trials, *(trials.c[name] for name in _TRIAL_COLUMNS))
            .join_from(
                optuna_trials, trials, trials.c.trial_id == optuna_trials.c.trial_id, isouter=True
            )
            .where(optuna_trials.c.study_id == self._study_id)
            .order_by(optuna_trials.c.number)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        sources = self._sources()
        return [
            TrialRecord(
                trial_id=row.trial_id,
                number=row.number,
                state=_STATES[row.state],  # type: ignore[arg-type]
                config=None if row.config is None else AgentConfig.model_construct(**row.config),
                values=row.objectives,
                feasible=row.feasible is not False,
                replay_of=row.replay_of,
                failure=row.failure,
                derived_from=row.derived_from,
                reused_from=row.reused_from,
                stopped=row.stopped,
                sources={"energy": sources[row.trial_id]} if row.trial_id in sources else {},
            )
            for row in rows
        ]

    def _sources(self) -> dict[int, str]:
        query = (
            sa.select(example_runs.c.trial_id, sa.func.min(example_runs.c.energy_source))
            .where(example_runs.c.trial_id.in_(self._trial_ids()))
            .group_by(example_runs.c.trial_id)
        )
        with self._engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def _trial_ids(self) -> sa.Select[Any]:
        return sa.select(optuna_trials.c.trial_id).where(optuna_trials.c.study_id == self._study_id)

    # Example runs

    def save_run(
        self, trial_id: int, split: str, run: ExampleRun, *, owner: str, search_s: float
    ) -> None:
        """Keep a finished example, and add to the time spent searching. Raises StoreError when `owner` no longer is."""
        with self._engine.begin() as connection:
            update = self._update_study(
                search_s=studies.c.search_s + search_s, owner_seen_at=time.time()
            )
            if connection.execute(update.where(studies.c.owner == owner)).rowcount == 0:
                raise StoreError(
                    f"{shown(self._engine.url)}: the study was taken over by another run, or deleted",
                    hint="tuner status shows who runs it now; what was finished is kept",
                )
            connection.execute(
                sa.insert(example_runs).values(trial_id=trial_id, split=split, **_columns_of(run))
            )

    def finished(self, trial_id: int, split: str) -> set[tuple[str, int]]:
        """(example, repeat) of the examples that need not run again."""
        query = sa.select(example_runs.c.example_id, example_runs.c.repeat).where(
            example_runs.c.trial_id == trial_id, example_runs.c.split == split
        )
        with self._engine.connect() as connection:
            return {(row.example_id, row.repeat) for row in connection.execute(query)}

    def runs(self, trial_id: int, split: str) -> tuple[ExampleRun, ...]:
        """The finished examples of a trial, spans and all, in the order in which they finished."""
        query = (
            sa.select(example_runs)
            .where(example_runs.c.trial_id == trial_id, example_runs.c.split == split)
            .order_by(example_runs.c.run_id)
        )
        with self._engine.connect() as connection:
            return tuple(_run_of(row._asdict()) for row in connection.execute(query))

    def extras(self, trial_id: int, split: str) -> tuple[ExampleRun, ...]:
        """The extra runs that kept the server full in a split's sittings: with them, what was in flight there is whole."""
        query = sa.select(example_runs.c.window).where(
            example_runs.c.trial_id == trial_id, example_runs.c.split == split
        )
        with self._engine.connect() as connection:
            windows = {row.window for row in connection.execute(query)}
        return tuple(run for run in self.runs(trial_id, EDGE) if run.window in windows)

    def asked_count(self, split: str) -> int:
        """How many questions were asked on a split, over all trials; what was derived or reused was not."""
        columns = example_runs.c
        query = sa.select(sa.func.count()).where(
            columns.split == split,
            columns.trial_id.in_(self._trial_ids()),
            columns.reused_s < columns.latency_s,
        )
        with self._engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def failed_counts(self, split: str) -> dict[int, int]:
        """How many questions of a split failed, by trial; trials without any are left out."""
        columns = example_runs.c
        query = (
            sa.select(columns.trial_id, sa.func.count())
            .where(columns.split == split, columns.error.is_not(None))
            .where(columns.trial_id.in_(self._trial_ids()))
            .group_by(columns.trial_id)
        )
        with self._engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def next_window(self, trial_id: int, split: str) -> int:
        """The number of a trial's next sitting: one more than any that left a run behind."""
        query = sa.select(sa.func.max(example_runs.c.window)).where(
            example_runs.c.trial_id == trial_id, example_runs.c.split == split
        )
        with self._engine.connect() as connection:
            last = connection.execute(query).scalar()
        return 0 if last is None else int(last) + 1

    def save_pass(self, trial_id: int, split: str, record: PassRecord) -> None:
        """Keep what held for a sitting as a whole."""
        content = asdict(record)
        content.pop("window")
        row = {"trial_id": trial_id, "split": split, "window": record.window, "content": content}
        with self._engine.begin() as connection:
            connection.execute(sa.insert(passes).values(**row))

    def passes(self, trial_id: int, split: str) -> tuple[PassRecord, ...]:
        """The sittings of a trial that came to their end, in order; one that was interrupted left none."""
        query = (
            sa.select(passes.c.window, passes.c.content)
            .where(passes.c.trial_id == trial_id, passes.c.split == split)
            .order_by(passes.c.window)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return tuple(
            PassRecord(
                window=row.window,
                **{**row.content, "energy": Reading(**row.content["energy"])},
            )
            for row in rows
        )

    def fields(self, split: str, names: Sequence[str]) -> dict[int, npt.NDArray[np.float64]]:
        """Numeric fields of all example runs by trial: arrays of (runs, names), ordered by example and repeat.

        What was not measured is NaN. Reads columns only, so that whole studies are summarised in
        less than a second.
        """
        query = (
            sa.select(example_runs.c.trial_id, *(example_runs.c[name] for name in names))
            .where(example_runs.c.split == split, example_runs.c.trial_id.in_(self._trial_ids()))
            .order_by(example_runs.c.trial_id, example_runs.c.example_id, example_runs.c.repeat)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        if not rows:
            return {}
        table = np.array([tuple(row) for row in rows], dtype=np.float64)
        trial_ids, starts = np.unique(table[:, 0], return_index=True)
        parts = np.split(table[:, 1:], starts[1:])
        return {int(trial_id): part for trial_id, part in zip(trial_ids, parts, strict=True)}

    def asked(self, split: str) -> dict[int, list[tuple[str, int]]]:
        """The (example, repeat) of every row of `fields`, by trial and in the same order."""
        columns = example_runs.c
        query = (
            sa.select(columns.trial_id, columns.example_id, columns.repeat)
            .where(columns.split == split, columns.trial_id.in_(self._trial_ids()))
            .order_by(columns.trial_id, columns.example_id, columns.repeat)
        )
        found: dict[int, list[tuple[str, int]]] = {}
        with self._engine.connect() as connection:
            for row in connection.execute(query):
                found.setdefault(row.trial_id, []).append((row.example_id, row.repeat))
        return found

    def spent(self, *, after: int = 0) -> list[Spending]:
        """What the runs of every trial took, by trial and split, those of `EDGE` apart; sums are made by the database.

        With `after`, of the runs that were kept after that one (`Spending.last`).
        """
        with self._engine.connect() as connection:
            rows = connection.execute(spending_query(self._trial_ids(), after))
            return [spending_of(row._asdict()) for row in rows]


_TRIAL_COLUMNS = (
    "config",
    "objectives",
    "feasible",
    "replay_of",
    "failure",
    "derived_from",
    "reused_from",
    "stopped",
)


def _columns_of(run: ExampleRun) -> dict[str, Any]:
    plain = (
        "example_id repeat answer score error latency_s tokens_in tokens_out tokens_cached cost_usd "
        "llm_calls tool_calls llm_s tool_only_s started_s oracle window"
    )
    return {
        **{name: getattr(run, name) for name in plain.split()},
        "energy_j": run.energy.gross_j,
        "energy_source": run.energy.source,
        "energy_scope": run.energy.scope,
        "energy_problem": run.energy.problem,
        "energy_s": run.energy.seconds,
        "energy_idle_j": run.energy.idle_j,
        "energy_stderr_j": run.energy.stderr_j,
        "energy_temperature_c": run.energy.temperature_c,
        "energy_warning": run.energy.warning,
        "reused_s": run.reused.latency_s,
        "reused_j": run.reused.energy_j,
        "reused_tokens": run.reused.tokens,
        "reused_usd": run.reused.cost_usd,
        "trace": pack_trace(run.spans, run.checkpoints, run.samples),
    }


def _run_of(row: Mapping[str, Any]) -> ExampleRun:
    values = dict(row)
    values["edge"] = values.pop("split") == EDGE
    for name in ("run_id", "trial_id"):
        values.pop(name)
    reading = Reading(
        gross_j=values.pop("energy_j"),
        source=values.pop("energy_source"),
        scope=values.pop("energy_scope"),
        problem=values.pop("energy_problem"),
        seconds=values.pop("energy_s"),
        idle_j=values.pop("energy_idle_j"),
        stderr_j=values.pop("energy_stderr_j"),
        temperature_c=values.pop("energy_temperature_c"),
        warning=values.pop("energy_warning"),
    )
    reused = Reused(
        latency_s=values.pop("reused_s"),
        energy_j=values.pop("reused_j"),
        tokens=values.pop("reused_tokens"),
        cost_usd=values.pop("reused_usd"),
    )
    spans, checkpoints, samples = unpack_trace(values.pop("trace"))
    return ExampleRun(
        **values,
        energy=reading,
        reused=reused,
        spans=spans,
        checkpoints=checkpoints,
        samples=samples,
    )


def _exists(file: str | None) -> bool:
    from pathlib import Path

    return file is not None and Path(file).is_file()
