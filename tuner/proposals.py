"""What a study tries next: the published defaults, then Optuna's proposals, one by one or in batches, and untried configs where those are all known.

Apart from `study`, which runs trials and tells them: everything here follows from what is stored, so that a study which
was interrupted proposes what it would have proposed anyway.
"""

from collections.abc import Container

import numpy as np
import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from tuner.records import TrialRecord
from tuner.samplers import make_sampler
from tuner.spec import LoadedStudy
from tuner.store import Store
from workflows.config import AgentConfig

REPEATS_IN_A_ROW = 10
"""After so many proposals that were tried before, an untried config is drawn instead."""

LISTED_CONFIGS = 5000
"""Spaces up to this size are listed to find an untried config, larger ones are sampled so often."""

BATCH = 8
"""Configs asked for at once where a server may have to be restarted between them, so that those of one server run in a row.

As many as TPE draws at random before it has a model. docs/decisions/0018 has what larger and smaller ones cost.
"""

_BATCH_SIZE = "batch"
"""Attribute of a batch's first trial: how many configs it is to have that were not tried before."""


DERIVED_FROM = "derived_from"
"""Attribute of a trial whose answers are another one's checkpoints: the number of that trial."""


class Told(optuna.Study):
    """A study whose sampler learns from the trials that were run, and is not told of derived ones.

    Several points of one family at once look like a region that deserves more: told of them, TPE takes up to twice as long
    to find the front (docs/decisions/0026). All of Optuna's samplers read trials by this method.
    """

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        trials = super()._get_trials(deepcopy, states, use_cache)
        return [trial for trial in trials if DERIVED_FROM not in trial.user_attrs]


class Proposals:
    """The trials of a study as Optuna opens them."""

    def __init__(self, study: LoadedStudy, optuna_study: optuna.Study, store: Store) -> None:
        self._study = study
        self._optuna = optuna_study
        self._store = store

    def ask(self) -> optuna.Trial:
        """A new trial of a published default, of what Optuna proposes, or of an untried config where its proposals are all known."""
        trials = self._store.trials()
        number = sum(trial.state != "waiting" for trial in trials)
        self._seed_sampler(number)
        # One that waits was enqueued by a run that was killed before it asked.
        if number == len(trials):
            default = self._untried_default(trials)
            if default is not None:
                self._optuna.enqueue_trial(self._study.space.flat(default, self._study.models))
            elif _repeats_in_a_row(trials) >= REPEATS_IN_A_ROW:
                self._enqueue_untried(number, trials)
        return self._optuna.ask()

    def interrupted(self, record: TrialRecord) -> optuna.Trial:
        """A trial that an earlier run has left open."""
        self._seed_sampler(record.number)
        if record.config is None:
            # Knobs that were kept would not be drawn again, and the others get what was drawn for these.
            self._store.forget_knobs(record.trial_id)
        # Optuna's cache takes no knob of a trial that it has neither opened nor read.
        self._optuna.get_trials(deepcopy=False)
        return optuna.Trial(self._optuna, record.trial_id)

    def open_batch(self, trial: optuna.Trial, *, left: int) -> None:
        """Make a trial the first of a batch of at most `left` configs, unless it is in one or was settled before."""
        settled = self._store.trials()[trial.number].config is not None
        if not settled and not self.batch_lacks_configs():
            trial.set_user_attr(_BATCH_SIZE, max(1, min(BATCH, left)))

    def batch_lacks_configs(self) -> bool:
        """Whether the last batch has fewer new configs than it is to have, and there are others.

        A batch is asked for before any of it runs, also after an interruption.
        """
        marked = self._optuna.get_trials(deepcopy=False)
        first = next((each for each in reversed(marked) if _BATCH_SIZE in each.user_attrs), None)
        if first is None:
            return False
        known: set[str] = set()
        new: set[str] = set()
        for trial in self._store.trials():
            if trial.config_hash is not None:
                (known if trial.number < first.number else new).add(trial.config_hash)
        size = self._study.space.size(self._study.models)
        is_more = size is None or len(known | new) < size
        return is_more and len(new - known) < int(first.user_attrs[_BATCH_SIZE])

    def _untried_default(self, trials: list[TrialRecord]) -> AgentConfig | None:
        """The next of the published defaults, which are tried first and take half of the trials at most."""
        tried = {trial.config_hash for trial in trials if trial.config is not None}
        asked = sum(not trial.is_free for trial in trials)
        if asked >= self._study.spec.budget.trials // 2:
            return None
        defaults = self._study.space.defaults(self._study.models)
        return next((config for config in defaults if config.hash() not in tried), None)

    def _seed_sampler(self, number: int) -> None:
        sampler = self._study.spec.sampler
        self._optuna.sampler = make_sampler(sampler.name, seed=sampler.seed, trial=number)

    def _enqueue_untried(self, number: int, trials: list[TrialRecord]) -> None:
        models = self._study.models
        tried = {trial.config_hash for trial in trials if trial.config is not None}
        rng = np.random.default_rng([self._study.spec.sampler.seed, number])
        space = self._study.space
        size = space.size(models)
        listed = space.configs(models) if size is not None and size <= LISTED_CONFIGS else None
        candidates = listed or (space.draw(models, rng) for _ in range(LISTED_CONFIGS))
        untried = [config for config in candidates if config.hash() not in tried]
        if untried:
            drawn = untried[rng.integers(len(untried))]
            self._optuna.enqueue_trial(space.flat(drawn, models))


def _repeats_in_a_row(trials: list[TrialRecord]) -> int:
    """How many of the last trials try what an earlier one has tried or is about to."""
    tried: set[str] = set()
    repeats = 0
    for trial in trials:
        if trial.config_hash is not None:
            repeats = repeats + 1 if trial.config_hash in tried else 0
            if trial.state != "failed":
                tried.add(trial.config_hash)
    return repeats
