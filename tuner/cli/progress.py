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
from tuner.samplers import POOLED

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
class _Pass:
    started: events.PassStarted
    done: int
    right: float = 0.0


@dataclass(slots=True)
class _Lines:
    """One line an event that matters, for pipes and logs."""

    study: "LoadedStudy"
    _passes: dict[int, "_Pass"] = field(default_factory=dict)
    _started_s: float = field(default_factory=time.perf_counter)

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.Talk(text):
                self._say(text)
            case events.PassStarted():
                self._passes[event.trial] = _Pass(event, event.finished)
                if event.split == "search" and event.finished:
                    self._say(f"trial {event.trial} goes on after {event.finished} examples")
            case events.ExampleFinished(trial, run):
                self._passes[trial].done += 1
                self._passes[trial].right += run.score
            case events.PassEnded(trial):
                self._tell(self._passes[trial])
            case events.TrialEnded():
                # In blocks, what was stopped has been told of by the block.
                if event.stopped is None or not self._in_blocks:
                    self._say(_ended(self.study, event))
            case events.StudyEnded(reason):
                self._say(f"search ended: {reason}")

    @property
    def _in_blocks(self) -> bool:
        return self.study.spec.sampler.name == POOLED

    def _tell(self, each: "_Pass") -> None:
        """What a pass came to, where no end of a trial tells it."""
        what = f"trial {each.started.trial}: {summary(self.study, each.started.config)}"
        if each.started.split == "holdout" and each.done == each.started.examples:
            self._say(f"holdout, {what}: {each.done} questions")
        elif each.started.split == "search" and self._in_blocks:
            self._say(f"{what}: {each.done} questions, {each.right:.0f} right")

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
