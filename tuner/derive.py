"""Runs at other budgets, from the checkpoints of those that were made: what smaller ones gave, and where larger ones go on.

Apart from `evaluate`, which makes runs: here none is made. A workflow that works in rounds leaves a checkpoint after
each, and no round depends on how many are allowed. So a run at one budget holds those at all smaller ones, except
where such a run would have ended with a call that this one had no need of.
"""

from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import replace

from tuner.measure.attribution import attribute
from tuner.measure.latency import lacks_spans
from tuner.measure.usage import add_up
from tuner.records import ExampleRun
from tuner.records import Reading
from tuner.records import as_made
from tuner.space import Models
from tuner.space import SearchSpace
from tuner.tasks import SPLITS
from tuner.tasks import Example
from tuner.tasks import Task
from workflows.config import AgentConfig
from workflows.table import workflow_kind

NOT_SPLIT = "the energy could not be split over checkpoints"

Key = tuple[str, int]
"""Which question, and which repeat of it."""


def anytime(workflow: str) -> str | None:
    """The knob that is a workflow's budget in rounds, None where there is none."""
    return workflow_kind(workflow).params.anytime


def with_budget(config: AgentConfig, budget: int) -> AgentConfig:
    """The config with another budget. Raises ValueError where its workflow has none."""
    knob = anytime(config.workflow)
    if knob is None:
        raise ValueError(f"{config.workflow} has no budget in rounds")
    return config.model_copy(update={"params": {**config.params, knob: budget}})


def smaller(space: SearchSpace, models: Models, config: AgentConfig) -> tuple[AgentConfig, ...]:
    """The configs of the space that this one's runs hold: with a smaller budget and all else equal; nearest first."""
    own = budget_of(config)
    return tuple(
        reversed([each for each in _family(space, models, config) if budget_of(each) < own])
    )


def larger(space: SearchSpace, models: Models, config: AgentConfig) -> tuple[AgentConfig, ...]:
    """The configs of the space whose runs hold this one's: with a larger budget and all else equal; nearest first."""
    own = budget_of(config)
    return tuple(each for each in _family(space, models, config) if budget_of(each) > own)


def budget_of(config: AgentConfig) -> int:
    """The config's budget in rounds; 0 where its workflow has none."""
    knob = anytime(config.workflow)
    return 0 if knob is None else int(config.params[knob])


def _family(space: SearchSpace, models: Models, config: AgentConfig) -> list[AgentConfig]:
    """The configs of the space that differ from one in the budget at most, by budget; none without a choice of it."""
    knob = anytime(config.workflow)
    domain = None if knob is None else space.workflows[config.workflow].get(knob)
    values = () if domain is None else domain.values() or ()
    alike = [with_budget(config, int(value)) for value in sorted(values)]
    return [each for each in alike if space.holds(each, models)]


@dataclass(frozen=True, slots=True)
class Share:
    """Gross joules of a run: what it used itself, and its part of what nobody used."""

    whole_j: float
    checkpoints_j: tuple[float | None, ...]
    """Up to each of its checkpoints; None for one that lies within what the run reused."""


def shares(runs: Iterable[ExampleRun], extras: Iterable[ExampleRun] = ()) -> dict[Key, Share]:
    """The joules of windows by run, which with `extras` are all of theirs; all together add up to the windows, and to what was reused.

    What nobody used is shared out by how long each run took. A window whose joules cannot be attributed has none.
    """
    windows = defaultdict(list)
    for run in (*runs, *extras):
        windows[run.window].append(run)
    return {key: share for window in windows.values() for key, share in _of_window(window)}


def _of_window(window: Sequence[ExampleRun]) -> Iterator[tuple[Key, Share]]:
    window = as_made(window)
    attribution = attribute(window)
    if attribution is None:
        return
    whole_s = sum(run.latency_s - run.reused.latency_s for run in window)
    idle_w = attribution.idle_j / whole_s if whole_s > 0 else 0.0
    for run, used in zip(window, attribution.queries, strict=True):
        if run.edge:
            continue
        before_s = run.reused.latency_s
        so_far = [
            None if joules is None else joules + idle_w * (checkpoint.elapsed_s - before_s)
            for checkpoint, joules in zip(run.checkpoints, used.checkpoints_j, strict=True)
        ]
        whole_j = used.joules + idle_w * (run.latency_s - before_s)
        yield (run.example_id, run.repeat), Share(whole_j, tuple(so_far))


