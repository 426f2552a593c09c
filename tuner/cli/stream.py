"""`tuner run --json`: every event as a line of JSON on stdout, for programs.

Apart from `progress`, which is for people and may change its words.
"""

import json
import os
import sys
from typing import TYPE_CHECKING
from typing import Any

from tuner.errors import UserError
from tuner.stream import Stream

if TYPE_CHECKING:
    from tuner.events import Event
    from tuner.spec import LoadedStudy


class Printer:
    """Prints events as they happen; each line is flushed, so that a reader is never behind."""

    def __init__(self, study: "LoadedStudy") -> None:
        self._stream = Stream(study)
        _print(self._stream.started())

    def __call__(self, event: "Event") -> None:
        """Print an event."""
        _print(self._stream(event))

    def write(self, event: str, **content: Any) -> None:
        """Print what is no event of the study's own."""
        _print(self._stream.line(event, **content))


def _print(line: dict[str, Any]) -> None:
    """Raises UserError when nobody reads any more."""
    try:
        print(json.dumps(line, ensure_ascii=False, allow_nan=False), flush=True)
    except BrokenPipeError:
        # Of whatever else is raised here, the trial under way would be taken to have failed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise UserError(
            "whoever read the events has closed the pipe",
            hint="the same command goes on from here",
        ) from None
