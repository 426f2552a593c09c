"""What can be known of a study before its first trial: everything it needs is tried once, and a few examples are run.

Apart from `study`, because nothing here is kept.
"""

import asyncio
import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle
from itertools import islice

import numpy as np

from tuner.errors import ServingError
from tuner.errors import UserError
from tuner.errors import VariantError
from tuner.events import Report
from tuner.executors.fleet import open_fleet
from tuner.executors.local import LocalExecutor
from tuner.load import Load
from tuner.proposals import BATCH
from tuner.records import ExampleRun
from tuner.serving import model_name
from tuner.space import Choices
from tuner.spec import LoadedStudy
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
    restarts: int
    """How often a server is stopped and another variant of its model started."""
    start_s: float
    """What a start took here."""
    search_s: float
    """For all trials, or the wall-clock budget where that is shorter."""
    search_wh: float | None


def check_study(study: LoadedStudy, *, report: Report = lambda event: None) -> Forecast:
    """Start what the study needs, run a few examples, and forecast the rest. Raises UserError."""
    task = study.load_task()
    runs: list[ExampleRun] = []
    with ExitStack() as stack:
        fleet = open_fleet(study, stack, report=report)
        energy = {model_name(name): each.meter.source for name, each in fleet.running.items()}
        executor = LocalExecutor(
            fleet=fleet,
            task=task,
            load=study.spec.load.without_extras(),
            cache=study.spec.cache,
        )

        async def probe() -> None:
            try:
                await fleet.warm_up()
                probes = _drawn(study)
                probes.sort(key=lambda config: (not executor.is_ready(config), config.model))
                for config in probes:
                    await executor.run(config, task.search[:EXAMPLES_EACH], runs.append, window=0)
            except VariantError as error:
                raise ServingError(str(error)) from None
            finally:
                await fleet.disconnect()

        asyncio.run(probe())
    failed = [run for run in runs if run.error is not None]
    if len(failed) == len(runs):
        raise UserError(f"every one of {len(runs)} probe examples failed: {failed[-1].error}")
    return _forecast(study, runs, energy, fleet.starts_s)


def _drawn(study: LoadedStudy) -> list[AgentConfig]:
    """Configs drawn at random with the study's seed, of each model in turn; on servers that show every value of its knobs."""
    rng = np.random.default_rng(study.spec.sampler.seed)
    shown = [
        {model: served} for model, knobs in study.models.items() for served in _each_value(knobs)
    ]
    turns = islice(cycle(shown), max(PROBED_CONFIGS, len(shown)))
    return [study.space.draw(models, rng) for models in turns]


def _each_value(knobs: Mapping[str, Choices]) -> list[dict[str, Choices]]:
    """As few choices of one value for each knob as show every value once."""
    most = max((len(knob.choices) for knob in knobs.values()), default=1)
    return [
        {
            name: Choices(choices=(knob.choices[number % len(knob.choices)],))
            for name, knob in knobs.items()
        }
        for number in range(most)
    ]


def _restarts(study: LoadedStudy) -> float:
    """How often a search starts another server, were variants proposed evenly: once a batch for each that it needs."""
    count = 0.0
    for knobs in study.models.values():
        variants = math.prod(len(knob.choices) for knob in knobs.values())
        needed = 1 - (1 - 1 / (variants * len(study.models))) ** BATCH
        count += (variants - 1) * needed
    return count * study.spec.budget.trials / BATCH


def _pass_s(load: Load, examples: int, seconds: float) -> float:
    """How long a pass takes whose questions take so many seconds each."""
    questions = load.warm_up + examples
    if load.rate is not None:
        return questions / load.rate + seconds
    return questions * seconds / (load.concurrency or 1)


def _forecast(
    study: LoadedStudy, runs: list[ExampleRun], energy: dict[str, str], starts_s: list[float]
) -> Forecast:
    seconds = float(np.mean([run.latency_s for run in runs]))
    joules = [run.energy.gross_j for run in runs if run.energy.gross_j is not None]
    joules_each = float(np.mean(joules)) if len(joules) == len(runs) else None
    budget, options = study.spec.budget, study.task_options
    restarts, start_s = _restarts(study), float(np.mean(starts_s))
    search_s = budget.trials * _pass_s(study.spec.load, options.examples, seconds)
    search_s += restarts * start_s
    share = min(1.0, budget.wall_clock / search_s) if budget.wall_clock is not None else 1.0
    total = budget.trials * options.examples * share
    return Forecast(
        configs=study.space.size(study.models),
        questions={"search": options.examples, "holdout": options.holdout},
        energy=energy,
        probes=len(runs),
        seconds_per_example=seconds,
        joules_per_example=joules_each,
        restarts=round(restarts),
        start_s=start_s,
        search_s=search_s * share,
        search_wh=None if joules_each is None else total * joules_each / 3600,
    )
