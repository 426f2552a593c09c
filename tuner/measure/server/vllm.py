"""vLLM's metrics; the names were read from a running 0.32, and what they were called before from its sources.

The share of the KV cache in use is that of requests that run. Each data-parallel engine has one, under the label
`engine`, and says how large its cache is in the labels of vllm:cache_config_info. A prompt's tokens are counted when
it was read, cached ones too; before there was vllm:prompt_tokens_cached_total, when it was scheduled, in full again
after a preemption.
"""

from collections.abc import Mapping

from tuner.measure.server.sample import Metrics
from tuner.measure.server.sample import ServerSample
from tuner.measure.server.sample import by_label
from tuner.measure.server.sample import kv_use

PREFIX = "vllm:"


def read(metrics: Metrics) -> ServerSample:
    """What vLLM says of itself."""
    share, tokens, capacity = kv_use(
        by_label(metrics.first("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"), "engine"),
        _capacities(metrics),
    )
    hits, queries = _prefixes(metrics)
    return ServerSample(
        running=metrics.total("vllm:num_requests_running"),
        waiting=metrics.total("vllm:num_requests_waiting"),
        kv_used_share=share,
        kv_used_tokens=tokens,
        kv_capacity_tokens=capacity,
        prefix_hits=hits,
        prefix_queries=queries,
        queue_time_s=metrics.total("vllm:request_queue_time_seconds_sum"),
        queue_count=metrics.total("vllm:request_queue_time_seconds_count"),
    )


def _prefixes(metrics: Metrics) -> tuple[float | None, float | None]:
    cached = metrics.total("vllm:prompt_tokens_cached_total")
    if cached is not None:
        return cached, metrics.total("vllm:prompt_tokens_total")
    hits = metrics.total("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total")
    # What the GPU's cache does not hold may come from another one, of which the queries above are not told again.
    external = metrics.total("vllm:external_prefix_cache_hits_total")
    queries = metrics.total(
        "vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"
    )
    return (None if hits is None else hits + (external or 0.0)), queries


def _capacities(metrics: Metrics) -> dict[str, float]:
    """Tokens that the cache of each engine holds, for those that say so."""
    found = {}
    for labels, _ in metrics.first("vllm:cache_config_info"):
        capacity = _number(labels, "kv_cache_size_tokens")
        if capacity is None:
            blocks, size = _number(labels, "num_gpu_blocks"), _number(labels, "block_size")
            capacity = blocks * size if blocks and size else None
        if capacity:
            found[labels.get("engine", "")] = capacity
    return found


def _number(labels: Mapping[str, str], name: str) -> float | None:
    """A label's number; None where there is no such label, or it says None."""
    text = labels.get(name, "")
    return float(text) if text.isdecimal() else None
