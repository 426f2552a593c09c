"""What a query of a config took where it was measured: in an exported file, in a trial, in a paper's row.

Apart from `objectives`, which summarises what is optimised: here is everything that was seen, whether optimised or not,
as an export carries it and as a forecast starts from it.
"""

import math
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import ValidationError

from tuner.budget import gpus_of
from tuner.errors import UserError
from tuner.forecast import Amount
from tuner.forecast import Measured
from tuner.measure.window import total
from tuner.objectives import JOULES_PER_WH
from tuner.objectives import OBJECTIVES
from tuner.published import load_paper
from tuner.records import ExampleRun
from tuner.records import Reading
from tuner.records import TrialRecord
from tuner.records import as_made
from tuner.spec import LoadedStudy
from tuner.store import Store
from workflows.config import AgentFile
from workflows.config import load_agent_file

NOT_STATED = "not stated"


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Energy(_Data):
    """Of the metered devices over a pass ÷ its queries."""

    source: str
    scope: str
    gross_wh: float | None
    interval_wh: tuple[float, float] | None = Field(
        strict=False, description="95 %, over the questions"
    )
    idle_wh: float | None
    net_wh: float | None
    stderr_wh: float | None = Field(description="of gross_wh, from the meter's own error")
    problem: str | None = None


class Costs(_Data):
    """Means over the queries of a pass, failed ones included; None is what was not measured on every one."""

    n: int
    load: dict[str, Any]
    latency_mean_s: float
    throughput_qps: float | None = Field(
        description="queries ÷ time from the first's start to the last's end"
    )
    tokens_in: float | None
    tokens_out: float | None
    tokens_cached: float | None
    cost_usd: float | None
    llm_calls: float
    tool_calls: float
    energy: Energy


def costs_of(runs: Sequence[ExampleRun], *, load: Mapping[str, Any]) -> Costs:
    """The costs of a query over one pass. Raises ValueError for no runs."""
    if not runs:
        raise ValueError("no runs to average")
    return Costs(
        n=len(runs),
        load=dict(load),
        latency_mean_s=float(np.mean([run.latency_s for run in runs])),
        throughput_qps=_throughput_qps(runs),
        tokens_in=_mean(run.tokens_in for run in runs),
        tokens_out=_mean(run.tokens_out for run in runs),
        tokens_cached=_mean(run.tokens_cached for run in runs),
        cost_usd=_mean(run.cost_usd for run in runs),
        llm_calls=float(np.mean([run.llm_calls for run in runs])),
        tool_calls=float(np.mean([run.tool_calls for run in runs])),
        energy=_energy(runs),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known else float(np.mean(np.array(known, dtype=float)))


def _windows(runs: Sequence[ExampleRun]) -> list[list[ExampleRun]]:
    windows: dict[int, list[ExampleRun]] = defaultdict(list)
    for run in runs:
        windows[run.window].append(run)
    return list(windows.values())


def _throughput_qps(runs: Sequence[ExampleRun]) -> float | None:
    seconds = sum(
        max(run.started_s + run.latency_s for run in window) - min(run.began_s for run in window)
        for window in map(as_made, _windows(runs))
    )
    return len(runs) / seconds if seconds > 0 else None


def _energy(runs: Sequence[ExampleRun]) -> Energy:
    readings = [total([run.energy for run in window]) for window in _windows(runs)]
    errors = [reading.stderr_j for reading in readings]
    per_query = JOULES_PER_WH * len(runs)

    def wh(joules: Sequence[float | None]) -> float | None:
        return None if None in joules else sum(each or 0.0 for each in joules) / per_query

    gross_wh = wh([reading.gross_j for reading in readings])
    return Energy(
        source=_once_each(readings, "source"),
        scope=_once_each(readings, "scope"),
        gross_wh=gross_wh,
        interval_wh=None if gross_wh is None else _interval_wh(runs),
        idle_wh=wh([reading.idle_j for reading in readings]),
        net_wh=wh([reading.net_j for reading in readings]),
        # Windows have no edge in common, so their errors are independent.
        stderr_wh=None
        if None in errors
        else float(np.linalg.norm(np.array(errors, dtype=float))) / per_query,
        problem=next((reading.problem for reading in readings if reading.problem), None),
    )


def _once_each(readings: Sequence[Reading], field: str) -> str:
    return "; ".join(dict.fromkeys(getattr(reading, field) for reading in readings))


def _interval_wh(runs: Sequence[ExampleRun]) -> tuple[float, float] | None:
    """The very one that `tuner front` prints; None where too few questions tell of none."""
    energy = OBJECTIVES["energy_wh"]
    answers = energy.answers(runs)
    if answers is None:
        return None
    low, high = energy.interval(answers)
    return (low, high) if math.isfinite(high - low) else None


def measured_trial(study: LoadedStudy, store: Store, trial: TrialRecord) -> Measured:
    """What a query of a trial took, on the holdout questions where it was confirmed. Raises UserError."""
    if trial.config is None or trial.state != "complete":
        raise UserError(
            f"trial {trial.number} is {trial.state}; a forecast needs a complete one",
            hint="tuner front lists the best of them",
        )
    trial_id, sizes = trial.trial_id, study.task_options
    if trial.replay_of is not None:
        trial_id = store.trial_id(trial.replay_of)
    runs, split = store.runs(trial_id, "holdout"), "holdout"
    if not runs or len(runs) < sizes.holdout:  # never confirmed, or not to the end
        runs, split = store.runs(trial_id, "search"), "search"
    row, told = store.row(), ", oracle" if trial.config.oracle else ""
    models = {} if row is None else row.provenance.get("models", {})
    return _measured(
        f"trial {trial.number} of {study.spec.name} ({trial.config.workflow}{told})",
        costs_of(runs, load=study.spec.load.model_dump()),
        split,
        [models.get(name, {}).get("energy", {}) for name in trial.config.models()],
    )


def measured_file(path: Path) -> Measured:
    """What a query of an exported config took, on the holdout questions where it was confirmed.

    Raises ConfigError for what is no exported file, and UserError for one that says too little.
    """
    agent = load_agent_file(path)
    split = "holdout" if _told(agent, "measured", "holdout") is not None else "search"
    rule = str(agent.provenance.get("rule") or "knee")
    again = f"export it again: tuner export STUDY --rule {shlex.quote(rule)} --out {path}"
    told = _told(agent, "measured", split, "costs")
    if told is None:
        raise UserError(
            f"{path}: provenance.measured.{split}.costs: is missing: an earlier version of tuner did not "
            "write what a query took (energy and its error, latency, throughput, tokens)",
            hint=again,
        )
    try:
        costs = Costs.model_validate(told)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{path}: provenance.measured.{split}.costs.{where}: {first['msg']} (given: {first['input']!r})",
            hint=again,
        ) from None
    return _measured(f"{path} ({agent.config.workflow})", costs, split, _metered(agent))


