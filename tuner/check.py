"""What can be known of a study before its first trial: everything it needs is tried once, and a few examples are run.

Apart from `study`, because nothing here is kept.
"""

import asyncio
import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from itertools import islice
from typing import Any

import numpy as np

from tuner.budget import QUANTITIES
from tuner.budget import SECONDS_PER_HOUR
from tuner.budget import gpus_of
from tuner.errors import ServingError
from tuner.errors import UserError
from tuner.errors import VariantError
from tuner.events import Report
from tuner.executors import Executor
from tuner.executors.fleet import Started
from tuner.executors.replay import ReplayExecutor
from tuner.executors.slots import Share
from tuner.executors.slots import Slots
from tuner.executors.table import open_executor
from tuner.front import Floats
from tuner.load import Load
from tuner.objectives import JOULES_PER_WH
from tuner.proposals import BATCH
from tuner.records import ExampleRun
from tuner.samplers import make_sampler
from tuner.serving import model_name
from tuner.space import Choices
from tuner.spec import LoadedStudy
from tuner.tasks import Task
from workflows.config import AgentConfig

PROBED_CONFIGS = 4
EXAMPLES_EACH = 2

CONFIRMED = 8
"""Configs that a holdout pass measures, for a forecast: about as many are on the front of some tens of trials."""

TRIALS = "trials"
SPACE = "search_space"
CLOCK = "wall_clock"


@dataclass(frozen=True, slots=True)
class Taken:
    """What something takes if all configs are as the probed ones in the mean, and between the cheapest and the dearest of them."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a study takes of one quantity that a budget may limit."""

    unit: str
    trial: Taken
    search: Taken
    """All trials that fit into the budget, whichever limit they come to."""
    holdout: Taken
    limit: float | None


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
    at_once: int
    """Trials that run beside each other."""
    search_s: float
    """For all trials that fit into the budget."""
    search_wh: float | None
    trials: Taken
    """How many fit into the budget."""
    ends_by: str
    """Key of the budget, or of the study, that ends the search first."""
    predictions: dict[str, Prediction]
    """By the keys of the budget, of what could be measured."""


@dataclass(frozen=True, slots=True)
class _Probed:
    """What was seen of a study."""

    runs: Sequence[Sequence[ExampleRun]]
    """Of each config."""
    energies: Mapping[str, Mapping[str, Any]]
    """Model to the source and the scope of its meter, and how many GPUs it watches."""
    start_s: float
    at_once: int

    @property
    def sources(self) -> dict[str, str]:
        """Of the meters, by model."""
        return {model_name(name): str(energy["source"]) for name, energy in self.energies.items()}


def check_study(study: LoadedStudy, *, report: Report = lambda event: None) -> Forecast:
    """Start what the study needs, run a few examples, and forecast the rest. Raises UserError."""
    task = study.load_task()
    sampler = study.spec.sampler
    make_sampler(sampler.name, seed=sampler.seed, trial=0)  # which says what it lacks
    probed = _probe_all(study, task, report)
    runs = [run for each in probed.runs for run in each]
    failed = [run for run in runs if run.error is not None]
    if len(failed) == len(runs):
        raise UserError(
            f"every one of {len(runs)} probe examples failed: {failed[-1].error}",
            hint="is the model's server healthy, and does `models:` name it rightly? tuner doctor shows what answers here",
        )
    return _forecast(study, probed)


def _probe_all(study: LoadedStudy, task: Task, report: Report) -> _Probed:
    energies: dict[str, Mapping[str, Any]] = {}
    starts_s: list[float] = []
    at_once = 1

    def started(server: Started) -> None:
        energies[server.model] = server.provenance["energy"]
        starts_s.append(server.start_s)

    async def probe() -> list[list[ExampleRun]]:
        nonlocal at_once
        executor = open_executor(
            study,
            task,
            slots=Slots(),
            share=Share(),
            report=report,
            started=started,
            waits=False,
        )
        if isinstance(executor, ReplayExecutor):
            models = executor.provenance()["models"]
            energies.update({name: model["energy"] for name, model in models.items()})
        try:
            await executor.open()
            at_once = executor.capacity
            return await _probe(study, task, executor.under(study.spec.load.without_extras()))
        except VariantError as error:
            raise ServingError(
                str(error),
                hint="leave out the serving knob that the server refuses, or mend it: the end of its log is above",
            ) from None
        finally:
            await executor.close()

    runs = asyncio.run(probe())
    return _Probed(runs, energies, float(np.mean(starts_s or [0.0])), at_once)


async def _probe(study: LoadedStudy, task: Task, executor: Executor) -> list[list[ExampleRun]]:
    """The first questions to configs that are drawn at random: the runs of each."""
    configs = _drawn(study)
    configs.sort(key=lambda config: (not executor.is_ready(config), config.model))
    found: list[list[ExampleRun]] = []
    for config in configs:
        found.append([])
        await executor.run(config, task.search[:EXAMPLES_EACH], found[-1].append, window=0)
    return found


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


