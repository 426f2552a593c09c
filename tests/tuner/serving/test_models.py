from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from pydantic import ValidationError

from tuner.serving import ENGINES
from tuner.serving import Addressed
from tuner.serving import LlamaCpp
from tuner.serving import ModelSpec
from tuner.serving import Served
from tuner.serving import Sglang
from tuner.serving import Vllm
from tuner.serving import model_name
from tuner.serving import variant_name
from workflows.config import ModelSettings

MODELS: TypeAdapter[dict[str, Served | Addressed]] = TypeAdapter(dict[str, ModelSpec])


def parse(model: Any) -> Served | Addressed:
    return MODELS.validate_python({"m": model})["m"]


def served(model: Any) -> Served:
    found = parse(model)
    assert isinstance(found, Served)
    return found


def test_serve_or_an_address_decides_the_kind() -> None:
    addressed = parse({"model": "hosted_vllm/llama", "api_base": "http://gpu1:8000/v1"})

    assert parse({"serve": "llama.cpp", "weights": "w.gguf"}) == LlamaCpp(weights="w.gguf")
    assert parse({"serve": "vllm", "model": "a/b"}) == Vllm(model="a/b")
    assert parse({"serve": "sglang", "model": "a/b"}) == Sglang(model="a/b")
    assert isinstance(addressed, Addressed)
    assert addressed.settings() == ModelSettings(
        model="hosted_vllm/llama", api_base="http://gpu1:8000/v1"
    )


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_is_named_as_a_study_names_it(name: str) -> None:
    assert ENGINES[name].model_fields["serve"].default == name
    schema = MODELS.json_schema()["$defs"][ENGINES[name].__name__]
    assert schema["properties"]["prefix_cache"]["oneOf"][1]["type"] == "array"


def test_what_was_parsed_is_accepted_again() -> None:
    model = LlamaCpp(weights="w.gguf")

    assert parse(model) is model


@pytest.mark.parametrize(
    "model",
    [
        {"serve": "llama.cpp", "weights": "w", "slots": [1, 2], "kv_cache_type": ["f16", "q8_0"]},
        {"serve": "vllm", "model": "a/b", "speculative": ["none", {"method": "ngram"}]},
        {"serve": "sglang", "model": "a/b", "gpus": [0, "GPU-1"], "hicache_ratio": [0, 2]},
    ],
)
def test_a_model_as_json_reads_back_as_it_was(model: Any) -> None:
    parsed = parse(model)

    assert MODELS.validate_json(MODELS.dump_json({"m": parsed}))["m"] == parsed


def test_both_kinds_carry_a_meter() -> None:
    assert parse({"model": "openai/x", "meter": "none"}).meter is not None
    assert parse({"serve": "llama.cpp", "weights": "w", "meter": {"cpu_estimate": {}}}).meter


