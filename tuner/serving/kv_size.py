"""How many bytes a model's keys and values take, by how its endpoint is served; apart from the arithmetic, which knows no servers."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from tuner.errors import ServingError
from tuner.measure.server import kv_bytes_per_token
from tuner.measure.server import load_model_config
from tuner.serving.endpoint import Endpoint
from tuner.serving.weights import find_weights


def kv_bytes_of(endpoint: Endpoint) -> float | None:
    """Bytes per token of the model's KV cache; None where its shape is not known on this machine.

    A server of ours says which model it has, and how it keeps keys and values. At an address, it is the model of
    that name in the Hugging Face cache, and the type is the model's own.
    """
    serve = endpoint.serve
    if serve is None:
        return _bytes(endpoint.settings.model.partition("/")[2], None)
    kv_dtype = serve.get("kv_cache_type") or serve.get("kv_cache_dtype")
    if "weights" not in serve:
        return _bytes(str(serve.get("model")), kv_dtype)
    try:
        return _bytes(str(find_weights(serve["weights"])), kv_dtype)
    except ServingError:
        return None


def _bytes(source: str, kv_dtype: str | None) -> float | None:
    config = _config(source)
    return None if config is None else kv_bytes_per_token(config, kv_dtype=kv_dtype)


@lru_cache(maxsize=16)
def _config(source: str) -> Mapping[str, Any] | None:
    # Reading a .gguf's header takes seconds: once for each model is enough.
    return load_model_config(Path(source) if Path(source).exists() else source)
