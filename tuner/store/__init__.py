"""What a study keeps: every example as it finishes, every trial's config and values, and who runs the study.

The only module that reads or writes our tables. Writing is idempotent where a crash may repeat it: a finished
example is kept once, however often it is reported.
"""

import json
import time
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from typing import Any
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from tuner.errors import StoreError
from tuner.records import ExampleRun
from tuner.records import PassRecord
from tuner.records import Reading
from tuner.records import TrialRecord
from tuner.store import schema
from tuner.store.packed import pack
from tuner.store.packed import stack
from tuner.store.packed import unpack
from tuner.store.patience import Patience
from tuner.store.patience import shown
from tuner.store.rows import EDGE
from tuner.store.rows import row_of
from tuner.store.rows import run_of
from tuner.store.rows import storable
from tuner.store.rows import trace_of
from tuner.store.spending import Spending
from tuner.store.spending import add_to_totals
from tuner.store.spending import spending_of
from tuner.store.spending import spending_query
from tuner.store.tables import COLUMNS
from tuner.store.tables import OWNER
from tuner.store.tables import SCHEMA_VERSION
from tuner.store.tables import columns
from tuner.store.tables import example_runs
from tuner.store.tables import optuna_studies
from tuner.store.tables import optuna_study_attributes
from tuner.store.tables import optuna_trial_attributes
from tuner.store.tables import optuna_trial_params
from tuner.store.tables import optuna_trials
from tuner.store.tables import passes
from tuner.store.tables import studies
from tuner.store.tables import totals
from tuner.store.tables import traces
from tuner.store.tables import trials
from workflows.config import AgentConfig

__all__ = ["EDGE", "Store", "StudyRow"]

T = TypeVar("T")

MOST_LISTED = 500
"""Ids in one query at most."""

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
    beat: int
    """Goes up while its owner lives."""


