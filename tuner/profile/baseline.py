"""Table III: the energy of a query, and how many times that of a single turn it is."""

import math

from tuner.profile.estimate import Value
from tuner.profile.estimate import blurred
from tuner.profile.estimate import missing
from tuner.profile.estimate import ratio
from tuner.profile.evaluation import Evaluation
from tuner.profile.found import Found
from tuner.profile.found import accuracy
from tuner.profile.found import energy
from tuner.profile.found import latency
from tuner.profile.table import ACCURACY
from tuner.profile.table import ENERGY
from tuner.profile.table import LATENCY
from tuner.profile.table import Chart
from tuner.profile.table import Column
from tuner.profile.table import Table
from tuner.profile.table import rows


def energy_of_a_query(found: Found) -> Table:
    """Gross Wh of a query, beside a single turn's on the same model and the same questions."""

    def values(of: Evaluation) -> dict[str, Value]:
        return {
            "energy_wh": energy(of),
            "energy_ratio": _ratio(of, found.baseline(of.model)),
            "latency_mean_s": latency(of),
            "accuracy": accuracy(of),
        }

    columns = (
        ENERGY,
        Column("energy_ratio", "×", "× a single turn's"),
        LATENCY,
        ACCURACY,
    )
    return Table(
        figure="III",
        title="energy of a query",
        columns=columns,
        rows=rows(
            found.measured,
            tuple(column.name for column in columns),
            values,
            source=lambda of: of.source,
        ),
        charts=(Chart("bars", ("energy_wh",)), Chart("bars", ("energy_ratio",))),
        notes=(_note(found),),
    )


def _note(found: Found) -> str:
    names = dict.fromkeys(
        each.label for model in found.study.variants if (each := found.baseline(model)) is not None
    )
    if not names:
        return "No ratio: the space has no workflow that answers in a single turn (direct, cot)."
    return f"A single turn is {' or '.join(names)}, on the same model."


def _ratio(of: Evaluation, baseline: Evaluation | None) -> Value:
    if baseline is None:
        return missing("there is no single turn to compare with")
    if of.source != baseline.source:
        return missing(f"metered by {of.source}, and the single turn by {baseline.source}")
    theirs = {query.example_id: query.energy_wh for query in baseline.queries}
    both = [query for query in of.queries if query.example_id in theirs]
    value = ratio(
        [query.energy_wh for query in both],
        [theirs[query.example_id] for query in both],
        why=of.problem or baseline.problem or "no energy is metered",
    )
    if of is baseline:
        return value
    return blurred(value, math.hypot(of.stderr_share or 0.0, baseline.stderr_share or 0.0))
