import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.measure.server import ServerReading
from tuner.measure.server import analytic_kv
from tuner.measure.server import kv_bytes_per_token
from tuner.measure.server import kv_note
from tuner.measure.server import load_model_config
from tuner.measure.server import with_analytic_kv
from tuner.records import ExampleRun
from tuner.records import Reading
from workflows.trace import Span

SMOLLM2 = {
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "hidden_size": 576,
    "torch_dtype": "bfloat16",
}
LLAMA_70B = {
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "hidden_size": 8192,
    "dtype": "bfloat16",
}
DEEPSEEK_V3 = {
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "hidden_size": 7168,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "torch_dtype": "bfloat16",
}
QWEN3_NEXT = {
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "hidden_size": 2048,
}
GPT_OSS = {
    "num_hidden_layers": 24,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
    "sliding_window": 128,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "hidden_size": 2880,
}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (SMOLLM2, 23_040),
        (LLAMA_70B, 327_680),
        (DEEPSEEK_V3, 61 * (512 + 64) * 2),
        (QWEN3_NEXT, 2 * 512 * 2),
        (GPT_OSS, 24 * 8 * 128 * 2),
        ({**SMOLLM2, "num_key_value_heads": None}, 3 * 23_040),
        ({**SMOLLM2, "head_dim": 128}, 2 * 23_040),
        ({**SMOLLM2, "head_dim": 64, "v_head_dim": 128}, 1.5 * 23_040),
        ({**SMOLLM2, "num_key_value_heads": [3] * 10 + [0] * 20}, 23_040 / 3),
        ({**SMOLLM2, "torch_dtype": "torch.float32"}, 2 * 23_040),
        ({"text_config": {**SMOLLM2, "torch_dtype": None}, "vision_config": {}}, 23_040),
    ],
)
def test_bytes_of_a_token(config: dict[str, Any], expected: float) -> None:
    assert kv_bytes_per_token(config) == expected


@pytest.mark.parametrize(
    ("kv_dtype", "expected"),
    [
        (None, 23_040),
        ("auto", 23_040),
        ("f16", 23_040),
        ("fp8", 11_520),
        ("fp8_e4m3", 11_520),
        ("q8_0", 11_520 * 34 / 32),
        ("q4_0", 11_520 * 18 / 32),
        ("of tomorrow", None),
    ],
)
def test_type_of_the_cache_counts_before_that_of_the_model(
    kv_dtype: str | None, expected: float | None
) -> None:
    assert kv_bytes_per_token(SMOLLM2, kv_dtype=kv_dtype) == expected


@pytest.mark.parametrize("lacking", ["num_hidden_layers", "num_attention_heads", "hidden_size"])
def test_config_that_does_not_say_enough_gives_nothing(lacking: str) -> None:
    config = {name: value for name, value in SMOLLM2.items() if name != lacking}

    assert kv_bytes_per_token({**config, "num_key_value_heads": None}) is None


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        (GPT_OSS, "12 of 24"),
        ({**SMOLLM2, "sliding_window": 4096}, "30 of 30"),
        ({**SMOLLM2, "sliding_window": 4096, "sliding_window_pattern": 6}, "25 of 30"),
        ({**SMOLLM2, "sliding_window": 4096, "use_sliding_window": False}, None),
        (SMOLLM2, None),
        ({}, None),
    ],
)
def test_layers_with_a_window_are_noted(config: dict[str, Any], layers: str | None) -> None:
    note = kv_note(config)

    assert note is None if layers is None else f"up to {layers} layers" in str(note)


def test_config_is_found_in_a_folder_and_in_the_hub_s_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "models--HuggingFaceTB--SmolLM2" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(SMOLLM2))
    (tmp_path / "models--HuggingFaceTB--SmolLM2" / "refs").mkdir()
    (tmp_path / "models--HuggingFaceTB--SmolLM2" / "refs" / "main").write_text("1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    assert load_model_config(snapshot) == SMOLLM2
    assert load_model_config("HuggingFaceTB/SmolLM2") == SMOLLM2
    assert load_model_config("HuggingFaceTB/other") is None


def test_config_that_is_not_there_or_not_readable_is_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "bad.gguf").write_bytes(b"not a model" * 1000)

    assert load_model_config(tmp_path) is None
    assert load_model_config(tmp_path / "bad.gguf") is None
    assert load_model_config(tmp_path / "none.gguf") is None
    assert load_model_config("no such: name/of/a/model") is None


def call(start_s: float, end_s: float, tokens_in: int | None, tokens_out: int | None) -> Span:
    return Span("llm", "m", start_s, end_s, "", "x", None, tokens_in, tokens_out)


