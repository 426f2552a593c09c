"""Quantities of a profile in pairs with a paper's, figure by figure: what of theirs stands beside what of ours.

Apart from `beside`, which puts the pairs together: here is how each figure of the paper is read.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from tuner.knee import SLOWDOWN
from tuner.profile import Profile
from tuner.profile.estimate import Value
from tuner.profile.estimate import missing
from tuner.profile.table import ACCURACY
from tuner.profile.table import LATENCY
from tuner.profile.table import LATENCY_P95
from tuner.profile.table import PER_LATENCY
from tuner.profile.table import Column
from tuner.profile.table import Key
from tuner.profile.table import Row
from tuner.profile.table import Table
from tuner.published import Paper

SERVED = "react"
"""The workflow that Figures 11 and 12 are of."""

SINGLE_TURN = {"direct": "sharegpt"}
"""The paper's single turn, beside ours."""

ABSENT = missing("not measured here")

Numbers = Mapping[str, str | bool | float]
"""A row of a paper's figure."""

Rows = dict[tuple[Key, ...], Row]
"""By workflow and what else tells them apart."""

PaperRows = dict[tuple[Key, ...], Numbers]

Published = Mapping[str, Sequence[Numbers]]
"""Rows of one task, by figure."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One quantity of one workflow, here and in the paper."""

    workflow: str
    keys: Mapping[str, Key]
    """Of what: a budget, a model of the paper's."""
    column: Column
    here: Value
    paper: float | None

    @property
    def ratio(self) -> float | None:
        """Here ÷ paper; None where one of them is missing, or the paper's is 0."""
        if self.here.value is None or not self.paper:
            return None
        return self.here.value / self.paper


def _pairs(
    workflow: str,
    keys: Mapping[str, Key],
    columns: Sequence[Column],
    here: Row | None,
    paper: Numbers | None,
) -> list[Pair]:
    """A row and a paper's row, quantity by quantity; of either there may be none."""
    return [
        Pair(
            workflow,
            keys,
            column,
            ABSENT if here is None else here.values[column.name],
            None if paper is None else float(paper[column.name]),
        )
        for column in columns
        if paper is None or column.name in paper
    ]


def _joined(
    columns: Sequence[Column],
    here: Rows,
    paper: PaperRows,
    names: Sequence[str] = (),
) -> list[Pair]:
    """Rows by workflow and the values of `names`: those of both, of the paper alone, and of here alone."""
    return [
        pair
        for key in dict.fromkeys([*paper, *here])
        for pair in _pairs(
            str(key[0]),
            dict(zip(names, key[1:], strict=True)),
            columns,
            here.get(key),
            paper.get(key),
        )
    ]


def _on_shown_model(profile: Profile, table: Table) -> list[Row]:
    """The rows on the model of the evaluations that stand for their workflows."""
    models = {workflow: each.model for workflow, each in profile.shown.items()}
    return [row for row in table.rows if models.get(row.of.workflow) == row.of.model]


def _of_shown(profile: Profile, table: Table) -> list[Row]:
    """The rows of those evaluations themselves."""
    configs = {workflow: each.config for workflow, each in profile.shown.items()}
    return [row for row in table.rows if configs.get(row.of.workflow) == row.of.config]


def like_shown(profile: Profile, table: Table) -> list[Row]:
    """The rows of those evaluations, and of the same on another model."""
    params = {workflow: each.config.params for workflow, each in profile.shown.items()}
    return [row for row in table.rows if params.get(row.of.workflow) == row.of.config.params]


def by_workflow(profile: Profile, figure: str, published: Published) -> list[Pair]:
    """A bar a workflow."""
    table = profile.table(figure)
    here: Rows = {(row.of.workflow,): row for row in _of_shown(profile, table)}
    paper: PaperRows = {(row["workflow"],): row for row in published[figure]}
    return _joined(table.columns, here, paper)


