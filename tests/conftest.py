"""The real model, started once for all tests that want it."""

import signal
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tuner import serving
from tuner.errors import ServingError


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Let Ctrl-C through: a shell starts what runs in its background with SIGINT ignored, and children inherit it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def smollm2() -> Iterator[serving.Endpoint]:
    """SmolLM2-135M-Instruct on a llama.cpp server with one slot; its weights stay in the cache folder."""
    if find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp is not installed: pip install 'tuner[local]'")
    spec = serving.LlamaCpp(weights="smollm2-135m-instruct")
    try:
        serving.find_weights(spec.weights)
    except ServingError as error:
        pytest.skip(f"the weights cannot be had: {error}")
    with serving.start("smollm2", spec) as endpoint:
        yield endpoint
