"""What each agent costs: the tables and figures of Kim et al. (arXiv 2506.04301) for one's own models.

    settle the configs (`plan`), measure each as a study of its own that is kept and resumed like any other
    derive smaller budgets from checkpoints; measure those that a checkpoint cannot tell
    measure a few configs again at each rate that the study asks for, or at rates that lead to the knee
    fill every table (`figures`); lay the paper's figures beside them (`beside`)

Apart from `study`, whose loop it uses, and from `results`, which reads what a search has found.
"""

import asyncio
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tuner.errors import StoreError
from tuner.events import Report
from tuner.load import Load
from tuner.profile.evaluation import Evaluation
from tuner.profile.evaluation import at_budget
from tuner.profile.evaluation import read_evaluations
from tuner.profile.figures import FIGURES
from tuner.profile.found import Found
from tuner.profile.knees import KneeSearch
from tuner.profile.knees import search_knee
from tuner.profile.plan import WHOLE
from tuner.profile.plan import Plan
from tuner.profile.plan import budgets
from tuner.profile.plan import line
from tuner.profile.plan import make_plan
from tuner.profile.table import Table
from tuner.spec import Budget
from tuner.spec import LoadedStudy
from tuner.store import Store
from tuner.tasks import Task
from workflows.config import AgentConfig

SUFFIX = "profile"
"""A profile is kept in its study's storage as the study NAME.profile, at a rate of 0.2 as NAME.profile.rate-0.2,
and the third point of a sweep as NAME.profile.knee-CONFIG-2."""


Part = tuple[LoadedStudy, Sequence[AgentConfig]]
"""Configs, and the study under whose name and load they are measured."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What the agents of a study cost on its models."""

    study: str
    task: str
    tool_delay_s: float
    load: Mapping[str, Any]
    cache: str
    rule: str
    """Which configs were measured, in a sentence."""
    measured: tuple[Evaluation, ...]
    derived: tuple[Evaluation, ...]
    shown: Mapping[str, Evaluation]
    """The evaluation that stands for each workflow where there is room for one only: of its centre."""
    tables: tuple[Table, ...]
    provenance: Mapping[str, Any]

    def table(self, figure: str) -> Table:
        """The table of a figure's number. Raises KeyError."""
        return {table.figure: table for table in self.tables}[figure]


def profile_study(study: LoadedStudy, *, report: Report = lambda event: None) -> Profile:
    """Measure what is not measured yet, and fill the tables. Raises UserError as `run_study` does."""
    task = study.load_task()
    plan = make_plan(study.space, study.models)
    kept = as_profile(study, len(plan.configs))
    at_rates = _at_rates(study, plan)
    tried: set[str] = set()
    _measure(
        [(kept, plan.configs), *at_rates.values()],
        report,
        then=lambda: _next_of_knees(study, plan, tried),
    )
    measured = _read(kept, plan.configs)
    derived = asyncio.run(_derive(kept, task, measured))
    unknown = [each.config for each in derived if any(q.score is None for q in each.queries)]
    if len(plan.configs) + len(unknown) <= WHOLE:
        _measure([(as_profile(study, len(unknown)), unknown)], report)
        measured += _read(kept, unknown)
        lacking = {config.hash() for config in unknown}
        derived = tuple(each for each in derived if each.config.hash() not in lacking)
    found = Found(
        study=study,
        task=task,
        plan=plan,
        measured=measured,
        derived=derived,
        rates={rate: _read(part, configs) for rate, (part, configs) in at_rates.items()},
        provenance=_provenance(kept),
        knees=_knees(study, plan),
    )
    return Profile(
        study=study.spec.name,
        task=study.spec.task["name"],
        tool_delay_s=task.tool_delay_s,
        load=study.spec.load.model_dump(exclude_none=True),
        cache=study.spec.cache,
        rule=plan.rule(),
        measured=measured,
        derived=derived,
        shown={
            workflow: each
            for workflow in plan.centres
            if (each := found.shown(workflow)) is not None
        },
        tables=tuple(fill(found) for fill in FIGURES.values()),
        provenance=found.provenance,
    )


def as_profile(
    study: LoadedStudy, trials: int, *, load: Load | None = None, suffix: str = ""
) -> LoadedStudy:
    """The study under whose name its profile is kept, or one under another load: no bounds, as many trials as configs."""
    name = f"{study.spec.name}.{SUFFIX}{suffix}"
    changes: dict[str, Any] = {
        "name": name,
        "constraints": {},
        "budget": Budget(trials=max(1, trials)),
    }
    if load is not None:
        changes["load"] = load
    return study.model_copy(update={"spec": study.spec.model_copy(update=changes)})