def _restarts_each(study: LoadedStudy) -> float:
    """How often a trial has another server started, were variants proposed evenly: once a batch for each that it needs."""
    count = 0.0
    for knobs in study.models.values():
        variants = math.prod(len(knob.choices) for knob in knobs.values())
        needed = 1 - (1 - 1 / (variants * len(study.models))) ** BATCH
        count += (variants - 1) * needed
    return count / BATCH


def _pass_s(load: Load, questions: int, seconds: Floats) -> Floats:
    """How long a pass takes whose questions take so many seconds each."""
    asked = load.warm_up + questions
    if load.rate is not None:
        return asked / load.rate + seconds
    return asked * seconds / (load.concurrency or 1)


@dataclass(frozen=True, slots=True)
class _Kind:
    """A quantity that a budget may limit, and how it is predicted."""

    unit: str
    of_run: Callable[[ExampleRun], float | None]
    """What a question took, None where that is not known."""
    of_pass: Callable[[int, Floats], Floats]
    """What a pass over so many questions takes, each of which takes so much."""


def _kinds(study: LoadedStudy, gpus: int | None) -> dict[str, _Kind]:
    """By their keys in the budget; without GPU-hours where it is not known how many GPUs there are."""
    load = study.spec.load

    def pass_s(questions: int, seconds: Floats) -> Floats:
        return _pass_s(load, questions, seconds)

    def all_of(questions: int, each: Floats) -> Floats:
        return (load.warm_up + questions) * each

    kinds = {
        CLOCK: _Kind("s", lambda run: run.latency_s, pass_s),
        "energy_wh": _Kind(
            "Wh",
            lambda run: None if run.energy_j is None else run.energy_j / JOULES_PER_WH,
            all_of,
        ),
        "cost_usd": _Kind("$", lambda run: run.cost_usd, all_of),
        "tokens": _Kind("tokens", _tokens, all_of),
    }
    if gpus is not None:
        hours = gpus / SECONDS_PER_HOUR
        kinds["gpu_hours"] = _Kind(
            "GPU-hours", lambda run: run.latency_s, lambda n, each: hours * pass_s(n, each)
        )
    return kinds


def _tokens(run: ExampleRun) -> float | None:
    if run.tokens_in is None or run.tokens_out is None:
        return None
    return float(run.tokens_in + run.tokens_out)


def _each(probed: _Probed, kind: _Kind) -> Floats | None:
    """What a question of the configs takes in the mean, of the cheapest and of the dearest; None where that is not known of each."""
    found = [[kind.of_run(run) for run in runs] for runs in probed.runs]
    known = [[each for each in config if each is not None] for config in found]
    if not all(known):
        return None
    means = [float(np.mean(config)) for config in known]
    return np.array([np.mean(means), min(means), max(means)])


def _forecast(study: LoadedStudy, probed: _Probed) -> Forecast:
    budget, options = study.spec.budget, study.task_options
    restarts_each, size = _restarts_each(study), study.space.size(study.models)
    kinds = _kinds(study, gpus_of(probed.energies.values()))
    each = {name: of for name, kind in kinds.items() if (of := _each(probed, kind)) is not None}
    trial = {name: kinds[name].of_pass(options.examples, of) for name, of in each.items()}
    trial[CLOCK] = trial[CLOCK] + restarts_each * probed.start_s
    holdout = {
        name: CONFIRMED * kinds[name].of_pass(options.holdout, of) * (options.holdout > 0)
        for name, of in each.items()
    }
    fits = {TRIALS: np.full(3, float(budget.trials))}
    if size is not None:
        fits[SPACE] = np.full(3, float(size))
    for name in trial:
        limit = getattr(budget, name)
        if limit is not None and trial[name].all():
            left = limit - (holdout[name] if name in QUANTITIES else 0.0)
            beside = probed.at_once if name == CLOCK else 1
            fits[name] = beside * np.maximum(0.0, np.floor(left / trial[name]))
    count = np.min(list(fits.values()), axis=0)
    search = {name: count * of for name, of in trial.items()}
    for passes in (search, holdout):
        passes[CLOCK] = passes[CLOCK] / probed.at_once
    return Forecast(
        configs=size,
        questions={"search": options.examples, "holdout": options.holdout},
        energy=probed.sources,
        probes=sum(map(len, probed.runs)),
        seconds_per_example=float(each[CLOCK][0]),
        joules_per_example=None
        if "energy_wh" not in each
        else float(each["energy_wh"][0]) * JOULES_PER_WH,
        restarts=round(restarts_each * float(count[0])),
        start_s=probed.start_s,
        at_once=probed.at_once,
        search_s=float(search[CLOCK][0]),
        search_wh=None if "energy_wh" not in search else float(search["energy_wh"][0]),
        trials=_taken(count),
        ends_by=min(fits, key=lambda name: float(fits[name][0])),
        predictions={
            name: Prediction(
                unit=kinds[name].unit,
                trial=_taken(trial[name]),
                search=_taken(search[name]),
                holdout=_taken(holdout[name]),
                limit=getattr(budget, name),
            )
            for name in kinds
            if name in each
        },
    )


def _taken(values: Floats) -> Taken:
    return Taken(float(values[0]), float(values.min()), float(values.max()))
