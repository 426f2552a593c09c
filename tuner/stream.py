"""What is heard of a study while it runs as plain JSON, for programs; docs/running.md has the schema.

Apart from `events`, which have no form, and from who sends the lines: `tuner run --json` to stdout, the service to
whoever listens. Keys are only ever added.
"""

import time
from datetime import UTC
from datetime import datetime
from typing import Any

from tuner import events
from tuner.objectives import OBJECTIVES
from tuner.spec import LoadedStudy
from tuner.tasks import Split
from workflows.config import AgentConfig

Line = dict[str, Any]
"""One event: `event`, `time`, `elapsed_s`, and what it says."""

STREAM_VERSION = 1
"""Goes up when a key is renamed, removed or means something else."""


class Stream:
    """Makes a line of each event of one run."""

    def __init__(self, study: LoadedStudy) -> None:
        self._study = study
        self._started_s = time.perf_counter()
        self._splits: dict[int, Split] = {}

    def started(self) -> Line:
        """The first line."""
        spec = self._study.spec
        return self.line(
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

    def __call__(self, event: events.Event) -> Line:
        """The line of an event."""
        match event:
            case events.Talk(text):
                return self.line("message", text=text)
            case events.PassStarted():
                self._splits[event.trial] = event.split
                return self.line(
                    "pass_started",
                    trial=event.trial,
                    **self._config(event.config),
                    split=event.split,
                    questions=event.examples,
                    finished=event.finished,
                )
            case events.ExampleFinished(trial, run):
                return self.line(
                    "question_finished",
                    trial=trial,
                    split=self._splits.get(trial, "search"),
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
                return self.line("pass_ended", trial=trial, split=split)
            case events.TrialEnded():
                return self.line(
                    "trial_ended",
                    trial=event.trial,
                    **self._config(event.config),
                    values=None if event.values is None else dict(event.values),
                    replay_of=event.replay_of,
                    failure=event.failure,
                    stopped=event.stopped,
                )
            case events.FrontExpected(configs):
                return self.line(
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
                return self.line("search_ended", reason=reason)

    def line(self, event: str, **content: Any) -> Line:
        """A line: the event's name, when it was, and what it says."""
        return {
            "event": event,
            "time": now(),
            "elapsed_s": round(time.perf_counter() - self._started_s, 3),
            **content,
        }

    def _config(self, config: AgentConfig | None) -> dict[str, Any]:
        if config is None:
            return {"config": None, "label": None}
        return {"config": config.model_dump(), "label": self._study.label(config)}


def now() -> str:
    """The time, as lines have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
