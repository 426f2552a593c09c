"""Figures 13 to 17: what accuracy costs, as budgets, demonstrations, branches and models grow."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence

from tuner.derive import anytime
from tuner.profile.evaluation import Evaluation
from tuner.profile.found import Found
from tuner.profile.found import accuracy
from tuner.profile.found import energy
from tuner.profile.found import latency
from tuner.profile.found import latency_p95
from tuner.profile.found import per_latency
from tuner.profile.found import tokens
from tuner.profile.plan import FEW_SHOT
from tuner.profile.plan import PARALLEL
from tuner.profile.table import ACCURACY
from tuner.profile.table import ENERGY
from tuner.profile.table import LATENCY
from tuner.profile.table import LATENCY_P95
from tuner.profile.table import PER_LATENCY
from tuner.profile.table import TOKENS
from tuner.profile.table import Chart
from tuner.profile.table import Column
from tuner.profile.table import Key
from tuner.profile.table import Row
from tuner.profile.table import Table

STEPS = "max_steps"
"""The anytime knob that counts single actions: Figure 14's; Figure 16 has those that count whole attempts."""

DERIVED = "Rows marked derived are from the checkpoints of the run at the largest budget."

_QUANTITIES = {
    "latency_mean_s": latency,
    "latency_p95_s": latency_p95,
    "accuracy": accuracy,
    "energy_wh": energy,
    "tokens_total": tokens,
}
_FOUR = (LATENCY, LATENCY_P95, ACCURACY, PER_LATENCY, ENERGY)

Keyed = tuple[dict[str, Key], Evaluation]


def trade(found: Found) -> Table:
    """Figure 13: accuracy against latency, and accuracy over latency, of every config and budget."""
    evaluations: list[Keyed] = [({}, each) for each in (*found.complete, *found.derived)]
    return Table(
        figure="13",
        title="accuracy against latency, one row a config",
        columns=(LATENCY, ACCURACY, PER_LATENCY, ENERGY),
        rows=_rows(evaluations, (LATENCY, ACCURACY, PER_LATENCY, ENERGY)),
        charts=(
            Chart("points", ("accuracy",), x="latency_mean_s", log_x=True),
            Chart("points", ("accuracy_per_latency",), x="latency_mean_s", log_x=True),
        ),
        notes=(DERIVED,) if found.derived else (),
    )


def iteration_budget(found: Found) -> Table:
    """Figure 14: a workflow of steps by how many it may take."""
    lines = _along(found, lambda workflow: [STEPS] if anytime(workflow) == STEPS else [])
    rows = [({"budget": value}, each) for _, value, each in lines]
    return Table(
        figure="14",
        title="iteration budget",
        columns=_FOUR,
        rows=_rows(rows, _FOUR),
        charts=_over("budget"),
        notes=(DERIVED,) if rows else ("No workflow of the study has a budget of steps above 1.",),
    )


def few_shot(found: Found) -> Table:
    """Figure 15: a workflow by the number of demonstrations in its prompt."""
    lines = _along(found, lambda workflow: [FEW_SHOT])
    rows = [({"few_shot": value}, each) for _, value, each in lines]
    return Table(
        figure="15",
        title="demonstrations in the prompt",
        columns=_FOUR,
        rows=_rows(rows, _FOUR),
        charts=_over("few_shot"),
        notes=() if rows else ("The search space has one value of few_shot: give it several.",),
    )


def more_turns(found: Found) -> Table:
    """Figure 16: more turns one after another (attempts, iterations, rounds), or more branches side by side."""

    def knobs(workflow: str) -> list[str]:
        budget = anytime(workflow)
        return [*([budget] if budget and budget != STEPS else []), *PARALLEL]

    rows: list[Keyed] = [
        (
            {
                "scaling": "parallel" if knob in PARALLEL else "sequential",
                "knob": knob,
                "value": value,
            },
            each,
        )
        for knob, value, each in _along(found, knobs)
    ]
    return Table(
        figure="16",
        title="sequential and parallel scaling",
        columns=_FOUR,
        rows=_rows(rows, _FOUR),
        charts=(
            Chart("lines", ("accuracy",), x="latency_mean_s", log_x=True),
            Chart("lines", ("energy_wh",), x="latency_mean_s", log_x=True),
        ),
        notes=(DERIVED,)
        if rows
        else (
            f"No workflow of the study has a budget of attempts above 1, or several values of {' or '.join(PARALLEL)}.",
        ),
    )


def model_size(found: Found) -> Table:
    """Figure 17: the same workflow at the same budgets on each model of the study."""
    columns: tuple[Column, ...] = (LATENCY, TOKENS, ENERGY, ACCURACY)
    first = {found.weights(model): model for model in reversed(tuple(found.study.variants))}
    rows: list[Keyed] = [
        ({}, each)
        for workflow in found.plan.centres
        for centre in found.centres(workflow)
        if centre.model in first.values()
        for each in found.budgets(centre)
    ]
    alone = len(first) < 2
    return Table(
        figure="17",
        title="model size",
        columns=columns,
        rows=() if alone else _rows(rows, columns),
        charts=tuple(
            Chart("lines", ("accuracy",), x=x, log_x=True)
            for x in ("latency_mean_s", "tokens_total", "energy_wh")
        ),
        notes=("The study has one model: name another to see what its size is worth.",)
        if alone
        else (DERIVED,),
    )


def _along(
    found: Found, knobs: Callable[[str], Sequence[str]]
) -> list[tuple[str, Key, Evaluation]]:
    """(knob, value, evaluation) on the lines through each workflow's centre on each model."""
    return [
        (knob, value, each)
        for workflow in found.plan.centres
        for centre in found.centres(workflow)
        for knob in knobs(workflow)
        if knob in centre.config.params
        for value, each in found.along(knob, centre)
    ]


def _rows(evaluations: Iterable[Keyed], columns: Sequence[Column]) -> tuple[Row, ...]:
    listed = list(evaluations)
    shares = per_latency([each for _, each in listed])
    rows = []
    for (keys, each), per_second in zip(listed, shares, strict=True):
        values = {
            column.name: per_second
            if column.name == "accuracy_per_latency"
            else _QUANTITIES[column.name](each)
            for column in columns
        }
        rows.append(Row(each, values, len(each.queries), keys, each.source))
    return tuple(rows)


def _over(key: str) -> tuple[Chart, ...]:
    return tuple(
        Chart("lines", (name,), x=key)
        for name in ("accuracy", "latency_mean_s", "accuracy_per_latency", "energy_wh")
    )
