from dataclasses import asdict
from pathlib import Path

import httpx
import pytest

from tuner import serving
from tuner.measure.server import ENGINES
from tuner.measure.server import ServerSample
from tuner.measure.server import read_metrics

FIXTURES = Path(__file__).parent / "fixtures"
STORY = "Once upon a time a miller and his cat lived beside a wide river, and every morning they"


def page(name: str) -> str:
    return (FIXTURES / f"{name}.txt").read_text()


def known(sample: ServerSample) -> dict[str, float]:
    return {name: value for name, value in asdict(sample).items() if value is not None}


def metric_names(text: str) -> set[str]:
    return {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}


@pytest.mark.parametrize(
    ("name", "engine", "expected"),
    [
        ("vllm_idle", "vllm", ServerSample(0, 0, 0, 0, 46592, 0, 0, 0, 0)),
        (
            "vllm_in_flight",
            "vllm",
            # 20 of 363 blocks of 128 tokens: 4 that all 8 share, and 2 of each one's own
            ServerSample(8, 2, 20 / 363, 46592 * 20 / 363, 46592, 6272, 11426, 4.4479e-4, 10),
        ),
        (
            "vllm_after",
            "vllm",
            ServerSample(0, 0, 0, 0, 46592, 7296, 12690, 20.2068054, 20),
        ),
        ("sglang_idle", "sglang", ServerSample(0, 0, 0, 0, 200_000, None, None, 0, 0)),
        (
            "sglang_in_flight",
            "sglang",
            # ranks of one tensor-parallel group tell the same, those of data-parallel groups add up
            ServerSample(4, 2, 0.2, 40_000, 200_000, 6000, 10_000, 3.0, 12),
        ),
        (
            "llama_cpp_after",
            "llama.cpp",
            ServerSample(0, 0, prefix_hits=60, prefix_queries=122),
        ),
        ("tensorrt_llm_idle", "tensorrt-llm", ServerSample(0, 0, 0, 0, 128_000, 0, 0)),
        (
            "tensorrt_llm_in_flight",
            "tensorrt-llm",
            ServerSample(5, 1, 0.25, 32_000, 128_000, 5760, 9600, 6.0, 12),
        ),
    ],
)
def test_page_is_read_in_the_words_that_all_engines_share(
    name: str, engine: str, expected: ServerSample
) -> None:
    found, sample = read_metrics(page(name))

    assert found == engine
    assert known(sample) == pytest.approx(known(expected))


def test_vllms_old_names_mean_the_same() -> None:
    text = (
        page("vllm_in_flight")
        .replace("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
        .replace("vllm:prefix_cache", "vllm:gpu_prefix_cache")
        .replace("vllm:prompt_tokens_cached_total", "vllm:not_there_yet")
    )

    assert read_metrics(text) == read_metrics(page("vllm_in_flight"))


def test_vllms_engines_weigh_as_much_as_their_caches_hold() -> None:
    text = """\
vllm:kv_cache_usage_perc{engine="0"} 0.5
vllm:kv_cache_usage_perc{engine="1"} 0.1
vllm:cache_config_info{engine="0",block_size="16",num_gpu_blocks="100"} 1
vllm:cache_config_info{engine="1",block_size="16",num_gpu_blocks="300",kv_cache_size_tokens="None"} 1
vllm:num_requests_running{engine="0"} 3
vllm:num_requests_running{engine="1"} 4
"""
    _, sample = read_metrics(text)

    assert sample.kv_used_share == pytest.approx((0.5 + 3 * 0.1) / 4)
    assert sample.kv_used_tokens == pytest.approx(1280)
    assert sample.kv_capacity_tokens == 6400
    assert sample.running == 7


def test_vllms_hits_in_offloaded_memory_are_hits() -> None:
    text = """\
vllm:prefix_cache_hits_total{engine="0"} 100
vllm:prefix_cache_queries_total{engine="0"} 1000
vllm:external_prefix_cache_hits_total{engine="0"} 300
"""
    _, sample = read_metrics(text)

    assert (sample.prefix_hits, sample.prefix_queries) == (400, 1000)


def test_tensorrt_llm_that_counts_blocks_gives_the_same_share() -> None:
    text = page("tensorrt_llm_in_flight").replace(
        "trtllm_prompt_cached_tokens_total", "trtllm_none"
    )
    _, sample = read_metrics(text)

    assert (sample.prefix_hits, sample.prefix_queries) == (180, 300)


def test_share_without_a_capacity_is_a_plain_mean_and_no_tokens() -> None:
    _, sample = read_metrics(
        'vllm:kv_cache_usage_perc{engine="0"} 0.5\nvllm:kv_cache_usage_perc{engine="1"} 0.1\n'
    )

    assert sample == ServerSample(kv_used_share=0.3)


def test_what_is_not_finite_is_missing() -> None:
    assert read_metrics("llamacpp:requests_processing NaN\nllamacpp:requests_deferred 1\n") == (
        "llama.cpp",
        ServerSample(waiting=1),
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<html>no such page</html>", "not Prometheus' text format"),
        ('[{"iter": 1}]', "not Prometheus' text format"),
        ("", "no metric of a known engine"),
        (
            "process_cpu_seconds_total 3\n",
            "known ones begin with vllm:, sglang:, llamacpp:, trtllm_",
        ),
    ],
)
def test_page_that_is_not_understood_says_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_metrics(text)


def test_every_engine_has_a_page_here() -> None:
    assert {read_metrics(path.read_text())[0] for path in FIXTURES.iterdir()} == set(ENGINES)


def test_running_llama_cpp_has_the_names_of_the_recorded_page(smollm2: serving.Endpoint) -> None:
    live = httpx.get(f"{smollm2.root}/metrics", trust_env=False).text

    assert metric_names(live) == metric_names(page("llama_cpp_after"))


def test_running_llama_cpp_counts_hits_when_a_prompt_is_asked_again(
    smollm2: serving.Endpoint,
) -> None:
    def look() -> ServerSample:
        engine, sample = read_metrics(httpx.get(f"{smollm2.root}/metrics", trust_env=False).text)
        assert engine == "llama.cpp"
        return sample

    def ask() -> None:
        asked = {"prompt": STORY, "max_tokens": 2}
        httpx.post(f"{smollm2.root}/v1/completions", json=asked, trust_env=False, timeout=60)

    smollm2.isolate("a")
    before = look()
    ask()
    once = look()
    ask()
    twice = look()

    assert once.prefix_hits == before.prefix_hits
    prompt = (once.prefix_queries or 0) - (before.prefix_queries or 0)
    assert prompt > 10
    assert (twice.prefix_queries or 0) - (once.prefix_queries or 0) == prompt
    assert (twice.prefix_hits or 0) - (once.prefix_hits or 0) == prompt - 1