def run(started_s: float, latency_s: float, *spans: Span, **fields: Any) -> ExampleRun:
    plain = ExampleRun(
        example_id="q",
        repeat=0,
        answer="",
        score=0.0,
        error=None,
        latency_s=latency_s,
        energy=Reading(None, "none", ""),
        tokens_in=None,
        tokens_out=None,
        tokens_cached=None,
        cost_usd=None,
        llm_calls=len(spans),
        tool_calls=0,
        llm_s=0.0,
        tool_only_s=0.0,
        started_s=started_s,
        checkpoints=(),
        spans=spans,
    )
    return replace(plain, **fields)


def test_call_holds_its_prompt_and_more_and_more_of_its_reply() -> None:
    runs = [run(0, 10, call(2, 6, 100, 50))]

    assert analytic_kv(runs, 10) == (pytest.approx(125 * 4 / 10 * 10), pytest.approx(1500))


def test_calls_in_flight_at_once_add_up() -> None:
    runs = [run(0, 4, call(0, 4, 100, 40)), run(1, 3, call(0, 2, 10, 20), call(2, 3, 1, 1))]

    # at 3 s the second run's first call ends with 30, when the first run's holds 130
    assert analytic_kv(runs, 1) == (
        pytest.approx((120 * 4 + 20 * 2 + 1.5) / 4),
        pytest.approx(160),
    )


def test_calls_to_another_model_are_not_its_own() -> None:
    runs = [run(0, 4, call(0, 4, 100, 0), replace(call(0, 4, 7, 0), name="judge"))]

    assert analytic_kv(runs, 1, model="m") == (100, 100)
    assert analytic_kv(runs, 1, model="judge") == (7, 7)
    assert analytic_kv(runs, 1) == (107, 107)


def test_blocks_are_whole() -> None:
    runs = [run(0, 4, call(0, 4, 16, 16))]

    mean, peak = analytic_kv(runs, 1, block_tokens=16) or (0, 0)

    assert (mean, peak) == (pytest.approx(32), pytest.approx(32))
    assert analytic_kv([run(0, 1, call(0, 1, 17, 0))], 1, block_tokens=16) == (32, 32)


def test_call_without_counts_leaves_nothing_known_and_one_that_failed_holds_nothing() -> None:
    failed = Span("llm", "m", 0, 1, "", "", error="nothing answers")

    assert analytic_kv([run(0, 1, call(0, 1, 5, None))], 1) is None
    assert analytic_kv([run(0, 1, call(0, 1, None, 5))], 1) is None
    assert analytic_kv([run(0, 2, failed, call(1, 2, 5, 0))], 1) == (2.5, 5)
    assert analytic_kv([], 1) is None


def test_question_that_was_broken_off_takes_no_figure_away() -> None:
    runs = [
        run(0, 2, call(0, 2, 5, 0)),
        run(0, 2, call(0, 1, 5, 0), call(1, 2, None, None), edge=True),
    ]

    assert analytic_kv(runs, 1) == (7.5, 10)


def test_runs_of_several_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="several windows"):
        analytic_kv([run(0, 1), run(0, 1, window=1)], 1)


@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.floats(0.1, 10), st.integers(0, 999), st.integers(0, 99)),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from([None, 1, 16, 128]),
)
def test_average_and_maximum_agree_with_a_fine_grid(
    rows: list[tuple[float, float, int, int]], block: int | None
) -> None:
    runs = [run(s, d, call(0, d, first, more)) for s, d, first, more in rows]
    end_s = max(s + d for s, d, _, _ in rows)
    grid = (np.arange(20_000) + 0.5) / 20_000 * end_s
    held = np.zeros_like(grid)
    for start_s, length_s, first, more in rows:
        inside = (grid >= start_s) & (grid < start_s + length_s)
        tokens = first + more * (grid - start_s) / length_s
        whole = tokens if block is None else np.ceil(tokens / block) * block
        held += np.where(inside, whole, 0)

    found = analytic_kv(runs, 3.0, block_tokens=block)

    assert found is not None
    scale = 3.0 * sum(first + more + (block or 0) for _, _, first, more in rows)
    assert found[0] == pytest.approx(3.0 * held.mean(), abs=2e-3 * scale + 1e-9)
    assert found[1] >= 3.0 * held.max() - 1e-6 * scale
    assert found[1] <= scale * (1 + 1e-9)


def test_analytic_figures_stand_in_only_where_the_server_does_not_tell() -> None:
    runs = [run(0, 10, call(0, 10, 100, 0))]
    told = ServerReading(engine="vllm", kv_tokens_mean=7.0, kv_tokens_max=9.0, kv_source="metrics")
    silent = ServerReading(engine="llama.cpp", prefix_hit_share=0.5)

    assert with_analytic_kv(told, runs, 10) == told
    assert with_analytic_kv(silent, runs, 10) == replace(
        silent,
        kv_tokens_mean=100,
        kv_tokens_max=100,
        kv_bytes_mean=1000,
        kv_bytes_max=1000,
        kv_source="analytic",
    )
    assert with_analytic_kv(silent, runs, None).kv_bytes_mean is None
    assert with_analytic_kv(silent, [], 10) == silent
