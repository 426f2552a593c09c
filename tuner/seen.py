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
        """Read what the store has."""
        self.objectives = tuple(OBJECTIVES[name] for name in objectives)
        self._names = list(dict.fromkeys(f for each in self.objectives for f in each.fields))
        self._rows = {example.id: row for row, example in enumerate(task.search)}
        self._amounts: dict[int, Floats] = {}
        asked = store.asked("search")
        for trial_id, fields in store.fields("search", self._names).items():
            for (example_id, repeat), values in zip(asked[trial_id], fields, strict=True):
                self._enter(trial_id, example_id, repeat, values)

    def add(self, trial_id: int, run: ExampleRun) -> None:
        """Enter a run of the search questions."""
        values = np.array([getattr(run, name) for name in self._names], dtype=np.float64)
        self._enter(trial_id, run.example_id, run.repeat, values)

    def of(self, trial_id: int) -> Floats:
        """(questions, objectives) in the study's order, NaN where a question was not answered, or an amount not measured."""
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
            self._amounts[trial_id] = self.of(trial_id)
        columns = dict(zip(self._names, values[:, None], strict=True))
        self._amounts[trial_id][row] = [
            float(each.amounts(*(columns[name] for name in each.fields))[0])
            for each in self.objectives
        ]
