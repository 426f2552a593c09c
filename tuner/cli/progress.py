"""What `tuner run` shows while it runs: a live screen on a terminal, plain lines elsewhere."""

import math
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import closing
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from tuner import events
from tuner.budget import Ledger
from tuner.budget import Used
from tuner.cli.output import expected_rows
from tuner.cli.output import number
from tuner.cli.output import quantity
from tuner.cli.output import summary
from tuner.cli.output import talk
from tuner.front import non_dominated
from tuner.front import oriented
from tuner.objectives import OBJECTIVES
from tuner.results import LEFT_OUT
from tuner.results import open_results

if TYPE_CHECKING:
    from rich.console import Group

    from tuner.spec import LoadedStudy
    from tuner.store import Store


LOOK_S = 1.0
"""Between two looks at what is spent."""


@contextmanager
def open_progress(study: "LoadedStudy") -> "Iterator[Callable[[events.Event], None]]":
    """Something to report events to, shown until the block ends."""
    if not sys.stderr.isatty():
        yield _Lines(study)
        return
    from rich.console import Console
    from rich.live import Live

    screen = _Screen(study)
    with (
        closing(screen),
        Live(
            console=Console(stderr=True, markup=False),
            get_renderable=screen.render,
            refresh_per_second=4,
        ),
    ):
        yield screen


@dataclass(slots=True)
class _Lines:
    """One line an event that matters, for pipes and logs."""

    study: "LoadedStudy"
    _pass: Any = None
    _done: int = 0
    _right: float = 0.0
    _in_blocks: bool = False
    _started_s: float = field(default_factory=time.perf_counter)

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.Talk(text):
                self._say(text)
            case events.PassStarted():
                self._pass, self._done, self._right = event, event.finished, 0.0
                if event.split == "search" and event.finished:
                    self._say(f"trial {event.trial} goes on after {event.finished} examples")
            case events.ExampleFinished(run=run):
                self._done += 1
                self._right += run.score
                if self._pass.split == "holdout" and self._done == self._pass.examples:
                    config = summary(self.study, self._pass.config)
                    self._say(f"holdout, trial {event.trial}: {config}: {self._done} questions")
            case events.FrontExpected():
                self._in_blocks = True
                config = summary(self.study, self._pass.config)
                self._say(
                    f"trial {self._pass.trial}: {config}: {self._done} questions, {self._right:.0f} right"
                )
            case events.TrialEnded():
                # In blocks, what was stopped has been told of by the block.
                if event.stopped is None or not self._in_blocks:
                    self._say(_ended(self.study, event))
            case events.StudyEnded(reason):
                self._say(f"search ended: {reason}")

    def _say(self, text: str) -> None:
        talk(f"[{time.perf_counter() - self._started_s:6.1f} s] {text}")


class _Screen:
    """The trial under way, the front so far, and what is left of the budget."""

    def __init__(self, study: "LoadedStudy") -> None:
        self._study = study
        self._text = "starting"
        self._pass: Any = None
        self._done = 0
        self._right = 0.0
        self._ended: list[Any] = []
        self._expected: Sequence[events.Expected] = ()
        self._search_over = False
        self._store: Store | None = None
        self._ledger: Ledger | None = None
        self._looked_s = -math.inf
        self._used: Sequence[Used] = ()
        self._search_s = 0.0

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.Talk(text):
                self._text = text
            case events.PassStarted():
                self._pass, self._done, self._right = event, event.finished, 0.0
                self._look()
            case events.ExampleFinished(run=run):
                self._done += 1
                self._right += run.score
            case events.FrontExpected(configs):
                self._expected = configs
            case events.TrialEnded():
                self._ended.append(event)
                self._look()
            case events.StudyEnded(reason):
                self._text = f"search ended: {reason}"
                self._search_over = True

    def close(self) -> None:
        """Look no more."""
        if self._store is not None:
            self._store.close()

    def _look(self) -> None:
        """See what is spent, unless that was just seen."""
        if time.perf_counter() - self._looked_s < LOOK_S:
            return
        if self._store is None or self._ledger is None:
            self._store = open_results(self._study)
            self._ledger = Ledger(self._study, self._store)
        row = self._store.row()
        self._used, self._search_s = self._ledger.used(), 0.0 if row is None else row.search_s
        self._looked_s = time.perf_counter()

    def render(self) -> "Group":
        """The screen as it stands now."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        parts: list[Any] = [Text(self._headline(), style="bold")]
        if self._pass is not None:
            what = "holdout" if self._pass.split == "holdout" else "trial"
            config = summary(self._study, self._pass.config)
            parts.append(
                Text(
                    f"{what} {self._pass.trial}: {config}, "
                    f"{self._done} of {self._pass.examples} examples, {self._right:.0f} right"
                )
            )
            parts.append(ProgressBar(total=self._pass.examples, completed=self._done, width=60))
            parts.append(Text())
        parts.append(self._front())
        failed = [event for event in self._ended if event.failure not in (None, LEFT_OUT)]
        if failed:
            parts.append(Text(f"{len(failed)} failed; the last: {failed[-1].failure}", style="red"))
        return Group(*parts)

    def _headline(self) -> str:
        name = self._study.spec.name
        share = max((used.spent / used.limit for used in self._used), default=0.0)
        if self._search_over or not share:
            return f"{name}: {self._text}"
        spent = ", ".join(
            f"{number(used.spent)} of {number(used.limit)} {used.unit}" for used in self._used
        )
        left_s = max(0.0, self._search_s * (1 / share - 1))
        return f"{name}: {spent}; about {left_s:.0f} s of searching left"

    def _front(self) -> Any:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        if self._expected:
            title = "front so far, as all answers make it likely"
            table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
            columns, rows = expected_rows(self._study, self._expected[:12])
            for column in columns:
                table.add_column(column)
            for row in rows:
                table.add_row(*row)
            return table
        known = [
            event
            for event in self._ended
            if event.values is not None and event.replay_of is None and event.stopped is None
        ]
        if not known:
            return Text("no trial is complete yet", style="dim")
        names = self._study.spec.objectives
        values = np.array([[event.values[name] for name in names] for event in known])
        keep = non_dominated(oriented(values, [OBJECTIVES[name].direction for name in names]))
        table = Table(title="front so far", title_justify="left", box=box.SIMPLE_HEAD)
        for column in ("trial", "config", *names):
            table.add_column(column)
        chosen = [event for event, member in zip(known, keep, strict=True) if member]
        for event in sorted(chosen, key=lambda event: -event.values[names[0]])[:12]:
            figures = [quantity(name, event.values[name]) for name in names]
            table.add_row(str(event.trial), summary(self._study, event.config), *figures)
        return table


def _ended(study: "LoadedStudy", event: Any) -> str:
    config = summary(study, event.config) if event.config is not None else ""
    if event.failure == LEFT_OUT:
        return f"trial {event.trial} left out: {config}: {event.failure}"
    if event.failure is not None:
        return f"trial {event.trial} failed: {config}: {event.failure}"
    figures = ", ".join(f"{name} {quantity(name, value)}" for name, value in event.values.items())
    replay = f" (as trial {event.replay_of})" if event.replay_of is not None else ""
    stopped = f" (stopped: {event.stopped})" if event.stopped is not None else ""
    return f"trial {event.trial}{replay}: {config}: {figures}{stopped}"
