"""A study as one report: every point, what is recommended, what knobs do, what it cost and how it was measured.

Apart from the verbs that each print one of these: here they are read together, once, for a page and for plots.
`read_report` gathers, `page` writes one HTML file, `plots` writes pictures.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tuner.effects import ObjectiveEffects
from tuner.effects import read_effects
from tuner.errors import DataError
from tuner.errors import UserError
from tuner.report.conditions import Facts
from tuner.report.conditions import conditions
from tuner.report.cost import Saving
from tuner.report.cost import Sum
from tuner.report.cost import read_savings
from tuner.report.cost import read_sums
from tuner.results import LEFT_OUT
from tuner.results import Front
from tuner.results import Point
from tuner.results import evaluated
from tuner.results import every_point
from tuner.rules import RULES
from tuner.rules import Choice
from tuner.rules import Rule
from tuner.rules import recommend
from tuner.search import to_confirm
from tuner.spec import LoadedStudy
from tuner.store import Store
from tuner.tasks import Task
from tuner.validate import Validation

MOST_TRIALS = 1000
"""Trials shown at most; those left out are the ones that others dominate most surely."""

DEFAULT_RULE = "knee"
"""What is recommended unless somebody asks otherwise, as `tuner export` has it."""

Kind = Literal["front", "near", "beaten", "infeasible", "stopped", "holdout"]


@dataclass(frozen=True, slots=True)
class Shown:
    """A point of the report: a trial on one split, and what it is there."""

    point: Point
    kind: Kind
    label: str
    """Its config in one line."""
    failed: int
    """Questions that failed, and count as wrong."""

    @property
    def membership(self) -> float | None:
        """Share of resamples in which it is on the front; None for what cannot be on it."""
        return (
            self.point.membership if self.kind in ("front", "near", "beaten", "holdout") else None
        )


@dataclass(frozen=True, slots=True)
class Advice:
    """What a rule recommends, or why it recommends nothing here."""

    rule: str
    choice: Choice | None
    refusal: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a page or a picture of a study shows."""

    study: LoadedStudy
    front: Front
    shown: tuple[Shown, ...]
    """The search points in the order of their numbers, then what was confirmed."""
    left_out: int
    """Evaluated trials beyond MOST_TRIALS."""
    counts: dict[str, int]
    """Trials by what became of them."""
    failures: tuple[tuple[str, tuple[int, ...]], ...]
    """Why trials failed, and which; the most frequent reason first."""
    advice: tuple[Advice, ...]
    """The default rule first."""
    effects: tuple[ObjectiveEffects, ...]
    no_effects: str | None
    """Why nothing is said of knobs."""
    holdout: tuple[str, ...]
    """What the holdout questions said, in sentences; what is lacking of them, too."""
    unfinished: str | None
    """Why figures may still change."""
    sums: tuple[Sum, ...]
    savings: tuple[Saving, ...]
    conditions: tuple[Facts, ...]
    task: Task | None
    no_task: str | None
    """Why the questions cannot be shown."""

    @property
    def recommended(self) -> Choice | None:
        """What the default rule chooses."""
        return self.advice[0].choice


def read_report(study: LoadedStudy, store: Store) -> Report:
    """All of it as the storage has it now. Raises UserError for a study without a complete trial, and StoreError."""
    front = Front.read(study, store)
    if not evaluated(front.trials):
        running = sum(trial.state == "running" for trial in front.trials)
        raise UserError(
            f"study {study.spec.name} has no complete trial yet"
            f"{f', {running} running' if running else ''}: there is nothing to report",
            hint=f"tuner run {study.path} goes on with it; tuner status {study.path} shows how far it is",
        )
    shown, left_out = _shown(study, store, front)
    deployable = Front.read(study, store, deployable=True)
    try:
        effects, no_effects = read_effects(study, store), None
    except UserError as error:
        effects, no_effects = (), str(error)
    try:
        task, no_task = study.load_task(), None
    except DataError as error:
        task, no_task = None, str(error)
    if task is not None:
        store.require(study.fingerprint(task))  # questions that are shown must be those asked
    return Report(
        study=study,
        front=front,
        shown=shown,
        left_out=left_out,
        counts=_counts(front),
        failures=_failures(front),
        advice=tuple(_advise(rule, deployable) for rule in _rules(study)),
        effects=effects,
        no_effects=no_effects,
        holdout=tuple(_holdout(study, store, front, deployable)),
        unfinished=_unfinished(store, front),
        sums=read_sums(store, front.trials),
        savings=read_savings(study, store, front.trials),
        conditions=conditions(study, store),
        task=task,
        no_task=no_task,
    )


