"""From a study's records, or from a whole space that is measured for it, to a recorded table.

Apart from `table`, which is the format: here is what of a study goes into it, and what has to be run so that a table
tells of every config. A run at the largest budget tells of the smaller ones by its checkpoints, so those are not run.
"""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from datetime import date
from typing import Any

from tuner.derive import anytime
from tuner.derive import cut_short
from tuner.derive import derive_run
from tuner.derive import larger
from tuner.derive import shares
from tuner.errors import StoreError
from tuner.errors import UserError
from tuner.events import Report
from tuner.executors.replay import declared
from tuner.records import ExampleRun
from tuner.records import TrialRecord
from tuner.results import open_results
from tuner.spec import Budget
from tuner.spec import LoadedStudy
from tuner.store import Store
from tuner.store import StudyRow
from tuner.table import AtBudget
from tuner.table import Cost
from tuner.table import Header
from tuner.table import Provenance
from tuner.table import RecordedConfig
from tuner.table import RecordedTask
from tuner.table import Row
from tuner.table import Table
from tuner.tasks import SPLITS
from tuner.tasks import Task
from workflows.config import AgentConfig

DIGITS = 6
"""Decimals of seconds, joules and dollars: a microsecond is less than any of it is known to."""


def read_table(study: LoadedStudy) -> Table:
    """What a study has measured so far. Raises UserError where that is nothing, or of another task, space or models."""
    _require_measured(study)
    task = study.load_task()
    with closing(open_results(study)) as store:
        row = store.require(study.fingerprint(task))
        trials = _recorded(store.trials())
        if row is None or not trials:
            raise UserError(
                f"{study.path}: has no evaluations to record",
                hint="tuner run STUDY makes some, or record the whole space: --whole-space",
            )
        return asyncio.run(_table(study, task, store, row, trials))


def measure_space(study: LoadedStudy, *, report: Report = lambda event: None) -> Table:
    """Measure what is not known of the study's space, on its search questions, and read the table of it.

    First every config at its largest budget, then what their checkpoints do not tell. Resumes where an earlier call
    was ended. Raises UserError as `measure_configs` does, and for a continuum of configs.
    """
    from tuner.study import measure_configs  # Optuna, only where something runs

    _require_measured(study)
    complete = _complete(study)
    waiting = [config for config in largest(study) if config.hash() not in complete]
    if waiting:
        measure_configs([(study, waiting)], report=report)
    table = read_table(study)
    untold = lacking(study, table)
    if not untold:
        return table
    measure_configs([(study, untold)], report=report)
    return read_table(study)


def lacking(study: LoadedStudy, table: Table) -> list[AgentConfig]:
    """The configs of the space that a table does not tell of."""
    told = {config.hash() for config in table.configs}
    return [config for config in _listed(study) if config.hash() not in told]


def as_recorded(study: LoadedStudy) -> LoadedStudy:
    """The study as a screen shows it while its space is measured: with as many trials as that takes, and no other end."""
    budget = Budget(trials=len(largest(study)))
    return study.model_copy(update={"spec": study.spec.model_copy(update={"budget": budget})})


def largest(study: LoadedStudy) -> list[AgentConfig]:
    """The configs of the space, of those that differ in their budget alone the one with the largest."""
    space, models = study.space, study.models
    return [config for config in _listed(study) if not larger(space, models, config)]


def _listed(study: LoadedStudy) -> list[AgentConfig]:
    listed = study.space.configs(study.models)
    if listed is None:
        raise UserError(
            f"{study.space_path}: has a continuum of configs, which cannot all be recorded",
            hint="give every knob a list of values, or a step; or record what the study has run",
        )
    return list(listed)


def _require_measured(study: LoadedStudy) -> None:
    if study.table_path is not None:
        raise UserError(
            f"{study.path}: executor: its figures are replayed from {study.table_path}, not measured",
            hint="that table has them all: copy it",
        )


def _complete(study: LoadedStudy) -> set[str]:
    """Hashes of the configs that were evaluated."""
    try:
        store = Store.open(study.storage_url, study.spec.name)
    except StoreError:  # not run yet, or by an earlier version; running brings it up to date
        return set()
    with closing(store):
        return {
            trial.config.hash()
            for trial in store.trials()
            if trial.config is not None and trial.state == "complete"
        }