def is_measured(study: LoadedStudy) -> bool:
    """Whether the profile only has to be read. Raises StoreError for one of another space, task or models."""
    plan = make_plan(study.space, study.models)
    kept = as_profile(study, len(plan.configs))
    waiting = _waiting([(kept, plan.configs), *_at_rates(study, plan).values()])
    return not waiting and not _next_of_knees(study, plan, set())


def _measure(
    parts: Sequence[Part], report: Report, then: Callable[[], Sequence[Part]] = lambda: ()
) -> None:
    """Measure what is not complete yet, and what `then` adds to it; where there is nothing, no server is started."""
    waiting = _waiting(parts) or then()
    if waiting:
        from tuner.study import measure_configs  # Optuna, only where something runs

        measure_configs(waiting, then=then, report=report)


def _waiting(parts: Sequence[Part]) -> list[Part]:
    """The configs that are not complete, of each part that has some."""
    waiting: list[Part] = []
    for part, configs in parts:
        known = {each.config.hash() for each in _read(part, configs) if each.queries}
        left = [config for config in configs if config.hash() not in known]
        if left:
            waiting.append((part, left))
    return waiting


def _read(kept: LoadedStudy, configs: Sequence[AgentConfig]) -> tuple[Evaluation, ...]:
    try:
        store = Store.open(kept.storage_url, kept.spec.name)
    except StoreError:
        return ()
    with closing(store):
        store.require(kept.fingerprint())
        return read_evaluations(kept, store, configs)


async def _derive(
    kept: LoadedStudy, task: Task, measured: tuple[Evaluation, ...]
) -> tuple[Evaluation, ...]:
    known = {each.config.hash() for each in measured}
    derived = [
        await at_budget(kept, task, each, budget)
        for each in measured
        if each.queries
        for budget in budgets(kept.space, each.config)
    ]
    return tuple(each for each in derived if each.config.hash() not in known)


def _at_rates(study: LoadedStudy, plan: Plan) -> dict[float, Part]:
    """What is asked at each rate: centres, on each model."""
    asked: dict[float, list[AgentConfig]] = {}
    for workflow, rates in study.spec.profile.rates.items():
        for rate in rates if rates != "knee" else ():
            asked.setdefault(rate, []).extend(
                line(study.space, study.models, plan.centres[workflow], "model")
            )
    parts: dict[float, Part] = {}
    for rate in sorted(asked):
        load = study.spec.load.model_copy(update={"concurrency": None, "rate": rate})
        named = as_profile(study, len(asked[rate]), load=load, suffix=f".rate-{rate:g}")
        parts[rate] = (named, asked[rate])
    return parts


def _point(study: LoadedStudy, config: AgentConfig, number: int, load: Load) -> Part:
    """The part of a profile that is a point of a sweep."""
    suffix = f".knee-{config.hash()[:8]}-{number}"
    return as_profile(study, 1, load=load, suffix=suffix), [config]


def _knees(study: LoadedStudy, plan: Plan) -> tuple[KneeSearch, ...]:
    """The sweeps that the study asks for, as far as they are known: of centres, on each model."""
    configs = [
        config
        for workflow, rates in study.spec.profile.rates.items()
        if rates == "knee"
        for config in line(study.space, study.models, plan.centres[workflow], "model")
    ]

    def search(of: Evaluation) -> KneeSearch:
        def measured(number: int, load: Load) -> Evaluation | None:
            return next(iter(_read(*_point(study, of.config, number, load))), None)

        return search_knee(of, measured)

    alone = _read(as_profile(study, len(plan.configs)), configs)
    return tuple(search(of) for of in alone)


def _next_of_knees(study: LoadedStudy, plan: Plan, tried: set[str]) -> Sequence[Part]:
    """The next point of the first sweep that lacks one, so that its server need not be started again; none once all are done.

    `tried` are the names of those asked for: one whose trial failed ends its sweep, and is tried again by the
    next call of the program.
    """
    for search in _knees(study, plan):
        load, number = search.following, len(search.points)
        if load is None:
            continue
        part = _point(study, search.of.config, number, load)
        if part[0].spec.name not in tried:
            tried.add(part[0].spec.name)
            return [part]
    return []


def _provenance(kept: LoadedStudy) -> Mapping[str, Any]:
    with closing(Store.open(kept.storage_url, kept.spec.name)) as store:
        row = store.row()
        return {} if row is None else row.provenance
