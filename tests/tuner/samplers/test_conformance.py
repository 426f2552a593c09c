"""What every one of Optuna's samplers must do as a study uses it: made afresh for each trial, by whichever worker."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import optuna
import pytest

from tuner.errors import UserError
from tuner.samplers import make_sampler
from tuner.samplers import nsga2
from tuner.space import SearchSpace
from workflows.config import AgentConfig

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="needs torch")

NAMES = [
    "tpe",
    "nsga2",
    "nsga3",
    pytest.param("gp", marks=[needs_torch, pytest.mark.slow]),
    "random",
    "grid",
]
MODELS = ("large", "small")
CONDITIONAL = SearchSpace.model_validate(
    {
        "format_version": 1,
        "name": "conditional",
        "workflows": {
            "direct": {
                "few_shot": [0, 1, 2],
                "demonstrations": {"choices": ["fixed", "nearest"], "when": {"few_shot": ">= 1"}},
            },
            "self_consistency": {"samples": {"low": 1, "high": 8}, "temperature": [0.5, 1.0]},
            "react": {"max_steps": {"low": 1, "high": 8}, "thoughts": [True, False]},
        },
    }
)
ONE_WORKFLOW = SearchSpace.model_validate(
    {
        "format_version": 1,
        "name": "one",
        "workflows": {
            "react": {
                "max_steps": {"low": 1, "high": 10},
                "few_shot": {"low": 0, "high": 8},
                "thoughts": [True, False],
            }
        },
    }
)

Told = Callable[[optuna.Trial, AgentConfig], list[float] | None]
"""Gives a trial its constraints and its values, None for one that fails."""


def propose(
    name: str, space: SearchSpace, told: Told, *, trials: int, seed: int = 0
) -> tuple[list[AgentConfig], optuna.Study]:
    """What is proposed, each trial by another worker, and the study as it then is."""
    storage = optuna.storages.InMemoryStorage()
    directions = ["maximize", "minimize"]
    optuna.create_study(study_name="s", storage=storage, directions=directions)
    configs = []
    for number in range(trials):
        sampler = make_sampler(name, seed=seed, trial=number)
        worker = optuna.load_study(study_name="s", storage=storage, sampler=sampler)
        trial = worker.ask()
        configs.append(space.sample(trial, MODELS))
        values = told(trial, configs[-1])
        failed = optuna.trial.TrialState.FAIL
        worker.tell(trial, values, state=failed if values is None else None)
    return configs, worker


def cost(config: AgentConfig) -> float:
    """Grows with each knob that costs something."""
    numbers = [value for value in config.params.values() if isinstance(value, int)]
    return float(np.sum(numbers)) * (2.0 if config.model == "large" else 1.0)


def eventful(trial: optuna.Trial, config: AgentConfig) -> list[float] | None:
    """Some trials fail, some are stopped, the others are good or cheap."""
    if trial.number % 7 == 3:
        return None
    trial.set_constraint("stopped", 1.0 if trial.number % 5 == 4 else 0.0)
    return [cost(config) / 20 + (config.model == "large"), cost(config)]


@pytest.mark.parametrize("name", NAMES)
def test_every_worker_proposes_the_same_whatever_became_of_the_trials_before(name: str) -> None:
    once, _ = propose(name, CONDITIONAL, eventful, trials=26)
    again, _ = propose(name, CONDITIONAL, eventful, trials=26)
    other, _ = propose(name, CONDITIONAL, eventful, trials=26, seed=1)
    assert once == again
    assert once != other
    assert {config.workflow for config in once} == set(CONDITIONAL.workflows)


def pays(config: AgentConfig) -> list[float]:
    """Accuracy for steps, and what they cost, examples shown included: the front has any number of steps, and no example."""
    steps, shown = config.params["max_steps"], config.params["few_shot"]
    assert isinstance(steps, int)
    assert isinstance(shown, int)
    return [steps / 10, steps * (1 + shown / 8)]


BOUND = 3.0
"""On the costs above: about one config in five keeps it."""


def unbound(trial: optuna.Trial, config: AgentConfig) -> list[float]:
    return pays(config)


def bound(trial: optuna.Trial, config: AgentConfig) -> list[float]:
    trial.set_constraint("cost", pays(config)[1] - BOUND)
    return pays(config)


def stopped(trial: optuna.Trial, config: AgentConfig) -> list[float]:
    trial.set_constraint("stopped", 1.0 if pays(config)[1] > BOUND else 0.0)
    return pays(config)


@pytest.mark.parametrize(
    ("name", "trials", "seeds"),
    [
        ("tpe", 64, 1),
        ("nsga2", 80, 3),
        ("nsga3", 80, 3),
        pytest.param("gp", 40, 1, marks=[needs_torch, pytest.mark.slow]),
    ],
)
@pytest.mark.parametrize("told", [bound, stopped])
def test_bounds_and_stops_steer(name: str, trials: int, seeds: int, told: Told) -> None:
    def share_kept(told: Told) -> float:
        """Of the later half of the proposals."""
        late: list[AgentConfig] = []
        for seed in range(seeds):
            configs, study = propose(name, ONE_WORKFLOW, told, trials=trials, seed=seed)
            late += configs[trials // 2 :]
            kept = [each for each in study.best_trials if each.constraints]
            assert all(excess <= 0 for each in kept for excess in each.constraints.values())
        return float(np.mean([pays(config)[1] <= BOUND for config in late]))

    assert share_kept(told) > share_kept(unbound) + 0.1


@pytest.mark.parametrize("name", ["nsga2", "nsga3"])
def test_generations_advance_from_sampler_to_sampler(name: str) -> None:
    configs, _ = propose(name, ONE_WORKFLOW, unbound, trials=4 * nsga2.POPULATION)
    shown = [config.params["few_shot"] for config in configs]
    first, last = shown[: nsga2.POPULATION], shown[-nsga2.POPULATION :]
    assert np.mean(np.array(last, float)) < np.mean(np.array(first, float)) - 1


def test_a_grid_proposes_every_config_once_in_an_order_of_its_seed() -> None:
    size = CONDITIONAL.size(MODELS)
    assert size is not None
    once, _ = propose("grid", CONDITIONAL, eventful, trials=size)
    other, _ = propose("grid", CONDITIONAL, eventful, trials=size, seed=1)
    assert len({config.hash() for config in once}) == size
    assert {config.hash() for config in once} == {config.hash() for config in other}
    assert once != other


def test_a_grid_leaves_what_others_try_just_now() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    size = CONDITIONAL.size(MODELS)
    assert size is not None
    hashes = []
    for number in range(size):
        study.sampler = make_sampler("grid", seed=0, trial=number)
        hashes.append(CONDITIONAL.sample(study.ask(), MODELS).hash())
    assert len(set(hashes)) == size


def test_gp_without_torch_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_none(name: str) -> Any:
        return None

    monkeypatch.setattr("tuner.samplers.gp.find_spec", find_none)
    with pytest.raises(UserError, match="gp needs torch") as refused:
        make_sampler("gp", seed=0, trial=0)
    assert refused.value.hint == "pip install 'tuner[gp]'"
