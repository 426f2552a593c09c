"""What a verb shows while a study runs: a live screen on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import closing
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
from typing import TYPE_CHECKING
from typing import Any

from tuner import events
from tuner.cli.output import quantity
from tuner.cli.output import summary
from tuner.cli.output import talk
from tuner.results import LEFT_OUT

if TYPE_CHECKING:
    from tuner.spec import LoadedStudy


@contextmanager
def open_progress(study: "LoadedStudy") -> "Iterator[Callable[[events.Event], None]]":
    """Something to report events to, shown until the block ends."""
    if not sys.stderr.isatty():
        yield _Lines(study)
        return
    from rich.console import Console
    from rich.live import Live

    from tuner.cli.screen import Screen

    screen = Screen(study)
    # A screen of its own: what a terminal makes of lines that it folds when its window changes cannot be taken back.
    live = Live(
        screen, console=Console(stderr=True, markup=False), screen=True, refresh_per_second=4
    )
    try:
        with closing(screen), live:
            yield screen
    finally:  # it leaves nothing behind
        for line in screen.said:
            talk(line)


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
