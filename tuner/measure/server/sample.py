"""One look at a server's metrics: the text by name, and what it comes to in the words that all engines share.

Apart from the engines, which only know which of their names means what.
"""

import math
from collections import defaultdict
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

Row = tuple[Mapping[str, str], float]
"""Labels and value of one series."""

HISTOGRAM_BUCKETS = "_bucket{"
"""What nine tenths of vLLM's text are, and nobody here reads: parsing it would cost 10 ms instead of 2."""


@dataclass(frozen=True, slots=True)
class ServerSample:
    """A server at one moment, all of its engines together; None for what it does not tell.

    Counts run since the server started. `prefix_hits` and `prefix_queries` are prompt tokens, or blocks where an
    engine counts those: only their ratio is used.
    """

    running: float | None = None
    """Requests that are being computed."""
    waiting: float | None = None
    """Requests in the queue."""
    kv_used_share: float | None = None
    """0 … 1 of the KV cache, by requests that run; blocks kept for prefixes alone are not in it."""
    kv_used_tokens: float | None = None
    kv_capacity_tokens: float | None = None
    prefix_hits: float | None = None
    """Of the prompts so far, what was taken from the prefix cache."""
    prefix_queries: float | None = None
    """All of the prompts so far, cached and computed."""
    queue_time_s: float | None = None
    """Sum over the requests so far."""
    queue_count: float | None = None
    """How many requests `queue_time_s` is the sum of."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """The series of a /metrics page by the name that they have there, without those that are not finite."""

    rows: Mapping[str, Sequence[Row]]

    @classmethod
    def parse(cls, text: str) -> "Metrics":
        """Read a page in Prometheus' text format, without the buckets of histograms. Raises ValueError."""
        from prometheus_client.parser import text_string_to_metric_families

        wanted = "\n".join(
            line
            for line in text.splitlines()
            if not line.startswith("#") and HISTOGRAM_BUCKETS not in line
        )
        rows: dict[str, list[Row]] = defaultdict(list)
        for family in text_string_to_metric_families(wanted + "\n"):
            for each in family.samples:
                if math.isfinite(each.value):
                    rows[each.name].append((each.labels, float(each.value)))
        return cls(dict(rows))

    def first(self, *names: str) -> Sequence[Row]:
        """The series of the first of these names that is there: a metric and what it was called before."""
        return next((self.rows[name] for name in names if name in self.rows), ())

    def total(self, *names: str, replicas: Collection[str] = ()) -> float | None:
        """The sum over all series of the first of these names that is there, None where none is.

        Series that differ only in labels of `replicas` tell the same thing several times: the largest counts.
        """
        rows = self.first(*names)
        return sum(by_labels(rows, without=replicas).values()) if rows else None


def by_labels(
    rows: Sequence[Row], *, without: Collection[str]
) -> dict[frozenset[tuple[str, str]], float]:
    """The largest value among the series that have the same labels but for those left out."""
    found: dict[frozenset[tuple[str, str]], float] = {}
    for labels, value in rows:
        key = frozenset((name, text) for name, text in labels.items() if name not in without)
        found[key] = max(value, found.get(key, -math.inf))
    return found


def by_label(rows: Sequence[Row], label: str) -> dict[str, float]:
    """The largest value for each text of one label; "" where a series has no such label."""
    found: dict[str, float] = {}
    for labels, value in rows:
        key = labels.get(label, "")
        found[key] = max(value, found.get(key, -math.inf))
    return found


def kv_use(
    shares: Mapping[str, float], capacities: Mapping[str, float]
) -> tuple[float | None, float | None, float | None]:
    """Share, tokens and capacity of engines that each have a share of a cache of their own.

    The share of all is weighed by the capacities, where all are known.
    """
    if not shares:
        return None, None, sum(capacities.values()) or None
    if not shares.keys() <= capacities.keys() or not sum(capacities[key] for key in shares):
        return sum(shares.values()) / len(shares), None, None
    capacity = sum(capacities[key] for key in shares)
    used = sum(share * capacities[key] for key, share in shares.items())
    return used / capacity, used, capacity
