"""`tuner run --json`: every event as a line of JSON on stdout, for programs; docs/running.md has the schema.

Apart from `progress`, which is for people and may change its words: keys here are only ever added.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from typing import TYPE_CHECKING
from typing import Any

from tuner import events
from tuner.errors import UserError
from tuner.objectives import OBJECTIVES

if TYPE_CHECKING:
    from tuner.spec import LoadedStudy
    from tuner.tasks import Split
    from workflows.config import AgentConfig

STREAM_VERSION = 1
"""Goes up when a key is renamed, removed or means something else."""


class Stream:
    """Writes events as they happen; each line is flushed, so that a reader is never behind."""

    def __init__(self, study: "LoadedStudy") -> None:
        self._study = study
        self._started_s = time.perf_counter()
        self._splits: dict[int, Split] = {}
        spec = study.spec
        self.write(
            "started",
            stream_version=STREAM_VERSION,
            study=spec.name,
            task=spec.task["name"],
            objectives=[
                {"name": name, "direction": OBJECTIVES[name].direction, "unit": OBJECTIVES[name].unit}
                for name in spec.objectives
            ],
            budget=spec.budget.model_dump(mode="json"),
        )  # fmt: skip

    def __call__(self, event: events.Event) -> None:
        """Write an event."""
        match event:
            case events.Talk(text):
                self.write("message", text=text)
            case events.PassStarted():
                self._splits[event.trial] = event.split
                self.write(
                    "pass_started",
                    trial=event.trial,
                    **self._config(event.config),
                    split=event.split,
                    questions=event.examples,
                    finished=event.finished,
                )
            case events.ExampleFinished(trial, run):
                self.write(
                    "question_finished",
                    trial=trial,
                    split=self._splits[trial],
                    example=run.example_id,
                    repeat=run.repeat,
                    score=run.score,
                    error=run.error,
                    latency_s=run.latency_s,
                    energy_j=run.energy_j,
                    energy_source=run.energy.source,
                    tokens_in=run.tokens_in,
                    tokens_out=run.tokens_out,
                    tokens_cached=run.tokens_cached,
                    cost_usd=run.cost_usd,
                )
            case events.PassEnded(trial, split):
                self.write("pass_ended", trial=trial, split=split)
            case events.TrialEnded():
                self.write(
                    "trial_ended",
                    trial=event.trial,
                    **self._config(event.config),
                    values=None if event.values is None else dict(event.values),
                    replay_of=event.replay_of,
                    failure=event.failure,
                    stopped=event.stopped,
                )
            case events.FrontExpected(configs):
                self.write(
                    "front_expected",
                    configs=[
                        {
                            **self._config(each.config),
                            "answered": each.answered,
                            "values": dict(each.values),
                        }
                        for each in configs
                    ],
                )
            case events.StudyEnded(reason):
                self.write("search_ended", reason=reason)

    def write(self, event: str, **content: Any) -> None:
        """A line: the event's name, when it was, and what it says. Raises UserError when nobody reads any more."""
        line: Mapping[str, Any] = {
            "event": event,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "elapsed_s": round(time.perf_counter() - self._started_s, 3),
            **content,
        }
        try:
            print(json.dumps(line, ensure_ascii=False, allow_nan=False), flush=True)
        except BrokenPipeError:
            # Of whatever else is raised here, the trial under way would be taken to have failed.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise UserError(
                "whoever read the events has closed the pipe",
                hint="the same command goes on from here",
            ) from None

    def _config(self, config: "AgentConfig | None") -> dict[str, Any]:
        if config is None:
            return {"config": None, "label": None}
        return {"config": config.model_dump(), "label": self._study.label(config)}