def by_value(profile: Profile, figure: str, key: str, published: Published) -> list[Pair]:
    """A point for each value of a key, on the model that stands for the workflow."""
    table = profile.table(figure)
    here: Rows = {(row.of.workflow, row.keys[key]): row for row in _on_shown_model(profile, table)}
    paper: PaperRows = {(row["workflow"], row[key]): row for row in published[figure]}
    return _joined(table.columns, here, paper, [key])


def caching(profile: Profile, published: Published) -> list[Pair]:
    """Seconds of a call without and with the prefix cache."""
    table = profile.table("9")
    here: Rows = {}
    for row in like_shown(profile, table):
        here.setdefault((row.of.workflow, row.keys["prefix_cache"]), row)
    paper: PaperRows = {(row["workflow"], row["prefix_cache"]): row for row in published["9"]}
    columns = [table.column(name) for name in ("prefill_s", "decode_s", "call_s")]
    return _joined(columns, here, paper, ["prefix_cache"])


def memory(profile: Profile, published: Published) -> list[Pair]:
    """Bytes of keys and values without and with the prefix cache."""
    table = profile.table("12")
    here: Rows = {}
    for row in like_shown(profile, table):
        if row.of.workflow == SERVED:
            here.setdefault((SERVED, row.keys["prefix_cache"]), row)
    paper: PaperRows = {
        (SERVED, row["prefix_cache"]): {
            "kv_mean_bytes": 1e9 * float(row["kv_average_gb"]),
            "kv_max_bytes": 1e9 * float(row["kv_maximum_gb"]),
        }
        for row in published["12"]
    }
    return _joined(table.columns, here, paper, ["prefix_cache"])


KNEE = Column("knee_qps", "1/s", f"highest rate at most {SLOWDOWN:g} × as slow as the lowest")


def rates(profile: Profile, published: Published) -> list[Pair]:
    """The p95 at the lowest rate, and the highest rate at which it is still near to that."""
    here: dict[Key, list[tuple[float, float]]] = {}
    for row in profile.table("11").rows:
        p95_s = row.values["latency_p95_s"].value
        if row.of.workflow == SERVED and p95_s is not None:
            here.setdefault(row.keys["prefix_cache"], []).append(
                (float(row.keys["rate_qps"]), p95_s)
            )
    found = []
    for kept in (False, True):
        paper = [
            (float(row["rate_qps"]), float(row["latency_p95_s"]))
            for row in published["11"]
            if row["prefix_cache"] is kept
        ]
        for column, pick in ((LATENCY_P95, _slowest_rate), (KNEE, _knee)):
            ours = pick(here.get(kept, []))
            value = ABSENT if ours is None else Value(ours)
            found.append(Pair(SERVED, {"prefix_cache": kept}, column, value, pick(paper)))
    return found


def _slowest_rate(points: Sequence[tuple[float, float]]) -> float | None:
    return min(points)[1] if points else None


def _knee(points: Sequence[tuple[float, float]]) -> float | None:
    """The last rate before p95 first exceeds so many times that at the lowest rate."""
    ordered = sorted(points)
    knee = None
    for rate, p95_s in ordered:
        if p95_s > SLOWDOWN * ordered[0][1]:
            break
        knee = rate
    return knee


def trade(profile: Profile, published: Published) -> list[Pair]:
    """Of each workflow the config of highest accuracy, and that of most accuracy for its latency."""
    here = [row for row in profile.table("13").rows if row.values["accuracy"].value is not None]
    found = []
    for by, figure, at in (
        (ACCURACY, "13a", "highest accuracy"),
        (PER_LATENCY, "13b", "most accuracy ÷ latency"),
    ):
        ours = _best_rows(here, by.name)
        theirs = _best_numbers(published[figure], by.name)
        for workflow in dict.fromkeys([*theirs, *ours]):
            found += _pairs(
                workflow, {"at": at}, (by, LATENCY), ours.get(workflow), theirs.get(workflow)
            )
    return found