class Store:
    """One study's records in a database that Optuna's storage shares.

    What is asked of it once it was opened waits for a database that is away for a while (`patience`).
    """

    def __init__(self, engine: sa.Engine, study: str) -> None:
        self._engine = engine
        self._patience = Patience()
        self._owner: str | None = None
        self._records: dict[int, TrialRecord] = {}
        self._open: set[int] = set()
        self._latest = 0
        self.study_id = self._find(study)

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

    # Transactions

    def _read(
        self, query: sa.Select[Any], given: Mapping[str, Any] | None = None
    ) -> Sequence[sa.Row[Any]]:
        """All rows of a query."""

        def read(_: bool) -> Sequence[sa.Row[Any]]:
            with self._engine.connect() as connection:
                return connection.execute(query, given).all()

        return self._patience.call(read)

    def _write(self, work: Callable[[sa.Connection, bool], T], *, fenced: bool = False) -> T:
        """One transaction, done again where it was cut off: `work` is told so, and looks whether it was done all the same.

        With `fenced`, it is undone unless this process still owns the study.
        """

        def write(again: bool) -> T:
            with self._engine.begin() as connection:
                result = work(connection, again)
                if fenced:
                    # After the writing, so that the lock on it is held until the end.
                    found = connection.execute(OWNER, {"study_id": self.study_id}).scalar()
                    if found is None or found != self._owner:
                        raise self._taken_over()
                return result

        return self._patience.call(write)

    def _taken_over(self) -> StoreError:
        return StoreError(
            f"{shown(self._engine.url)}: the study was taken over by another run, or deleted",
            hint="tuner status shows who runs it now; what was finished is kept",
        )

    # The study

    def row(self) -> StudyRow | None:
        """The study as it is kept, None before `register`."""
        rows = self._read(sa.select(studies).where(studies.c.study_id == self.study_id))
        if not rows:
            return None
        content = dict(rows[0]._mapping)
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
            try:
                self._insert_study(fingerprint, spec, provenance)
            except sa.exc.IntegrityError:
                if self.row() is None:
                    raise
                # Another run did so just now, perhaps of another study by that name.
                self.register(fingerprint, spec=spec, provenance=provenance)
            return
        known = {**row.fingerprint, **fingerprint}
        merged = {**row.provenance, **provenance}
        if "models" in merged:  # each is known once its server has been started
            before, now = row.provenance.get("models", {}), provenance.get("models", {})
            merged["models"] = {**before, **now}
        update = self._update_study(fingerprint=known, spec=dict(spec), provenance=merged)
        self._write(lambda connection, _: connection.execute(update))

    def _insert_study(
        self,
        fingerprint: Mapping[str, str],
        spec: Mapping[str, Any],
        provenance: Mapping[str, Any],
    ) -> None:
        row = {
            "study_id": self.study_id,
            "fingerprint": dict(fingerprint),
            "spec": dict(spec),
            "provenance": dict(provenance),
            "search_s": 0.0,
        }

        def insert(connection: sa.Connection, again: bool) -> None:
            of_study = studies.c.study_id == self.study_id
            if not (again and _is_there(connection, studies, of_study)):
                connection.execute(sa.insert(studies).values(**row))

        self._write(insert)

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
        # Every run is counted in the totals, of which there are a hundred times fewer.
        orphans = sa.select(totals.c.trial_id).where(totals.c.trial_id.not_in(all_trials))

        def sweep(connection: sa.Connection, _: bool) -> None:
            connection.execute(sa.delete(example_runs).where(example_runs.c.trial_id.in_(orphans)))
            for table in (totals, columns, passes, trials):
                connection.execute(sa.delete(table).where(table.c.trial_id.not_in(all_trials)))
            connection.execute(sa.delete(studies).where(gone | lost))

        self._write(sweep)

    def _update_study(self, **values: Any) -> sa.Update:
        return sa.update(studies).where(studies.c.study_id == self.study_id).values(**values)

    # Its owner

    def claim(self, owner: str, previous: str | None, *, beat: int | None = None) -> bool:
        """Become the study's owner if it is still `previous`'s, and has not beaten since `beat`; whether that worked.

        From then on, this store writes as that owner, and is refused once there is another.
        """
        update = self._update_study(owner=owner, owner_seen_at=time.time(), beat=studies.c.beat + 1)
        condition = studies.c.owner.is_(None) if previous is None else studies.c.owner == previous
        if beat is not None:
            condition &= studies.c.beat == beat

        def claim(connection: sa.Connection, again: bool) -> bool:
            wanted = condition | (studies.c.owner == owner) if again else condition
            return connection.execute(update.where(wanted)).rowcount == 1

        is_owner = self._write(claim)
        if is_owner:
            self._owner = owner
        return is_owner

    def beat(self, owner: str) -> bool:
        """Say that the owner lives; whether it still is the owner. Does not wait for a database that is away."""
        update = self._update_study(owner_seen_at=time.time(), beat=studies.c.beat + 1)
        with self._engine.begin() as connection:
            return connection.execute(update.where(studies.c.owner == owner)).rowcount == 1

    def release(self, owner: str) -> None:
        """Stop being the owner. Does not wait for a database that is away."""
        update = self._update_study(owner=None, owner_seen_at=None)
        with self._engine.begin() as connection:
            connection.execute(update.where(studies.c.owner == owner))

    # What Optuna's dashboard keeps with the study

    def attributes(self, beginning: str) -> dict[str, Any]:
        """Optuna's system attributes of the study whose keys begin so."""
        of = optuna_study_attributes.c
        query = sa.select(of.key, of.value_json).where(
            of.study_id == self.study_id, of.key.startswith(beginning, autoescape=True)
        )
        return {row.key: json.loads(row.value_json) for row in self._read(query)}

    def save_attributes(self, values: Mapping[str, Any]) -> None:
        """Set Optuna's system attributes of the study, all in one transaction: its own way takes one for each."""
        of = optuna_study_attributes.c
        of_study = of.study_id == self.study_id
        rows = {key: json.dumps(value) for key, value in values.items()}
        update = (
            sa.update(optuna_study_attributes)
            .where(of_study, of.key == sa.bindparam("known"))
            .values(value_json=sa.bindparam("text"))
        )

        def save(connection: sa.Connection, _: bool) -> None:
            known = set(connection.scalars(sa.select(of.key).where(of_study)))
            changed = [{"known": key, "text": rows[key]} for key in rows if key in known]
            new = [
                {"study_id": self.study_id, "key": key, "value_json": rows[key]}
                for key in rows
                if key not in known
            ]
            if changed:
                connection.execute(update, changed)
            if new:
                connection.execute(sa.insert(optuna_study_attributes), new)

        self._write(save)

    # Trials

    def trial_id(self, number: int) -> int:
        """The database's id of the trial of that number."""
        query = sa.select(optuna_trials.c.trial_id).where(
            optuna_trials.c.study_id == self.study_id, optuna_trials.c.number == number
        )
        ((trial_id,),) = self._read(query)
        return int(trial_id)

    def enqueued_knobs(self, trial_id: int) -> dict[str, Any] | None:
        """The knobs that a trial was enqueued with; None for one whose knobs are drawn."""
        of = optuna_trial_attributes.c
        query = sa.select(of.value_json).where(of.trial_id == trial_id, of.key == "fixed_params")
        rows = self._read(query)
        return dict(json.loads(rows[0][0])) if rows else None

    def forget_knobs(self, trial_id: int) -> None:
        """Have none of a trial's knobs chosen, for one that was interrupted before its config was kept. Raises as `save_config` does."""
        delete = sa.delete(optuna_trial_params).where(optuna_trial_params.c.trial_id == trial_id)

        def forget(connection: sa.Connection, _: bool) -> None:
            connection.execute(delete)

        self._write(forget, fenced=True)

    def save_config(
        self,
        trial_id: int,
        config: AgentConfig,
        *,
        derived_from: int | None = None,
        reused_from: str | None = None,
    ) -> None:
        """Keep a trial's config before its first example runs, and whose runs it has where none are to be made.

        Raises StoreError when this process is not the study's owner, as `finish`, `save_run` and `save_pass` do.
        """
        values = {
            "config": config.model_dump(),
            "config_hash": config.hash(),
            "feasible": True,
            "derived_from": derived_from,
            "reused_from": reused_from,
        }

        def save(connection: sa.Connection, _: bool) -> None:
            if not _is_there(connection, trials, trials.c.trial_id == trial_id):
                connection.execute(sa.insert(trials).values(trial_id=trial_id, **values))

        self._write(save, fenced=True)

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
        """Keep how a trial ended, before Optuna is told, and its figures side by side."""
        update = (
            sa.update(trials)
            .where(trials.c.trial_id == trial_id)
            .values(
                objectives=None if values is None else dict(values),
                feasible=feasible,
                replay_of=replay_of,
                failure=storable(failure),
                stopped=stopped,
            )
        )
        of = example_runs.c
        runs = sa.select(of.example_id, *(of[name] for name in COLUMNS)).where(
            of.trial_id == trial_id, of.split == "search"
        )

        def finish(connection: sa.Connection, _: bool) -> None:
            connection.execute(update)
            rows = connection.execute(runs).all()
            connection.execute(sa.delete(columns).where(columns.c.trial_id == trial_id))
            if rows:
                row = {"trial_id": trial_id, "split": "search", **pack([tuple(r) for r in rows])}
                connection.execute(sa.insert(columns), row)

        self._write(finish, fenced=True)

    def save_derived(self, trial_id: int) -> None:
        """Keep that all that a trial's runs say of smaller budgets was kept."""
        update = sa.update(trials).where(trials.c.trial_id == trial_id)

        def save(connection: sa.Connection, _: bool) -> None:
            connection.execute(update.values(is_derived_from=True))

        self._write(save, fenced=True)

    def derived(self) -> set[int]:
        """Ids of the trials of which that was kept."""
        of = trials.c
        query = sa.select(of.trial_id).where(of.is_derived_from, of.trial_id.in_(self._trial_ids()))
        return {row.trial_id for row in self._read(query)}

    def trials(self) -> list[TrialRecord]:
        """Every trial of the study, in the order of their numbers.

        One that has ended stays as it is, and is read once; all others are read each time.
        """
        rows = self._read(
            _UNREAD,
            {
                "study_id": self.study_id,
                "latest": self._latest if len(self._open) <= MOST_LISTED else min(self._open) - 1,
                "open": sorted(self._open) if len(self._open) <= MOST_LISTED else [],
            },
        )
        configs = _decoded([row.config for row in rows])
        values = _decoded([row.objectives for row in rows])
        for row, config, of in zip(rows, configs, values, strict=True):
            record = _record_of(row, config, of)
            self._records[record.number] = record
            self._latest = max(self._latest, record.trial_id)
            if record.state in ("running", "waiting"):
                self._open.add(record.trial_id)
            else:
                self._open.discard(record.trial_id)
        return list(self._records.values())

    def _trial_ids(self) -> sa.Select[Any]:
        return sa.select(optuna_trials.c.trial_id).where(optuna_trials.c.study_id == self.study_id)

    # Example runs

    def save_run(
        self, trial_id: int, split: str, run: ExampleRun, *, owner: str, search_s: float
    ) -> None:
        """Keep a finished example, and add to the time spent searching. Raises StoreError when `owner` no longer is."""
        self.save_runs(trial_id, split, [run], owner=owner, search_s=search_s)

    def save_runs(
        self,
        trial_id: int,
        split: str,
        runs: Sequence[ExampleRun],
        *,
        owner: str,
        search_s: float = 0.0,
    ) -> None:
        """Keep finished examples, all of them or none, as `save_run` does."""
        rows = [(run, row_of(run), trace_of(run)) for run in runs]
        update = self._update_study(search_s=studies.c.search_s + search_s)
        of = example_runs.c
        ours = studies.c.owner == owner

        def save(connection: sa.Connection, again: bool) -> None:
            if again and runs:
                known = (of.trial_id == trial_id) & (of.split == split)
                known &= (of.example_id == runs[0].example_id) & (of.repeat == runs[0].repeat)
                if _is_there(connection, example_runs, known):
                    return  # it was committed, and only the answer was lost
            if connection.execute(update.where(ours)).rowcount == 0:
                raise self._taken_over()
            for run, row, trace in rows:
                kept = connection.execute(
                    sa.insert(example_runs), {"trial_id": trial_id, "split": split, **row}
                )
                run_id = int(kept.inserted_primary_key[0])  # type: ignore[index]  # an INSERT has one
                connection.execute(sa.insert(traces), {"run_id": run_id, "content": trace})
                add_to_totals(connection, trial_id, split, run_id, run)

        self._write(save)

    def finished(self, trial_id: int, split: str) -> set[tuple[str, int]]:
        """(example, repeat) of the examples that need not run again."""
        query = sa.select(example_runs.c.example_id, example_runs.c.repeat).where(
            example_runs.c.trial_id == trial_id, example_runs.c.split == split
        )
        return {(row.example_id, row.repeat) for row in self._read(query)}

    def runs(self, trial_id: int, split: str) -> tuple[ExampleRun, ...]:
        """The finished examples of a trial, spans and all, in the order in which they finished."""
        return self._runs(example_runs.c.trial_id == trial_id, example_runs.c.split == split)

    def extras(self, trial_id: int, split: str) -> tuple[ExampleRun, ...]:
        """The extra runs that kept the server full in a split's sittings: with them, what was in flight there is whole."""
        of = example_runs.c
        windows = sa.select(of.window).where(of.trial_id == trial_id, of.split == split)
        return self._runs(of.trial_id == trial_id, of.split == EDGE, of.window.in_(windows))

    def _runs(self, *conditions: sa.ColumnElement[bool]) -> tuple[ExampleRun, ...]:
        query = (
            sa.select(example_runs, traces.c.content)
            .join_from(example_runs, traces, traces.c.run_id == example_runs.c.run_id)
            .where(*conditions)
            .order_by(example_runs.c.run_id)
        )
        return tuple(run_of(row._asdict()) for row in self._read(query))

    def asked_count(self, split: str) -> int:
        """How many questions were asked on a split, over all trials; what was derived or reused was not."""
        query = sa.select(sa.func.coalesce(sa.func.sum(totals.c.asked), 0)).where(
            totals.c.split == split, totals.c.trial_id.in_(self._trial_ids())
        )
        return int(self._read(query)[0][0])

    def failed_counts(self, split: str) -> dict[int, int]:
        """How many questions of a split failed, by trial; trials without any are left out."""
        query = sa.select(totals.c.trial_id, totals.c.failed).where(
            totals.c.split == split,
            totals.c.failed > 0,
            totals.c.trial_id.in_(self._trial_ids()),
        )
        return {row.trial_id: row.failed for row in self._read(query)}

    def run_counts(self, split: str) -> dict[int, int]:
        """How many runs trials have on a split; those without any are left out."""
        query = sa.select(totals.c.trial_id, totals.c.runs).where(
            totals.c.split == split, totals.c.trial_id.in_(self._trial_ids())
        )
        return {row.trial_id: row.runs for row in self._read(query)}

    def next_window(self, trial_id: int, split: str) -> int:
        """The number of a trial's next sitting: one more than any that left a run behind."""
        query = sa.select(totals.c.last_window).where(
            totals.c.trial_id == trial_id, totals.c.split == split
        )
        rows = self._read(query)
        return int(rows[0][0]) + 1 if rows else 0

    def save_pass(self, trial_id: int, split: str, record: PassRecord) -> None:
        """Keep what held for a sitting as a whole."""
        content = asdict(record)
        content.pop("window")
        row = {"trial_id": trial_id, "split": split, "window": record.window, "content": content}
        known = (passes.c.trial_id == trial_id) & (passes.c.split == split)
        known &= passes.c.window == record.window

        def save(connection: sa.Connection, again: bool) -> None:
            if not (again and _is_there(connection, passes, known)):
                connection.execute(sa.insert(passes).values(**row))

        self._write(save, fenced=True)

    def passes(self, trial_id: int, split: str) -> tuple[PassRecord, ...]:
        """The sittings of a trial that came to their end, in order; one that was interrupted left none."""
        query = (
            sa.select(passes.c.window, passes.c.content)
            .where(passes.c.trial_id == trial_id, passes.c.split == split)
            .order_by(passes.c.window)
        )
        return tuple(
            PassRecord(
                window=row.window,
                **{**row.content, "energy": Reading(**row.content["energy"])},
            )
            for row in self._read(query)
        )

    def fields(
        self, split: str, names: Sequence[str], *, trial_ids: Collection[int] | None = None
    ) -> dict[int, npt.NDArray[np.float64]]:
        """Numeric fields of all example runs by trial: arrays of (runs, names), ordered by example and repeat.

        What was not measured is NaN. Of `trial_ids` only, if given. Trials that have ended are read from their packed
        columns, so that whole studies are summarised in less than a second.
        """
        counts = self.run_counts(split)
        wanted = [each for each in counts if trial_ids is None or each in trial_ids]
        found: dict[int, npt.NDArray[np.float64]] = {}
        if split == "search" and set(names) <= set(COLUMNS):
            for row in self._of_trials(
                columns, [columns.c.runs, *(columns.c[n] for n in names)], split, wanted
            ):
                if row.runs == counts.get(row.trial_id):
                    found[row.trial_id] = unpack(row._asdict(), names)
        left = [each for each in wanted if each not in found]
        of = example_runs.c
        by_trial: dict[int, list[Any]] = {}
        figures = [of.example_id, of.repeat, *(of[name].label(f"f_{name}") for name in names)]
        for row in self._of_trials(example_runs, figures, split, left):
            by_trial.setdefault(row.trial_id, []).append(tuple(row))
        for trial_id, rows in by_trial.items():
            rows.sort(key=lambda row: row[1:3])
            found[trial_id] = np.array([row[3:] for row in rows], dtype=np.float64)
        return {each: found[each] for each in sorted(found)}

    def stacked(
        self, names: Sequence[str], *, runs: int
    ) -> tuple[list[int], dict[str, npt.NDArray[np.float64]]]:
        """Of the trials that have ended, and answered so many search questions once: their ids, and (trials, runs) of each field.

        What `fields` has of them, ten times as fast.
        """
        query = (
            sa.select(columns.c.trial_id, *(columns.c[name] for name in names))
            .join(
                totals,
                (totals.c.trial_id == columns.c.trial_id) & (totals.c.split == columns.c.split),
            )
            .where(
                columns.c.split == "search",
                columns.c.repeat.is_(None),
                columns.c.runs == runs,
                totals.c.runs == runs,
                columns.c.trial_id.in_(self._trial_ids()),
            )
            .order_by(columns.c.trial_id)
        )
        rows = self._read(query)
        blobs = list(zip(*rows, strict=True)) or [() for _ in range(len(names) + 1)]
        return list(blobs[0]), {
            name: stack(column, runs) for name, column in zip(names, blobs[1:], strict=True)
        }

    def asked(
        self, split: str, *, trial_ids: Collection[int] | None = None
    ) -> dict[int, list[tuple[str, int]]]:
        """The (example, repeat) of every row of `fields`, by trial and in the same order."""
        counts = self.run_counts(split)
        wanted = [each for each in counts if trial_ids is None or each in trial_ids]
        of = example_runs.c
        found: dict[int, list[tuple[str, int]]] = {}
        for row in self._of_trials(example_runs, [of.example_id, of.repeat], split, wanted):
            found.setdefault(row.trial_id, []).append((row.example_id, row.repeat))
        return {trial_id: sorted(found[trial_id]) for trial_id in sorted(found)}

    def _of_trials(
        self,
        table: sa.Table,
        wanted: Sequence[sa.ColumnElement[Any]],
        split: str,
        trial_ids: Sequence[int],
    ) -> Iterator[sa.Row[Any]]:
        """These columns of trials of this study on a split, by trial: few trials are named in the query, many are not."""
        query = sa.select(table.c.trial_id, *wanted).where(table.c.split == split)
        if not trial_ids:
            return
        if len(trial_ids) <= MOST_LISTED:
            yield from self._read(query.where(table.c.trial_id.in_(trial_ids)))
            return
        among = set(trial_ids)
        for row in self._read(query.where(table.c.trial_id.in_(self._trial_ids()))):
            if row.trial_id in among:
                yield row

    def spent(self, *, after: int = 0) -> list[Spending]:
        """What the runs of every trial took, by trial and split, those of `EDGE` apart: running totals, never summed up anew.

        With `after`, of the trials and splits of which a run was kept after that one (`Spending.last`).
        """
        rows = self._read(spending_query(self._trial_ids(), after))
        return [spending_of(row) for row in rows]


