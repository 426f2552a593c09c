"""A search space as data: which values each knob may take and when, its size, and the one walk to an AgentConfig.

The walk is written once and driven by a chooser, so that sampling a trial, listing the space and finding
the flat parameters of a known config cannot disagree.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Annotated
from typing import Any
from typing import Literal
from typing import TypeGuard
from typing import TypeVar
from typing import cast

import numpy as np
from pydantic import BaseModel
from pydantic import BeforeValidator
from pydantic import ConfigDict
from pydantic import Discriminator
from pydantic import Field
from pydantic import Tag
from pydantic import ValidationError
from pydantic import field_validator
from pydantic import model_validator

from tuner.condition import Condition
from tuner.serving import model_name
from tuner.serving import variant_name
from tuner.source import Source
from tuner.tasks import Task
from workflows.base import Params
from workflows.config import ACTOR
from workflows.config import ROLE
from workflows.config import AgentConfig
from workflows.config import Knob
from workflows.errors import ConfigError
from workflows.table import workflow_kind

if TYPE_CHECKING:
    import optuna


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _Conditional(_Data):
    when: dict[str, Knob] = Field(
        default_factory=dict, description="knobs above to conditions: {few_shot: '>= 1'}"
    )

    def applies(self, chosen: Mapping[str, Knob]) -> bool:
        """Whether the knob is open, given those above it; one that is not open meets no condition."""
        return all(
            on in chosen and Condition.parse(text).holds(chosen[on])
            for on, text in self.when.items()
        )


class Choices(_Conditional):
    """One of several values; a list in YAML is short for it."""

    choices: tuple[Knob, ...] = Field(min_length=1, strict=False)

    @field_validator("choices")
    @classmethod
    def _differ(cls, choices: tuple[Knob, ...]) -> tuple[Knob, ...]:
        # By value, as configs are compared: 0 and 0.0 are one, 1 and true are not.
        if len({(isinstance(choice, bool), choice) for choice in choices}) < len(choices):
            raise ValueError(f"names a value twice: {', '.join(map(repr, choices))}")
        return choices

    def values(self) -> tuple[Knob, ...]:
        """Every value, in the order given."""
        return self.choices

    def ends(self) -> tuple[Knob, ...]:
        """Values that must lie within the workflow's bounds for all to do so."""
        return self.choices

    def suggest(self, trial: "optuna.trial.BaseTrial", name: str) -> Knob:
        """A value from Optuna."""
        return cast(Knob, trial.suggest_categorical(name, self.choices))


class Range(_Conditional):
    """Whole numbers when both ends are, else real ones; with `step` from `low` on, `log` for ratios."""

    low: int | float
    high: int | float
    step: int | float | None = Field(default=None, gt=0)
    log: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> "Range":
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs low above 0 and no step")
        return self

    @property
    def _whole(self) -> bool:
        parts: tuple[Any, ...] = (self.low, self.high, self.step)
        return not any(isinstance(part, float) for part in parts)

    def values(self) -> tuple[Knob, ...] | None:
        """Every value, None where there is a continuum of them."""
        if self._whole:
            return tuple(range(int(self.low), int(self.high) + 1, int(self.step or 1)))
        if self.low == self.high:
            return (float(self.low),)
        if self.step is None:
            return None
        low, high, step = (Decimal(str(part)) for part in (self.low, self.high, self.step))
        count = int((high - low) / step) + 1  # decimal, as written: 0.1 fits thrice into 0.3
        return tuple(float(low + index * step) for index in range(count))

    def ends(self) -> tuple[Knob, ...]:
        """The two ends."""
        return (self.low, self.high) if self._whole else (float(self.low), float(self.high))

    def suggest(self, trial: "optuna.trial.BaseTrial", name: str) -> Knob:
        """A value from Optuna."""
        values = self.values()
        if values is None:
            return trial.suggest_float(name, self.low, self.high, log=self.log)
        # The end is what the steps reach, or Optuna warns; its steps of 0.1 come to 0.30000000000000004.
        low, high = cast(tuple[float, float], (values[0], values[-1]))
        if self._whole:
            step = int(self.step or 1)
            return trial.suggest_int(name, int(low), int(high), step=step, log=self.log)
        near = trial.suggest_float(name, low, high, step=self.step)
        return values[round((near - low) / float(self.step or 1))]


def _kind_of_domain(content: Any) -> str:
    is_range = isinstance(content, Range) or (isinstance(content, dict) and "low" in content)
    return "Range" if is_range else "Choices"


