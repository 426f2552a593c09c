"""Everything that the tables are made from, and the lines through it along which a figure looks.

Apart from `evaluation`, which is one config: here is the whole profile before it is summarised.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tuner.derive import anytime
from tuner.profile.estimate import Value
from tuner.profile.estimate import blurred
from tuner.profile.estimate import mean
from tuner.profile.estimate import missing
from tuner.profile.estimate import quantile
from tuner.profile.estimate import ratio
from tuner.profile.estimate import share
from tuner.profile.evaluation import Evaluation
from tuner.profile.knees import KneeSearch
from tuner.profile.plan import Plan
from tuner.profile.plan import line
from tuner.profile.table import Key
from tuner.spec import LoadedStudy
from tuner.tasks import Task
from workflows.config import AgentConfig


@dataclass(frozen=True)
class Found:
    """What a profile has measured."""

    study: LoadedStudy
    task: Task
    plan: Plan
    measured: tuple[Evaluation, ...]
    derived: tuple[Evaluation, ...]
    """Smaller budgets of those, none of which was measured itself."""
    rates: Mapping[float, tuple[Evaluation, ...]]
    """By questions a second; of each the same few configs."""
    provenance: Mapping[str, Any]
    knees: tuple[KneeSearch, ...] = ()
    """Sweeps over rates, of the configs that the study asks for."""

    @property
    def complete(self) -> tuple[Evaluation, ...]:
        """The measured ones that did not fail."""
        return tuple(each for each in self.measured if each.queries)

    @cached_property
    def _by_config(self) -> Mapping[str, Evaluation]:
        return {each.config.hash(): each for each in (*self.derived, *self.complete)}

    def of(self, config: AgentConfig) -> Evaluation | None:
        """What a config gave; None where that is not known."""
        return self._by_config.get(config.hash())

    def shown(self, workflow: str) -> Evaluation | None:
        """The evaluation that stands for a workflow: of its centre."""
        return self.of(self.plan.centres[workflow])

    def centres(self, workflow: str) -> list[Evaluation]:
        """The workflow's centre on each model, where that was measured."""
        configs = line(
            self.study.space, tuple(self.study.variants), self.plan.centres[workflow], "model"
        )
        return [each for config in configs if (each := self.of(config)) is not None]

    def along(self, knob: str, through: Evaluation) -> list[tuple[Key, Evaluation]]:
        """The evaluations that differ from a measured one in a knob only, by its value; fewer than two are none.

        Of an anytime knob, its smaller budgets.
        """
        if knob == anytime(through.workflow):
            found = self.budgets(through)
        else:
            configs = line(self.study.space, tuple(self.study.variants), through.config, knob)
            found = [each for config in configs if (each := self.of(config)) is not None]
        by_value = [(each.config.params[knob], each) for each in found]
        return by_value if len(by_value) > 1 else []

    def budgets(self, whole: Evaluation) -> list[Evaluation]:
        """A measured config at every budget that is known, in order."""
        knob = anytime(whole.workflow)
        if knob is None:
            return [whole]

        def others(each: Evaluation) -> AgentConfig:
            params = {name: value for name, value in each.config.params.items() if name != knob}
            return each.config.model_copy(update={"params": params})

        alike = [
            each
            for each in (*self.derived, *self.complete)
            if each.workflow == whole.workflow and others(each) == others(whole)
        ]
        return sorted(alike, key=lambda each: float(each.config.params[knob]))

    def prefix_cache(self, model: str) -> bool | None:
        """Whether the model's server keeps prefixes of prompts; None for one that we do not start."""
        found = getattr(self.study.variants[model], "prefix_cache", None)
        return found if isinstance(found, bool) else None

    def uncached(self, model: str) -> str | None:
        """The model that is served alike but for keeping prefixes, of one whose server keeps them."""
        if self.prefix_cache(model) is not True:
            return None
        alike = self.study.variants[model].model_copy(update={"prefix_cache": False})
        variants = self.study.variants.items()
        return next((name for name, variant in variants if variant == alike), None)

    def weights(self, model: str) -> str:
        """What tells a model from the same one served otherwise."""
        variant = self.study.variants[model]
        return str(getattr(variant, "weights", None) or getattr(variant, "model", model))

    def baseline(self, model: str) -> Evaluation | None:
        """What answers in a single turn on that model: `direct`, or where the space has none, `cot`."""
        for workflow in ("direct", "cot"):
            if workflow in self.plan.centres:
                found = [each for each in self.centres(workflow) if each.model == model]
                return found[0] if found else None
        return None


def accuracy(of: Evaluation) -> Value:
    """Share of right answers, or mean score."""
    scores = [query.score for query in of.queries]
    unknown = scores.count(None)
    return share(
        scores,
        why=f"{unknown} of {len(scores)} answers would have taken a call that was not made",
    )


def latency(of: Evaluation) -> Value:
    """Mean seconds from question to answer."""
    return mean([query.latency_s for query in of.queries])


def latency_p95(of: Evaluation) -> Value:
    """Its 95th percentile."""
    return quantile([query.latency_s for query in of.queries], 0.95)


def energy(of: Evaluation) -> Value:
    """Mean gross Wh of a query."""
    joules = [query.energy_wh for query in of.queries]
    return blurred(mean(joules, why=of.problem or "no energy is metered"), of.stderr_share)


def tokens(of: Evaluation) -> Value:
    """Mean tokens of a query."""
    return mean(
        [query.tokens for query in of.queries], why="the server did not report tokens of every call"
    )


def per_latency(of: Sequence[Evaluation]) -> list[Value]:
    """Accuracy over mean latency of each, the best of them taken as 1 (Kim et al., arXiv 2506.04301, Figure 13)."""
    plain = [_per_second(each) for each in of]
    best = max((each.value for each in plain if each.value is not None), default=0.0)
    if not best:
        return [each if each.value is None else missing("nothing was right") for each in plain]
    return [
        each
        if each.value is None
        else Value(
            each.value / best,
            each.interval and (each.interval[0] / best, each.interval[1] / best),
        )
        for each in plain
    ]


def _per_second(of: Evaluation) -> Value:
    """Accuracy over mean latency; no surer than accuracy itself, which is never sure where all or nothing was right."""
    found = ratio(
        [query.score for query in of.queries],
        [query.latency_s for query in of.queries],
        why="its accuracy is not known",
    )
    if found.interval is None:
        return found
    seconds = float(latency(of).value or 0.0)
    low, high = accuracy(of).interval or (0.0, 1.0)
    return Value(
        found.value, (min(found.interval[0], low / seconds), max(found.interval[1], high / seconds))
    )