def _told(agent: AgentFile, *keys: str) -> Any:
    """What the file says under these keys, None where it says nothing: it may be a stranger's, and say anything."""
    told: Any = agent.provenance
    for key in keys:
        told = told.get(key) if isinstance(told, Mapping) else None
    return told


def _metered(agent: AgentFile) -> list[Mapping[str, Any]]:
    found = [_told(agent, "energy", name) for name in agent.config.models()]
    return [each if isinstance(each, Mapping) else {} for each in found]


def measured_row(text: str) -> Measured:
    """What a paper says that a query took, for `kim2025:llama-3.1-70b/reflexion`. Raises UserError listing its rows."""
    name, _, key = text.partition(":")
    paper = load_paper(name)
    if key not in paper.table3:
        rows = ", ".join(f"{name}:{known}" for known in paper.table3)
        raise UserError(f"{name} has no row {key!r}", hint=f"one of: {rows}")
    row = paper.table3[key]
    return Measured(
        name=text,
        energy_wh=Amount(row.energy_wh),
        source="published",
        scope=NOT_STATED,
        load=NOT_STATED,
        basis=f"{paper.source}, Table III",
        latency_mean_s=row.latency_mean_s,
    )


def names_a_row(text: str) -> bool:
    """Whether a text is meant as a paper's row and not as a file: `kim2025:…`."""
    return bool(re.match(r"\w{2,}:(?![/\\])", text)) and not Path(text).exists()


def _measured(
    name: str, costs: Costs, split: str, metered: Sequence[Mapping[str, Any]]
) -> Measured:
    energy = costs.energy
    amount = None if energy.gross_wh is None else Amount(energy.gross_wh, energy.interval_wh)
    if amount is not None and energy.stderr_wh is not None:
        amount = amount.blurred(energy.stderr_wh)
    return Measured(
        name=name,
        energy_wh=amount,
        source=energy.source,
        scope=energy.scope,
        load=_load_text(costs.load),
        basis=f"{costs.n} {split} questions",
        latency_mean_s=costs.latency_mean_s,
        throughput_qps=costs.throughput_qps,
        gpus=gpus_of(metered),
        cost_usd=costs.cost_usd,
        problem=energy.problem,
    )


def _load_text(load: Mapping[str, Any]) -> str:
    rate, concurrency = load.get("rate"), load.get("concurrency")
    if isinstance(rate, int | float):
        return f"{rate:g} a second"
    return f"{concurrency} at a time" if isinstance(concurrency, int) else NOT_STATED
