"""What vLLM and SGLang are started with, flag by flag, as their own argument parsers have them."""

from typing import Any

import pytest

from tuner.serving import Sglang
from tuner.serving import Vllm
from tuner.serving.program import Program

VLLM = (
    "vllm serve a/b --served-model-name m --host 127.0.0.1 --port 8000 --seed 0 --tensor-parallel-size 1 "
    "--enable-prefix-caching --enable-prompt-tokens-details --disable-uvicorn-access-log"
)
SGLANG = (
    "python3 -m sglang.launch_server --model-path a/b --served-model-name m --host 127.0.0.1 --port 8000 "
    "--random-seed 0 --tensor-parallel-size 1 --enable-metrics --enable-cache-report --log-level-http warning"
)


def line(model: Program) -> list[str]:
    return model.command_line("m", "a/b", 8000)


@pytest.mark.parametrize(("engine", "whole"), [(Vllm, VLLM), (Sglang, SGLANG)])
def test_without_options_the_engine_decides(engine: type[Program], whole: str) -> None:
    assert line(engine(model="a/b")) == whole.split()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "old", "new"),
    [
        ({"prefix_cache": False}, "--enable-prefix-caching", "--no-enable-prefix-caching"),
        ({"tensor_parallel": 4}, "--tensor-parallel-size 1", "--tensor-parallel-size 4"),
        ({"seed": 7}, "--seed 0", "--seed 7"),
        ({"command": ["nice", "/opt/vllm", "serve"]}, "vllm serve", "nice /opt/vllm serve"),
    ],
)
def test_vllm_has_instead(options: dict[str, Any], old: str, new: str) -> None:
    assert line(Vllm(model="a/b", **options)) == VLLM.replace(old, new).split()


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({"context": 8192}, ["--max-model-len", "8192"]),
        ({"kv_cache_dtype": "fp8"}, ["--kv-cache-dtype", "fp8"]),
        ({"kv_offload_gib": 16}, ["--kv-offloading-size", "16.0"]),
        ({"quantization": "fp8"}, ["--quantization", "fp8"]),
        ({"max_num_seqs": 64}, ["--max-num-seqs", "64"]),
        ({"speculative": {"method": "ngram", "prompt_lookup_max": 4}}, ["--speculative-config", '{"method": "ngram", "prompt_lookup_max": 4}']),
        ({"arguments": ["--dtype", "bfloat16"]}, ["--dtype", "bfloat16"]),
        ({"max_num_seqs": 8, "context": 512, "arguments": ["-O0"]}, ["--max-model-len", "512", "--max-num-seqs", "8", "-O0"]),
    ],
)  # fmt: skip
def test_vllm_has_besides(options: dict[str, Any], more: list[str]) -> None:
    assert line(Vllm(model="a/b", **options)) == [*VLLM.split(), *more]


@pytest.mark.parametrize(
    ("options", "old", "new"),
    [
        ({"prefix_cache": False}, "--enable-metrics", "--disable-radix-cache --enable-metrics"),
        ({"tensor_parallel": 4}, "--tensor-parallel-size 1", "--tensor-parallel-size 4"),
        ({"seed": 7}, "--random-seed 0", "--random-seed 7"),
        ({"command": ["sglang", "serve"]}, "python3 -m sglang.launch_server", "sglang serve"),
    ],
)
def test_sglang_has_instead(options: dict[str, Any], old: str, new: str) -> None:
    assert line(Sglang(model="a/b", **options)) == SGLANG.replace(old, new).split()


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({"context": 8192}, ["--context-length", "8192"]),
        ({"kv_cache_dtype": "fp8_e5m2"}, ["--kv-cache-dtype", "fp8_e5m2"]),
        ({"hicache_ratio": 2}, ["--enable-hierarchical-cache", "--hicache-ratio", "2.0"]),
        ({"hicache_size_gb": 100}, ["--enable-hierarchical-cache", "--hicache-size", "100"]),
        ({"quantization": "fp8"}, ["--quantization", "fp8"]),
        ({"max_running_requests": 64}, ["--max-running-requests", "64"]),
        ({"speculative": {"algorithm": "EAGLE3", "num_steps": 3}}, ["--speculative-algorithm", "EAGLE3", "--speculative-num-steps", "3"]),
        ({"arguments": ["--dtype", "bfloat16"]}, ["--dtype", "bfloat16"]),
    ],
)  # fmt: skip
def test_sglang_has_besides(options: dict[str, Any], more: list[str]) -> None:
    assert line(Sglang(model="a/b", **options)) == [*SGLANG.split(), *more]


@pytest.mark.parametrize("engine", [Vllm, Sglang])
def test_the_environment_has_the_gpus_and_what_the_user_adds(engine: type[Program]) -> None:
    model = engine(model="a/b", gpus=(2, "GPU-7"), environment={"HF_HUB_OFFLINE": "1"})  # type: ignore[call-arg]

    found = model.process_environment()

    dev = found.pop("VLLM_SERVER_DEV_MODE", None)
    assert dev == ("1" if engine is Vllm else None)
    assert found == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "2,GPU-7",
        "HF_HUB_OFFLINE": "1",
    }


def test_without_gpus_the_program_sees_those_that_the_tuner_sees() -> None:
    assert "CUDA_VISIBLE_DEVICES" not in Sglang(model="a/b").process_environment()


@pytest.mark.parametrize("engine", [Vllm, Sglang])
def test_no_flag_that_is_made_here_can_be_given_twice(engine: type[Program]) -> None:
    made = {part for part in line(engine(model="a/b")) if part.startswith("--")}  # type: ignore[call-arg]
    fixed = {"--enable-prompt-tokens-details", "--disable-uvicorn-access-log"}
    fixed |= {"--enable-metrics", "--enable-cache-report", "--log-level-http"}

    assert made - fixed <= engine.flags.keys()
