"""Models as a study names them: an address, or a server that we start, wait for, reuse and stop.

with serving.start("smollm2-135m", spec) as endpoint:
    client = ChatClient(endpoint.settings)
"""

from collections.abc import Callable
from pathlib import Path

from tuner.errors import ServingError
from tuner.serving.address import Address
from tuner.serving.endpoint import Endpoint
from tuner.serving.llama_cpp import LlamaCppServer
from tuner.serving.models import Addressed
from tuner.serving.models import ModelSpec
from tuner.serving.models import Served
from tuner.serving.weights import find_weights
from tuner.serving.weights import sha256_of
from workflows.config import ExportedModel

__all__ = [
    "Addressed",
    "Endpoint",
    "ModelSpec",
    "Served",
    "find_weights",
    "start",
    "start_exported",
]


def start(
    name: str,
    spec: Served | Addressed,
    *,
    base: Path = Path(),
    say: Callable[[str], None] = lambda _: None,
) -> Endpoint:
    """The model `name` of a study, ready to be called; close it, or use it as a context manager.

    `base` is the folder that relative weights start from: the study file's. `say` hears what takes
    long. Raises ServingError when the weights cannot be had, the server does not come up, or nothing
    answers at the address.
    """
    if isinstance(spec, Addressed):
        address = Address(name, spec)
        address.check()
        return address
    weights = find_weights(spec.weights, base=base, say=say)
    say(f"starting {spec.serve} with {weights.name}")
    return LlamaCppServer(name, spec, weights)


def start_exported(
    name: str, model: ExportedModel, *, say: Callable[[str], None] = lambda _: None
) -> Endpoint:
    """A model of an exported agent, served as it was when it was measured; close it.

    Raises ServingError as `start` does, and when the weights are not those that were measured.
    """
    if model.serve is None:
        return start(name, Addressed.model_validate(model.settings.model_dump()), say=say)
    recorded = model.serve
    spec = Served(
        serve=recorded["engine"],
        weights=recorded["weights"],
        threads=recorded["threads"],
        slots=recorded["slots"],
        context=recorded["context"],
        prefix_cache=recorded["prefix_cache"],
        timeout_s=model.settings.timeout_s,
        max_retries=model.settings.max_retries,
    )
    path = find_weights(spec.weights, say=say)
    found = sha256_of(path)
    if found != recorded["sha256"]:
        raise ServingError(
            f"weights: {path}: sha256 is {found}, but {recorded['sha256']} was measured",
            hint="put the measured file there, or tune again with this one",
        )
    return start(name, spec, say=say)
