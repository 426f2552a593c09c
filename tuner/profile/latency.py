"""Figures 5, 6 and 7: where a request's time goes, what the device does meanwhile, and how latency is spread."""

from tuner.measure.latency import breakdown
from tuner.measure.latency import device_time
from tuner.profile import text
from tuner.profile.estimate import Value
from tuner.profile.estimate import missing
from tuner.profile.estimate import quantile
from tuner.profile.estimate import ratio
from tuner.profile.evaluation import Evaluation
from tuner.profile.found import Found
from tuner.profile.found import latency
from tuner.profile.table import LATENCY
from tuner.profile.table import Chart
from tuner.profile.table import Column
from tuner.profile.table import Table
from tuner.profile.table import rows

PARTS = {
    "llm_share": "llm_only_s",
    "overlap_share": "overlap_s",
    "tool_share": "tool_only_s",
    "other_share": "other_s",
}
QUANTILES = {
    "latency_p5_s": 0.05,
    "latency_p25_s": 0.25,
    "latency_p50_s": 0.5,
    "latency_p75_s": 0.75,
    "latency_p95_s": 0.95,
    "latency_p99_s": 0.99,
}


def parts(found: Found) -> Table:
    """Figure 5: shares of latency in model calls only, in both at once, in tool calls only, and in neither."""

    def values(of: Evaluation) -> dict[str, Value]:
        parts = [breakdown(run) for run in of.runs]
        return {
            "latency_mean_s": latency(of),
            **{
                name: ratio(
                    [None if part is None else getattr(part, field) for part in parts],
                    [run.latency_s for run in of.runs],
                    why="runs were kept without their spans",
                )
                for name, field in PARTS.items()
            },
        }

    columns = (
        LATENCY,
        Column("llm_share", "share", "model only"),
        Column("overlap_share", "share", "both at once"),
        Column("tool_share", "share", "tools only"),
        Column("other_share", "share", "neither"),
    )
    return Table(
        figure="5",
        title="latency per request, and where it goes",
        columns=columns,
        rows=rows(found.measured, ("latency_mean_s", *PARTS), values),
        charts=(Chart("stack", tuple(PARTS)), Chart("bars", ("latency_mean_s",))),
    )


def device(found: Found) -> Table:
    """Figure 6: shares of the pass in which the server read prompts, wrote replies, and had nothing to do."""
    names = ("prefill_share", "decode_share", "idle_share")

    def values(of: Evaluation) -> dict[str, Value]:
        time = device_time(of.runs)
        if time is None:
            return dict.fromkeys(names, missing("runs were kept without their spans"))
        return {
            name: missing("replies were not streamed")
            if part_s is None
            else Value(part_s / time.window_s)
            for name, part_s in zip(
                names, (time.prefill_s, time.decode_s, time.idle_s), strict=True
            )
        }

    load = found.study.spec.load
    return Table(
        figure="6",
        title="what the device does, all requests together",
        columns=(
            Column("prefill_share", "share", "prefill"),
            Column("decode_share", "share", "decode"),
            Column("idle_share", "share", "idle"),
        ),
        rows=rows(found.measured, names, values),
        charts=(Chart("stack", names),),
        notes=(
            "Prefill is time with calls in flight of which none has begun to write, waiting in the "
            "server's queue included; one pass each, so no interval.",
            f"Load: {text.load(load.model_dump())}.",
        ),
    )


def distribution(found: Found) -> Table:
    """Figure 7: quantiles of latency, those that so few requests can tell."""
    return Table(
        figure="7",
        title="how latency is spread",
        columns=tuple(Column(name, "s", f"p{100 * q:.0f}") for name, q in QUANTILES.items()),
        rows=rows(
            found.measured,
            tuple(QUANTILES),
            lambda of: {
                name: quantile([run.latency_s for run in of.runs], q)
                for name, q in QUANTILES.items()
            },
        ),
        charts=(Chart("spread", tuple(QUANTILES)),),
    )
