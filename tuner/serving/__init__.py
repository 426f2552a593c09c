"""Models as a study names them: an address, or a server that we start, wait for, reuse and stop.

with serving.start("smollm2-135m", spec) as endpoint:
    client = ChatClient(endpoint.settings)
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.errors import ServingError
from tuner.serving.address import Address
from tuner.serving.endpoint import Endpoint
from tuner.serving.engines import ENGINES
from tuner.serving.engines import ModelSpec
from tuner.serving.llama_cpp import LlamaCpp
from tuner.serving.models import PATIENCE
from tuner.serving.models import VARIANT_SIGN
from tuner.serving.models import Addressed
from tuner.serving.models import Say
from tuner.serving.models import Served
from tuner.serving.models import model_name
from tuner.serving.models import variant_name
from tuner.serving.sglang import Sglang
from tuner.serving.vllm import Vllm
from tuner.serving.weights import find_weights
from workflows.config import ExportedModel

__all__ = [
    "ENGINES",
    "PATIENCE",
    "VARIANT_SIGN",
    "Addressed",
    "Endpoint",
    "LlamaCpp",
    "ModelSpec",
    "Served",
    "Sglang",
    "Vllm",
    "find_weights",
    "launch",
    "model_name",
    "start",
    "start_exported",
    "variant_name",
]


def launch(
    name: str, spec: Served | Addressed, *, base: Path = Path(), say: Say = lambda _: None
) -> Endpoint:
    """The model `name` of a study, whose server may only just have been started; `wait` for it, and close it.

    `base` is the folder that relative paths start from: the study file's. `say` hears what takes long.
    Raises ServingError when the model or the engine cannot be had.
    """
    # The server knows the model by its plain name: what it is a variant of is the study's concern.
    if isinstance(spec, Addressed):
        return Address(model_name(name), spec)
    return spec.launch(model_name(name), base=base, say=say)


def start(
    name: str, spec: Served | Addressed, *, base: Path = Path(), say: Say = lambda _: None
) -> Endpoint:
    """The same, ready to be called; close it, or use it as a context manager.

    Raises ServingError also when the server does not come up, with the end of its log, or nothing
    answers at the address.
    """
    endpoint = launch(name, spec, base=base, say=say)
    try:
        endpoint.wait()
    except BaseException:
        endpoint.close()
        raise
    return endpoint


def start_exported(name: str, model: ExportedModel, *, say: Say = lambda _: None) -> Endpoint:
    """A model of an exported agent, served as it was when it was measured; close it.

    Raises ServingError as `start` does, and when the weights are not those that were measured.
    """
    if model.serve is None:
        return start(name, Addressed.model_validate(model.settings.model_dump()), say=say)
    spec = _recorded(name, model, model.serve)
    for what, found in spec.identity(base=Path(), say=say).items():
        if found != model.serve[what]:
            raise ServingError(
                f"models.{name}: {what} is {found}, but {model.serve[what]} was measured",
                hint="put the measured model there, or tune again with this one",
            )
    return start(name, spec, say=say)


def _recorded(name: str, model: ExportedModel, serve: Mapping[str, Any]) -> Served:
    """The model as a study would name it, from how its server was started."""
    engine = ENGINES.get(serve["engine"])
    if engine is None:
        raise ServingError(
            f"models.{name}: was served by {serve['engine']!r}; known: {', '.join(ENGINES)}",
            hint="a newer tuner may know it",
        )
    known = {key: value for key, value in serve.items() if key in engine.model_fields}
    patience = {key: getattr(model.settings, key) for key in ("timeout_s", "max_retries")}
    return engine.model_validate({**known, **patience})