def _spelled_out(content: Any) -> Any:
    """A knob's short forms in full: a list is its choices, a single value the only one."""
    if isinstance(content, list):
        return {"choices": content}
    return content if isinstance(content, dict) else {"choices": [content]}


Domain = Annotated[
    Annotated[Choices, Tag("Choices")] | Annotated[Range, Tag("Range")],
    Discriminator(_kind_of_domain),
    BeforeValidator(_spelled_out),
]

Choose = Callable[[str, Domain], Knob]
"""Takes a flat name (`react.max_steps`) and its domain, gives a value."""

Walked = TypeVar("Walked")

Models = Sequence[str] | Mapping[str, Mapping[str, Choices]]
"""A study's models by name, with the serving knobs of those whose server may be started in several ways."""


class SearchSpace(_Data):
    """Which configs a study may try: for each workflow, its knobs in order; a knob left out keeps its default."""

    format_version: Literal[1]
    name: str = Field(min_length=1)
    workflows: dict[str, dict[str, Domain]] = Field(min_length=1)

    def fingerprint(self) -> str:
        """16 hex digits that change when what can be sampled does."""
        content = self.model_dump(mode="json", exclude={"name"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def walk(self, models: Models, choose: Choose) -> AgentConfig:
        """The config that the chooser's answers lead to, every param filled in.

        Knobs whose condition does not hold keep the workflow's default, and a role that the config's
        own model plays is the actor's, so that configs that behave alike are equal. A model with serving
        knobs is named with their values, as one of its variants.
        """
        workflow, model, params = self._chosen(models, choose)
        full = workflow_kind(workflow).params.model_validate(params).model_dump()
        return AgentConfig(workflow=workflow, model=model, params=full)

    def _chosen(self, models: Models, choose: Choose) -> tuple[str, str, dict[str, Knob]]:
        """The workflow, the model's variant and the open knobs that the chooser's answers lead to."""
        # Sorted: Optuna refuses choices that come in another order than before.
        workflow = str(choose("workflow", Choices(choices=tuple(sorted(self.workflows)))))
        model = str(choose("model", Choices(choices=tuple(sorted(models)))))
        served = {
            knob: choose(f"{model}.{knob}", domain)
            for knob, domain in _serving_knobs(models, model).items()
        }
        params: dict[str, Knob] = {}
        for knob, domain in self.workflows[workflow].items():
            if domain.applies(params):
                chosen = choose(f"{workflow}.{knob}", domain)
                params[knob] = ACTOR if _is_own_role(knob) and chosen == model else chosen
        return workflow, variant_name(model, served), params

    def sample(self, trial: "optuna.trial.BaseTrial", models: Models) -> AgentConfig:
        """A config whose open knobs Optuna chose; it is not asked where there is nothing to choose."""

        def choose(name: str, domain: Domain) -> Knob:
            values = domain.values()
            only = values[0] if values is not None and len(values) == 1 else None
            return domain.suggest(trial, name) if only is None else only

        return self.walk(models, choose)

    def draw(self, models: Models, rng: np.random.Generator) -> AgentConfig:
        """A config each of whose knobs is drawn uniformly."""

        def choose(name: str, domain: Domain) -> Knob:
            values = domain.values()
            if values is not None:
                return values[int(rng.integers(len(values)))]
            low, high = domain.ends()
            return float(rng.uniform(float(low), float(high)))

        return self.walk(models, choose)

    def flat(self, config: AgentConfig, models: Models) -> dict[str, Knob]:
        """Optuna's parameters of a config of this space, for enqueueing it."""
        flat: dict[str, Knob] = {}
        own = _chooser_of(config, models)

        def choose(name: str, domain: Domain) -> Knob:
            chosen = own(name, domain)
            if len(domain.values() or (0, 0)) > 1:
                flat[name] = chosen
            return chosen

        self.walk(models, choose)
        return flat

    def holds(self, config: AgentConfig, models: Models) -> bool:
        """Whether a config, perhaps one of another space, is one of this space on these models."""
        own = _chooser_of(config, models)

        def choose(name: str, domain: Domain) -> Knob:
            chosen = own(name, domain)
            if not _is_among(domain, chosen):
                raise LookupError(name)
            return chosen

        try:
            return self.walk(models, choose).hash() == config.hash()
        except LookupError:
            return False

    def defaults(self, models: Models) -> list[AgentConfig]:
        """For each model and each workflow the config nearest to the workflow's defaults, which are the published ones.

        A knob has its default where that is among its values, else the number nearest to it, else its
        first value; a model with serving knobs has the first value of each.
        """
        return [
            self._default(workflow, model, models)
            for model in models
            for workflow in self.workflows
        ]

    def _default(self, workflow: str, model: str, models: Models) -> AgentConfig:
        served = {
            f"{model}.{knob}": domain.choices[0]
            for knob, domain in _serving_knobs(models, model).items()
        }
        above = {"workflow": workflow, "model": model, **served}
        params = workflow_kind(workflow).params
        chosen: dict[str, Knob] = {}

        def choose(name: str, domain: Domain) -> Knob:
            if name in above:
                return above[name]
            knob = name.removeprefix(f"{workflow}.")
            # Those chosen so far may decide: the default of `cheap.max_tokens` is that of the workflow `cheap`.
            default: Knob = params.model_validate(chosen).model_dump()[knob]
            default = params.published.get(knob, default)
            if default == ACTOR and _is_own_role(knob) and not _is_among(domain, ACTOR):
                default = model
            chosen[knob] = _nearest(domain, default)
            return chosen[knob]

        return self.walk(models, choose)

    def config(self, flat: Mapping[str, Knob], models: Models) -> AgentConfig:
        """The config of these parameters, as `flat` gives them."""

        def choose(name: str, domain: Domain) -> Knob:
            if name in flat:
                return flat[name]
            (only,) = domain.values() or ()
            return only

        return self.walk(models, choose)

    def flats(self, models: Models) -> Iterator[dict[str, Knob]] | None:
        """Optuna's parameters of every config, as `flat` gives them, once and in a fixed order; None for a continuum.

        No config is built on the way, which is most of the time that `configs` takes.
        """
        if self._is_continuous():
            return None
        return self._flats(models)

    def _flats(self, models: Models) -> Iterator[dict[str, Knob]]:
        seen: set[Any] = set()
        flat: dict[str, Knob] = {}

        def listed(choose: Choose) -> tuple[str, str, dict[str, Knob]]:
            flat.clear()

            def noting(name: str, domain: Domain) -> Knob:
                chosen = choose(name, domain)
                if len(domain.values() or ()) > 1:
                    flat[name] = chosen
                return chosen

            return self._chosen(models, noting)

        for workflow, model, params in _every(listed):
            key = (workflow, model, *((knob, type(value), value) for knob, value in params.items()))
            if key not in seen:
                seen.add(key)
                yield dict(flat)

    def configs(self, models: Models) -> Iterator[AgentConfig] | None:
        """Every config once, in a fixed order; None where a knob has a continuum of values."""
        return None if self._is_continuous() else self._distinct(models)

    def _is_continuous(self) -> bool:
        domains = [domain for knobs in self.workflows.values() for domain in knobs.values()]
        return any(domain.values() is None for domain in domains)

    def _distinct(self, models: Models) -> Iterator[AgentConfig]:
        """Each config once: a role given to the actor, and to the model that is the actor, are the same."""
        seen: set[str] = set()
        for config in _every(lambda choose: self.walk(models, choose)):
            if config.hash() not in seen:
                seen.add(config.hash())
                yield config

    def size(self, models: Models) -> int | None:
        """How many configs there are; None where a knob has a continuum of values."""
        total = 0
        for model in models:
            variants = math.prod(
                len(knob.choices) for knob in _serving_knobs(models, model).values()
            )
            for knobs in self.workflows.values():
                size = _size(_played(knobs, model))
                if size is None:
                    return None
                total += size * variants
        return total

    def variants(self, workflow: str) -> Iterator[Params]:
        """Params of a workflow for each choice of the workflows that it may hand questions on to."""
        kind = workflow_kind(workflow)
        knobs = self.workflows[workflow]
        nested = [name for name in kind.params.nested if name in knobs]
        for values in itertools.product(*(knobs[name].values() or () for name in nested)):
            yield kind.params.model_validate(dict(zip(nested, values, strict=True)))


def _every(walk: Callable[[Choose], Walked]) -> Iterator[Walked]:
    """What a walk comes to on every path through its choices, each of which has finitely many values."""
    path: list[int] = []
    """Which value is taken at each choice of the walk; the last one is advanced like a counter."""
    while True:
        widths: list[int] = []

        def choose(name: str, domain: Domain, widths: list[int] = widths) -> Knob:
            values = domain.values() or ()
            if len(widths) == len(path):
                path.append(0)
            widths.append(len(values))
            return values[path[len(widths) - 1]]

        yield walk(choose)
        while path and path[-1] + 1 == widths[len(path) - 1]:
            path.pop()
        if not path:
            return
        path[-1] += 1


def _serving_knobs(models: Models, model: str) -> Mapping[str, Choices]:
    return models[model] if isinstance(models, Mapping) else {}


def _served_as(models: Models, variant: str) -> dict[str, Knob]:
    """The serving knobs of a variant by their flat names; none for one that these models do not have."""
    model = model_name(variant)
    if model not in models:
        return {}
    knobs = _serving_knobs(models, model)
    for values in itertools.product(*(knob.choices for knob in knobs.values())):
        chosen = dict(zip(knobs, values, strict=True))
        if variant_name(model, chosen) == variant:
            return {f"{model}.{knob}": value for knob, value in chosen.items()}
    return {}


def _chooser_of(config: AgentConfig, models: Models) -> Choose:
    """What leads the walk to a config. Raises KeyError for a knob that the config does not have."""
    model = model_name(config.model)
    above = {"workflow": config.workflow, "model": model, **_served_as(models, config.model)}

    def choose(name: str, domain: Domain) -> Knob:
        if name in above:
            return above[name]
        chosen = config.params[name.removeprefix(f"{config.workflow}.")]
        return model if chosen == ACTOR and not _is_among(domain, ACTOR) else chosen

    return choose


def _is_number(value: Knob) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_among(domain: Domain, value: Knob) -> bool:
    """Whether a domain has a value, as configs are compared: 0 and 0.0 are one, 1 and true are not."""
    values = domain.values()
    if values is not None:
        kind = isinstance(value, bool)
        return any(each == value and isinstance(each, bool) == kind for each in values)
    low, high = domain.ends()
    return _is_number(value) and float(low) <= value <= float(high)


def _nearest(domain: Domain, wanted: Knob) -> Knob:
    """The value itself where a domain has it, else the number nearest to it, else the first value."""
    if _is_among(domain, wanted):
        return wanted
    values = domain.values() or domain.ends()
    numbers = list(filter(_is_number, values))
    if not numbers or not _is_number(wanted):
        return values[0]
    return min(numbers, key=lambda number: abs(number - wanted))


def _is_role(knob: str) -> bool:
    return knob.endswith(ROLE)


def _is_own_role(knob: str) -> bool:
    """Not one of a workflow within another, whose actor may be another model."""
    return _is_role(knob) and "." not in knob


def _played(knobs: Mapping[str, Domain], model: str) -> dict[str, Domain]:
    """The knobs for configs on one model, whose roles it plays as the actor."""
    played = dict(knobs)
    for knob, domain in knobs.items():
        if _is_own_role(knob) and isinstance(domain, Choices):
            choices = [ACTOR if choice == model else choice for choice in domain.choices]
            played[knob] = domain.model_copy(update={"choices": tuple(dict.fromkeys(choices))})
    return played


def _size(knobs: Mapping[str, Domain]) -> int | None:
    """Configs of one workflow: knobs without conditions multiply, the others are counted by listing them."""
    values: dict[str, Sequence[Knob]] = {}
    for knob, domain in knobs.items():
        listed = domain.values()
        if listed is None:
            return None
        values[knob] = listed
    tied = {on for domain in knobs.values() for on in domain.when}
    tied |= {knob for knob, domain in knobs.items() if domain.when}
    free = math.prod(len(values[knob]) for knob in knobs if knob not in tied)

    def count(waiting: Sequence[str], chosen: Mapping[str, Knob]) -> int:
        if not waiting:
            return 1
        knob, *rest = waiting
        if not knobs[knob].applies(chosen):
            return count(rest, chosen)
        return sum(count(rest, {**chosen, knob: value}) for value in values[knob])

    return free * count([knob for knob in knobs if knob in tied], {})


def load_space(path: Path) -> SearchSpace:
    """A search-space file, checked against the workflows that it names. Raises SpecError."""
    source = Source.read(path)
    space = source.validate(SearchSpace)
    for workflow, knobs in space.workflows.items():
        params = _params(source, ("workflows", workflow), workflow)
        for name in params.nested:
            for value in knobs[name].values() or () if name in knobs else ():
                _params(source, ("workflows", workflow, name), str(value))
        for knob, domain in knobs.items():
            key = ("workflows", workflow, knob)
            _check_conditions(source, key, knob, knobs)
            for owner, name in _owners(source, key, workflow, params, knobs):
                _check_values(source, key, owner, name, domain)
    return space


def _params(source: Source, key: tuple[str, ...], workflow: str) -> type[Params]:
    try:
        return workflow_kind(workflow).params
    except ConfigError as error:
        raise source.error(key, str(error), error.hint) from None


def _check_conditions(
    source: Source, key: tuple[str, ...], knob: str, knobs: Mapping[str, Domain]
) -> None:
    before = list(knobs)[: list(knobs).index(knob)]
    for on, text in knobs[knob].when.items():
        if on not in before:
            known = ", ".join(before) or "none"
            raise source.error(
                (*key, "when", on),
                f"is not a knob above {knob}; above it: {known}",
                hint=f"a condition sees only the knobs above it: move {knob} below {on}, or name another",
            )
        try:
            condition = Condition.parse(text)
        except ValueError as error:
            raise source.error(
                (*key, "when", on),
                str(error),
                hint='write a comparison with a value, as in: when: {few_shot: ">= 1"}',
            ) from None
        values = knobs[on].values()
        if values is not None and not any(condition.holds(value) for value in values):
            listed = ", ".join(map(str, values))
            raise source.error(
                (*key, "when", on),
                f"no value of {on} is {condition}; its values: {listed}",
                hint="choose a condition that some of its values meet, or leave `when` out",
            )


def _owners(
    source: Source,
    key: tuple[str, ...],
    workflow: str,
    params: type[Params],
    knobs: Mapping[str, Domain],
) -> list[tuple[type[Params], str]]:
    """Whose knob it is, and its name there: `cheap.max_steps` is one of every workflow that `cheap` may be."""
    knob = key[-1]
    within, dot, name = knob.partition(".")
    if not dot or within not in params.nested:
        fields = params.model_fields
        if knob not in fields:
            known = ", ".join(fields)
            raise source.error(
                key,
                f"unknown knob {knob!r} of {workflow}; known: {known}",
                hint="remove it, or name one of those: the README has a table of them",
            )
        return [(params, knob)]
    default = params.model_fields[within].default
    values = knobs[within].values() if within in knobs else (default,)
    owners = []
    on = knobs[knob].when.get(within)
    for value in values or ():
        if on is not None and not Condition.parse(on).holds(value):
            continue
        owner = _params(source, ("workflows", workflow, within), str(value))
        if name not in owner.model_fields:
            known = ", ".join(owner.model_fields)
            raise source.error(
                key,
                f"unknown knob {name!r} of {value}; known: {known}",
                f"where {within} may be other workflows too: when: {{{within}: WORKFLOW}}",
            )
        owners.append((owner, name))
    return owners


def _check_values(
    source: Source, key: tuple[str, ...], params: type[Params], knob: str, domain: Domain
) -> None:
    for value in domain.ends():
        try:
            params.model_validate({knob: value})
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            message = message[0].lower() + message[1:]
            raise source.error(
                key,
                f"{value!r} is outside the workflow's bounds: {message}",
                hint="choose values within them",
            ) from None


def check_roles(space: SearchSpace, path: Path, models: Models) -> None:
    """Raise SpecError for a role that the space gives to none of a study's models, or to one of several servers."""
    for workflow, knobs in space.workflows.items():
        for knob, domain in knobs.items():
            for value in (domain.values() or ()) if _is_role(knob) else ():
                key = ("workflows", workflow, knob)
                if value not in (*models, ACTOR):
                    known = ", ".join((ACTOR, *models))
                    raise Source.read(path).error(
                        key,
                        f"{value!r} is no model of the study; known: {known}",
                        hint="name a model of the study's, or actor for the config's own",
                    )
                choices = _serving_knobs(models, str(value)) if value != ACTOR else {}
                if choices:
                    raise Source.read(path).error(
                        key,
                        f"{value!r} has choices of its own ({', '.join(choices)}), so no role can name it",
                        f"give the role to {ACTOR}, or to a model with a single value of each",
                    )


def check_fit(space: SearchSpace, path: Path, task: Task) -> None:
    """Raise SpecError for a workflow of the space that cannot answer this task's questions, with the reason."""
    for workflow in space.workflows:
        for params in space.variants(workflow):
            reason = params.unfit(task.pack)
            if reason is not None:
                raise Source.read(path).error(
                    ("workflows", workflow),
                    f"does not suit the task {task.name}: {reason}",
                    "leave the workflow out, or choose another task",
                )