def _shown(study: LoadedStudy, store: Store, front: Front) -> tuple[tuple[Shown, ...], int]:
    failed = store.failed_counts("search"), store.failed_counts("holdout")
    near = {point.trial.number: point for point in front.near}
    letters = {point.trial.number: point for point in front.search}
    searched = []
    for point in every_point(study, store):
        number = point.trial.number
        if point.trial.stopped is not None:
            kind: Kind = "stopped"
        elif not point.feasible:
            kind = "infeasible"
        elif number in letters:
            kind, point = "front", letters[number]
        elif number in near:
            kind, point = "near", near[number]
        else:
            kind = "beaten"
        searched.append(_as_shown(study, point, kind, failed[0]))
    order = ("front", "near", "beaten", "infeasible", "stopped")
    ranked = sorted(searched, key=lambda s: (order.index(s.kind), -s.point.membership))
    kept = sorted(ranked[:MOST_TRIALS], key=lambda s: s.point.trial.number)
    confirmed = [_as_shown(study, point, "holdout", failed[1]) for point in front.confirmed]
    return (*kept, *confirmed), len(searched) - len(kept)


def _as_shown(study: LoadedStudy, point: Point, kind: Kind, failed: dict[int, int]) -> Shown:
    config = point.trial.config
    label = "" if config is None else study.label(config)
    return Shown(point, kind, label, failed.get(point.trial.trial_id, 0))


def _counts(front: Front) -> dict[str, int]:
    states = Counter("left out" if t.failure == LEFT_OUT else t.state for t in front.trials)
    own = evaluated(front.trials)
    found = {
        "evaluated": len(own),
        "derived": sum(trial.derived_from is not None for trial in own),
        "reused": sum(trial.reused_from is not None for trial in own),
        "stopped early": sum(trial.stopped is not None for trial in own),
        "beyond a constraint": sum(not trial.feasible for trial in own),
        "asked for again": sum(trial.replay_of is not None for trial in front.trials),
        **{name: states[name] for name in ("failed", "running", "waiting", "left out")},
    }
    return {name: count for name, count in found.items() if count or name == "evaluated"}


def _failures(front: Front) -> tuple[tuple[str, tuple[int, ...]], ...]:
    reasons: dict[str, list[int]] = {}
    for trial in front.trials:
        if trial.failure is not None and trial.failure != LEFT_OUT:
            reasons.setdefault(trial.failure, []).append(trial.number)
    ordered = sorted(reasons.items(), key=lambda item: -len(item[1]))
    return tuple((reason, tuple(numbers)) for reason, numbers in ordered)


def _rules(study: LoadedStudy) -> list[str]:
    """Every rule as it can be written for this study; `weights`, which only its user knows, is left out."""
    bounds = [f"{name}{bound.replace(' ', '')}" for name, bound in study.spec.constraints.items()]
    written = {
        **{name: kind.form for name, kind in RULES.items()},
        "slo": f"slo:{','.join(bounds)}" if bounds else None,
        "weights": None,
    }
    others = [text for name, text in written.items() if text and name != DEFAULT_RULE]
    return [DEFAULT_RULE, *others]


def _advise(rule: str, front: Front) -> Advice:
    try:
        return Advice(rule, recommend(front, Rule.parse(rule)), None)
    except UserError as error:
        return Advice(rule, None, str(error))


def _unfinished(store: Store, front: Front) -> str | None:
    row = store.row()
    under_way = [trial.number for trial in front.trials if trial.state == "running"]
    if row is not None and row.owner is not None:
        return "The study was still running, or had been interrupted, when this page was written: figures may change."
    if under_way:
        return f"The study was interrupted in {_trials(under_way)}: tuner run goes on with it, and figures may change."
    return None


def _holdout(study: LoadedStudy, store: Store, front: Front, deployable: Front) -> list[str]:
    """What the holdout questions said, or that there are none, or that they have not been asked."""
    if not study.task_options.holdout:
        return [
            "There are no holdout questions in this study (task: holdout: 0). Figures are those of the search, which "
            "shows what looked best, and hence also what was lucky: expect worse."
        ]
    lacking = [trial.number for trial in to_confirm(study, store)]
    if not front.confirmed:
        return [
            f"Nothing has been measured on the {study.task_options.holdout} holdout questions yet. Figures are those of the "
            f"search, which shows also what was lucky: expect worse. tuner validate {study.path} asks them."
        ]
    oracle = [p.trial.number for p in front.search if p.trial.config and p.trial.config.oracle]
    said = Validation(deployable, unconfirmed=(), oracle=tuple(oracle)).sentences()
    if lacking:
        said.append(f"Not confirmed yet: {_trials(lacking)}. tuner validate {study.path} does it.")
    return said


def _trials(numbers: Sequence[int]) -> str:
    return f"trial{'' if len(numbers) == 1 else 's'} {', '.join(map(str, numbers))}"
