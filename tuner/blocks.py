"""What the pooled sampler gives questions to: the configs of a study's space, and what has been seen of them.

Apart from `proposals`, which has Optuna propose whole trials, and from the sampler, which knows places in a list
and nothing of studies.
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tuner.condition import Condition
from tuner.events import Expected
from tuner.samplers.pooled import Pool
from tuner.seen import COST
from tuner.seen import Seen
from tuner.spec import LoadedStudy
from tuner.store import Store
from tuner.tasks import Example
from tuner.tasks import Task
from workflows.config import AgentConfig
from workflows.config import Knob
from workflows.table import workflow_kind

LISTED = 100_000
"""Spaces up to this size are candidates as a whole; of larger ones so many configs as below are drawn."""

DRAWN = 20_000

Flat = Mapping[str, Knob]
Key = frozenset[tuple[str, type, Knob]]


class Blocks:
    """The candidates of a study, and the sampler that chooses among them."""

    def __init__(self, study: LoadedStudy, task: Task, store: Store, seen: Seen) -> None:
        """List the space, and tell the sampler what has been seen, of objectives with the cost among them."""
        self._study = study
        self._task = task
        self._seen = seen
        self._trial_ids: dict[int, int] = {}
        self._rows = {example.id: row for row, example in enumerate(task.search)}
        names = [each.name for each in seen.objectives]
        trials = [trial for trial in store.trials() if trial.config is not None]
        self._flats = _candidates(study, [t.config for t in trials if t.config is not None])
        self._places = {_key(flat): place for place, flat in enumerate(self._flats)}
        self._pool = Pool(
            self._flats,
            seen.objectives,
            questions=len(task.search),
            seed=study.spec.sampler.seed,
            optimised=len(study.spec.objectives),
            cost=names.index(COST),
            bounds={
                names.index(name): Condition.parse(text)
                for name, text in study.spec.constraints.items()
            },
            covered_by=_families(study, self._flats),
        )
        for trial in trials:
            assert trial.config is not None
            if trial.state == "failed":
                self.exclude(trial.config)
            else:
                self.learn(trial.config, trial.trial_id)

    def next(
        self,
        step: int,
        busy: Collection[tuple[AgentConfig, Sequence[Example]]] = (),
        *,
        among: Callable[[AgentConfig], bool] | None = None,
    ) -> tuple[AgentConfig, list[Example]] | None:
        """A config and the questions to give it; None when nothing is left that may be on the front.

        Configs that are `busy`, each with the questions that it is being asked, have to wait: a trial is in one place
        at a time.
        """
        allowed = None if among is None else self._allowed(among)
        asked = {
            self._place(config): [self._rows[each.id] for each in questions]
            for config, questions in busy
        }
        if asked:
            allowed = np.ones(len(self._flats), np.bool_) if allowed is None else allowed
            allowed[list(asked)] = False
        block = self._pool.propose(step, among=allowed, busy=asked)
        if block is None:
            return None
        return self._config(block.config), self._examples(block.questions)

    def learn(self, config: AgentConfig, trial_id: int) -> None:
        """Tell the sampler all that was seen in a trial of a config, the one of its trials that has seen most."""
        place = self._place(config)
        known = self._answered(place)
        if self._seen.answered(trial_id).sum() >= known.sum():
            self._trial_ids[place] = trial_id
            self._pool.observe(place, self._seen.of(trial_id))

    def exclude(self, config: AgentConfig) -> None:
        """Never give a config questions again."""
        self._pool.exclude(self._place(config))

    def is_complete(self, config: AgentConfig) -> bool:
        """Whether a config has answered every question."""
        return bool(self._answered(self._place(config)).all())

    def left(self, config: AgentConfig) -> int:
        """How many questions a config has not answered."""
        return int((~self._answered(self._place(config))).sum())

    def untried(self, configs: Sequence[AgentConfig]) -> tuple[AgentConfig, list[Example]] | None:
        """The first of these that has answered nothing, with the questions that it begins with; None where all have."""
        for config in configs:
            place = self._place(config)
            if not self._pool.is_excluded(place) and not self._answered(place).any():
                return config, self._examples(self._pool.begin(place).questions)
        return None

    def lacking(self) -> list[tuple[AgentConfig, list[Example]]]:
        """The configs that hold the front, what adds most first, and the questions that they lack."""
        found = []
        for place in self._pool.best():
            questions = np.flatnonzero(~self._answered(int(place)))
            if len(questions):
                found.append((self._config(int(place)), self._examples(questions)))
        return found

    def front(self) -> list[AgentConfig]:
        """The configs that the sampler has on its front."""
        return [self._config(int(place)) for place in self._pool.front()]

    def expected(self) -> tuple[Expected, ...]:
        """That front with what is known of it; best in the first objective first."""
        places = self._pool.front()
        if not len(places):
            return ()
        objectives = self._seen.objectives[: len(self._study.spec.objectives)]
        values = self._pool.estimates()[places, : len(objectives)]
        sign = -1.0 if objectives[0].direction == "maximize" else 1.0
        names = [each.name for each in objectives]
        return tuple(
            Expected(
                config=self._config(int(places[row])),
                answered=int(self._answered(int(places[row])).sum()),
                values=dict(zip(names, values[row].tolist(), strict=True)),
            )
            for row in np.argsort(sign * values[:, 0], kind="stable")
        )

    def _answered(self, place: int) -> npt.NDArray[np.bool_]:
        if place not in self._trial_ids:
            return np.zeros(len(self._task.search), dtype=np.bool_)
        return self._seen.answered(self._trial_ids[place])

    def _examples(self, questions: Sequence[int] | npt.NDArray[np.int64]) -> list[Example]:
        return [self._task.search[int(question)] for question in questions]

    def _config(self, place: int) -> AgentConfig:
        return self._study.space.config(self._flats[place], self._study.models)

    def _place(self, config: AgentConfig) -> int:
        return self._places[_key(self._study.space.flat(config, self._study.models))]

    def _allowed(self, among: Callable[[AgentConfig], bool]) -> npt.NDArray[np.bool_]:
        """Candidates on models that pass, looked at once for each set of models."""
        verdicts = {
            models: among(self._config(self._models.index(models)))
            for models in dict.fromkeys(self._models)
        }
        return np.array([verdicts[models] for models in self._models], dtype=np.bool_)

    @cached_property
    def _models(self) -> list[tuple[str, ...]]:
        """The models of each candidate; only studies with several servers ask."""
        return [self._config(place).models() for place in range(len(self._flats))]


def _key(flat: Flat) -> Key:
    return frozenset((name, type(value), value) for name, value in flat.items())


def _candidates(study: LoadedStudy, tried: Sequence[AgentConfig]) -> list[Flat]:
    """Every config of the space, or of a space too large so many drawn ones, the published defaults and those tried."""
    space, models = study.space, study.models
    size = space.size(models)
    if size is not None and size <= LISTED:
        return list(space.flats(models) or ())
    rng = np.random.default_rng(study.spec.sampler.seed)
    configs = [*space.defaults(models), *(space.draw(models, rng) for _ in range(DRAWN)), *tried]
    flats = (space.flat(config, models) for config in configs)
    return list({_key(flat): flat for flat in flats}.values())


def _families(study: LoadedStudy, flats: Sequence[Flat]) -> list[list[int]]:
    """For each config those that differ from it by a larger budget only, whose runs leave checkpoints at its own."""
    only = next(iter(study.space.workflows))
    families: dict[Key, list[tuple[float, int]]] = {}
    budgets: list[tuple[Key, float] | None] = []
    for place, flat in enumerate(flats):
        workflow = str(flat.get("workflow", only))
        name = f"{workflow}.{workflow_kind(workflow).params.anytime}"
        if name not in flat:
            budgets.append(None)
            continue
        family = _key({knob: value for knob, value in flat.items() if knob != name})
        budgets.append((family, float(flat[name])))
        families.setdefault(family, []).append((float(flat[name]), place))
    return [
        []
        if budget is None
        else [place for size, place in sorted(families[budget[0]]) if size > budget[1]]
        for budget in budgets
    ]
