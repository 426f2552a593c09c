"""Every way in which a study may name a model; a new engine is a file beside this one and its class in `Engine`."""

from collections.abc import Mapping
from typing import Annotated
from typing import Any
from typing import get_args

from pydantic import BaseModel
from pydantic import BeforeValidator
from pydantic import field_validator

from tuner.serving.llama_cpp import LlamaCpp
from tuner.serving.models import Addressed
from tuner.serving.models import Served
from tuner.serving.sglang import Sglang
from tuner.serving.vllm import Vllm

Engine = LlamaCpp | Vllm | Sglang

ENGINES: Mapping[str, type[Served]] = {
    get_args(engine.model_fields["serve"].annotation)[0]: engine for engine in get_args(Engine)
}
"""What `serve` may say, and the class of the model that says so."""


class _Unserved(BaseModel):
    """For saying what `serve` may be, where it says nothing or something else."""

    serve: str

    @field_validator("serve")
    @classmethod
    def _is_known(cls, serve: str) -> str:
        if serve not in ENGINES:
            raise ValueError(f"unknown engine {serve!r}; known: {', '.join(ENGINES)}")
        return serve


def _pick(value: Any) -> Any:
    # A union would answer a mistake in one kind with complaints about all, and a tagged union puts
    # its tag into the error's location, where no such key is in the file.
    if isinstance(value, Served | Addressed):
        return value
    if not isinstance(value, Mapping) or not value.keys() & {"serve", "weights"}:
        return Addressed.model_validate(value)
    return ENGINES[_Unserved.model_validate(value).serve].model_validate(value)


ModelSpec = Annotated[Engine | Addressed, BeforeValidator(_pick)]
"""A model as a study names it: of its engine's class where it says `serve`, else `Addressed`."""
