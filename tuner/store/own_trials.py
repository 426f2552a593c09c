"""Optuna's storage of a study whose owner this process is: the trials that it makes are known here, and not read again.

Apart from `optuna_storage`, which reads and writes for whoever it may be. Optuna reads every open trial anew for each
knob, attribute and proposal, as others might have changed it: a third of what a trial costs its driver. Only a study's owner
writes to it, so here what was written is remembered; what an earlier owner left open is still read.
"""

import json
from collections.abc import Container
from copy import copy
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from tuner.store.optuna_storage import PatientStorage


class OwnersStorage(PatientStorage):
    """As any other until it `belongs_to` an owner."""

    def __init__(self, url: str, **kwargs: Any) -> None:
        """As PatientStorage."""
        super().__init__(url, **kwargs)
        self._study_id: int | None = None
        self._open: dict[int, FrozenTrial] = {}
        self._ended: dict[int, FrozenTrial] = {}
        """Those that Optuna's cache, which lies above, may not have heard of."""
        self._up_to = 0
        """Trials up to this one are read: they were made before, or the cache has them."""

    def belongs_to(self, study_id: int, owner: str) -> None:
        """From now on, commit nothing of a study unless this is its owner, and remember its trials."""
        super().belongs_to(study_id, owner)
        self._open, self._ended = {}, {}
        self._study_id, self._up_to = study_id, self._latest_trial(study_id)

    # Reading

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """As Optuna's."""
        known = self._open.get(trial_id) or self._ended.get(trial_id)
        return super().get_trial(trial_id) if known is None else _copied(known)

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """Trials after that one, and those included: what a cache lacks that has the others."""
        included, after = included_trial_ids, trial_id_greater_than
        is_known = self._open.keys() | self._ended.keys() >= included
        if study_id != self._study_id or states is not None or after < self._up_to or not is_known:
            return super()._get_trials(study_id, states, included, after)
        for trial_id in [each for each in self._ended if each <= after and each not in included]:
            del self._ended[trial_id]
            self._up_to = max(self._up_to, trial_id)
        asked = {
            trial_id: trial
            for trial_id, trial in (*self._open.items(), *self._ended.items())
            if trial_id > after or trial_id in included
        }
        return [_copied(asked[trial_id]) for trial_id in sorted(asked)]

    # Writing

    def _create_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None = None
    ) -> FrozenTrial:
        trial = super()._create_new_trial(study_id, template_trial)
        if study_id == self._study_id:
            self._open[trial._trial_id] = _copied(trial)
        return trial

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        super()._set_trial_param(
            trial_id, param_name, param_value_internal, distribution, previous_distribution
        )
        if (known := self._open.get(trial_id)) is not None:
            value = distribution.to_external_repr(param_value_internal)
            known.params = {**known.params, param_name: value}
            known.distributions = {**known.distributions, param_name: distribution}

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's."""
        super().set_trial_user_attr(trial_id, key, value)
        if (known := self._open.get(trial_id)) is not None:
            known.user_attrs = {**known.user_attrs, key: _as_read(value)}

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's."""
        super().set_trial_system_attr(trial_id, key, value)
        if (known := self._open.get(trial_id)) is not None:
            known.system_attrs = {**known.system_attrs, key: _as_read(value)}

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        """As Optuna's."""
        is_set = super().set_trial_state_values(trial_id, state, values)
        known = self._open.pop(trial_id, None)
        if known is None:
            return is_set
        if not is_set:
            known = super().get_trial(trial_id)
        else:
            known.state = state
            if values is not None:
                known.values = [float(value) for value in values]
            if state.is_finished():
                known.datetime_complete = datetime.now()
            elif state == TrialState.RUNNING:
                known.datetime_start = datetime.now()
        (self._ended if known.state.is_finished() else self._open)[trial_id] = known
        return is_set


def _copied(trial: FrozenTrial) -> FrozenTrial:
    """One that Optuna may change, as it does with what it was given."""
    other = copy(trial)
    other.params = dict(trial.params)
    other.distributions = dict(trial.distributions)
    other.user_attrs = dict(trial.user_attrs)
    other.system_attrs = dict(trial.system_attrs)
    return other


def _as_read(value: Any) -> Any:
    """An attribute as the database gives it back."""
    return json.loads(json.dumps(value))
