"""llama.cpp's metrics (server started with --metrics), as a running server gives them; it does not tell how full its cache is.

The prompt tokens that it counts are those it had to compute.
"""

from tuner.measure.server.sample import Metrics
from tuner.measure.server.sample import ServerSample

PREFIX = "llamacpp:"


def read(metrics: Metrics) -> ServerSample:
    """What llama.cpp says of itself."""
    computed = metrics.total("llamacpp:prompt_tokens_total")
    cached = metrics.total("llamacpp:prompt_tokens_cached_total")
    return ServerSample(
        running=metrics.total("llamacpp:requests_processing"),
        waiting=metrics.total("llamacpp:requests_deferred"),
        prefix_hits=cached,
        prefix_queries=None if computed is None or cached is None else computed + cached,
    )
