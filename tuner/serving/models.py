"""The two ways in which a study file names a model; apart, because a file is checked without starting anything."""

from collections.abc import Mapping
from typing import Annotated
from typing import Any
from typing import Literal

from pydantic import BaseModel
from pydantic import BeforeValidator
from pydantic import ConfigDict
from pydantic import Field

from tuner.measure import MeterSpec
from workflows.config import ModelSettings


class Served(BaseModel):
    """A model whose server we start: `{serve: llama.cpp, weights: smollm2-135m-instruct}`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    serve: Literal["llama.cpp"]
    weights: str = Field(
        min_length=1,
        description="smollm2-135m-instruct, a .gguf file, or hf:owner/repository/file.gguf",
    )
    # Threads of llama.cpp wait for each other in busy loops. On two idle cores two threads read prompts
    # twice and generate 1.3 times as fast as one; with one of the cores taken, they take up to 2.4 times
    # as long to read and 4 times to generate, and the waiting counts as CPU time, hence as energy. One
    # thread is not affected: what is measured does not depend on the neighbours.
    threads: int = Field(
        default=1, ge=1, description="more pay only on cores that nothing else uses meanwhile"
    )
    slots: int = Field(
        default=1, ge=1, description="calls answered at once; only one slot repeats exactly"
    )
    context: int = Field(default=4096, ge=1, description="tokens per slot")
    prefix_cache: bool = Field(
        default=True, description="whether a prompt's known beginning is taken from the cache"
    )
    port: int = Field(default=0, ge=0, le=65535, description="0 takes any free one")
    timeout_s: float = Field(default=120.0, gt=0, description="for one try of one call")
    max_retries: int = Field(default=2, ge=0, le=10)
    meter: MeterSpec | None = Field(default=None, description="how the model's energy is measured")


class Addressed(ModelSettings):
    """A model that somebody else serves: how it is reached, in litellm's terms."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    meter: MeterSpec | None = Field(default=None, description="how the model's energy is measured")

    def settings(self) -> ModelSettings:
        """What `workflows` needs to call the model."""
        return ModelSettings(**self.model_dump(include=set(ModelSettings.model_fields)))


def _pick(value: Any) -> Any:
    # A union would answer a mistake in one kind with complaints about both, and a tagged union puts
    # its tag into the error's location, where no such key is in the file.
    if isinstance(value, Served | Addressed):
        return value
    served = isinstance(value, Mapping) and value.keys() & {"serve", "weights"}
    return (Served if served else Addressed).model_validate(value)


ModelSpec = Annotated[Served | Addressed, BeforeValidator(_pick)]
"""A model as a study names it: `Served` when it says `serve`, else `Addressed`."""
