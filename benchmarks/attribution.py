"""Wall time of splitting the energy of one window over its queries, and how far the parts are from the whole.

1,000 queries of 100 spans each, with times drawn at random in one window of 10,000 s that was sampled 100,000
times, some 60 calls in flight at once; every query has 10 checkpoints. `split` is the arithmetic alone, `attribute`
begins and ends with records. The error is |Σ queries + idle − gross| ÷ gross. Goals: < 1 s, ≤ 1e-9.
"""

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tuner.measure.attribution import Attribution
from tuner.measure.attribution import Calls
from tuner.measure.attribution import attribute
from tuner.measure.attribution import split_energy
from tuner.records import ExampleRun
from tuner.records import Reading
from workflows.base import Checkpoint
from workflows.trace import Span

SPANS_PER_QUERY = 100
CHECKPOINTS = 10
REPEATS = 7


def main() -> None:
    """Draw a window, split it, print and record the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of it; some seconds")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    arguments = parser.parse_args()
    size = 10_000 if arguments.quick else 100_000
    rng = np.random.default_rng(0)
    runs = draw_runs(rng, spans=size, samples=size)
    by_spans, by_tokens = attribute(runs), attribute(runs, by="tokens")
    assert by_spans is not None
    assert by_tokens is not None
    result = {
        "benchmark": "attribution",
        "spans": size,
        "samples": size,
        "queries": len(runs),
        "checkpoints": sum(len(run.checkpoints) for run in runs),
        "seconds": {
            "split": seconds(draw_split(rng, spans=size, samples=size)),
            "attribute": seconds(lambda: attribute(runs)),
            "attribute by tokens": seconds(lambda: attribute(runs, by="tokens")),
        },
        "relative_error": {"spans": error(by_spans), "tokens": error(by_tokens)},
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"numpy {np.__version__}",
    }
    text = json.dumps(result, indent=2)
    if not arguments.quick:
        (Path(__file__).parent / "results" / "attribution.json").write_text(text + "\n")
    print(text)


def seconds(work: Callable[[], object]) -> float:
    """Median wall seconds of some runs."""
    walls = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        walls.append(time.perf_counter() - start)
    return statistics.median(walls)


def error(found: Attribution) -> float:
    """How far the parts are from the whole, of the whole; added up exactly."""
    parts = [found.idle_j, *(joules for q in found.queries for joules in (q.llm_j, q.tool_j))]
    return abs(math.fsum([*parts, -found.gross_j])) / found.gross_j


def draw_curve(rng: np.random.Generator, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Some ten samples a second of a device that draws 50 to 700 W."""
    t_s = np.cumsum(rng.uniform(0.05, 0.15, samples))
    return t_s, np.cumsum(np.diff(t_s, prepend=0.0) * rng.uniform(50, 700, samples))


def draw_split(rng: np.random.Generator, *, spans: int, samples: int) -> Callable[[], object]:
    """The arithmetic with as many spans, samples and cuts."""
    t_s, joules = draw_curve(rng, samples)
    calls = []
    for share in (0.6, 0.4):
        count = round(share * spans)
        start_s = rng.uniform(0, t_s[-1], count)
        calls.append(
            Calls(
                query=rng.integers(0, spans // SPANS_PER_QUERY, count),
                start_s=start_s,
                end_s=start_s + rng.exponential(10, count),
                weight=rng.integers(1, 4000, count),
            )
        )
    queries = spans // SPANS_PER_QUERY
    cut_s = np.sort(rng.uniform(0, t_s[-1], (queries, CHECKPOINTS)), axis=1).ravel()
    return lambda: split_energy(
        t_s,
        joules,
        llm=calls[0],
        tools=calls[1],
        queries=queries,
        cut_query=np.repeat(np.arange(queries), CHECKPOINTS),
        cut_s=cut_s,
    )


def draw_runs(rng: np.random.Generator, *, spans: int, samples: int) -> list[ExampleRun]:
    """The runs of a window whose length is that of its samples, each with its part of them."""
    t_s, joules = draw_curve(rng, samples)
    queries = spans // SPANS_PER_QUERY
    parts = np.array_split(np.column_stack((t_s, joules)), queries)
    return [
        draw_run(index, rng, window_s=t_s[-1], samples=[(t, j) for t, j in part.tolist()])
        for index, part in enumerate(parts)
    ]


def draw_run(
    index: int, rng: np.random.Generator, *, window_s: float, samples: list[tuple[float, float]]
) -> ExampleRun:
    """A run of calls at any time of its window: 60 of the model and 40 of tools."""
    starts_s = rng.uniform(0, window_s, SPANS_PER_QUERY)
    ends_s = starts_s + rng.exponential(10, SPANS_PER_QUERY)
    counts = rng.integers(1, 2000, (SPANS_PER_QUERY, 3))
    spans = tuple(
        Span(
            "llm" if number % 5 < 3 else "tool",
            "x",
            float(starts_s[number]),
            float(ends_s[number]),
            "",
            "",
            tokens_in=int(counts[number, 0] + counts[number, 1]),
            tokens_out=int(counts[number, 2]),
            tokens_cached=int(counts[number, 1]),
        )
        for number in range(SPANS_PER_QUERY)
    )
    cuts_s = np.sort(rng.uniform(0, window_s, CHECKPOINTS)).tolist()
    return ExampleRun(
        example_id=f"search-{index:04d}",
        repeat=0,
        answer="",
        score=0.0,
        error=None,
        latency_s=window_s,
        energy=Reading(1.0, "nvml-counter", "GPU-0"),
        tokens_in=0,
        tokens_out=0,
        tokens_cached=0,
        cost_usd=None,
        llm_calls=60,
        tool_calls=40,
        llm_s=0.0,
        tool_only_s=0.0,
        started_s=0.0,
        checkpoints=tuple(Checkpoint(n + 1, "", 0, cut_s) for n, cut_s in enumerate(cuts_s)),
        spans=spans,
        samples=tuple(samples),
    )


if __name__ == "__main__":
    main()
