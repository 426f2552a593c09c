"""What Prometheus is told of an agent that is served; apart from `app`, so that the names stand in one place.

Every series has the labels `config` (the configuration's hash) and `model`: that of the study which plays the agent, and
of calls and tokens the one that was called. Units are those of the base system, as Prometheus wants them.
"""

from collections.abc import Collection
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client import Counter
from prometheus_client import Gauge
from prometheus_client import Histogram
from prometheus_client import Info
from prometheus_client.exposition import choose_encoder

from workflows.config import AgentFile
from workflows.trace import Span

LATENCIES_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
JOULES = (0.1, 1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5)

OUTCOMES = ("answered", "failed", "timed_out", "cancelled")


class Metrics:
    """The series of one served agent, in a registry of their own."""

    def __init__(self, file: AgentFile, *, tools: Collection[str], metered: bool) -> None:
        """`tools` are the names that the agent's have: one that its model makes up is no series of its own."""
        self._tool_names = frozenset(tools)
        self._config = file.config.hash()
        self._names = {model.settings.model: name for name, model in file.models.items()}
        self._registry = CollectorRegistry()
        own = {"config": self._config, "model": file.config.model}

        def make(kind: Any, name: str, text: str, *labels: str, **more: Any) -> Any:
            return kind(name, text, ["config", "model", *labels], registry=self._registry, **more)

        self._own = own
        self.latency: Histogram = make(
            Histogram,
            "tuner_request_duration_seconds",
            "From a request's arrival to its answer, waiting for its turn included.",
            buckets=LATENCIES_S,
        ).labels(**own)
        self._requests = make(
            Counter, "tuner_requests", "Requests that were taken on, by how they ended.", "outcome"
        )
        self._refused = make(
            Counter, "tuner_requests_refused", "Requests that were not taken on, by why.", "reason"
        )
        self.in_flight: Gauge = make(
            Gauge, "tuner_requests_in_flight", "Requests that are being answered."
        ).labels(**own)
        self.waiting: Gauge = make(
            Gauge, "tuner_requests_waiting", "Requests that wait for their turn."
        ).labels(**own)
        self._calls = make(
            Counter,
            "tuner_model_calls",
            "Calls of models, retries included, by how they ended.",
            "outcome",
        )
        self._tools = make(
            Counter, "tuner_tool_calls", "Calls of tools, by how they ended.", "tool", "outcome"
        )
        self._tokens = make(
            Counter,
            "tuner_tokens",
            "Tokens as the servers counted them; cached ones are part of the input.",
            "direction",
        )
        self.query_energy: Histogram | None = None
        self.idle_energy: Counter | None = None
        if metered:
            self.query_energy = make(
                Histogram,
                "tuner_query_energy_joules",
                "Gross energy of the metered devices during a query, shared among those under way.",
                buckets=JOULES,
            ).labels(**own)
            self.idle_energy = make(
                Counter,
                "tuner_idle_energy_joules",
                "Gross energy of the metered devices while no query was under way.",
            ).labels(**own)
        for outcome in OUTCOMES:
            self._requests.labels(**own, outcome=outcome)  # there from the start, at 0
        about = {"workflow": file.config.workflow}
        about |= {key: str(file.provenance[key]) for key in ("study", "trial") if key in file.provenance}  # fmt: skip
        make(Info, "tuner_agent", "What is served.").labels(**own).info(about)

    def ended(self, outcome: str) -> None:
        """A request that was taken on has ended."""
        self._requests.labels(**self._own, outcome=outcome).inc()

    def refused(self, reason: str) -> None:
        """A request was not taken on."""
        self._refused.labels(**self._own, reason=reason).inc()

    def called(self, span: Span) -> None:
        """A call has ended."""
        outcome = "ok" if span.error is None else "failed"
        if span.kind == "tool":
            known = span.name if span.name in self._tool_names else "unknown"
            self._tools.labels(**self._own, tool=known, outcome=outcome).inc()
            return
        labels = {"config": self._config, "model": self._names.get(span.name, span.name)}
        self._calls.labels(**labels, outcome=outcome).inc()
        counts = {"input": span.tokens_in, "output": span.tokens_out, "cached": span.tokens_cached}
        for direction, count in counts.items():
            if count is not None:
                self._tokens.labels(**labels, direction=direction).inc(count)

    def text(self, headers: Mapping[str, str]) -> tuple[bytes, str]:
        """All series, and the content type: OpenMetrics where the caller accepts it, else Prometheus' older text."""
        encode, content_type = choose_encoder(headers.get("accept", ""))
        return encode(self._registry), content_type
