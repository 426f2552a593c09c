"""What a study has found so far, read back from its store: points with intervals, the front, membership.

Apart from `front`, which is arithmetic, and from `study`, which produces: every reading verb and the holdout
pass stand on this.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner import front
from tuner.objectives import OBJECTIVES
from tuner.objectives import Objective
from tuner.records import ExampleRun
from tuner.records import TrialRecord
from tuner.spec import LoadedStudy
from tuner.store import Store
from tuner.tasks import Split

DRAWS = 400
"""Resamples of the questions; a membership of 0.9 is then known to ± 0.03."""

SEED = 0
"""Of the resampling, so that the same study prints the same figures."""


@dataclass(frozen=True, slots=True)
class Point:
    """A trial's values over one split, and how sure they are."""

    trial: TrialRecord
    split: Split
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    """95 % confidence: Wilson for shares of right and wrong answers, bootstrap over questions otherwise."""
    on_front: bool
    """Whether no other trial measured on this split dominates it."""
    membership: float
    """Share of paired bootstrap resamples of the questions in which none does."""
    n: int


def open_results(study: LoadedStudy) -> Store:
    """A study's records, to be read. Raises StoreError when there are none, or they are of another space or models."""
    store = Store.open(study.storage_url, study.spec.name)
    store.require(study.fingerprint())
    return store


def evaluated(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Trials with values of their own: complete, and not a replay of another."""
    return [
        trial
        for trial in trials
        if trial.state == "complete" and trial.values is not None and trial.replay_of is None
    ]


def search_front(store: Store, objectives: Sequence[str]) -> list[Point]:
    """The feasible trials that no other dominates on the search questions, best in the first objective first."""
    return _points(store, objectives, "search", front_only=True)


def confirmed(store: Store, objectives: Sequence[str]) -> list[Point]:
    """The trials that were measured on all holdout questions, best in the first objective first."""
    return _points(store, objectives, "holdout", front_only=False)


def _points(
    store: Store, objectives: Sequence[str], split: Split, *, front_only: bool
) -> list[Point]:
    runs = store.light_runs(split)
    chosen = [OBJECTIVES[name] for name in objectives]
    measured = {
        trial.trial_id: (trial, [objective.value(runs[trial.trial_id]) for objective in chosen])
        for trial in evaluated(store.trials())
        if trial.feasible and trial.trial_id in runs
    }
    # A pass that was interrupted has seen fewer questions than the others: it cannot be paired with them.
    whole = max((len(runs[trial_id]) for trial_id in measured), default=0)
    rows = [
        (trial, values)
        for trial, values in measured.values()
        if None not in values and len(runs[trial.trial_id]) == whole
    ]
    if not rows:
        return []
    table = np.array([values for _, values in rows], dtype=np.float64)
    directions = [objective.direction for objective in chosen]
    oriented = front.oriented(table, directions)
    on_front = front.non_dominated(oriented)
    draws = _draws([runs[trial.trial_id] for trial, _ in rows], chosen)
    shown = [index for index in range(len(rows)) if on_front[index] or not front_only]
    shares = front.membership(front.oriented(draws, directions), shown)
    shown_with_share = sorted(
        zip(shown, shares, strict=True), key=lambda pair: tuple(oriented[pair[0]])
    )
    return [
        Point(
            trial=rows[index][0],
            split=split,
            values=dict(zip(objectives, map(float, table[index]), strict=True)),
            intervals={
                objective.name: _interval(
                    objective, runs[rows[index][0].trial_id], draws[:, index, column]
                )
                for column, objective in enumerate(chosen)
            },
            on_front=bool(on_front[index]),
            membership=float(share),
            n=whole,
        )
        for index, share in shown_with_share
    ]


def _draws(runs: Sequence[Sequence[ExampleRun]], objectives: Sequence[Objective]) -> front.Floats:
    """(draws, trials, objectives): every objective over the same resampled questions for every trial."""
    indices = front.resample_indices(len(runs[0]), DRAWS, SEED)
    columns = []
    for objective in objectives:
        amounts = np.array([[objective.amount(run) for run in row] for row in runs], dtype=float)
        columns.append(np.stack([objective.summary(row[indices]) for row in amounts], axis=1))
    return np.stack(columns, axis=2)


def _interval(
    objective: Objective, runs: Sequence[ExampleRun], draws: front.Floats
) -> tuple[float, float]:
    amounts = [objective.amount(run) for run in runs]
    if objective.unit == "share" and all(amount in (0.0, 1.0) for amount in amounts):
        return front.wilson(sum(amount or 0.0 for amount in amounts), len(amounts))
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)
