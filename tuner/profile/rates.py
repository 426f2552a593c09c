"""Figure 11: what becomes of latency as requests come faster."""

from tuner.profile.caching import keys
from tuner.profile.estimate import Value
from tuner.profile.estimate import missing
from tuner.profile.evaluation import Evaluation
from tuner.profile.found import Found
from tuner.profile.found import energy
from tuner.profile.found import latency
from tuner.profile.found import latency_p95
from tuner.profile.knees import knee_notes
from tuner.profile.table import ENERGY
from tuner.profile.table import LATENCY
from tuner.profile.table import LATENCY_P95
from tuner.profile.table import Chart
from tuner.profile.table import Column
from tuner.profile.table import Row
from tuner.profile.table import Table

NOT_ASKED = (
    "No rates were asked for: give the study `profile: {rates: {react: [0.1, 0.2]}}`, in questions a second, "
    "or `{react: knee}`, which finds the highest that is sustained."
)

THROUGHPUT = Column("throughput_qps", "1/s", "answered a second")


def rates(found: Found) -> Table:
    """Latency and throughput by the rate at which requests arrive, as a Poisson process."""
    rows = []
    asked = [(rate, of) for rate, evaluations in found.rates.items() for of in evaluations]
    for search in found.knees:
        by_rate = zip((point.rate for point in search.points), search.evaluations, strict=True)
        asked += sorted(by_rate, key=lambda pair: pair[0])
    for rate, of in asked:
        columns = {
            "latency_p95_s": latency_p95(of),
            "latency_mean_s": latency(of),
            "throughput_qps": _throughput(of),
            "energy_wh": energy(of),
        }
        if not of.queries:
            columns = dict.fromkeys(columns, missing(of.problem or "it failed"))
        rows.append(
            Row(of, columns, len(of.queries), {"rate_qps": rate, **keys(found, of)}, of.source)
        )
    limited = dict.fromkeys(
        f"{of.label} at {rate:.3g} a second: the client was the limit ({of.load.get('reason')})."
        for rate, of in asked
        if of.load.get("client_limited")
    )
    return Table(
        figure="11",
        title="latency against the rate of requests",
        columns=(LATENCY_P95, LATENCY, THROUGHPUT, ENERGY),
        rows=tuple(rows),
        charts=(
            Chart("lines", ("latency_p95_s",), x="rate_qps"),
            Chart("lines", ("latency_mean_s",), x="rate_qps"),
            Chart("lines", ("throughput_qps",), x="rate_qps"),
        ),
        notes=(*knee_notes(found.knees), *limited) if rows or found.knees else (NOT_ASKED,),
    )


def _throughput(of: Evaluation) -> Value:
    achieved = of.load.get("achieved_per_s")
    return missing("the load was not reported") if achieved is None else Value(float(achieved))
