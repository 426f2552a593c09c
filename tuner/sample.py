"""What trials measured on the same questions, resampled together: values, draws, and which trials these can matter for.

Apart from `front`, which knows arrays and no trials, and from `results`, which makes points of what is found here. Thousands
of trials lie in tables, a row each, so that what is asked of all of them takes milliseconds; only contenders are
resampled in full (docs/decisions/0028).
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tuner import front
from tuner.condition import Condition
from tuner.front import Floats
from tuner.objectives import OBJECTIVES
from tuner.objectives import Objective
from tuner.objectives import by_question
from tuner.records import TrialRecord
from tuner.spec import LoadedStudy
from tuner.store import Store
from tuner.tasks import Split

DRAWS = 200
"""Resamples of the questions; a membership of 0.9 is then known to ± 0.04."""

SEED = 0
"""Of the resampling, so that the same study prints the same figures."""

FEW = 300
"""Trials up to which all are resampled in full."""

TOGETHER = 3200
"""Resamples of trials made at once: more do not fit into a processor's cache."""

CHANCE = 1e-5
"""That a resample puts a trial's quantile below the floor that it is given here."""

ROUNDING = 1e-9
"""Share by which two means must differ to be told apart by sums made in another order."""

Answers = Mapping[str, Floats]
"""Of one trial, by quantity: (questions, answers), the questions in the same order for all trials."""


def read_answers(
    study: LoadedStudy, store: Store, split: Split, trial_ids: Sequence[int] | None = None
) -> dict[int, Answers]:
    """Of each trial, on as many questions as it answered; without trials that lack a figure of an answer."""
    measured = [OBJECTIVES[name] for name in study.measured()]
    names = list(dict.fromkeys(field for each in measured for field in each.fields))
    among = None if trial_ids is None else set(trial_ids)
    found: dict[int, Answers] = {}
    for trial_id, rows in store.fields(split, [*names, "repeat"], trial_ids=among).items():
        *columns, repeats = rows.T
        starts = np.flatnonzero(repeats == 0)
        if np.isnan(columns).any():
            continue
        known = dict(zip(names, columns, strict=True))
        each = {o.name: o.amounts(*(known[field] for field in o.fields)) for o in measured}
        found[trial_id] = {name: by_question(amounts, starts) for name, amounts in each.items()}
    return found


@dataclass(frozen=True, slots=True)
class _Tables:
    """Answers of trials that gave one to each question, a row each."""

    rows: Mapping[int, int]
    """By trial id."""
    amounts: Mapping[str, Floats]
    """By quantity: (rows, questions)."""

    @classmethod
    def read(cls, study: LoadedStudy, store: Store, split: Split, questions: int) -> "_Tables":
        """Of trials that have ended; holdout answers are few, and in no table."""
        measured = [OBJECTIVES[name] for name in study.measured()]
        names = list(dict.fromkeys(field for each in measured for field in each.fields))
        ids, fields = store.stacked(names, runs=questions) if split == "search" else ([], {})
        if not ids:
            return cls({}, {})
        lacking = np.any([np.isnan(fields[name]).any(axis=1) for name in names], axis=0)
        return cls(
            {each: row for row, each in enumerate(ids) if not lacking[row]},
            {o.name: o.amounts(*(fields[field] for field in o.fields)) for o in measured},
        )


