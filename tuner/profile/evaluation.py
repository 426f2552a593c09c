"""What each config of a profile gave, question by question: as it was measured, or as a smaller budget would have had it.

Apart from the tables, which summarise this and nothing else, and from the store, which knows nothing of budgets.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuner.measure.attribution import QueryEnergy
from tuner.measure.attribution import attribute
from tuner.measure.window import total
from tuner.objectives import JOULES_PER_WH
from tuner.profile.plan import anytime
from tuner.records import ExampleRun
from tuner.records import TrialRecord
from tuner.spec import LoadedStudy
from tuner.store import Store
from tuner.tasks import Example
from tuner.tasks import Task
from workflows.base import Checkpoint
from workflows.config import AgentConfig


@dataclass(frozen=True, slots=True)
class Query:
    """One question under one config."""

    example_id: str
    score: float | None
    """0 for one that failed; None where the answer at this budget would have taken a call that was not made."""
    latency_s: float
    energy_wh: float | None
    """Gross: while it was computed or waited for tools, and its part of the time that nobody's call was in flight."""
    tokens: int | None
    """Read and written, by all its calls."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One config of a profile, measured, or derived from the checkpoints of one that was."""

    trial: int
    """Number of the trial that was run."""
    config: AgentConfig
    label: str
    """The config in a line: its workflow, and the knobs that its study varies."""
    derived: bool
    queries: tuple[Query, ...]
    """None of a trial that failed."""
    runs: tuple[ExampleRun, ...]
    """As measured; none where derived."""
    extras: tuple[ExampleRun, ...]
    """Runs that only kept the server full meanwhile."""
    servers: Mapping[str, Mapping[str, Any]]
    """What the servers of its models said of themselves, by model."""
    load: Mapping[str, Any]
    """How the questions came, and whether whoever asked them kept up."""
    source: str
    """Of the energy."""
    problem: str | None
    """Why there is no energy, or no evaluation at all."""
    stderr_share: float | None
    """Standard error of the energy from the meter's own ticks, as a share of it."""

    @property
    def workflow(self) -> str:
        """The workflow's name."""
        return self.config.workflow

    @property
    def model(self) -> str:
        """The actor's name."""
        return self.config.model


def read_evaluations(
    study: LoadedStudy, store: Store, configs: Sequence[AgentConfig]
) -> tuple[Evaluation, ...]:
    """The configs as their trials left them, in the order given; one without a trial that ended is left out."""
    ended = {
        trial.config.hash(): trial
        for trial in store.trials()
        if trial.config is not None and trial.state in ("complete", "failed")
        if trial.replay_of is None
    }
    return tuple(
        _read(study, store, ended[config.hash()]) for config in configs if config.hash() in ended
    )


def _read(study: LoadedStudy, store: Store, trial: TrialRecord) -> Evaluation:
    assert trial.config is not None
    runs = store.runs(trial.trial_id, "search") if trial.state == "complete" else ()
    # Of several sittings the last is the one that was not interrupted.
    sitting = next(reversed(store.passes(trial.trial_id, "search")), None)
    extras = store.extras(trial.trial_id, "search") if runs else ()
    energy = total([run.energy for run in runs]) if runs else None
    gross_j = None if energy is None else energy.gross_j
    stderr_j = None if energy is None else energy.stderr_j
    return Evaluation(
        trial=trial.number,
        config=trial.config,
        label=study.label(trial.config),
        derived=False,
        queries=tuple(
            Query(run.example_id, run.score, run.latency_s, wh, _tokens(run))
            for run, wh in zip(runs, energies_wh(runs, extras), strict=True)
        ),
        runs=runs,
        extras=extras,
        servers=sitting.servers if sitting else {},
        load=sitting.load if sitting else {},
        source="none" if energy is None else energy.source,
        problem=trial.failure if energy is None else energy.problem,
        stderr_share=stderr_j / gross_j if gross_j and stderr_j is not None else None,
    )


