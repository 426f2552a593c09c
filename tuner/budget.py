"""What a study may spend, and what it has.

Apart from `study`, which asks here before a trial is given questions: everything follows from what is stored, so that
it comes out the same after an interruption and for every worker. docs/budgets.md has the rules in words.
"""

from collections import defaultdict
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from tuner.front import non_dominated
from tuner.front import oriented
from tuner.objectives import JOULES_PER_WH
from tuner.objectives import OBJECTIVES
from tuner.results import counted
from tuner.results import evaluated
from tuner.results import hypervolume_gain
from tuner.samplers import POOLED
from tuner.spec import LoadedStudy
from tuner.store import EDGE
from tuner.store import Store
from tuner.store.spending import Amount
from tuner.store.spending import Spending
from tuner.tasks import Split
from workflows.config import AgentConfig

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something that is paid for, in the search and in the holdout pass."""

    name: str
    """Key of the budget."""
    unit: str
    amount: str
    """What the store sums up for it."""
    per_unit: float
    """Of that amount."""


QUANTITIES: Mapping[str, Quantity] = {
    quantity.name: quantity
    for quantity in (
        Quantity("gpu_hours", "GPU-hours", "seconds", SECONDS_PER_HOUR),
        Quantity("energy_wh", "Wh", "joules", JOULES_PER_WH),
        Quantity("cost_usd", "$", "usd", 1.0),
        Quantity("tokens", "tokens", "tokens", 1.0),
    )
}
"""By their keys; trials and time are counted otherwise."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a study has spent of one quantity, in its unit."""

    total: float | None
    """None where it cannot be told: something ran, and nothing is known of any run."""
    holdout: float | None
    """The part of it that the holdout pass took."""
    unknown: int
    """Runs of which it is not known: each counts as the dearest run of its trial."""


def spent(store: Store) -> dict[str, Spent]:
    """What was spent of each of QUANTITIES: by failed, stopped and extra runs too, less what earlier runs had paid for."""
    rows = store.spent()
    bills = {name: _bill(store, quantity, rows) for name, quantity in QUANTITIES.items()}
    return {
        name: Spent(bill.spent(), bill.spent("holdout"), bill.unknown)
        for name, bill in bills.items()
    }


def gpus_of(energies: Iterable[Mapping[str, Any]]) -> int | None:
    """How many GPUs meters watch, those of one scope once; None where one does not say.

    Each is a model's `energy` in a study's provenance.
    """
    counts = {str(energy.get("scope")): energy.get("gpus") for energy in energies}
    known = [count for count in counts.values() if isinstance(count, int)]
    return sum(known) if known and len(known) == len(counts) else None


@dataclass(frozen=True, slots=True)
class Used:
    """A limit of the search, and what is spent of it."""

    unit: str
    spent: float
    limit: float


Configs = Callable[[], Sequence[AgentConfig]]

Plan = Sequence[tuple[AgentConfig, int]]
"""Configs, and how many questions each is to be asked."""


