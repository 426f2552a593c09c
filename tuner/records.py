"""Frozen data that trials produce; apart, because every layer above passes it on and none owns it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from workflows.base import Checkpoint
from workflows.config import AgentConfig
from workflows.trace import Span


@dataclass(frozen=True, slots=True)
class Reading:
    """Energy of the metered devices over one stretch of time, as their source reported it."""

    joules: float | None
    """Gross joules; None where there is no valid reading, never 0 in its place."""
    source: str
    """nvml-counter, cpu-estimate, none, …; stands beside every figure made from it."""
    scope: str
    """What was metered: "GPU-…", "server process 4711", …"""
    problem: str | None = None
    """Why there are no joules."""


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
    """Seconds between the start of the pass and the start of this run."""
    checkpoints: tuple[Checkpoint, ...]
    spans: tuple[Span, ...]
    oracle: bool = False
    """Whether the agent was told how right its answers were (feedback: oracle), which nobody can do in deployment."""

    @property
    def energy_j(self) -> float | None:
        """Gross joules of its stretch, None where there is no valid reading."""
        return self.energy.joules


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
