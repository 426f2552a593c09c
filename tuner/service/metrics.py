"""What Prometheus is told of a service; apart from `app`, so that the names stand in one place.

All of it is read from the database and from the engine when it is asked for, so that it is the same after a restart.
"""

from collections import Counter
from collections.abc import Iterator
from collections.abc import Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from tuner.service.book import STATES
from tuner.service.book import Book
from tuner.service.engine import Engine
from tuner.service.totals import Totals

TRIAL_STATES = ("complete", "failed", "left_out", "running")

OUTCOMES = ("holds", "fails", "undecided", "error")


class Metrics(Collector):
    """The series of one service."""

    def __init__(self, book: Book, engine: Engine, totals: Totals) -> None:
        self._book = book
        self._engine = engine
        self._totals = totals
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def describe(self) -> "Iterator[GaugeMetricFamily | CounterMetricFamily]":
        """Nothing ahead of time: collecting asks the database."""
        return iter(())

    def collect(self) -> "Iterator[GaugeMetricFamily | CounterMetricFamily]":
        """All series as they are now."""
        rows = self._book.submissions()
        states = Counter(row.state for row in rows)
        studies = GaugeMetricFamily("tuner_studies", "Studies, by state.", labels=["state"])
        for each in STATES:
            studies.add_metric([each], states[each])
        yield studies
        found = {row.name: self._totals.of(row) for row in rows}
        trials = GaugeMetricFamily(
            "tuner_trials", "Trials of a study, by state.", labels=["study", "state"]
        )
        for name, total in found.items():
            for state in TRIAL_STATES:
                trials.add_metric([name, state], total.trials.get(state, 0))
        yield trials
        questions = CounterMetricFamily(
            "tuner_questions", "Questions that were asked and kept.", labels=["study"]
        )
        joules = CounterMetricFamily(
            "tuner_energy_joules", "Gross energy of metered devices, as far as known.", labels=["study"]
        )  # fmt: skip
        for name, total in found.items():
            questions.add_metric([name], total.questions)
            if total.joules is not None:
                joules.add_metric([name], total.joules)
        yield questions
        yield joules
        busy, known = self._engine.slots()
        slots = GaugeMetricFamily(
            "tuner_slots", "Servers, workers and metered devices, by what becomes of them.", labels=["state"]
        )  # fmt: skip
        slots.add_metric(["busy"], busy)
        slots.add_metric(["free"], known - busy)
        yield slots
        yield from self._verifications()

    def _verifications(self) -> "Iterator[GaugeMetricFamily | CounterMetricFamily]":
        counts = CounterMetricFamily(
            "tuner_verifications", "Claims measured again, by outcome.", labels=["study", "outcome"]
        )
        latest = GaugeMetricFamily(
            "tuner_verification_latest",
            "1 for the outcome that a verification had last.",
            labels=["study", "verification", "outcome"],
        )
        for (study, outcome), count in self._book.outcomes().items():
            counts.add_metric([study, outcome], count)
        found = self._book.latest_results()
        for each in self._book.verifications():
            if each.id in found:
                for outcome in OUTCOMES:
                    is_it = float(found[each.id].outcome == outcome)
                    latest.add_metric([each.study, str(each.id), outcome], is_it)
        yield counts
        yield latest

    def text(self, headers: Mapping[str, str]) -> tuple[bytes, str]:
        """All series, and the content type: OpenMetrics where the caller accepts it, else Prometheus' older text."""
        encode, content_type = choose_encoder(headers.get("accept", ""))
        return encode(self._registry), content_type
