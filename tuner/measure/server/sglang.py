"""SGLang's metrics (server started with --enable-metrics); names from the sources of 0.5, before and after the tokens in use were renamed.

Every scheduler has series of its own: those of one tensor-parallel group tell the same thing, those of data-parallel
ranks add up. Where requests have priorities, the series without one is the total of the others. A prompt's tokens
are counted when its request ends, and a counter is not there before it first counts.
"""

from tuner.measure.server.sample import Metrics
from tuner.measure.server.sample import Row
from tuner.measure.server.sample import ServerSample
from tuner.measure.server.sample import by_label
from tuner.measure.server.sample import kv_use

PREFIX = "sglang:"
REPLICAS = ("tp_rank", "pp_rank", "moe_ep_rank")


def read(metrics: Metrics) -> ServerSample:
    """What SGLang says of itself."""
    metrics = Metrics({name: _totals(list(rows)) for name, rows in metrics.rows.items()})
    share, tokens, capacity = kv_use(
        by_label(metrics.first("sglang:token_usage"), "dp_rank"),
        by_label(metrics.first("sglang:max_total_num_tokens"), "dp_rank"),
    )
    used = metrics.total("sglang:kv_used_tokens", "sglang:num_used_tokens", replicas=REPLICAS)
    queries = metrics.total("sglang:prompt_tokens_total")
    hits = metrics.total("sglang:cached_tokens_total")
    return ServerSample(
        running=metrics.total("sglang:num_running_reqs", replicas=REPLICAS),
        waiting=metrics.total("sglang:num_queue_reqs", replicas=REPLICAS),
        kv_used_share=share,
        kv_used_tokens=tokens if used is None else used,
        kv_capacity_tokens=capacity,
        prefix_hits=0.0 if hits is None and queries is not None else hits,
        prefix_queries=queries,
        queue_time_s=metrics.total("sglang:queue_time_seconds_sum", replicas=REPLICAS),
        queue_count=metrics.total("sglang:queue_time_seconds_count", replicas=REPLICAS),
    )


def _totals(rows: list[Row]) -> list[Row]:
    return [row for row in rows if not row[0].get("priority")]
