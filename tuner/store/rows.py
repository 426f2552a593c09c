"""An example run as rows of the database, and back; apart from the store, which knows whose runs they are."""

from collections.abc import Mapping
from typing import Any

from tuner.records import ExampleRun
from tuner.records import Reading
from tuner.records import Reused
from tuner.store.codec import pack_trace
from tuner.store.codec import unpack_trace

EDGE = "edge"
"""The split under which extra runs are kept, so that no count, value or resumption sees them."""

_PLAIN = (
    "example_id",
    "repeat",
    "answer",
    "score",
    "error",
    "latency_s",
    "tokens_in",
    "tokens_out",
    "tokens_cached",
    "cost_usd",
    "llm_calls",
    "tool_calls",
    "llm_s",
    "tool_only_s",
    "started_s",
    "oracle",
    "window",
)

_READING = {
    "energy_j": "gross_j",
    "energy_source": "source",
    "energy_scope": "scope",
    "energy_problem": "problem",
    "energy_s": "seconds",
    "energy_idle_j": "idle_j",
    "energy_stderr_j": "stderr_j",
    "energy_temperature_c": "temperature_c",
    "energy_warning": "warning",
}
"""Columns, and what of a Reading each holds."""

_REUSED = {
    "reused_s": "latency_s",
    "reused_j": "energy_j",
    "reused_tokens": "tokens",
    "reused_usd": "cost_usd",
}


_TEXTS = ("answer", "error", "energy_scope", "energy_problem", "energy_warning")


def row_of(run: ExampleRun) -> dict[str, Any]:
    """Its row, less its trace and its place."""
    row = {
        **{name: getattr(run, name) for name in _PLAIN},
        **{column: getattr(run.energy, name) for column, name in _READING.items()},
        **{column: getattr(run.reused, name) for column, name in _REUSED.items()},
    }
    return row | {name: storable(row[name]) for name in _TEXTS}


def storable(text: str | None) -> str | None:
    """The text as any database takes it: PostgreSQL keeps no NUL, and none keeps half of a surrogate pair.

    Models do answer such things; the trace has them as they were.
    """
    if text is None:
        return None
    return text.replace("\0", "\u2400").encode("utf-8", "backslashreplace").decode()


def trace_of(run: ExampleRun) -> bytes:
    """What is kept of it in a table of its own."""
    return pack_trace(run.spans, run.checkpoints, run.samples)


def run_of(row: Mapping[str, Any]) -> ExampleRun:
    """What `row_of` and `trace_of` were made from; `content` is the trace."""
    spans, checkpoints, samples = unpack_trace(row["content"])
    return ExampleRun(
        **{name: row[name] for name in _PLAIN},
        energy=Reading(**{name: row[column] for column, name in _READING.items()}),
        reused=Reused(**{name: row[column] for column, name in _REUSED.items()}),
        edge=row["split"] == EDGE,
        spans=spans,
        checkpoints=checkpoints,
        samples=samples,
    )
