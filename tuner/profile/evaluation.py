"""What each config of a profile gave, question by question: as it was measured, or as a smaller budget would have had it.

Apart from the tables, which summarise this and nothing else, and from the store, which knows nothing of budgets.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuner.derive import NOT_SPLIT
from tuner.derive import anytime
from tuner.derive import cut_short
from tuner.derive import derive_run
from tuner.derive import shares
from tuner.derive import with_budget
from tuner.measure.window import total
from tuner.objectives import JOULES_PER_WH
from tuner.records import ExampleRun
from tuner.records import TrialRecord
from tuner.spec import LoadedStudy
from tuner.store import Store
from tuner.tasks import Task
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
    known = shares(runs, extras)
    found = [(run, known.get((run.example_id, run.repeat))) for run in runs]
    return [_wh(run.energy_j if share is None else share.whole_j) for run, share in found]


def _wh(joules: float | None) -> float | None:
    return None if joules is None else joules / JOULES_PER_WH


def _tokens(run: ExampleRun) -> int | None:
    if run.tokens_in is None or run.tokens_out is None:
        return None
    return run.tokens_in + run.tokens_out


async def at_budget(study: LoadedStudy, task: Task, whole: Evaluation, budget: int) -> Evaluation:
    """The evaluation that a smaller budget would have given, from checkpoints; a question that ended sooner as it is."""
    knob = anytime(whole.workflow)
    assert knob is not None
    config = with_budget(whole.config, budget)
    known = shares(whole.runs, whole.extras)
    examples = {example.id: example for example in task.search}
    queries = []
    for run in whole.runs:
        share = known.get((run.example_id, run.repeat))
        cost = cut_short(run, share, budget)
        derived = await derive_run(task, examples[run.example_id], run, share, budget)
        queries.append(
            Query(
                example_id=run.example_id,
                score=None if derived is None else derived.score,
                latency_s=cost.latency_s,
                energy_wh=_wh(cost.energy_j),
                tokens=_tokens(cost),
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
        problem=whole.problem or NOT_SPLIT,
        stderr_share=whole.stderr_share,
    )
