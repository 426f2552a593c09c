"""How far each study is, in numbers: for lists and for Prometheus; remembered of studies that rest.

Apart from `tuner.content`, which reads one study in full.
"""

import math
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from dataclasses import field

from tuner.content import budget_content
from tuner.content import front_size
from tuner.content import trial_counts
from tuner.errors import UserError
from tuner.objectives import JOULES_PER_WH
from tuner.service.admission import AS_RUN
from tuner.service.book import Submission
from tuner.service.engine import Folders
from tuner.spec import LoadedStudy
from tuner.spec import load_study
from tuner.store import Store

SETTLED_S = 60.0
"""How long after a study was told to rest the questions under way may still be kept."""

FRESH_S = 1.0
"""For how long the numbers of others count: lists and Prometheus may ask often, and reading takes time."""

Limit = Mapping[str, float | int | None]


@dataclass(frozen=True, slots=True)
class Total:
    """A study in numbers; all empty where it has not begun."""

    trials: Mapping[str, int] = field(default_factory=dict)
    front: int = 0
    budget: Mapping[str, Limit] = field(default_factory=dict)
    questions: int = 0
    joules: float | None = None


class Totals:
    """Reads them; safe to be used by several threads."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._lock = threading.Lock()
        self._known: dict[str, tuple[tuple[object, ...], float, Total]] = {}
        """By name: of which state of the submission, until when it counts, and the numbers."""

    def study(self, row: Submission) -> LoadedStudy:
        """A study as the service runs it. Raises UserError where it was never begun."""
        return load_study(self._folders.submitted(row).with_name(AS_RUN))

    def of(self, row: Submission) -> Total:
        """A study's numbers."""
        key = (row.digest, row.state, row.changed_s)
        with self._lock:
            known = self._known.get(row.name)
        if known is not None and known[0] == key and time.monotonic() < known[1]:
            return known[2]
        total = self._read(row)
        rests = row.state != "running" and time.time() - row.changed_s > SETTLED_S
        until_s = math.inf if rests else time.monotonic() + FRESH_S
        with self._lock:
            self._known[row.name] = (key, until_s, total)
        return total

    def _read(self, row: Submission) -> Total:
        try:
            study = self.study(row)
            store = Store.open(study.storage_url, row.name)
        except UserError:
            return Total()
        with closing(store):
            trials = store.trials()
            budget = budget_content(study, store, trials)
            energy = budget["energy_wh"]["spent"]
            return Total(
                trials=trial_counts(trials),
                front=front_size(study, trials),
                budget=budget,
                questions=store.asked_count("search") + store.asked_count("holdout"),
                joules=None if energy is None else energy * JOULES_PER_WH,
            )
