"""What is heard of a study while it runs; apart from the loop, so that a screen can be drawn without importing Optuna."""

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass

from tuner.records import ExampleRun
from tuner.tasks import Split
from workflows.config import AgentConfig


@dataclass(frozen=True, slots=True)
class Talk:
    """Something is under way that is not a trial."""

    text: str


@dataclass(frozen=True, slots=True)
class PassStarted:
    """A config is about to be evaluated on a split; others may be at the same time, each in a trial of its own."""

    trial: int
    config: AgentConfig
    split: Split
    examples: int
    finished: int
    """Examples that an earlier run has left."""


@dataclass(frozen=True, slots=True)
class ExampleFinished:
    """One example has been answered and kept."""

    trial: int
    run: ExampleRun


@dataclass(frozen=True, slots=True)
class PassEnded:
    """A config has been asked what it was to be asked this time, or was interrupted."""

    trial: int
    split: Split


@dataclass(frozen=True, slots=True)
class TrialEnded:
    """A trial has been told."""

    trial: int
    config: AgentConfig | None
    values: Mapping[str, float] | None
    replay_of: int | None
    failure: str | None
    stopped: str | None = None
    """Why its values are those of some questions only."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a config is expected to come to over all questions, by its own answers and those of others."""

    config: AgentConfig
    answered: int
    """Of its questions."""
    values: Mapping[str, float]
    """By objective."""


@dataclass(frozen=True, slots=True)
class FrontExpected:
    """The pooled sampler has learned of another block: the front as it expects it now."""

    configs: tuple[Expected, ...]


@dataclass(frozen=True, slots=True)
class StudyEnded:
    """The search is over, and why."""

    reason: str


Event = Talk | PassStarted | ExampleFinished | PassEnded | TrialEnded | FrontExpected | StudyEnded
Report = Callable[[Event], None]
