"""What a study has found so far, read back from its store: points with intervals, the front, membership.

Apart from `front`, which is arithmetic, and from `study`, which produces: every reading verb and the holdout
pass stand on this.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from tuner import front
from tuner.objectives import OBJECTIVES
from tuner.objectives import Objective
from tuner.records import TrialRecord
from tuner.spec import LoadedStudy
from tuner.store import Store
from tuner.tasks import Split

DRAWS = 200
"""Resamples of the questions; a membership of 0.9 is then known to ± 0.04."""

SEED = 0
"""Of the resampling, so that the same study prints the same figures."""


LEFT_OUT = "the time was up before its turn came"
"""Why a trial that was asked for was never run."""


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


def counted(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Trials that count against the budget: those that ended, less replays and what was never run."""
    return [
        trial
        for trial in trials
        if trial.state in ("complete", "failed")
        and trial.replay_of is None
        and trial.failure != LEFT_OUT
    ]


def evaluated(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Trials with values of their own: complete, and not a replay of another."""
    return [
        trial
        for trial in trials
        if trial.state == "complete" and trial.values is not None and trial.replay_of is None
    ]


@dataclass(frozen=True, slots=True)
class Front:
    """What a study has found; points stand with the best in the first objective first."""

    objectives: tuple[str, ...]
    search: tuple[Point, ...]
    """The feasible trials that no other dominates on the search questions."""
    confirmed: tuple[Point, ...]
    """The trials measured again, on all holdout questions; some may be dominated there."""

    @classmethod
    def read(
        cls, study: LoadedStudy, store: Store | None = None, *, deployable: bool = False
    ) -> "Front":
        """The front as the study's storage has it now; `store` spares opening it once more. Raises StoreError.

        With `deployable`, agents that were told when they were right do not count: nobody can tell
        them in deployment, and no other agent need be better.
        """
        if store is None:
            with closing(open_results(study)) as opened:
                return cls.read(study, opened, deployable=deployable)
        names, sizes = study.spec.objectives, study.task_options
        trials = [
            trial
            for trial in evaluated(store.trials())
            if not deployable or (trial.config is not None and not trial.config.oracle)
        ]
        return cls(
            names,
            _points(store, trials, names, "search", sizes.examples, front_only=True),
            _points(store, trials, names, "holdout", sizes.holdout, front_only=False),
        )


def _points(
    store: Store,
    candidates: Sequence[TrialRecord],
    objectives: Sequence[str],
    split: Split,
    questions: int,
    *,
    front_only: bool,
) -> tuple[Point, ...]:
    chosen = [OBJECTIVES[name] for name in objectives]
    trials, amounts = _measured(store, candidates, chosen, split, questions)
    if not trials:
        return ()
    values = np.stack([o.summary(amounts[:, k]) for k, o in enumerate(chosen)], axis=1)
    directions = [objective.direction for objective in chosen]
    oriented = front.oriented(values, directions)
    on_front = front.non_dominated(oriented)
    shown = [index for index in range(len(trials)) if on_front[index] or not front_only]
    draws = _draws(amounts, chosen)
    shares = front.membership(front.oriented(draws, directions), shown)
    ranked = sorted(zip(shown, shares, strict=True), key=lambda pair: tuple(oriented[pair[0]]))
    return tuple(
        Point(
            trial=trials[index],
            split=split,
            values=dict(zip(objectives, map(float, values[index]), strict=True)),
            intervals={
                objective.name: _interval(objective, amounts[index, k], draws[:, index, k])
                for k, objective in enumerate(chosen)
            },
            on_front=bool(on_front[index]),
            membership=float(share),
            n=amounts.shape[2],
        )
        for index, share in ranked
    )


def _measured(
    store: Store,
    candidates: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    split: Split,
    questions: int,
) -> tuple[list[TrialRecord], front.Floats]:
    """Feasible candidates with whole measurements on a split, and their (trials, objectives, questions) amounts."""
    names = list(dict.fromkeys(field for objective in objectives for field in objective.fields))
    fields = store.fields(split, names)
    trials, amounts = [], []
    for trial in candidates:
        rows = fields.get(trial.trial_id)
        if rows is None or len(rows) < questions or not trial.feasible:
            continue  # an interrupted pass cannot be paired with whole ones
        columns = dict(zip(names, rows.T, strict=True))
        each = [o.amounts(*(columns[field] for field in o.fields)) for o in objectives]
        if not np.isnan(each).any():
            trials.append(trial)
            amounts.append(each)
    return trials, np.array(amounts, dtype=np.float64)


def _draws(amounts: front.Floats, objectives: Sequence[Objective]) -> front.Floats:
    """(draws, trials, objectives): every objective over the same resampled questions for every trial."""
    indices = front.resample_indices(amounts.shape[2], DRAWS, SEED)
    columns = [
        np.stack([objective.summary(row[indices]) for row in amounts[:, k]], axis=1)
        for k, objective in enumerate(objectives)
    ]
    return np.stack(columns, axis=2)


def _interval(
    objective: Objective, amounts: front.Floats, draws: front.Floats
) -> tuple[float, float]:
    if objective.unit == "share" and np.isin(amounts, (0.0, 1.0)).all():
        return front.wilson(float(amounts.sum()), len(amounts))
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)
