"""Models as a study names them: an address, or a server that we start, wait for, reuse and stop.

with serving.start("smollm2-135m", spec) as endpoint:
    client = ChatClient(endpoint.settings)
"""

from collections.abc import Callable
from pathlib import Path

from tuner.serving.address import Address
from tuner.serving.endpoint import Endpoint
from tuner.serving.llama_cpp import LlamaCppServer
from tuner.serving.models import Addressed
from tuner.serving.models import ModelSpec
from tuner.serving.models import Served
from tuner.serving.weights import find_weights

__all__ = ["Addressed", "Endpoint", "ModelSpec", "Served", "find_weights", "start"]


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
