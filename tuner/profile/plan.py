"""Which configs a profile measures; apart from the tables, because it is settled before anything runs.

A space of at most WHOLE configs is measured whole. Of a larger one, each workflow's centre, and that centre with one knob
changed at a time: the knobs that Kim et al. (arXiv 2506.04301, Figures 9, 15, 16 and 17) sweep, and the model.

A run at one budget of a workflow that works in rounds leaves what every smaller budget would have given. So of configs
that differ in that budget only, the largest is measured, and the others are derived from its checkpoints.
"""

import math
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from tuner.derive import anytime
from tuner.serving import variant_name
from tuner.space import Domain
from tuner.space import Models
from tuner.space import SearchSpace
from workflows.config import AgentConfig
from workflows.config import Knob

WHOLE = 36
"""Configs of a space that is measured whole; budgets, which cost nothing, not counted."""

FEW_SHOT = "few_shot"
PARALLEL = ("children", "samples")
"""Knobs that say how much is done side by side."""

AT_MOST = 6
"""Values of a knob that are measured around a centre, evenly spread over those there are."""

LISTED = 20_000
"""Larger spaces are not listed to find out how many configs are left without their budgets."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, in order: by model, because another model may need another server."""

    configs: tuple[AgentConfig, ...]
    centres: Mapping[str, AgentConfig]
    """Of each workflow, on the first model: numbers in the middle of their values, the budget at its largest."""
    whole: bool
    """Whether the configs, with their smaller budgets, are the whole space."""

    def rule(self) -> str:
        """How the configs were chosen, in a sentence."""
        count = f"{len(self.configs)} config{'' if len(self.configs) == 1 else 's'} measured: "
        budgets = "smaller budgets come from their checkpoints"
        if self.whole:
            return f"{count}the whole search space; {budgets}"
        return (
            f"{count}the centre of each workflow, and that with one of {FEW_SHOT}, {', '.join(PARALLEL)} "
            f"and model changed (the whole space has more than {WHOLE}); {budgets}"
        )


def make_plan(space: SearchSpace, models: Models) -> Plan:
    """The configs that stand for a space, each once."""
    centres = {workflow: centre(space, models, workflow) for workflow in space.workflows}
    whole = _whole(space, models)
    if whole is not None:
        return Plan(_ordered(whole, space, models), centres, whole=True)
    around = []
    for workflow, middle in centres.items():
        around += line(space, models, middle, "model")
        for knob in (FEW_SHOT, *PARALLEL):
            if knob in space.workflows[workflow]:
                around += line(space, models, middle, knob)
    return Plan(_ordered(_once(around), space, models), centres, whole=False)


def centre(space: SearchSpace, models: Models, workflow: str) -> AgentConfig:
    """A workflow's config in the middle of its space, on the first model, served in the first way."""
    return _walk(space, models, {"workflow": workflow, **next(iter(_served(models).values()))})


def line(space: SearchSpace, models: Models, through: AgentConfig, knob: str) -> list[AgentConfig]:
    """The configs that differ from one of the space in a knob (`few_shot`), in the order of its values.

    Of `model`, every model in every way in which it is served.
    """
    served = _served(models)
    fixed: dict[str, Knob] = {
        "workflow": through.workflow,
        **served[through.model],
        **{f"{through.workflow}.{name}": value for name, value in through.params.items()},
    }
    if knob == "model":
        return [_walk(space, models, {**fixed, **how}) for how in served.values()]
    domain = space.workflows[through.workflow].get(knob)
    values: Sequence[Knob] = (through.params[knob],) if domain is None else _spread(domain)
    name = f"{through.workflow}.{knob}"
    return _once(_walk(space, models, {**fixed, name: value}) for value in values)


def budgets(space: SearchSpace, config: AgentConfig) -> tuple[int, ...]:
    """The budgets below a config's own that are worth a row, in order.

    Those that the space names; where it names none, each up to 8, and from there on twice the one before.
    """
    knob = anytime(config.workflow)
    if knob is None:
        return ()
    own = int(config.params[knob])
    domain = space.workflows[config.workflow].get(knob)
    named = () if domain is None else domain.values() or ()
    if len(named) > 1:
        return tuple(sorted(int(value) for value in named if int(value) < own))
    doubled = [2**power for power in range(4, own.bit_length()) if 2**power < own]
    return (*range(1, min(own, 9)), *doubled)


def _whole(space: SearchSpace, models: Models) -> list[AgentConfig] | None:
    """Every config of the space at its largest budget; None where they are too many."""
    size = space.size(models)
    listed = space.configs(models)
    if size is None or size > LISTED or listed is None:
        return None
    largest: dict[str, AgentConfig] = {}
    for config in listed:
        knob = anytime(config.workflow)
        others = {name: value for name, value in config.params.items() if name != knob}
        key = config.model_copy(update={"params": others}).hash()
        known = largest.get(key)
        if known is None or (knob and config.params[knob] > known.params[knob]):  # type: ignore[operator]
            largest[key] = config
    return list(largest.values()) if len(largest) <= WHOLE else None


def _ordered(
    configs: Iterable[AgentConfig], space: SearchSpace, models: Models
) -> tuple[AgentConfig, ...]:
    """By model, then by workflow, as the study and its space list them."""
    by_model, by_workflow = list(_served(models)), list(space.workflows)
    return tuple(
        sorted(
            configs,
            key=lambda config: (
                by_model.index(config.model),
                by_workflow.index(config.workflow),
            ),
        )
    )


def _served(models: Models) -> dict[str, dict[str, Knob]]:
    """The choices that lead to each model in each way in which it is served, by the name that configs have for it."""
    ways: dict[str, dict[str, Knob]] = {}
    for model in models:
        knobs = models[model] if isinstance(models, Mapping) else {}
        for values in product(*(knob.choices for knob in knobs.values())):
            chosen = dict(zip(knobs, values, strict=True))
            flat = {f"{model}.{knob}": value for knob, value in chosen.items()}
            ways[variant_name(model, chosen)] = {"model": model, **flat}
    return ways


def _once(configs: Iterable[AgentConfig]) -> list[AgentConfig]:
    return list({config.hash(): config for config in configs}.values())


def _walk(space: SearchSpace, models: Models, fixed: Mapping[str, Knob]) -> AgentConfig:
    """The config with these choices where they can be made, and middles elsewhere."""
    budget = f"{fixed['workflow']}.{anytime(str(fixed['workflow']))}"

    def choose(name: str, domain: Domain) -> Knob:
        allowed = domain.values()
        if name in fixed and (allowed is None or fixed[name] in allowed):
            return fixed[name]
        return max(domain.ends(), key=float) if name == budget else _middle(domain)

    return space.walk(models, choose)


def _middle(domain: Domain) -> Knob:
    """The upper median of numbers, the first of anything else; half-way through a continuum."""
    values = domain.values()
    if values is None:
        low, high = (float(end) for end in domain.ends())
        return math.sqrt(low * high) if getattr(domain, "log", False) else (low + high) / 2
    if any(isinstance(value, bool | str) for value in values):
        return values[0]
    return sorted(values)[len(values) // 2]


def _spread(domain: Domain) -> Sequence[Knob]:
    """The values of a knob, or as many of them as are measured."""
    values = domain.values()
    if values is None:
        low, high = (float(end) for end in domain.ends())
        return [low + (high - low) * step / (AT_MOST - 1) for step in range(AT_MOST)]
    if len(values) <= AT_MOST:
        return values
    return [values[round(step * (len(values) - 1) / (AT_MOST - 1))] for step in range(AT_MOST)]
