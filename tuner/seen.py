"""What a search has seen: every objective's amounts, question by question, for each trial.

Apart from `results`, which reads a study once it is asked about it: this is kept up to date while questions are
answered, since racing and the pooled sampler look after every few of them.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tuner.objectives import OBJECTIVES
from tuner.records import ExampleRun
from tuner.store import Store
from tuner.tasks import Task

Floats = npt.NDArray[np.float64]


COST = "latency_mean_s"
"""The objective that says what a question of a config takes, whether it is optimised or not."""


class Seen:
    """First answers to the search questions, by trial."""

    def __init__(self, store: Store, task: Task, objectives: Sequence[str]) -> None:
        """What the store has is read once somebody asks: a search without racing never does."""
        self.objectives = tuple(OBJECTIVES[name] for name in objectives)
        self._names = list(dict.fromkeys(f for each in self.objectives for f in each.fields))
        self._rows = {example.id: row for row, example in enumerate(task.search)}
        self._store = store
        self._amounts: dict[int, Floats] = {}
        self._is_read = False

    def _read(self) -> None:
        self._is_read = True
        whole, fields = self._store.stacked(self._names, runs=len(self._rows))
        if whole:
            # One answer to each question, in the order of their ids.
            places = [self._rows[example] for example in sorted(self._rows)]
            known = np.empty((len(whole), len(self._rows), len(self.objectives)))
            for number, each in enumerate(self.objectives):
                amounts = each.amounts(*(fields[name] for name in each.fields))
                known[:, places, number] = amounts
            self._amounts = dict(zip(whole, known, strict=True))
        left = set(self._store.run_counts("search")) - set(whole)
        asked = self._store.asked("search", trial_ids=left)
        for trial_id, rows in self._store.fields("search", self._names, trial_ids=left).items():
            for (example_id, repeat), values in zip(asked[trial_id], rows, strict=True):
                self._enter(trial_id, example_id, repeat, values)

    def add(self, trial_id: int, run: ExampleRun) -> None:
        """Enter a run of the search questions, which the store has."""
        if not self._is_read:
            return
        values = np.array([getattr(run, name) for name in self._names], dtype=np.float64)
        self._enter(trial_id, run.example_id, run.repeat, values)

    def of(self, trial_id: int) -> Floats:
        """(questions, objectives) in the study's order, NaN where a question was not answered, or an amount not measured."""
        if not self._is_read:
            self._read()
        empty = np.full((len(self._rows), len(self.objectives)), np.nan)
        return self._amounts.get(trial_id, empty)

    def answered(self, trial_id: int) -> npt.NDArray[np.bool_]:
        """Which questions a trial has answered, every amount measured."""
        return np.asarray(~np.isnan(self.of(trial_id)).any(axis=1))

    def _enter(self, trial_id: int, example_id: str, repeat: int, values: Floats) -> None:
        row = self._rows.get(example_id)
        if repeat or row is None:
            return
        if trial_id not in self._amounts:
            self._amounts[trial_id] = np.full((len(self._rows), len(self.objectives)), np.nan)
        columns = dict(zip(self._names, values[:, None], strict=True))
        self._amounts[trial_id][row] = [
            float(each.amounts(*(columns[name] for name in each.fields))[0])
            for each in self.objectives
        ]