def _recorded(trials: Sequence[TrialRecord]) -> list[tuple[TrialRecord, AgentConfig]]:
    """The trials whose runs may go into a table, one for each config.

    A complete one before one that was stopped, and that before one that failed or is under way; of equals the last.
    """
    chosen: dict[str, tuple[TrialRecord, AgentConfig]] = {}
    for trial in trials:
        config = trial.config
        if config is None or trial.replay_of is not None or trial.state == "waiting":
            continue
        known = chosen.get(config.hash())
        if known is None or _worth(trial) >= _worth(known[0]):
            chosen[config.hash()] = (trial, config)
    return list(chosen.values())


def _worth(trial: TrialRecord) -> int:
    return (trial.state == "complete") * (2 - (trial.stopped is not None))


async def _table(
    study: LoadedStudy,
    task: Task,
    store: Store,
    row: StudyRow,
    trials: Sequence[tuple[TrialRecord, AgentConfig]],
) -> Table:
    provenance = _provenance(row)
    configs: dict[str, RecordedConfig] = {}
    rows: dict[str, list[Row]] = {}
    for trial, config in trials:
        key = config.hash()
        made: list[Row] = []
        runs: list[ExampleRun] = []
        for split in SPLITS:
            found = store.runs(trial.trial_id, split)
            extras = store.extras(trial.trial_id, split) if found else ()
            made += await _rows(task, config, found, extras)
            runs += found
        if not runs or (trial.derived_from is not None and not any(map(_is_new, runs))):
            continue  # a larger budget's checkpoints tell all of it
        unserved = [name for name in config.models() if name not in provenance.models]
        if unserved:
            raise UserError(
                f"{study.path}: models.{unserved[0]}: was not served in this study, so it is not known how",
                hint="record the study whose evaluations were reused here",
            )
        rows[key] = made
        configs[key] = RecordedConfig(
            id=key,
            **config.model_dump(),
            anytime=anytime(config.workflow),
            energy_source="; ".join(dict.fromkeys(run.energy.source for run in runs)),
            energy_scope="; ".join(dict.fromkeys(run.energy.scope for run in runs)),
        )
    header = Header(
        format_version=1,
        study=study.spec.name,
        recorded_on=date.today().isoformat(),
        task=RecordedTask(
            name=task.name,
            options=study.task_options.model_dump(mode="json"),
            fingerprint=task.fingerprint(),
        ),
        search=tuple(example.id for example in task.search),
        holdout=tuple(example.id for example in task.holdout),
        search_space={"name": study.space.name, "fingerprint": study.space.fingerprint()},
        models={name: declared(model) for name, model in study.spec.models.items()},
        load=study.spec.load.model_dump(mode="json"),
        cache=study.spec.cache,
        provenance=provenance,
        configs=len(configs),
        rows=sum(map(len, rows.values())),
    )
    return Table(header, configs, rows)


def _provenance(row: StudyRow) -> Provenance:
    told = row.provenance
    models = {
        name: {
            "settings": {**ran["settings"], "api_base": None},
            **{key: ran[key] for key in ("serve", "cache", "energy")},
        }
        for name, ran in told.get("models", {}).items()
    }
    return Provenance.model_validate(
        {**{key: told[key] for key in ("machine", "python", "versions")}, "models": models}
    )


def _is_new(run: ExampleRun) -> bool:
    return run.reused.latency_s < run.latency_s


async def _rows(
    task: Task, config: AgentConfig, runs: Sequence[ExampleRun], extras: Sequence[ExampleRun]
) -> list[Row]:
    """A row for each run, with a checkpoint for each smaller budget that it tells of."""
    known = shares(runs, extras)
    examples = {example.id: example for split in SPLITS for example in task.examples(split)}
    knob = anytime(config.workflow)
    own = 0 if knob is None else int(config.params[knob])
    rows = []
    for run in runs:
        share = known.get((run.example_id, run.repeat))
        checkpoints = []
        for budget in sorted({each.budget for each in run.checkpoints if each.budget < own}):
            short = cut_short(run, share, budget)
            derived = await derive_run(task, examples[run.example_id], run, share, budget)
            score = None if derived is None else derived.score
            checkpoints.append(AtBudget(budget=budget, score=score, **_figures(short)))
        energy_j = run.energy_j if share is None else share.whole_j
        rows.append(
            Row(
                config=config.hash(),
                example=run.example_id,
                repeat=run.repeat,
                score=run.score,
                error=run.error,
                oracle=run.oracle,
                checkpoints=tuple(checkpoints),
                **{**_figures(run), "energy_j": _rounded(energy_j)},
            )
        )
    return rows


def _figures(run: ExampleRun) -> dict[str, Any]:
    """What a run took."""
    return {name: _rounded(getattr(run, name)) for name in Cost.model_fields if name != "score"}


def _rounded(figure: float | None) -> float | None:
    return round(figure, DIGITS) if isinstance(figure, float) else figure
