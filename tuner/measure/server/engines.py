"""The table of engines, and which of them a page of metrics comes from: a new engine is a file and a line here."""

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass

from tuner.measure.server import llama_cpp
from tuner.measure.server import sglang
from tuner.measure.server import tensorrt_llm
from tuner.measure.server import vllm
from tuner.measure.server.sample import Metrics
from tuner.measure.server.sample import ServerSample


@dataclass(frozen=True, slots=True)
class Engine:
    """How an engine's metrics are known, and read."""

    prefix: str
    """What the names of its metrics begin with."""
    read: Callable[[Metrics], ServerSample]


ENGINES: Mapping[str, Engine] = {
    "vllm": Engine(vllm.PREFIX, vllm.read),
    "sglang": Engine(sglang.PREFIX, sglang.read),
    "llama.cpp": Engine(llama_cpp.PREFIX, llama_cpp.read),
    "tensorrt-llm": Engine(tensorrt_llm.PREFIX, tensorrt_llm.read),
}
"""Every engine whose metrics are understood, by name."""


def read_metrics(text: str) -> tuple[str, ServerSample]:
    """The engine that a page of metrics comes from, and what it says. Raises ValueError saying what is wrong with the page."""
    try:
        metrics = Metrics.parse(text)
    except ValueError as error:
        raise ValueError(f"not Prometheus' text format: {error}") from None
    for name, engine in ENGINES.items():
        if any(each.startswith(engine.prefix) for each in metrics.rows):
            return name, engine.read(metrics)
    prefixes = ", ".join(engine.prefix for engine in ENGINES.values())
    raise ValueError(f"no metric of a known engine; known ones begin with {prefixes}")
