"""Frozen data that trials produce; apart, because every layer above passes it on and none owns it."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from typing import Any
from typing import Literal

from workflows.base import Checkpoint
from workflows.config import AgentConfig
from workflows.trace import Span


@dataclass(frozen=True, slots=True)
class Reading:
    """Energy of the metered devices over one stretch of time, as their source reported it."""

    gross_j: float | None
    """All that the devices drew; None where there is no valid reading, never 0 in its place."""
    source: str
    """nvml-counter, cpu-estimate, none, …; stands beside every figure made from it."""
    scope: str
    """What was metered: "GPU-…", "server process 4711", …"""
    problem: str | None = None
    """Why there are no joules."""
    seconds: float = 0.0
    """Length of the stretch."""
    idle_j: float | None = None
    """What the devices would have drawn anyway with the model loaded; None where that was not measured."""
    stderr_j: float | None = None
    """Standard error of `gross_j`, from how often the source counts."""
    temperature_c: float | None = None
    """Of the hottest device, when the stretch ended."""
    warning: str | None = None
    """What makes the joules doubtful without making them wrong."""

    @property
    def net_j(self) -> float | None:
        """Gross less idle joules; None where either is unknown."""
        if self.gross_j is None or self.idle_j is None:
            return None
        return self.gross_j - self.idle_j


@dataclass(frozen=True, slots=True)
class Reused:
    """What part of a run was paid for by an earlier one: all of it where it was derived or taken from another study."""

    latency_s: float = 0.0
    energy_j: float = 0.0
    tokens: int = 0
    cost_usd: float = 0.0


NOT_REUSED = Reused()


@dataclass(frozen=True, slots=True)
class ExampleRun:
    """One question answered once (`repeat` counts answers of the same question) and what it cost.

    `energy` covers the time since the example before it finished (since the pass began, for the
    first), so that the readings of a pass add up to the pass, also when examples overlap. Token
    counts are sums over calls, None when a call reported none; `tokens_in` includes cached ones.
    """

    example_id: str
    repeat: int
    answer: str
    score: float
    """0 … 1; 0 for a run that failed."""
    error: str | None
    latency_s: float
    energy: Reading
    tokens_in: int | None
    tokens_out: int | None
    tokens_cached: int | None
    cost_usd: float | None
    llm_calls: int
    tool_calls: int
    llm_s: float
    """Length of the union of the model calls."""
    tool_only_s: float
    """Length of what tool calls cover and model calls do not."""
    started_s: float
    """Seconds between the opening of its window and this run's start: in an open loop, when the question arrived.

    Of a run that went on from an earlier one, earlier by the latency that it reused: so its new spans are where they were made.
    """
    checkpoints: tuple[Checkpoint, ...]
    spans: tuple[Span, ...]
    oracle: bool = False
    """Whether the agent was told how right its answers were (feedback: oracle), which nobody can do in deployment."""
    window: int = 0
    """Which sitting of the pass it belongs to: `started_s` and `samples` of one window share their origin."""
    samples: tuple[tuple[float, float], ...] = ()
    """Meter samples of its stretch: (seconds, gross joules), both since the window was opened."""
    edge: bool = False
    """Whether it was asked only to keep the server full while others were measured; it counts for nothing else."""
    reused: Reused = NOT_REUSED
    """To be taken off where what a study has spent is summed up."""

    @property
    def energy_j(self) -> float | None:
        """Gross joules of its stretch, None where there is no valid reading."""
        return self.energy.gross_j

    @property
    def began_s(self) -> float:
        """When its own work began, in seconds since its window was opened."""
        return self.started_s + self.reused.latency_s

    @property
    def new_spans(self) -> tuple[Span, ...]:
        """The calls that were made for it in its window, not for the run that it went on from."""
        if self.reused == NOT_REUSED:
            return self.spans
        return tuple(span for span in self.spans if span.start_s >= self.reused.latency_s)

    def taken_over(self) -> "ExampleRun":
        """The run at no cost to whoever takes it over."""
        tokens = (self.tokens_in or 0) + (self.tokens_out or 0)
        reused = Reused(self.latency_s, self.energy_j or 0.0, tokens, self.cost_usd or 0.0)
        return replace(self, reused=reused)


def as_made(window: Sequence[ExampleRun]) -> Sequence[ExampleRun]:
    """The runs of one window as they were when they were made: one that was taken over whole reuses all, and was new then."""
    if any(run.reused.latency_s < run.latency_s for run in window):
        return window
    return [replace(run, reused=NOT_REUSED) for run in window]


@dataclass(frozen=True, slots=True)
class PassRecord:
    """What holds for one sitting over the examples of a split as a whole."""

    window: int
    energy: Reading
    """Of the whole window, examples and what lay between them; cross-checked where the source allows."""
    idle_w: float | None
    """Power of the devices with the model loaded and nothing to do."""
    servers: Mapping[str, Mapping[str, Any]]
    """What each model's server said of itself meanwhile, by model: plain JSON."""
    isolation: Mapping[str, str]
    """How each model's prefix cache was kept from the trials before: by model."""
    load: Mapping[str, Any]
    """How the questions came, and whether whoever asked them could keep up: plain JSON."""


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial of a study, as it is kept; its example runs are read apart, since they are many."""

    trial_id: int
    number: int
    state: Literal["waiting", "running", "complete", "pruned", "failed"]
    config: AgentConfig | None
    """None for a trial whose config was not settled before it was interrupted."""
    values: Mapping[str, float] | None
    """Objectives and constrained quantities over the search split, by name; None unless complete."""
    feasible: bool
    replay_of: int | None
    """Number of the trial whose evaluation this one repeats at no cost."""
    failure: str | None
    sources: Mapping[str, str]
    """Where measured quantities come from, by quantity: {"energy": "cpu-estimate"}."""
    derived_from: int | None = None
    """Number of the trial from whose checkpoints this one's runs were made, at no cost."""
    reused_from: str | None = None
    """STUDY/TRIAL of an earlier study whose runs this one has, at no cost."""
    stopped: str | None = None
    """Why it was ended before it had seen every question; its values are those of the questions seen."""
    config_hash: str | None = None
    """`config.hash()`, as it is kept: of thousands of configs, nobody need make it again."""

    @property
    def is_free(self) -> bool:
        """Whether nothing was run for it: it repeats, or was derived or reused."""
        return not (
            self.replay_of is None and self.derived_from is None and self.reused_from is None
        )
