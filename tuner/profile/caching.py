"""Figures 9 and 12: what keeping the prefixes of prompts gains, in time and in memory."""

from collections.abc import Callable

import numpy as np

from tuner.profile.estimate import Amounts
from tuner.profile.estimate import Value
from tuner.profile.estimate import estimate
from tuner.profile.estimate import missing
from tuner.profile.estimate import ratio
from tuner.profile.evaluation import Evaluation
from tuner.profile.found import Found
from tuner.profile.table import Chart
from tuner.profile.table import Column
from tuner.profile.table import Key
from tuner.profile.table import Table
from tuner.profile.table import rows
from tuner.records import ExampleRun
from workflows.trace import Span

HOW = "Give a model that the study serves `prefix_cache: [true, false]` to have it measured both ways."
STREAMED = "a reply was not streamed, so that its first token was not seen"


def calls(found: Found) -> Table:
    """Figure 9: seconds of a model call, in reading its prompt and in writing, and how often the cache had it."""

    def values(of: Evaluation) -> dict[str, Value]:
        count = [len(_answered(run)) for run in of.runs]
        return {
            "prefill_s": ratio(_prefill_s(of), count, why=STREAMED),
            "decode_s": ratio(_decode_s(of), count, why=STREAMED),
            "call_s": ratio(_call_s(of), count),
            "prefix_hit_share": ratio(
                [run.tokens_cached for run in of.runs],
                [run.tokens_in for run in of.runs],
                why="the server did not report cached tokens",
            ),
            **_gains(found, of),
        }

    columns = (
        Column("prefill_s", "s", "prefill"),
        Column("decode_s", "s", "decode"),
        Column("call_s", "s", "whole call"),
        Column("prefix_hit_share", "share", "prompt cached"),
        Column("prefill_gain", "×", "prefill without ÷ with"),
        Column("call_gain", "×", "call without ÷ with"),
    )
    return Table(
        figure="9",
        title="seconds of a model call, with and without prefix caching",
        columns=columns,
        rows=rows(
            found.measured,
            tuple(column.name for column in columns),
            values,
            keys=lambda of: keys(found, of),
            count=lambda of: sum(len(_answered(run)) for run in of.runs),
        ),
        charts=(Chart("stack", ("prefill_s", "decode_s")),),
        counts="calls",
        notes=(
            "Prefill is what passes before the first token, waiting in the server's queue included.",
            *_notes(found),
        ),
    )


def memory(found: Found) -> Table:
    """Figure 12: bytes of keys and values that calls in flight hold, averaged over the pass and at most."""

    def values(of: Evaluation) -> dict[str, Value]:
        server = of.servers.get(of.model, {})
        why = server.get("problem") or "the server's metrics were not read"
        held = {
            "kv_mean_bytes": server.get("kv_bytes_mean"),
            "kv_max_bytes": server.get("kv_bytes_max"),
        }
        return {
            name: missing(str(why)) if each is None else Value(float(each))
            for name, each in held.items()
        }

    return Table(
        figure="12",
        title="keys and values in memory, with and without prefix caching",
        columns=(
            Column("kv_mean_bytes", "bytes", "on average"),
            Column("kv_max_bytes", "bytes", "at most"),
        ),
        rows=rows(
            found.measured,
            ("kv_mean_bytes", "kv_max_bytes"),
            values,
            keys=lambda of: keys(found, of),
            source=lambda of: of.servers.get(of.model, {}).get("kv_source"),
        ),
        charts=(Chart("bars", ("kv_mean_bytes", "kv_max_bytes")),),
        notes=(
            "metrics: the server's own count. analytic: from the calls' tokens and the model's shape, where the "
            "server does not tell; what calls share of a prefix is then counted for each, with and without caching.",
            *_notes(found),
        ),
    )


def keys(found: Found, of: Evaluation) -> dict[str, Key]:
    """Whether the config's server keeps the prefixes of prompts."""
    kept = found.prefix_cache(of.model)
    return {"prefix_cache": "unknown" if kept is None else kept}


def _notes(found: Found) -> tuple[str, ...]:
    kept = {found.prefix_cache(each.model) for each in found.complete}
    return () if {True, False} <= kept else (HOW,)


def _gains(found: Found, of: Evaluation) -> dict[str, Value]:
    """How many times as long it takes without the cache, on the same questions."""
    other = found.uncached(of.model)
    without = None
    if other is not None:
        without = found.of(of.config.model_copy(update={"model": other}))
    if without is None or not without.runs:
        why = "only beside the same without prefix caching"
        return {"prefill_gain": missing(why), "call_gain": missing(why)}
    return {
        "prefill_gain": _gain(without, of, _prefill_s, STREAMED),
        "call_gain": _gain(without, of, _call_s, "no calls were answered"),
    }


def _gain(
    without: Evaluation, of: Evaluation, seconds: Callable[[Evaluation], Amounts], why: str
) -> Value:
    both = {run.example_id for run in without.runs} & {run.example_id for run in of.runs}

    def per_call(each: Evaluation) -> tuple[Amounts, Amounts]:
        amounts = dict(zip((run.example_id for run in each.runs), seconds(each), strict=True))
        calls = {run.example_id: len(_answered(run)) for run in each.runs}
        names = sorted(both)
        return [amounts[name] for name in names], [calls[name] for name in names]

    return estimate(
        [*per_call(without), *per_call(of)],
        lambda a, m, b, n: np.divide(a.sum(-1) / m.sum(-1), b.sum(-1) / n.sum(-1)),
        why=why,
    )


def _answered(run: ExampleRun) -> list[Span]:
    return [span for span in run.spans if span.kind == "llm" and span.error is None]


def _prefill_s(of: Evaluation) -> Amounts:
    return [_sum([span.ttft_s for span in _answered(run)]) for run in of.runs]


def _decode_s(of: Evaluation) -> Amounts:
    return [
        _sum(
            [
                None if span.ttft_s is None else span.end_s - span.start_s - span.ttft_s
                for span in _answered(run)
            ]
        )
        for run in of.runs
    ]


def _call_s(of: Evaluation) -> Amounts:
    return [sum(span.end_s - span.start_s for span in _answered(run)) for run in of.runs]


def _sum(amounts: Amounts) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None
