import optuna
import pytest

from tuner.proposals import DERIVED_FROM
from tuner.proposals import Told
from tuner.samplers import POOLED
from tuner.samplers import SAMPLERS
from tuner.samplers import make_sampler


def proposed(name: str, *, derived: int) -> list[dict[str, float]]:
    """What a sampler proposes in 40 trials, each followed by so many derived ones, which look best by far."""
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(study_name="s", storage=storage, directions=["maximize", "minimize"])
    study = Told("s", storage, make_sampler(name, seed=3, trial=0))
    found = []
    for number in range(40):
        study.sampler = make_sampler(name, seed=3, trial=number)
        trial = study.ask()
        steps, shots = trial.suggest_int("steps", 1, 8), trial.suggest_int("shots", 0, 6)
        study.tell(trial, [steps * shots, steps + shots])
        found.append(trial.params)
        for _ in range(derived):
            study.enqueue_trial({"steps": 1, "shots": 0})
            child = study.ask()
            child.set_user_attr(DERIVED_FROM, trial.number)
            child.suggest_int("steps", 1, 8)
            child.suggest_int("shots", 0, 6)
            study.tell(child, [100.0, 0.0])
    return found


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in (POOLED, "gp", "grid")])
def test_samplers_propose_as_if_there_were_no_derived_trials(name):
    assert proposed(name, derived=2) == proposed(name, derived=0)


def test_derived_trials_are_trials_in_the_storage():
    storage = optuna.storages.InMemoryStorage()
    plain = optuna.create_study(study_name="s", storage=storage)
    trial = plain.ask()
    trial.set_user_attr(DERIVED_FROM, 0)
    plain.tell(trial, 1.0)
    told = Told("s", storage, plain.sampler)
    assert (len(plain.trials), len(told.trials)) == (1, 0)
