"""What can be known of a study before its first trial: everything it needs is tried once, and a few examples are run.

Apart from `study`, because nothing here is kept.
"""

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from tuner.errors import UserError
from tuner.events import Report
from tuner.executors.local import LocalExecutor
from tuner.load import Load
from tuner.records import ExampleRun
from tuner.spec import LoadedStudy
from tuner.study import open_models
from workflows.config import AgentConfig

PROBED_CONFIGS = 4
EXAMPLES_EACH = 2


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a study will take, from configs drawn at random: right to a factor of two or so."""

    configs: int | None
    """Size of the search space; None for a continuum."""
    questions: dict[str, int]
    energy: dict[str, str]
    """Model to the source of its energy readings."""
    probes: int
    """Example runs behind the figures below."""
    seconds_per_example: float
    joules_per_example: float | None
    search_s: float
    """For all trials, or the wall-clock budget where that is shorter."""
    search_wh: float | None


def check_study(study: LoadedStudy, *, report: Report = lambda event: None) -> Forecast:
    """Start what the study needs, run a few examples, and forecast the rest. Raises UserError."""
    task = study.load_task()
    runs: list[ExampleRun] = []
    with ExitStack() as stack:
        endpoints, meters = open_models(study, stack, report=report)
        executor = LocalExecutor(
            endpoints=endpoints,
            meters=meters,
            task=task,
            load=study.spec.load.without_extras(),
            cache=study.spec.cache,
        )

        async def probe() -> None:
            try:
                await executor.warm_up()
                for config in _drawn(study):
                    await executor.run(config, task.search[:EXAMPLES_EACH], runs.append, window=0)
            finally:
                await executor.close()

        asyncio.run(probe())
    failed = [run for run in runs if run.error is not None]
    if len(failed) == len(runs):
        raise UserError(f"every one of {len(runs)} probe examples failed: {failed[-1].error}")
    return _forecast(study, runs, {name: meter.source for name, meter in meters.items()})


def _drawn(study: LoadedStudy) -> list[AgentConfig]:
    """Configs drawn at random with the study's seed."""
    rng = np.random.default_rng(study.spec.sampler.seed)
    return [study.space.draw(study.models, rng) for _ in range(PROBED_CONFIGS)]


def _pass_s(load: Load, examples: int, seconds: float) -> float:
    """How long a pass takes whose questions take so many seconds each."""
    questions = load.warm_up + examples
    if load.rate is not None:
        return questions / load.rate + seconds
    return questions * seconds / (load.concurrency or 1)


def _forecast(study: LoadedStudy, runs: list[ExampleRun], energy: dict[str, str]) -> Forecast:
    seconds = float(np.mean([run.latency_s for run in runs]))
    joules = [run.energy.gross_j for run in runs if run.energy.gross_j is not None]
    joules_each = float(np.mean(joules)) if len(joules) == len(runs) else None
    budget, options = study.spec.budget, study.task_options
    search_s = budget.trials * _pass_s(study.spec.load, options.examples, seconds)
    share = min(1.0, budget.wall_clock / search_s) if budget.wall_clock is not None else 1.0
    total = budget.trials * options.examples * share
    return Forecast(
        configs=study.space.size(study.models),
        questions={"search": options.examples, "holdout": options.holdout},
        energy=energy,
        probes=len(runs),
        seconds_per_example=seconds,
        joules_per_example=joules_each,
        search_s=search_s * share,
        search_wh=None if joules_each is None else total * joules_each / 3600,
    )