async def derive(
    task: Task, runs: Sequence[ExampleRun], extras: Sequence[ExampleRun], budget: int
) -> tuple[ExampleRun | None, ...]:
    """Each run as a smaller budget would have left it, at no cost; None where that would have taken a call that was not made.

    `runs` and `extras` are all those of their windows. Block by block, each of which has windows of its own, this
    gives the same as all at once. Latency, calls and tokens are those up to the checkpoint, energy as `shares` has
    it, None where that is not known. A run that ended before that budget is as it was. An answer that no run gave
    before is scored.
    """
    known = shares(runs, extras)
    examples = {example.id: example for split in SPLITS for example in task.examples(split)}
    derived = []
    for run in runs:
        share = known.get((run.example_id, run.repeat))
        derived.append(await derive_run(task, examples[run.example_id], run, share, budget))
    return tuple(derived)


async def derive_run(
    task: Task, example: Example, run: ExampleRun, share: Share | None, budget: int
) -> ExampleRun | None:
    """One run as `derive` has it, given its share of the joules."""
    short = cut_short(run, share, budget).taken_over()
    index = _at(run, budget)
    if index is None:
        return short
    answer = run.checkpoints[index].answer
    if answer is None:
        return None
    if run.error is None and answer == run.answer:
        return replace(short, score=run.score)
    try:
        return replace(short, score=await task.score(example, answer))
    except (
        Exception
    ) as failure:  # as where it is run: what a scorer stumbles over is that example's failure
        return replace(short, error=f"{type(failure).__name__}: {failure}")


def cut_short(run: ExampleRun, share: Share | None, budget: int) -> ExampleRun:
    """The run up to its checkpoint for that budget, not scored yet; whole where it has none, because it ended before.

    An answer that would have taken another call is "". Samples are left out: they are the whole run's.
    """
    index = _at(run, budget)
    if index is None:
        known = run.energy if share is None else replace(run.energy, gross_j=share.whole_j)
        return replace(run, energy=known, samples=())
    checkpoint = run.checkpoints[index]
    spans = run.spans[: checkpoint.span_count]
    return replace(
        run,
        answer=checkpoint.answer or "",
        score=0.0,
        error=None,
        latency_s=checkpoint.elapsed_s,
        energy=_energy(run, share, index),
        **asdict(add_up(spans)),
        checkpoints=run.checkpoints[: index + 1],
        spans=spans,
        samples=(),
    )


def _at(run: ExampleRun, budget: int) -> int | None:
    """Which checkpoint is that budget's, the last where a round left two; None where the run ended before."""
    found = [index for index, each in enumerate(run.checkpoints) if each.budget == budget]
    return found[-1] if found else None


def _energy(run: ExampleRun, share: Share | None, index: int) -> Reading:
    """Up to a checkpoint; what devices would have drawn anyway goes by the time."""
    whole, elapsed_s = run.energy, run.checkpoints[index].elapsed_s
    joules = None if share is None else share.checkpoints_j[index]
    if joules is None and elapsed_s == run.latency_s:  # cut here before
        joules = run.energy_j
    if joules is None:
        return Reading(None, whole.source, whole.scope, whole.problem or NOT_SPLIT)
    part = elapsed_s / run.latency_s if run.latency_s else 1.0
    return replace(
        whole,
        gross_j=joules,
        seconds=whole.seconds * part,
        idle_j=None if whole.idle_j is None else whole.idle_j * part,
    )


def begun(
    config: AgentConfig,
    earlier: AgentConfig,
    runs: Sequence[ExampleRun],
    extras: Sequence[ExampleRun] = (),
) -> dict[str, ExampleRun]:
    """What runs of an earlier config have done of this one's, by example: `evaluate` goes on from there.

    The configs differ in the budget alone, the runs are of one repeat, and with `extras` all of their windows. Left out
    is what cannot be gone on from exactly: all, where the workflow is not `resumable`; runs that failed or were told
    how right they are; runs whose energy up to there is not known, though that of the whole is.
    """
    if not workflow_kind(config.workflow).params.resumable:
        return {}
    known = shares(runs, extras)
    budget = min(budget_of(config), budget_of(earlier))
    found = {}
    for run in runs:
        short = cut_short(run, known.get((run.example_id, run.repeat)), budget)
        is_lost = short.energy_j is None and run.energy_j is not None
        if not (run.error or run.oracle or lacks_spans(run) or is_lost):
            found[run.example_id] = short
    return found
