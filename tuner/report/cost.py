"""What a study spent, and what it was spared: by racing, by checkpoints, and by what was measured before.

Apart from `tuner.budget`, which holds a running study to its limits: here is looked back, in units that people read.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.budget import QUANTITIES
from tuner.budget import spent
from tuner.objectives import JOULES_PER_WH
from tuner.records import TrialRecord
from tuner.spec import LoadedStudy
from tuner.store import Store
from tuner.store.spending import Spending

AMOUNTS: Mapping[str, tuple[str, float]] = {
    "seconds": ("s", 1.0),
    "joules": ("Wh", JOULES_PER_WH),
    "tokens": ("tokens", 1.0),
    "usd": ("$", 1.0),
}
"""What the store sums up, by its name there: the unit it is shown in, and how much of it that unit is."""


@dataclass(frozen=True, slots=True)
class Sum:
    """What was spent of one quantity."""

    name: str
    unit: str
    total: float | None
    """None where it cannot be told."""
    holdout: float | None
    """The part of it that the holdout pass took."""
    unknown: int
    """Runs of which it is not known, each taken for the dearest of its trial."""


@dataclass(frozen=True, slots=True)
class Saving:
    """What was not run, and what it would have taken."""

    by: str
    how: str
    trials: int
    questions: int
    amounts: Mapping[str, float | None]
    """By unit, `s`, `Wh`, `tokens` and `$`; None where not every run of them is known."""
    is_estimate: bool


def read_sums(store: Store, trials: Sequence[TrialRecord]) -> tuple[Sum, ...]:
    """Questions, time and what is paid for. GPU-hours are left out where no GPU is metered."""
    row, rows = store.row(), store.spent()
    asked = {split: store.asked_count(split) for split in ("search", "holdout")}
    holdout_s = sum(each.amounts["seconds"].spent for each in rows if each.split == "holdout")
    # The search's clock stands in the study's row; of the holdout pass there are its sittings.
    search_s = 0.0 if row is None else row.search_s
    models = {} if row is None else row.provenance.get("models", {})
    has_gpus = any(model.get("energy", {}).get("gpus") for model in models.values())
    sums = [
        Sum("questions asked", "", float(sum(asked.values())), float(asked["holdout"]), 0),
        Sum("time", "s", search_s + holdout_s, holdout_s, 0),
    ]
    for name, each in spent(store).items():
        if name != "gpu_hours" or has_gpus:
            quantity = QUANTITIES[name]
            known = None if each.total == 0.0 and each.unknown else each.total
            sums.append(Sum(_NAMES[name], quantity.unit, known, each.holdout, each.unknown))
    return tuple(sums)


_NAMES = {"gpu_hours": "GPU time", "energy_wh": "energy", "cost_usd": "cost", "tokens": "tokens"}


def read_savings(
    study: LoadedStudy, store: Store, trials: Sequence[TrialRecord]
) -> tuple[Saving, ...]:
    """What each way of not running an agent saved on the search questions; those that saved nothing are left out."""
    rows = {row.trial_id: row for row in store.spent() if row.split == "search"}
    ids = {trial.number: trial.trial_id for trial in trials}
    questions = study.task_options.examples

    def of(chosen: Iterable[TrialRecord]) -> list[Spending]:
        return [rows[trial.trial_id] for trial in chosen if trial.trial_id in rows]

    derived = of(trial for trial in trials if trial.derived_from is not None)
    reused = of(trial for trial in trials if trial.reused_from is not None)
    resumed = [
        row
        for row in of(trial for trial in trials if not trial.is_free)
        if row.amounts["latency_s"].total > row.amounts["latency_s"].spent
    ]
    again = [trial.replay_of for trial in trials if trial.replay_of is not None]
    repeated = [rows[ids[number]] for number in again if ids.get(number) in rows]
    stopped = [
        (row, (questions - row.runs) / row.runs)
        for row in of(trial for trial in trials if trial.stopped is not None)
        if row.runs < questions
    ]
    found = [
        _old("checkpoints", "derived from a run with a larger budget", derived),
        _old("going on", "went on where a run with a smaller budget had ended", resumed),
        _old("reuse", "taken over from another study", reused),
        Saving(
            "repetition",
            "asked for again by the sampler, and not run again",
            len(repeated),
            sum(row.runs for row in repeated),
            {unit: _total(repeated, name) for name, (unit, _) in AMOUNTS.items()},
            is_estimate=False,
        ),
        Saving(
            "stopping early",
            "given no more questions, once those asked had shown enough",
            len(stopped),
            sum(questions - row.runs for row, _ in stopped),
            {unit: _projected(stopped, name) for name, (unit, _) in AMOUNTS.items()},
            is_estimate=True,
        ),
    ]
    return tuple(saving for saving in found if saving.trials)


def _old(by: str, how: str, rows: Sequence[Spending]) -> Saving:
    """What runs had been paid for before."""
    amounts = {}
    for name, (unit, size) in AMOUNTS.items():
        before = sum(row.amounts[name].total - row.amounts[name].spent for row in rows)
        amounts[unit] = before / size if _is_known(rows, name) else None
    return Saving(by, how, len(rows), sum(row.runs for row in rows), amounts, is_estimate=False)


def _total(rows: Sequence[Spending], name: str) -> float | None:
    size = AMOUNTS[name][1]
    return sum(row.amounts[name].total for row in rows) / size if _is_known(rows, name) else None


def _projected(rows: Sequence[tuple[Spending, float]], name: str) -> float | None:
    """What the questions left would have taken, had they gone on as those before."""
    if not _is_known([row for row, _ in rows], name):
        return None
    return sum(row.amounts[name].total * times for row, times in rows) / AMOUNTS[name][1]


def _is_known(rows: Sequence[Spending], name: str) -> bool:
    return all(row.amounts[name].known == row.runs for row in rows)