class Ledger:
    """What a study has spent, against what it may spend; asked before every trial and every block of questions.

    `front` gives the configs that the holdout pass would measure if the search ended now; without it, they are those
    that no other dominates by its trial's values. `under_way` are questions that are being asked: what they are expected
    to take is as good as spent.
    """

    def __init__(
        self,
        study: LoadedStudy,
        store: Store,
        *,
        front: Configs | None = None,
        under_way: Callable[[], Plan] = lambda: (),
    ) -> None:
        self._study = study
        self._store = store
        self._under_way = under_way
        self._front = front or self._by_values
        self._budget = study.spec.budget
        self._limits = {
            name: float(limit)
            for name in QUANTITIES
            if (limit := getattr(self._budget, name)) is not None
        }
        self._rows: dict[tuple[int, str], Spending] = {}
        self._looked_at = 0
        self._plateau: str | None = None

    def end_reason(self) -> str | None:
        """Why the search is over though there are trials left; None while it is not."""
        rows = self._spent() if self._limits else []
        accounts = (*self._clock([]), *self._accounts(rows))
        refusals = (account.refusal() for account in accounts)
        return next(filter(None, refusals), None) or self._no_gain()

    def affords(
        self, config: AgentConfig, questions: int, *, split: Split = "search"
    ) -> str | None:
        """None where the config is expected to answer so many more questions within all limits; else why not.

        What they take is estimated from the config's own runs, else from those of its workflow, on the dear side, else
        from all; before the first run there is no estimate, and nothing is refused. In the search, what the holdout
        pass takes is kept; in that pass itself, which `split` says, time has no limit.
        """
        accounts = self._of_search() if split == "search" else self._of_holdout()
        refusals = (account.refusal(config, questions) for account in accounts)
        return next(filter(None, refusals), None)

    def used(self) -> list["Used"]:
        """What is spent of every limit that is set, for whoever shows it; what cannot be told is left out.

        The pooled sampler's questions come in the place of trials.
        """
        trials = self._budget.trials
        if self._study.spec.sampler.name == POOLED:
            questions = trials * self._study.task_options.examples
            found = [Used("questions", self._store.asked_count("search"), questions)]
        else:
            found = [Used("trials", len(counted(self._store.trials())), trials)]
        return found + [
            Used(account.unit, account.spent, account.limit)
            for account in self._of_search()
            if account.spent is not None
        ]

    def expected_s(self, config: AgentConfig) -> float:
        """Seconds that a question of this config may take, on the dear side; 0 before the first run."""
        return _Bill(self._spent(), "latency_s", 1.0).expected(config)

    def left(self) -> float:
        """The share of the search's budget that is left, by whichever limit leaves least; the number of trials is none of these."""
        return min((account.left() for account in self._of_search()), default=1.0)

    def allows(self, plan: Plan) -> bool:
        """Whether all these configs are expected to answer so many more questions within the limits of the search."""
        return all(account.allows(plan) for account in self._of_search())

    def _of_search(self) -> Iterator["_Account"]:
        if self._limits or self._budget.wall_clock is not None:
            rows = self._spent()
            yield from self._clock(rows)
            yield from self._accounts(rows)

    def _of_holdout(self) -> Iterator["_Account"]:
        if self._limits:
            yield from self._accounts(self._spent(), keeping=False)

    def _spent(self) -> list[Spending]:
        """As the store has it, by trial and split; read once, and then only what has changed since."""
        last = max((row.last for row in self._rows.values()), default=0)
        for row in self._store.spent(after=last):
            self._rows[row.trial_id, row.split] = row
        return [self._rows[key] for key in sorted(self._rows)]

    def _clock(self, rows: Sequence[Spending]) -> Iterator["_Account"]:
        """Of the limit on time, if any. The clock goes on as it went so far with what the questions took.

        They overlap, and there is time between them.
        """
        if self._budget.wall_clock is None:
            return
        row = self._store.row()
        search_s = 0.0 if row is None else row.search_s
        searched = [row for row in rows if row.split != "holdout"]
        taken_s = _Bill(searched, "latency_s", 1.0).spent()
        per_second = taken_s / search_s if taken_s and search_s else 1.0
        bill = _Bill(searched, "latency_s", per_second)
        kept = bill.expected_of(self._under_way())
        yield _Account("s", self._budget.wall_clock, search_s, bill, kept, "what is under way")

    def _accounts(self, rows: Sequence[Spending], *, keeping: bool = True) -> Iterator["_Account"]:
        """Of each limit on a quantity, with what is to be kept for the holdout pass."""
        waiting = self._waiting(rows) if keeping and self._limits else []
        under_way = self._under_way()
        for name, limit in self._limits.items():
            quantity = QUANTITIES[name]
            bill = _bill(self._store, quantity, rows)
            kept = bill.expected_of([*waiting, *under_way])
            what = "what is under way and the holdout pass" if under_way else "the holdout pass"
            yield _Account(quantity.unit, limit, bill.spent(), bill, kept, what)

    def _waiting(self, rows: Sequence[Spending]) -> list[tuple[AgentConfig, int]]:
        """The configs of the front, and how many holdout questions each has still to be asked."""
        asked = {row.config_hash: row.runs for row in rows if row.split == "holdout"}
        questions = self._study.task_options.holdout
        return [
            (config, max(0, questions - asked.get(config.hash(), 0))) for config in self._front()
        ]

    def _by_values(self) -> list[AgentConfig]:
        names = self._study.spec.objectives
        known = [
            (trial.config, [trial.values[name] for name in names])
            for trial in evaluated(self._store.trials())
            if trial.values is not None and trial.config is not None and not trial.config.oracle
            if trial.feasible and trial.stopped is None
        ]
        if not known:
            return []
        directions = [OBJECTIVES[name].direction for name in names]
        values = np.array([values for _, values in known])
        keep = non_dominated(oriented(values, directions))
        return [config for (config, _), member in zip(known, keep, strict=True) if member]

    def _no_gain(self) -> str | None:
        """Why more trials are not worth their while; looked at once for each number of trials, as it takes long."""
        last = self._budget.plateau
        if last is None:
            return None
        ended = len(counted(self._store.trials()))
        if self._looked_at != ended:
            self._looked_at, self._plateau = ended, None
            gain = hypervolume_gain(self._study, self._store, last)
            if gain is not None and gain[1] <= 0:
                share, low, high = (f"{100 * part:.2g}" for part in gain)
                self._plateau = (
                    f"the last {last} trials added {share} % [{low}, {high}] to the front's hypervolume, "
                    "which may be luck"
                )
        return self._plateau