@pytest.mark.parametrize(
    ("model", "key", "message"),
    [
        ({"serve": "ollama", "weights": "w"}, ("serve",), "unknown engine 'ollama'; known: llama.cpp, vllm, sglang"),
        ({"weights": "w"}, ("serve",), "required"),
        ({"serve": "llama.cpp"}, ("weights",), "required"),
        ({"serve": "vllm", "weights": "w", "model": "a/b"}, ("weights",), "not permitted"),
        ({"serve": "sglang"}, ("model",), "required"),
        ({"serve": "llama.cpp", "weights": "w", "thread": 2}, ("thread",), "not permitted"),
        ({"serve": "llama.cpp", "weights": "w", "threads": "2"}, ("threads", "one"), "integer"),
        ({"serve": "llama.cpp", "weights": "w", "threads": [1, "2"]}, ("threads", "several", 1), "integer"),
        ({"serve": "llama.cpp", "weights": "w", "threads": []}, ("threads", "several"), "at least 1 item"),
        ({"serve": "llama.cpp", "weights": "w", "slots": [2, 2]}, ("slots", "several"), "names a value twice: 2, 2"),
        ({"serve": "llama.cpp", "weights": "w", "slots": [0, 2]}, ("slots", "several", 0), "greater than or equal to 1"),
        ({"serve": "llama.cpp", "weights": "w", "weights_too": "x"}, ("weights_too",), "not permitted"),
        ({"serve": "llama.cpp", "weights": "w", "port": 65536}, ("port",), "65535"),
        ({"serve": "vllm", "model": "m", "port": [1, 2]}, ("port",), "integer"),
        ({"serve": "vllm", "model": "m", "speculative": "ngram"}, ("speculative", "one", "literal['none']"), "'none'"),
        ({"serve": "vllm", "model": "m", "arguments": ["--port=3"]}, ("arguments",), "--port is not for `arguments`: `port` sets it"),
        ({"serve": "sglang", "model": "m", "arguments": ["--tp-size", "2"]}, ("arguments",), "`tensor_parallel` sets it"),
        ({"serve": "vllm", "model": "m", "environment": {"HF_TOKEN": "hf_x"}}, ("environment",), "HF_TOKEN looks like a secret"),
        ({"serve": "vllm", "model": "m", "environment": {"OPENAI_API_KEY": "x"}}, ("environment",), "looks like a secret"),
        ({"serve": "vllm", "model": "m", "arguments": ["--hf-token=hf_x"]}, ("arguments",), "--hf-token looks like a secret"),
        ({"serve": "vllm", "model": "m", "environment": {"X": 1}}, ("environment", "X"), "string"),
        ({"serve": "vllm", "model": "m", "command": []}, ("command",), "at least 1 item"),
        ({"model": "openai/x", "threads": 2}, ("threads",), "not permitted"),
        ({"model": "openai/x", "timeout_s": "5"}, ("timeout_s",), "number"),
        ({"api_base": "http://gpu1:8000/v1"}, ("model",), "required"),
        ("llama", (), "dictionary"),
    ],
)  # fmt: skip
def test_mistake_is_located_at_its_key(model: Any, key: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parse(model)

    error = caught.value.errors()[0]
    assert error["loc"] == ("m", *key)
    assert message in error["msg"]


def test_counts_of_tokens_are_no_secrets() -> None:
    model = Vllm(
        model="a/b",
        arguments=("--max-num-batched-tokens", "8192"),
        environment={"MAX_TOKENS": "8"},
    )

    assert model.command_line("m", "a/b", 1)[-2:] == ["--max-num-batched-tokens", "8192"]


def test_choices_are_the_knobs_of_which_there_are_several_values() -> None:
    model = served(
        {
            "serve": "vllm",
            "model": "a/b",
            "gpus": [0, 1],
            "prefix_cache": [True, False],
            "kv_cache_dtype": ["fp8"],
            "max_num_seqs": [8, 64],
            "speculative": ["none", {"num_speculative_tokens": 4, "method": "ngram"}],
        }
    )

    assert model.choices() == {
        "prefix_cache": (True, False),
        "max_num_seqs": (8, 64),
        "speculative": ("none", "{method: ngram, num_speculative_tokens: 4}"),
    }
    variants = model.variants()
    assert len(variants) == 8
    assert all(not variant.choices() for variant in variants.values())
    last = variants[False, 64, "{method: ngram, num_speculative_tokens: 4}"]
    assert isinstance(last, Vllm)
    assert last.speculative == {"num_speculative_tokens": 4, "method": "ngram"}
    assert (last.prefix_cache, last.kv_cache_dtype, last.gpus) == (False, "fp8", (0, 1))


def test_a_model_without_choices_is_its_only_variant() -> None:
    model = served({"serve": "llama.cpp", "weights": "w", "prefix_cache": [False]})

    assert model.choices() == {}
    assert model.variants() == {(): LlamaCpp(weights="w", prefix_cache=False)}


def test_a_variant_is_named_by_its_values() -> None:
    name = variant_name("llama", {"prefix_cache": False, "kv_cache_dtype": "fp8", "slots": 8})

    assert name == "llama@prefix_cache=false,kv_cache_dtype=fp8,slots=8"
    assert model_name(name) == model_name("llama") == variant_name("llama", {}) == "llama"


def test_what_is_recorded_says_all_but_patience_and_meter(tmp_path: Path) -> None:
    model = Vllm(model="a/b", max_num_seqs=8, port=4711, timeout_s=3)

    recorded = model.record({"model": "a/b", "digest": None}, "0.32.0")

    unsaid = {"port", "start_timeout_s", "timeout_s", "max_retries", "meter", "serve"}
    assert recorded.keys() == Vllm.model_fields.keys() - unsaid | {
        "engine",
        "engine_version",
        "digest",
    }
    assert (recorded["engine"], recorded["max_num_seqs"]) == ("vllm", 8)
