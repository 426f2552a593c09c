"""Optuna's storage in the study's database: patient like ours, and written to by the study's owner alone.

Apart from `schema`, which is imported where Optuna (half a second) need not be.
"""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from tuner.errors import StoreError
from tuner.store.patience import Patience
from tuner.store.patience import translate_errors
from tuner.store.tables import OWNER
from tuner.store.tables import optuna_trials

_DONE_AGAIN = (
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_all_studies",
    "get_trial",
    "get_all_trials",
    "get_trial_id_from_study_id_trial_number",
    "get_trial_user_attrs",
    "get_trial_system_attrs",
    "get_trial_param",
    "set_study_user_attr",
    "set_study_system_attr",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "set_trial_intermediate_value",
    "_get_trials",
    "_set_trial_param",
)
"""What comes to the same however often it is done."""


class PatientStorage(RDBStorage):
    """Optuna's own, whose calls wait for a database that is away, and whose writes are refused to who lost the study."""

    def __init__(self, url: str, **kwargs: Any) -> None:
        """As Optuna's; raises at once where the database cannot be opened."""
        super().__init__(url, **kwargs)
        translate_errors(self.engine)
        self._patience = Patience()
        self._latest: dict[int, int] = {}
        self._owner: tuple[int, str] | None = None
        sa.event.listen(self.scoped_session, "before_commit", self._refuse_others)

    def belongs_to(self, study_id: int, owner: str) -> None:
        """From now on, commit nothing of a study unless this is its owner."""
        self._owner = study_id, owner

    def _refuse_others(self, session: Any) -> None:
        """Within each transaction, so that nobody can take the study over between the look and the commit."""
        if self._owner is None or not session.info.pop("writes", False):
            return
        study_id, owner = self._owner
        if session.connection().execute(OWNER, {"study_id": study_id}).scalar() != owner:
            raise taken_over(self.engine)

    def _create_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None = None
    ) -> FrozenTrial:
        """Once: one that was made before the connection was lost is found again, as only the owner makes trials."""

        def create(again: bool) -> FrozenTrial:
            if study_id not in self._latest or again:
                latest = self._latest_trial(study_id)
                before = self._latest.setdefault(study_id, latest)
                if latest > before:
                    return super(PatientStorage, self).get_trial(latest)
            self._mark()
            return super(PatientStorage, self)._create_new_trial(study_id, template_trial)

        trial = self._patience.call(create)
        self._latest[study_id] = trial._trial_id
        return trial

    def _latest_trial(self, study_id: int) -> int:
        query = sa.select(sa.func.max(optuna_trials.c.trial_id)).where(
            optuna_trials.c.study_id == study_id
        )
        with self.engine.connect() as connection:
            return int(connection.execute(query).scalar() or 0)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        """As Optuna's; of a try whose answer was lost, what it came to."""

        def set_(again: bool) -> bool:
            if again and super(PatientStorage, self).get_trial(trial_id).state == state:
                return True
            self._mark()
            return super(PatientStorage, self).set_trial_state_values(trial_id, state, values)

        return self._patience.call(set_)

    def _mark(self) -> None:
        """Say that this thread's next commit writes."""
        self.scoped_session().info["writes"] = True


def taken_over(engine: sa.Engine) -> StoreError:
    """What whoever lost a study is told."""
    from tuner.store.patience import shown

    return StoreError(
        f"{shown(engine.url)}: the study was taken over by another run, or deleted",
        hint="tuner status shows who runs it now; what was finished is kept",
    )


def _patient(name: str) -> Callable[..., Any]:
    method = getattr(RDBStorage, name)
    writes = "set_" in name

    def call(self: PatientStorage, *args: Any, **kwargs: Any) -> Any:
        def again(_: bool) -> Any:
            if writes:
                self._mark()
            return method(self, *args, **kwargs)

        return self._patience.call(again)

    call.__doc__ = f"Optuna's `{name}`, done again where the database was away."
    return call


for _name in _DONE_AGAIN:
    setattr(PatientStorage, _name, _patient(_name))
