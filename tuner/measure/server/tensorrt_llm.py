"""TensorRT-LLM's metrics, under /prometheus/metrics (server started with return_perf_metrics); names from its sources.

Its gauges are those of the last iteration. Before it counted the tokens of prompts, it counted blocks.
"""

from tuner.measure.server.sample import Metrics
from tuner.measure.server.sample import ServerSample

PREFIX = "trtllm_"


def read(metrics: Metrics) -> ServerSample:
    """What TensorRT-LLM says of itself."""
    block = metrics.total("trtllm_kv_cache_tokens_per_block")
    hits, queries = _prefixes(metrics)
    return ServerSample(
        running=metrics.total("trtllm_num_requests_running"),
        waiting=metrics.total("trtllm_num_requests_waiting"),
        kv_used_share=metrics.total("trtllm_kv_cache_utilization"),
        kv_used_tokens=_tokens(metrics.total("trtllm_kv_cache_used_blocks"), block),
        kv_capacity_tokens=_tokens(metrics.total("trtllm_kv_cache_max_blocks"), block),
        prefix_hits=hits,
        prefix_queries=queries,
        queue_time_s=metrics.total("trtllm_request_queue_time_seconds_sum"),
        queue_count=metrics.total("trtllm_request_queue_time_seconds_count"),
    )


def _prefixes(metrics: Metrics) -> tuple[float | None, float | None]:
    cached = metrics.total("trtllm_prompt_cached_tokens_total")
    if cached is not None:  # it is there from the start, the other one since the first request
        return cached, metrics.total("trtllm_prompt_tokens_total") or 0.0
    reused = metrics.total("trtllm_kv_cache_reused_blocks_total")
    missed = metrics.total("trtllm_kv_cache_missed_blocks_total")
    if reused is None and missed is None:
        return None, None
    return reused or 0.0, (reused or 0.0) + (missed or 0.0)


def _tokens(blocks: float | None, block: float | None) -> float | None:
    return None if blocks is None or block is None else blocks * block