def energies_wh(
    runs: Sequence[ExampleRun], extras: Sequence[ExampleRun] = ()
) -> list[float | None]:
    """Gross energy by run, whose sum is that of the pass: what attribution gives, and a part of what nobody used.

    Runs whose energy cannot be attributed have that of their stretches, whose sum is the same where there
    were no extra questions.
    """
    known = _attributed(runs, extras)
    joules = [
        run.energy_j if known is None else known[run.example_id, run.repeat].joules for run in runs
    ]
    return [None if each is None else each / JOULES_PER_WH for each in joules]


@dataclass(frozen=True, slots=True)
class _Used:
    """What a run used itself, and its part of what nobody used, which goes by latency."""

    itself: QueryEnergy
    part_j: float

    @property
    def joules(self) -> float:
        return self.itself.joules + self.part_j


def _attributed(
    runs: Sequence[ExampleRun], extras: Sequence[ExampleRun]
) -> dict[tuple[str, int], _Used] | None:
    """What each run used; None where not known."""
    known: dict[tuple[str, int], _Used] = {}
    for window in sorted({run.window for run in runs}):
        inside = [run for run in (*runs, *extras) if run.window == window]
        attribution = attribute(inside)
        if attribution is None:
            return None
        whole_s = sum(run.latency_s for run in inside)
        for run, query in zip(inside, attribution.queries, strict=True):
            part_j = attribution.idle_j * run.latency_s / whole_s if whole_s else 0.0
            known[run.example_id, run.repeat] = _Used(query, part_j)
    return known


def _tokens(run: ExampleRun) -> int | None:
    if run.tokens_in is None or run.tokens_out is None:
        return None
    return run.tokens_in + run.tokens_out


async def at_budget(study: LoadedStudy, task: Task, whole: Evaluation, budget: int) -> Evaluation:
    """The evaluation that a smaller budget would have given, from checkpoints; a question that ended sooner as it is."""
    knob = anytime(whole.workflow)
    assert knob is not None
    config = whole.config.model_copy(update={"params": {**whole.config.params, knob: budget}})
    known = _attributed(whole.runs, whole.extras)
    examples = {example.id: example for example in task.search}
    queries = []
    for run, query in zip(whole.runs, whole.queries, strict=True):
        found = [
            (index, each) for index, each in enumerate(run.checkpoints) if each.budget == budget
        ]
        if not found:
            queries.append(query)
            continue
        index, checkpoint = found[-1]
        used = None if known is None else known[run.example_id, run.repeat]
        queries.append(
            Query(
                example_id=run.example_id,
                score=await _score(task, examples[run.example_id], run, checkpoint),
                latency_s=checkpoint.elapsed_s,
                energy_wh=None if used is None else _energy_wh(used, index, run, checkpoint),
                tokens=_tokens_until(run, checkpoint),
            )
        )
    return Evaluation(
        trial=whole.trial,
        config=config,
        label=study.label(config, **{knob: budget}),
        derived=True,
        queries=tuple(queries),
        runs=(),
        extras=(),
        servers={},
        load={},
        source=whole.source,
        problem=whole.problem or "the energy could not be split over checkpoints",
        stderr_share=whole.stderr_share,
    )


async def _score(
    task: Task, example: Example, run: ExampleRun, checkpoint: Checkpoint
) -> float | None:
    if checkpoint.answer is None:
        return None
    if run.error is None and checkpoint.answer == run.answer:
        return run.score
    return await task.score(example, checkpoint.answer)


def _energy_wh(used: _Used, index: int, run: ExampleRun, checkpoint: Checkpoint) -> float:
    until = min(1.0, checkpoint.elapsed_s / run.latency_s) if run.latency_s else 1.0
    return (used.itself.checkpoints_j[index] + used.part_j * until) / JOULES_PER_WH


def _tokens_until(run: ExampleRun, checkpoint: Checkpoint) -> int | None:
    calls = [
        span
        for span in run.spans[: checkpoint.span_count]
        if span.kind == "llm" and (span.error is None or span.output)
    ]
    counts = [(span.tokens_in, span.tokens_out) for span in calls]
    if any(None in count for count in counts):
        return None
    return sum((read or 0) + (written or 0) for read, written in counts)
