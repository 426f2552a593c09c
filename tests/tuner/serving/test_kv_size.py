import json
from pathlib import Path
from typing import Any

import pytest

from tuner import serving
from tuner.serving.isolation import Isolation
from tuner.serving.isolation import cleared
from tuner.serving.kv_size import kv_bytes_of
from workflows.config import ModelSettings

SHAPE = {
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "hidden_size": 576,
    "torch_dtype": "bfloat16",
}


class Told(serving.Endpoint):
    """An endpoint that is nothing but how it says it is served."""

    def __init__(self, model: str, serve: dict[str, Any] | None) -> None:
        self.settings = ModelSettings(model=model)
        self.serve = serve

    def wait(self) -> None:
        """At once."""

    def fingerprint(self) -> dict[str, Any]:
        return {}

    def check(self) -> None:
        """It is well."""

    def isolate(self, tag: str) -> Isolation:
        return cleared(tag)

    def close(self) -> None:
        """Nothing."""


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text(json.dumps(SHAPE))
    return str(tmp_path)


@pytest.mark.parametrize(("kv_dtype", "expected"), [("auto", 23_040), ("fp8", 11_520)])
def test_folder_that_is_served_says_the_shape_and_the_server_the_type(
    kv_dtype: str, expected: float, folder: str
) -> None:
    serve = {"engine": "vllm", "model": folder, "kv_cache_dtype": kv_dtype}

    assert kv_bytes_of(Told("hosted_vllm/m", serve)) == expected


def test_model_at_an_address_is_looked_up_by_name_on_this_machine_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "models--meta--llama" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(SHAPE))
    (tmp_path / "models--meta--llama" / "refs").mkdir()
    (tmp_path / "models--meta--llama" / "refs" / "main").write_text("1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    assert kv_bytes_of(Told("hosted_vllm/meta/llama", None)) == 23_040
    assert kv_bytes_of(Told("hosted_vllm/meta/not-here", None)) is None
    assert kv_bytes_of(Told("gpt-4o", None)) is None


def test_weights_that_are_gone_say_nothing() -> None:
    assert kv_bytes_of(Told("m", {"weights": "gone.gguf", "kv_cache_type": "f16"})) is None


@pytest.mark.parametrize(("kv_dtype", "expected"), [("f16", 23_040), ("q8_0", 12_240)])
def test_real_weights(kv_dtype: str, expected: float, smollm2: serving.Endpoint) -> None:
    pytest.importorskip("gguf")
    serve = {**(smollm2.serve or {}), "kv_cache_type": kv_dtype}

    assert kv_bytes_of(Told("m", serve)) == expected