@dataclass(frozen=True)
class Sample:
    """What trials measured on all questions of a split."""

    split: Split
    questions: int
    objectives: tuple[Objective, ...]
    constraints: Mapping[str, Condition]
    trials: tuple[TrialRecord, ...]
    _tables: _Tables
    _others: Mapping[int, Answers]
    """By trial id, of those that are in no table."""

    @classmethod
    def read(
        cls, study: LoadedStudy, store: Store, candidates: Sequence[TrialRecord], split: Split
    ) -> "Sample":
        """The candidates with whole measurements; an interrupted pass cannot be paired with whole ones."""
        sizes = study.task_options
        questions = sizes.examples if split == "search" else sizes.holdout
        tables = _Tables.read(study, store, split, questions)
        counts = store.run_counts(split)
        left = [
            trial.trial_id
            for trial in candidates
            if trial.trial_id not in tables.rows and counts.get(trial.trial_id, 0) >= questions
        ]
        others = {
            trial_id: answers
            for trial_id, answers in read_answers(study, store, split, left).items()
            if len(next(iter(answers.values()))) == questions
        }
        return cls(
            split=split,
            questions=questions,
            objectives=tuple(OBJECTIVES[name] for name in study.spec.objectives),
            constraints={
                name: Condition.parse(text) for name, text in study.spec.constraints.items()
            },
            trials=tuple(
                trial
                for trial in candidates
                if questions and (trial.trial_id in tables.rows or trial.trial_id in others)
            ),
            _tables=tables,
            _others=others,
        )

    def at(self, places: Sequence[int]) -> "Sample":
        """The trials at these places, in this order."""
        return replace(self, trials=tuple(self.trials[place] for place in places))

    def of(self, trial: TrialRecord, answers: Answers) -> "Sample":
        """A sample of one trial that answered some of the questions only."""
        questions = len(next(iter(answers.values())))
        others = {trial.trial_id: answers}
        return replace(
            self, trials=(trial,), questions=questions, _tables=_Tables({}, {}), _others=others
        )

    def within(self) -> "Sample":
        """The trials that the search was told are within the constraints."""
        return self.at([place for place, trial in enumerate(self.trials) if trial.feasible])

    def answers(self, place: int) -> Answers:
        """What the trial at a place answered."""
        trial_id = self.trials[place].trial_id
        row = self._tables.rows.get(trial_id)
        if row is None:
            return self._others[trial_id]
        return {name: table[row][:, np.newaxis] for name, table in self._tables.amounts.items()}

    @cached_property
    def _rows(self) -> npt.NDArray[np.int64]:
        """Of each trial, its row in the tables; -1 where it is in none."""
        rows = self._tables.rows
        return np.array([rows.get(each.trial_id, -1) for each in self.trials], dtype=np.int64)

    def figures(self, quantity: str) -> Floats:
        """(trials,) values of an objective or a constrained quantity."""
        o, rows = OBJECTIVES[quantity], self._rows
        found = np.empty(len(rows))
        if (rows >= 0).any():
            found[rows >= 0] = o.summary(self._tables.amounts[quantity][rows[rows >= 0]])
        for place in np.flatnonzero(rows < 0).tolist():
            found[place] = o.of(self.answers(place)[quantity])
        return found

    def values(self) -> Floats:
        """(trials, objectives), turned so that smaller is better."""
        if not self.trials:
            return np.empty((0, len(self.objectives)))
        return self._oriented(np.stack([self.figures(o.name) for o in self.objectives], axis=1))

    def draws(self, count: int) -> Floats:
        """(draws, trials, objectives), turned likewise: each draw over the same resampled questions for every trial."""
        indices = front.resample_indices(self.questions, count, SEED)
        every = np.arange(len(self.trials))
        columns = [self._drawn(o, indices, every) for o in self.objectives]
        return self._oriented(np.stack(columns, axis=2))

    def _drawn(
        self, objective: Objective, indices: npt.NDArray[np.int64], places: npt.NDArray[np.intp]
    ) -> Floats:
        """(draws, places) of an objective."""
        found = np.empty((len(indices), len(places)))
        rows, name = self._rows[places], objective.name
        tabled = np.flatnonzero(rows >= 0)
        at_once = max(1, TOGETHER // len(indices))
        for first in range(0, len(tabled), at_once):
            some = tabled[first : first + at_once]
            answers = self._tables.amounts[name][rows[some]]
            found[:, some] = objective.summary(answers.take(indices, axis=1)).T
        for each in np.flatnonzero(rows < 0).tolist():
            answers = self.answers(places[each])[name].take(indices, axis=0)
            found[:, each] = objective.summary(answers.reshape(len(indices), -1))
        return found

    def _oriented(self, values: Floats) -> Floats:
        return front.oriented(values, [objective.direction for objective in self.objectives])

    def excess(self, place: int) -> dict[str, float]:
        """By how much a trial breaks each constraint that it breaks."""
        found = {}
        for name, bound in self.constraints.items():
            value = OBJECTIVES[name].of(self.answers(place)[name])
            if not bound.holds(value):
                found[name] = abs(value - float(bound.value))
        return found

    def memberships(self) -> Floats:
        """Of each trial, in what share of the draws no other dominates it.

        Shares of right answers are known least, and luck with them decides who looks best: they are steadied first, among
        all trials, also where only contenders are drawn.
        """
        values = self.values()
        steadied = {
            place: front.steadied_objective(self._mean_draws(place), values, place, self._twins(o))
            for place, o in enumerate(self.objectives)
            if o.unit == "share"
        }
        if not self._is_thinned:
            draws = self.draws(DRAWS)
            for place, drawn in steadied.items():
                draws[:, :, place] = drawn
            return front.membership(draws)
        indices = front.resample_indices(self.questions, DRAWS, SEED)
        times = np.zeros(len(self.trials))
        for draw, (left, columns) in enumerate(self._left(steadied)):
            for place, o in enumerate(self.objectives):
                if place not in steadied:  # of equal answers equal figures, to the last bit
                    column = self._drawn(o, indices[[draw]], left)[0]
                    columns[place] = -column if o.direction == "maximize" else column
            times[left[front.unbeaten(columns, np.stack(columns, axis=1))]] += 1
        return times / DRAWS

    def _by_question(self, quantity: str) -> Floats:
        """(trials, questions) means of the answers to each."""
        found = np.empty((len(self.trials), self.questions))
        rows = self._rows
        if (rows >= 0).any():
            found[rows >= 0] = self._tables.amounts[quantity][rows[rows >= 0]]
        for place in np.flatnonzero(rows < 0).tolist():
            found[place] = self.answers(place)[quantity].mean(axis=1)
        return found

    def _mean_draws(self, place: int) -> Floats:
        """(draws, trials) of an objective that is a mean, oriented: of many trials by one product."""
        o = self.objectives[place]
        if len(self.trials) <= FEW:
            return replace(self, objectives=(o,)).draws(DRAWS)[:, :, 0]
        indices = front.resample_indices(self.questions, DRAWS, SEED)
        times = np.stack([np.bincount(row, minlength=self.questions) for row in indices])
        drawn = times.astype(np.float64) @ self._by_question(o.name).T / self.questions
        return np.asarray(-drawn if o.direction == "maximize" else drawn)

    def _twins(self, objective: Objective) -> list[int]:
        """A number for each trial, the same for those that scored the same on every question."""
        numbers: dict[bytes, int] = {}
        scores = self._by_question(objective.name)
        return [numbers.setdefault(row.tobytes(), len(numbers)) for row in scores]

    def contenders(self) -> list[int]:
        """Places of the trials that are not dominated in every draw, and of some that are; all where there are FEW.

        What others dominate in every draw is on no draw's front and keeps nothing else off it, as its dominators are there
        instead: leaving it out changes no membership and no hypervolume.
        """
        is_left = np.zeros(len(self.trials), dtype=np.bool_)
        for left, _ in self._left({}) if self._is_thinned else ():
            is_left[left] = True
        return np.flatnonzero(is_left).tolist() if self._is_thinned else list(range(len(is_left)))

    @property
    def _quantiles(self) -> list[int]:
        return [place for place, o in enumerate(self.objectives) if o.quantile is not None]

    @property
    def _is_thinned(self) -> bool:
        """Whether trials that cannot matter to a draw are left out of it."""
        turned = any(self.objectives[place].direction == "maximize" for place in self._quantiles)
        return len(self.trials) > FEW and not turned

    def _left(
        self, drawn: Mapping[int, Floats]
    ) -> Iterator[tuple[npt.NDArray[np.intp], list[Floats]]]:
        """For each draw the places of the trials that may not be dominated in it, and their objectives in it.

        `drawn` holds (draws, trials) of objectives, by place, where these are to be used. A quantile's draws take long:
        there a trial has a floor instead, which one draw in a hundred thousand would break.
        """
        quantiles = self._quantiles
        means = [place for place in range(len(self.objectives)) if place not in quantiles]
        known = {p: drawn[p] if p in drawn else self._mean_draws(p) for p in means}
        centres = self.values()
        for place, draws in known.items():
            centres[:, place] = draws.mean(axis=0)
        best = front.strongest(centres)
        to_beat = self.at(best.tolist()).draws(DRAWS)
        for place, draws in known.items():
            to_beat[:, :, place] = draws[:, best]
            if place not in drawn:  # sums made in another order
                to_beat[:, :, place] += ROUNDING * np.abs(to_beat[:, :, place])
        floors = {place: self._floors(place) for place in quantiles}
        # What even at its luckiest is beaten by one at its unluckiest is left out at once.
        luckiest = [
            floors[place] if place in floors else known[place].min(axis=0)
            for place in range(len(self.objectives))
        ]
        some = front.unbeaten(luckiest, to_beat.max(axis=0))
        floors = {place: each[some] for place, each in floors.items()}
        known = {place: np.take(draws, some, axis=1) for place, draws in known.items()}
        for draw, beating in enumerate(to_beat):
            columns = [
                floors[place] if place in floors else known[place][draw]
                for place in range(len(self.objectives))
            ]
            left = front.unbeaten(columns, beating)
            yield some[left], [column[left] for column in columns]

    def _floors(self, place: int) -> Floats:
        """(trials,) amounts below which a draw puts a trial's quantile with CHANCE at most.

        A draw's quantile lies below the r-th smallest amount only if more of the r − 1 smaller ones are drawn than lie
        below the quantile: a binomial chance.
        """
        from scipy.special import bdtrc

        o = self.objectives[place]
        assert o.quantile is not None
        below = int(o.quantile * (self.questions - 1))
        ranks = np.arange(self.questions)
        rank = int(ranks[bdtrc(below, self.questions, ranks / self.questions) <= CHANCE].max())
        found = np.full(len(self.trials), -np.inf)  # in no table: kept
        rows = self._rows
        tables = self._tables.amounts[o.name][rows[rows >= 0]]
        found[rows >= 0] = np.partition(tables, rank, axis=1)[:, rank]
        return found
