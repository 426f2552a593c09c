"""How a study file names a model: what every engine that we serve with has in common, and models by address.

Apart from the engines, because a file is checked without starting anything.
"""

from abc import abstractmethod
from collections.abc import Callable
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Annotated
from typing import Any
from typing import ClassVar
from typing import Self
from typing import TypeVar

import yaml
from pydantic import AfterValidator
from pydantic import BaseModel
from pydantic import BeforeValidator
from pydantic import ConfigDict
from pydantic import Discriminator
from pydantic import Field
from pydantic import Tag
from pydantic import model_validator

from tuner.measure import MeterSpec
from workflows.config import Address
from workflows.config import Knob
from workflows.config import ModelSettings

if TYPE_CHECKING:
    from tuner.serving.endpoint import Endpoint

Say = Callable[[str], None]
"""Hears what takes long."""

PATIENCE = frozenset({"port", "start_timeout_s", "timeout_s", "max_retries", "api_key_env"})
"""What changes neither a model's answers nor how fast it gives them."""

VARIANT_SIGN = "@"
"""Between a model's name and the values of its serving knobs."""

T = TypeVar("T")


class _KnobMark:
    """Marks the fields of which a study may give several values."""


def _how_many(content: Any) -> str:
    return "several" if isinstance(content, list | tuple) else "one"


def _single(content: Any) -> Any:
    """A list of one value is that value."""
    return content[0] if isinstance(content, list | tuple) and len(content) == 1 else content


def _differ(values: tuple[T, ...]) -> tuple[T, ...]:
    knobs = [knob_of(value) for value in values]
    # By value, as configs are compared: 8 and 8.0 are one, 1 and true are not.
    if len({(isinstance(knob, bool), knob) for knob in knobs}) < len(knobs):
        raise ValueError(f"names a value twice: {', '.join(map(str, knobs))}")
    return values


ServingKnob = Annotated[
    Annotated[T, Tag("one")]
    | Annotated[
        tuple[T, ...], Field(strict=False, min_length=1), AfterValidator(_differ), Tag("several")
    ],
    Discriminator(_how_many),
    BeforeValidator(_single),
    _KnobMark(),
]
"""A value, or a list of those that the study tries, each on a server of its own: `[true, false]`."""


def knob_of(value: Any) -> Knob:
    """A serving knob's value as Optuna and a variant's name have it: a mapping as the line of YAML that it is."""
    if isinstance(value, bool | int | float | str):
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).strip()


def variant_name(model: str, chosen: Mapping[str, Knob]) -> str:
    """A model's name with the values of its serving knobs: `llama@prefix_cache=false,max_num_seqs=8`.

    The plain name where nothing was to be chosen.
    """
    if not chosen:
        return model
    values = (f"{knob}={_written(value)}" for knob, value in chosen.items())
    return f"{model}{VARIANT_SIGN}{','.join(values)}"


def model_name(variant: str) -> str:
    """The name of the model that a variant is one of."""
    return variant.partition(VARIANT_SIGN)[0]


def _written(value: Knob) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class Served(BaseModel):
    """A model whose server we start: `{serve: ENGINE, …}`. One subclass an engine, in a file of its own.

    A field that is a ServingKnob may hold several values; what is launched is a variant, which has one of each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    serve: str
    port: int = Field(default=0, ge=0, le=65535, description="0 takes any free one")
    start_timeout_s: float = Field(
        default=600.0, gt=0, description="from the start of the server to its first answer"
    )
    timeout_s: float = Field(default=120.0, gt=0, description="for one try of one call")
    max_retries: int = Field(default=2, ge=0, le=10)
    meter: MeterSpec | None = Field(default=None, description="how the model's energy is measured")

    on_cpu: ClassVar[bool] = False
    """Whether the engine computes on the CPU, whose work can be estimated where no meter is given."""

    def choices(self) -> dict[str, tuple[Knob, ...]]:
        """The serving knobs of which there are several values, and these."""
        return {
            name: tuple(map(knob_of, value))
            for name, field in type(self).model_fields.items()
            if any(isinstance(mark, _KnobMark) for mark in field.metadata)
            and isinstance(value := getattr(self, name), tuple)
        }

    def variants(self) -> dict[tuple[Knob, ...], "Self"]:
        """Every combination of the choices, in the order of the file, to the model that has just these values."""
        names = list(self.choices())
        values = [getattr(self, name) for name in names]
        return {
            tuple(map(knob_of, chosen)): self.model_copy(
                update=dict(zip(names, chosen, strict=True))
            )
            for chosen in product(*values)
        }

    @abstractmethod
    def identity(self, *, base: Path, say: Say) -> dict[str, Any]:
        """What is served, by a name that holds everywhere or a path on this machine, and a digest of its content.

        `base` is the folder that relative paths start from. Raises ServingError where it cannot be had.
        """

    @abstractmethod
    def launch(self, name: str, *, base: Path, say: Say) -> "Endpoint":
        """The server's process, just started: `wait` says when it can be called. Raises ServingError."""

    def record(self, identity: Mapping[str, Any], engine_version: str | None) -> dict[str, Any]:
        """How a server was started as plain JSON, from which an export starts it again."""
        return {
            "engine": self.serve,
            "engine_version": engine_version,
            **self.model_dump(mode="json", exclude={"serve", "meter", *PATIENCE}),
            **identity,
        }


class Place(BaseModel):
    """One of several servers of a model, which all answer alike."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    api_base: Address
    meter: MeterSpec | None = Field(
        default=None, description="how this server's energy is measured"
    )

    @property
    def metered_by(self) -> str:
        """What its meter measures with, as a study names it; `none` without one."""
        if self.meter is None or self.meter.root == "none":
            return "none"
        return next(iter(type(self.meter.root).model_fields))


class Addressed(ModelSettings):
    """A model that somebody else serves: how it is reached, in litellm's terms, at one address or several."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    meter: MeterSpec | None = Field(default=None, description="how the model's energy is measured")
    endpoints: tuple[Place, ...] = Field(
        default=(),
        strict=False,
        description="servers that answer alike, in the place of api_base and meter: each takes a config at a time",
    )

    @model_validator(mode="after")
    def _is_at_one_or_several(self) -> Self:
        if not self.endpoints:
            return self
        for name in ("api_base", "meter"):
            if getattr(self, name) is not None:
                raise ValueError(f"has endpoints: {name} belongs to each of them")
        addresses = [each.api_base.rstrip("/") for each in self.endpoints]
        if len(set(addresses)) < len(addresses):
            raise ValueError(f"names an address twice: {', '.join(addresses)}")
        kinds = {each.metered_by for each in self.endpoints}
        if len(kinds) > 1:
            raise ValueError(
                f"endpoints are metered in different ways ({', '.join(sorted(kinds))}), so that their energy cannot be compared"
            )
        return self

    def settings(self) -> ModelSettings:
        """What `workflows` needs to call the model."""
        return ModelSettings(**self.model_dump(include=set(ModelSettings.model_fields)))

    def places(self) -> "tuple[Addressed, ...]":
        """The model at each of its addresses; itself where there is one."""
        if not self.endpoints:
            return (self,)
        return tuple(
            self.model_copy(
                update={"api_base": each.api_base, "meter": each.meter, "endpoints": ()}
            )
            for each in self.endpoints
        )