_TRIAL_COLUMNS = (
    *(sa.cast(trials.c[name], sa.Text).label(name) for name in ("config", "objectives")),
    *(
        trials.c[name]
        for name in (
            "config_hash",
            "feasible",
            "replay_of",
            "failure",
            "derived_from",
            "reused_from",
            "stopped",
        )
    ),
)


def _unread() -> sa.Select[Any]:
    """The trials of a study after the latest that was read, and those that were open then.

    Made once: it is asked several times in each trial, and SQLAlchemy takes longer to make it than a database to answer.
    """
    of = optuna_trials.c
    source = (
        sa.select(sa.func.min(totals.c.energy_source))
        .where(totals.c.trial_id == of.trial_id)
        .scalar_subquery()
    )
    is_unread = of.trial_id > sa.bindparam("latest")
    is_unread |= of.trial_id.in_(sa.bindparam("open", expanding=True))
    return (
        sa.select(of.trial_id, of.number, of.state, *_TRIAL_COLUMNS, source.label("source"))
        .join_from(optuna_trials, trials, trials.c.trial_id == of.trial_id, isouter=True)
        .where(of.study_id == sa.bindparam("study_id"), is_unread)
        .order_by(of.number)
    )


_UNREAD = _unread()


def _decoded(texts: Sequence[str | None]) -> list[Any]:
    """What these JSON texts say, in one go: each on its own takes several times as long."""
    return list(json.loads(f"[{','.join('null' if text is None else text for text in texts)}]"))


def _record_of(row: sa.Row[Any], config: Any, values: Any) -> TrialRecord:
    # In the order of `_unread`: by name, thousands of rows take several times as long.
    trial_id, number, state, _, _, config_hash, feasible, *ending, source = tuple(row)
    replay_of, failure, derived_from, reused_from, stopped = ending
    return TrialRecord(
        trial_id=trial_id,
        number=number,
        state=_STATES[state],  # type: ignore[arg-type]
        config=None if config is None else AgentConfig.model_construct(**config),
        config_hash=config_hash,
        values=values,
        feasible=feasible is not False,
        replay_of=replay_of,
        failure=failure,
        derived_from=derived_from,
        reused_from=reused_from,
        stopped=stopped,
        sources={} if source is None else {"energy": source},
    )


def _is_there(
    connection: sa.Connection, table: sa.Table, condition: sa.ColumnElement[bool]
) -> bool:
    return (
        connection.execute(sa.select(sa.literal(1)).select_from(table).where(condition)).first()
        is not None
    )


def _exists(file: str | None) -> bool:
    from pathlib import Path

    return file is not None and Path(file).is_file()