class _Bill:
    """What runs took of one quantity, in its unit, and what others may take."""

    def __init__(self, rows: Sequence[Spending], amount: str, per_unit: float) -> None:
        self._rows = [(row, row.amounts[amount]) for row in rows]
        self._per_unit = per_unit
        self.unknown = sum(of.unknown for _, of in self._rows)
        known = [(row, of) for row, of in self._rows if of.known]
        self._dearest: dict[int, float] = {}
        for row, of in known:
            self._dearest[row.trial_id] = max(self._dearest.get(row.trial_id, 0.0), of.dearest)
        self._most = max(self._dearest.values(), default=None)
        self._of_config: dict[str, list[float]] = defaultdict(list)
        self._of_workflow: dict[str, list[float]] = defaultdict(list)
        self._all: list[float] = []
        self._has_learned = False

    def _learn(self) -> None:
        """What a question of each trial took: its part of the extra ones and what it reused included."""
        self._has_learned = True
        for _, group in groupby(self._rows, key=lambda pair: pair[0].trial_id):
            pairs = list(group)
            questions = sum(row.runs for row, _ in pairs if row.split != EDGE)
            if questions:
                taken = sum(
                    of.total + (row.runs - of.known) * self._guess(row) for row, of in pairs
                )
                each = taken / questions / self._per_unit
                self._of_config[pairs[0][0].config_hash].append(each)
                self._of_workflow[pairs[0][0].workflow].append(each)
                self._all.append(each)

    def _guess(self, row: Spending) -> float:
        """What a run of a trial took at most, going by those that are known."""
        return self._dearest.get(row.trial_id, self._most or 0.0)

    def spent(self, split: Split | None = None) -> float | None:
        """What was paid for, in all or on one split; None where something was and nothing is known of it."""
        if self.unknown and self._most is None:
            return None
        paid = [
            of.spent + of.unknown * self._guess(row)
            for row, of in self._rows
            if split in (None, row.split)
        ]
        return sum(paid) / self._per_unit

    def expected(self, config: AgentConfig) -> float:
        """What a question of this config may take; 0 before any run."""
        if not self._has_learned:
            self._learn()
        own = self._of_config.get(config.hash())
        if own is not None:
            return float(np.mean(own))
        known = self._of_workflow.get(config.workflow, self._all)
        return float(np.mean(known) + np.std(known)) if known else 0.0

    def expected_of(self, plan: Plan) -> float:
        """What so many questions of each of these configs may take."""
        return sum(self.expected(config) * questions for config, questions in plan)


@dataclass(frozen=True, slots=True)
class _Account:
    """One limit, and what there is to be set against it."""

    unit: str
    limit: float
    spent: float | None
    bill: _Bill
    kept: float
    """What is expected to be taken by what has been promised."""
    kept_for: str

    def refusal(self, config: AgentConfig | None = None, questions: int = 0) -> str | None:
        """Why nothing more, or not so many questions to this config, may be asked; None where they may."""
        if self.spent is None:
            return f"nobody knows how much of {_number(self.limit)} {self.unit} {self.bill.unknown} runs took"
        takes = 0.0 if config is None else self.bill.expected(config) * questions
        if self.spent < self.limit and self.spent + takes + self.kept <= self.limit:
            return None
        parts = [f"{_number(self.spent)} of {_number(self.limit)} {self.unit} are spent"]
        if config is not None and takes:
            parts.append(f"{questions} questions of {config.workflow} take about {_number(takes)}")
        if self.kept:
            parts.append(
                f"{self.kept_for} {'take' if ' and ' in self.kept_for else 'takes'} about {_number(self.kept)}"
            )
        *first, last = parts
        return f"{', '.join(first)}, and {last}" if first else last

    def left(self) -> float:
        """The share of the limit that is left for the search."""
        spent = self.limit if self.spent is None else self.spent
        return max(0.0, self.limit - spent - self.kept) / self.limit

    def allows(self, plan: Plan) -> bool:
        """Whether all these questions fit."""
        return self.bill.expected_of(plan) <= self.left() * self.limit


def _bill(store: Store, quantity: Quantity, rows: Sequence[Spending]) -> _Bill:
    """The bill of a quantity; time becomes GPU-hours by the GPUs of the study's servers."""
    per_unit = quantity.per_unit
    if quantity.name == "gpu_hours":
        row = store.row()
        models = {} if row is None else row.provenance.get("models", {})
        gpus = gpus_of(model["energy"] for model in models.values())
        if gpus is not None:
            per_unit /= gpus
        else:
            rows = [replace(each, amounts={quantity.amount: _unknown(each)}) for each in rows]
    return _Bill(rows, quantity.amount, per_unit)


def _unknown(row: Spending) -> Amount:
    """Nothing is known of any of these runs."""
    return Amount(total=0.0, known=0, spent=0.0, unknown=row.runs, dearest=0.0)


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