def _best_rows(rows: Sequence[Row], name: str) -> dict[str, Row]:
    best: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row.values["latency_mean_s"].value or 0.0):
        value = row.values[name].value
        known = best.get(row.of.workflow)
        if value is not None and (known is None or value > (known.values[name].value or 0.0)):
            best[row.of.workflow] = row
    return best


def _best_numbers(rows: Sequence[Numbers], name: str) -> dict[str, Numbers]:
    best: dict[str, Numbers] = {}
    for row in sorted(rows, key=lambda row: float(row["latency_mean_s"])):
        known = best.get(str(row["workflow"]))
        if known is None or float(row[name]) > float(known[name]):
            best[str(row["workflow"])] = row
    return best


def more_turns(profile: Profile, published: Published) -> list[Pair]:
    """By knob and value; of several points of the paper's for one value, their means."""
    table = profile.table("16")
    names = ("scaling", "knob", "value")
    here: Rows = {
        (row.of.workflow, *(row.keys[name] for name in names)): row
        for row in _on_shown_model(profile, table)
    }
    points: dict[tuple[Key, ...], list[Numbers]] = {}
    for row in published["16"]:
        for theirs, ours, more in (
            ("reflections", "max_trials", 1),  # N reflections lie between N + 1 trials
            ("iterations", "iterations", 0),
            ("children", "children", 0),
        ):
            if theirs in row:
                key = (row["workflow"], row["scaling"], ours, int(row[theirs]) + more)
                points.setdefault(key, []).append(row)
    paper: PaperRows = {
        key: {
            name: fmean(float(row[name]) for row in rows) for name in ("latency_mean_s", "accuracy")
        }
        for key, rows in points.items()
    }
    return _joined(table.columns, here, paper, names)


def model_size(profile: Profile, published: Published) -> list[Pair]:
    """Each model's budget of highest accuracy, beside that of each of the paper's models."""
    table = profile.table("17")
    ours: dict[tuple[str, str], Row] = {}
    for model in dict.fromkeys(row.of.model for row in table.rows):
        best = _best_rows([row for row in table.rows if row.of.model == model], "accuracy")
        ours |= {(workflow, model): row for workflow, row in best.items()}
    found = []
    for paper_model in dict.fromkeys(str(row["model"]) for row in published["17"]):
        theirs = _best_numbers(
            [row for row in published["17"] if row["model"] == paper_model], "accuracy"
        )
        for workflow, numbers in theirs.items():
            of_it = [key for key in ours if key[0] == workflow] or [(workflow, "–")]
            for key in of_it:
                keys = {"model": key[1], "paper model": paper_model}
                found += _pairs(workflow, keys, table.columns, ours.get(key), numbers)
    return found


def energy(profile: Profile, paper: Paper) -> list[Pair]:
    """Table III, whose ratios are against the paper's own single turn on the same model."""
    table = profile.table("III")
    here = {row.of.workflow: row for row in _of_shown(profile, table)}
    found: list[Pair] = []
    listed = set()
    for model in dict.fromkeys(key.partition("/")[0] for key in paper.table3):
        single = paper.table3[f"{model}/{SINGLE_TURN['direct']}"]
        for workflow in ("direct", "reflexion", "lats"):
            row = paper.table3[f"{model}/{SINGLE_TURN.get(workflow, workflow)}"]
            numbers: dict[str, float] = {
                "energy_wh": row.energy_wh,
                "energy_ratio": row.energy_wh / single.energy_wh,
                "latency_mean_s": row.latency_mean_s,
            }
            if row.accuracy is not None:
                numbers["accuracy"] = row.accuracy
            keys = {"paper model": model}
            found += _pairs(workflow, keys, table.columns, here.get(workflow), numbers)
            listed.add(workflow)
    for workflow, ours in here.items():
        if workflow not in listed:
            found += _pairs(workflow, {}, table.columns, ours, None)
    return found
