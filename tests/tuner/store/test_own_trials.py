"""What a study's owner remembers of its trials is what anyone else reads of them in the database."""

from typing import Any

import numpy as np
import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from tuner.store import Store
from tuner.store import schema


@pytest.fixture
def owned(url: str, optuna_study: optuna.Study, store: Store) -> Any:
    """The study of an owner, who found a trial that another had left open."""
    optuna_study.ask().suggest_int("few_shot", 0, 8)
    storage = schema.open_optuna_storage(url)
    storage.belongs_to(store.study_id, "me")
    yield optuna.load_study(study_name="s", storage=storage)
    storage.remove_session()
    storage.engine.dispose()


def seen(trial: FrozenTrial) -> dict[str, Any]:
    """All that a sampler may look at."""
    return {
        "number": trial.number,
        "id": trial._trial_id,
        "state": trial.state,
        "values": trial.values,
        "params": trial.params,
        "distributions": trial.distributions,
        "user": trial.user_attrs,
        "system": trial.system_attrs,
        "began": trial.datetime_start is not None,
        "ended": trial.datetime_complete is not None,
    }


@pytest.mark.slow
def test_it_remembers_what_the_database_has(url: str, owned: optuna.Study) -> None:
    rng = np.random.default_rng(1)
    open_: list[optuna.Trial] = []
    for step in range(60):
        if not open_ or rng.random() < 0.5:
            if rng.random() < 0.3:
                owned.enqueue_trial({"few_shot": 3, "kind": "b"})
            trial = owned.ask()
            trial.suggest_int("few_shot", 0, 8)
            trial.suggest_categorical("kind", ["a", "b", True])
            trial.set_user_attr("said", {"at": (step, None)})
            trial.set_constraint("late", 0.5)
            open_.append(trial)
        else:
            trial = open_.pop(int(rng.integers(len(open_))))
            if rng.random() < 0.3:
                owned.tell(trial, state=TrialState.FAIL)
            else:
                owned.tell(trial, [0.5, step])
        if step % 10 == 9:
            other = schema.open_optuna_storage(url)
            theirs = optuna.load_study(study_name="s", storage=other).get_trials()
            other.remove_session()
            other.engine.dispose()
            assert list(map(seen, owned.get_trials())) == list(map(seen, theirs))
            storage = owned._storage
            assert [seen(storage.get_trial(each._trial_id)) for each in theirs] == [
                *map(seen, theirs)
            ]
    assert len(owned.get_trials()) > 20


def test_a_trial_costs_few_reads(owned: optuna.Study) -> None:
    optuna_engine = owned._storage._backend.engine  # type: ignore[attr-defined]
    owned.tell(0, [1.0, 1.0])
    statements: list[str] = []

    @sa.event.listens_for(optuna_engine, "before_cursor_execute")
    def _(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)

    def trial() -> int:
        statements.clear()
        asked = owned.ask()
        for name in "abcd":
            asked.suggest_int(name, 0, 8)
        owned.tell(asked, [1.0, 2.0])
        return sum("trial_params" in each and each.startswith("SELECT") for each in statements)

    trial()
    trial()
    assert trial() <= 4  # its own knobs, as they are written
