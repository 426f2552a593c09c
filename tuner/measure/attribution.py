"""Who used the joules of a window: its energy curve, split over queries by the spans that were in flight.

Apart from the meters, which know nothing of queries, and from latency, which needs no energy.

At every moment the power goes to the model calls in flight, in equal shares or in proportion to their work
(uncached prompt tokens + written tokens). While there are none, it goes to the queries that wait for tools, in
equal shares however many tools a query waits for; and while nobody waits, to nobody: that is idle. So
Σ queries + idle = gross, which the tests hold to 1e-9.

Between two neighbouring edges of spans or samples nothing changes. With W the weight in flight there, a span of
weight w gets w·(G(end) − G(start)) of the running integral G = ∫dE/W: one sort and one pass over all edges.
"""

from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from itertools import islice
from typing import Literal

import numpy as np
import numpy.typing as npt

from tuner.measure.latency import lacks_spans
from tuner.records import ExampleRun
from tuner.records import as_made
from workflows.trace import Span

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Shares = Literal["spans", "tokens"]


@dataclass(frozen=True, slots=True)
class QueryEnergy:
    """What one query used of its window's energy: while it was being computed, and while it waited for tools."""

    example_id: str
    repeat: int
    llm_j: float
    tool_j: float
    """Its share of the times when it waited for tools and no query was being computed."""
    checkpoints_j: tuple[float | None, ...]
    """Joules of this query up to each of its checkpoints; None for one within what it reused."""
    reused_j: float = 0.0
    """Used before, in the window of the run that it went on from."""

    @property
    def joules(self) -> float:
        """All that it used."""
        return self.reused_j + self.llm_j + self.tool_j


@dataclass(frozen=True, slots=True)
class Attribution:
    """A window's gross joules by query, in the order of the runs; Σ queries + idle_j = gross_j, less what queries reused."""

    queries: tuple[QueryEnergy, ...]
    idle_j: float
    """Used while no call of a model or of a tool was in flight."""
    gross_j: float
    by: Shares
    """How calls in flight at once shared: equally, or by tokens, if that was asked for and every count is known."""


def attribute(runs: Sequence[ExampleRun], *, by: Shares = "spans") -> Attribution | None:
    """The joules of one window, which these are all the runs of, by query.

    The curve begins with 0 J at the window's opening and is straight between samples. None where this cannot
    be known: no runs, a run without samples, joules or spans, a count that went back. Raises ValueError for
    runs of several windows, whose times have different origins.
    """
    if len({run.window for run in runs}) > 1:
        raise ValueError("runs of several windows are attributed window by window")
    runs = as_made(runs)
    curve = _curve(runs)
    if curve is None or any(lacks_spans(run) for run in runs):
        return None
    t_s, joules = curve
    counted = all(None not in (run.tokens_in, run.tokens_out, run.tokens_cached) for run in runs)
    used: Shares = "tokens" if by == "tokens" and counted else "spans"
    cuts = [(q, run.started_s + c.elapsed_s) for q, run in enumerate(runs) for c in run.checkpoints]
    split = split_energy(
        t_s,
        joules,
        llm=_calls(runs, "llm", by=used),
        tools=_calls(runs, "tool", by="spans"),
        queries=len(runs),
        cut_query=np.array([q for q, _ in cuts], dtype=np.int64),
        cut_s=np.array([time_s for _, time_s in cuts], dtype=np.float64),
    )
    return Attribution(
        queries=tuple(_add_up(runs, split)),
        idle_j=split.idle_j,
        gross_j=float(joules[-1]),
        by=used,
    )


def attribute_all(
    runs: Iterable[ExampleRun], *, by: Shares = "spans"
) -> dict[tuple[str, int], QueryEnergy]:
    """What each query used, by (example_id, repeat), over any number of windows; without those not known."""
    windows = defaultdict(list)
    for run in runs:
        windows[run.window].append(run)
    known = [attribute(window, by=by) for window in windows.values()]
    return {(q.example_id, q.repeat): q for window in known if window for q in window.queries}


@dataclass(frozen=True, slots=True)
class Stage:
    """A stretch of one run in which the same of its calls were in flight; times since the run's start, joules its own."""

    start_s: float
    end_s: float
    llm_j: float
    tool_j: float
    """Used while it waited for tools and no query was being computed."""


def stages(runs: Sequence[ExampleRun]) -> dict[tuple[str, int], tuple[Stage, ...]]:
    """Each run of one window cut at every edge of its new calls, by (example_id, repeat); none where that cannot be known.

    What a stage used adds up to what `attribute` says of its query, less what that had reused.
    """
    runs = as_made(runs)
    curve = _curve(runs)
    if curve is None or any(lacks_spans(run) for run in runs):
        return {}
    edges = [
        sorted({edge for span in run.new_spans for edge in (span.start_s, span.end_s)})
        for run in runs
    ]
    cuts = [(q, run.started_s + edge) for q, run in enumerate(runs) for edge in edges[q]]
    split = split_energy(
        *curve,
        llm=_calls(runs, "llm", by="spans"),
        tools=_calls(runs, "tool", by="spans"),
        queries=len(runs),
        cut_query=np.array([q for q, _ in cuts], dtype=np.int64),
        cut_s=np.array([time_s for _, time_s in cuts], dtype=np.float64),
    )
    joules = iter(zip(split.llm_j.tolist(), split.tool_j.tolist(), strict=True))
    found = {}
    for run, cut in zip(runs, edges, strict=True):
        own = list(islice(joules, len(cut) + 1))[1:]  # nothing is in flight before the first edge
        ends = zip(cut, cut[1:], own, strict=False)
        found[run.example_id, run.repeat] = tuple(Stage(a, b, *used) for a, b, used in ends)
    return found


def attribute_calls(
    runs: Iterable[ExampleRun],
) -> dict[tuple[str, int], tuple[float | None, ...]]:
    """What each call used, by (example_id, repeat) and in the order of the run's spans, over any number of windows.

    As `attribute` splits a window, so that the calls of a query add up to it. Tools that a query waited for at once share
    by their lengths. None for a call of the run that was gone on from; without queries of which it is not known.
    """
    windows = defaultdict(list)
    for run in runs:
        windows[run.window].append(run)
    found: dict[tuple[str, int], tuple[float | None, ...]] = {}
    for window in map(as_made, windows.values()):
        curve = _curve(window)
        if curve is not None and not any(lacks_spans(run) for run in window):
            found |= _by_call(window, curve)
    return found


def _by_call(
    runs: Sequence[ExampleRun], curve: tuple[Floats, Floats]
) -> dict[tuple[str, int], tuple[float | None, ...]]:
    own = [set(map(id, run.new_spans)) for run in runs]
    places = [
        (q, n)
        for q, run in enumerate(runs)
        for n in range(len(run.spans))
        if id(run.spans[n]) in own[q]
    ]

    def times(place: tuple[int, int]) -> tuple[float, float]:
        span, origin_s = runs[place[0]].spans[place[1]], runs[place[0]].started_s
        return origin_s + span.start_s, origin_s + span.end_s

    def calls(groups: Sequence[Sequence[tuple[int, int]]]) -> Calls:
        """Each group as the calls of a query of its own."""
        flat = [(number, *times(place)) for number, group in enumerate(groups) for place in group]
        return Calls(
            query=np.array([number for number, _, _ in flat], dtype=np.int64),
            start_s=np.array([start_s for _, start_s, _ in flat], dtype=np.float64),
            end_s=np.array([end_s for _, _, end_s in flat], dtype=np.float64),
            weight=np.ones(len(flat), dtype=np.int64),
        )

    of_kind = {
        kind: [place for place in places if runs[place[0]].spans[place[1]].kind == kind]
        for kind in ("llm", "tool")
    }
    waits: list[list[tuple[int, int]]] = []
    reach_s = -np.inf
    for place in sorted(of_kind["tool"], key=lambda place: (place[0], times(place)[0])):
        start_s, end_s = times(place)
        if waits and waits[-1][0][0] == place[0] and start_s <= reach_s:
            waits[-1].append(place)
            reach_s = max(reach_s, end_s)
        else:
            waits.append([place])
            reach_s = end_s
    none = np.zeros(0, dtype=np.int64)
    split = split_energy(
        *curve,
        llm=calls([[place] for place in of_kind["llm"]]),
        tools=calls(waits),
        queries=max(len(of_kind["llm"]), len(waits)),
        cut_query=none,
        cut_s=none.astype(np.float64),
    )
    joules = dict(zip(of_kind["llm"], split.llm_j.tolist(), strict=False))
    for wait, used_j in zip(waits, split.tool_j.tolist(), strict=False):
        lengths_s = [times(place)[1] - times(place)[0] for place in wait]
        whole_s = sum(lengths_s)
        for place, length_s in zip(wait, lengths_s, strict=True):
            joules[place] = used_j * (length_s / whole_s if whole_s else 1 / len(wait))
    return {
        (run.example_id, run.repeat): tuple(joules.get((q, n)) for n in range(len(run.spans)))
        for q, run in enumerate(runs)
    }


def _curve(runs: Sequence[ExampleRun]) -> tuple[Floats, Floats] | None:
    """Times that ascend, and the joules so far."""
    if not runs or any(run.energy_j is None or not run.samples for run in runs):
        return None
    samples = [sample for run in runs for sample in run.samples if sample[0] > 0]
    points = np.array([(0.0, 0.0), *samples])
    points = points[np.lexsort((points[:, 1], points[:, 0]))]
    is_last = np.append(points[1:, 0] > points[:-1, 0], True)  # the highest of several at one time
    t_s, joules = points[is_last].T
    return None if len(t_s) < 2 or np.any(np.diff(joules) < 0) else (t_s, joules)


def _add_up(runs: Sequence[ExampleRun], split: "Split") -> Iterable[QueryEnergy]:
    """Stages of a query added up in the order of time, so that no checkpoint exceeds the next or the whole."""
    llm_j, tool_j = iter(split.llm_j.tolist()), iter(split.tool_j.tolist())
    for run in runs:
        stages = len(run.checkpoints) + 1
        llm = list(accumulate(islice(llm_j, stages)))
        tool = list(accumulate(islice(tool_j, stages)))
        before = run.reused
        so_far = [
            None if 0 < before.latency_s > checkpoint.elapsed_s else before.energy_j + a + b
            for checkpoint, a, b in zip(run.checkpoints, llm, tool, strict=False)
        ]
        yield QueryEnergy(
            run.example_id, run.repeat, llm[-1], tool[-1], tuple(so_far), before.energy_j
        )


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls as columns: whose they are (queries count from 0), when they were in flight, and their weight, ≥ 1."""

    query: Ints
    start_s: Floats
    end_s: Floats
    weight: Ints
    """Share of a model call among those in flight with it; of no matter for calls of tools."""


def _calls(runs: Sequence[ExampleRun], kind: Literal["llm", "tool"], *, by: Shares) -> Calls:
    rows = [(q, run, s) for q, run in enumerate(runs) for s in run.new_spans if s.kind == kind]
    return Calls(
        query=np.array([q for q, _, _ in rows], dtype=np.int64),
        start_s=np.array([run.started_s + span.start_s for _, run, span in rows], dtype=np.float64),
        end_s=np.array([run.started_s + span.end_s for _, run, span in rows], dtype=np.float64),
        weight=np.array([_weight(span, by) for _, _, span in rows], dtype=np.int64),
    )


def _weight(span: Span, by: Shares) -> int:
    """What the server computed for a call, in tokens; at least 1, because a call in flight has its share."""
    if by == "spans":
        return 1
    return max(1, (span.tokens_in or 0) - (span.tokens_cached or 0) + (span.tokens_out or 0))


@dataclass(frozen=True, slots=True)
class Split:
    """Joules by stage. A query with k cuts has k + 1 stages: to its first cut, …, from its last; all in a row."""

    llm_j: Floats
    tool_j: Floats
    idle_j: float


def split_energy(
    t_s: Floats,
    joules: Floats,
    *,
    llm: Calls,
    tools: Calls,
    queries: int,
    cut_query: Ints,
    cut_s: Floats,
) -> Split:
    """Split the energy of a curve, (t_s, joules) with straight lines between, over the stages of queries.

    `cut_query` and `cut_s` are the cuts, by query and then by time; what lies outside the curve is cut off.
    Raises ValueError for times, joules or cuts out of order and for weights below 1.
    """
    if np.any(np.diff(t_s) <= 0) or np.any(np.diff(joules) < 0):
        raise ValueError("the times of a curve ascend, and its joules do not fall")
    if np.any(llm.weight < 1):
        raise ValueError("a call in flight weighs at least 1")
    columns = (t_s, llm.start_s, llm.end_s, tools.start_s, tools.end_s, cut_s)
    times_s = np.clip(np.concatenate(columns), t_s[0], t_s[-1])
    grid_s, ranks = np.unique(times_s, return_inverse=True)
    # From here on a time is its rank in the grid, an integer, and comparing times is exact.
    ends = np.cumsum([len(column) for column in columns])
    _, llm_start, llm_end, tool_start, tool_end, cut = np.split(ranks, ends[:-1])
    size = len(grid_s)
    cut_key = cut_query * size + cut
    if np.any(np.diff(cut_key) < 0):
        raise ValueError("cuts ascend by query, then by time")

    # Interpolation may overshoot the next sample by a rounding, which would be negative energy.
    curve_j = np.minimum(np.interp(grid_s, t_s, joules), joules[np.searchsorted(t_s, grid_s)])
    parts_j = np.diff(curve_j)
    waits = _waits(tools.query, tool_start, tool_end, size)
    # Counts are integers, so that a sum that has come back to nothing is 0.
    weight = _in_flight(llm_start, llm_end, llm.weight, size)
    waiting = _in_flight(waits.start, waits.end, waits.weight, size)
    waiting[weight > 0] = 0

    def by_stage(calls: _Ranked, in_flight: Ints) -> Floats:
        per_weight = np.divide(parts_j, in_flight, out=np.zeros_like(parts_j), where=in_flight > 0)
        pieces = _cut(calls, cut, cut_key, size)
        shares_j = pieces.weight * _sums(per_weight, pieces.start, pieces.end)
        stages_j = np.zeros(queries + len(cut))
        np.add.at(stages_j, pieces.query, shares_j)
        return stages_j

    return Split(
        llm_j=by_stage(_Ranked(llm.query, llm_start, llm_end, llm.weight), weight),
        tool_j=by_stage(waits, waiting),
        idle_j=float(parts_j[(weight == 0) & (waiting == 0)].sum()),
    )


@dataclass(frozen=True, slots=True)
class _Ranked:
    """Calls whose times are ranks in the grid."""

    query: Ints
    start: Ints
    end: Ints
    weight: Ints


def _waits(query: Ints, start: Ints, end: Ints, size: int) -> _Ranked:
    """When each query waits for tools: the union of its calls, as intervals that do not touch."""
    order = np.lexsort((start, query))
    origin = query[order] * size  # one axis for all, a query after the other: one pass does
    starts, reach = origin + start[order], np.maximum.accumulate(origin + end[order])
    is_first = np.ones(len(order), dtype=np.bool_)
    is_first[1:] = starts[1:] > reach[:-1]
    is_last = np.ones(len(order), dtype=np.bool_)
    is_last[:-1] = is_first[1:]
    begins, finishes = starts[is_first], reach[is_last]
    return _Ranked(begins // size, begins % size, finishes % size, np.ones_like(begins))


def _in_flight(start: Ints, end: Ints, weight: Ints, size: int) -> Ints:
    """The weight in flight between each two neighbours in the grid."""
    steps = np.zeros(size, dtype=np.int64)
    np.add.at(steps, start, weight)
    np.subtract.at(steps, end, weight)
    return np.cumsum(steps)[:-1]


def _cut(calls: _Ranked, cut: Ints, cut_key: Ints, size: int) -> _Ranked:
    """The calls in pieces, cut where a cut of their query lies inside them; `query` becomes the stage."""
    origin = calls.query * size
    first = np.searchsorted(cut_key, origin + calls.start, side="right")
    inside = np.maximum(np.searchsorted(cut_key, origin + calls.end) - first, 0)
    call = np.repeat(np.arange(len(first)), inside + 1)
    piece = np.arange(len(call)) - np.repeat(np.cumsum(inside + 1) - inside - 1, inside + 1)
    start, end, next_cut = calls.start[call], calls.end[call], first[call] + piece
    follows, precedes = piece > 0, piece < inside[call]
    start[follows] = cut[next_cut[follows] - 1]
    end[precedes] = cut[next_cut[precedes]]
    # As many stages end before a piece's as there are cuts before it, and one more for each query before.
    return _Ranked(next_cut + calls.query[call], start, end, calls.weight[call])


def _sums(parts: Floats, start: Ints, end: Ints) -> Floats:
    """The sum of each parts[start:end], as exact as if it had been added up alone.

    A difference of running sums loses what is small beside all that came before, and a heavy call multiplies
    the loss. So the rounding of every addition is kept (TwoSum: Knuth, The Art of Computer Programming 2,
    section 4.2.2, theorem B) and added back to the differences.
    """
    running = np.concatenate(([0.0], np.cumsum(parts)))
    before, after = running[:-1], running[1:]
    added = after - before
    lost = np.concatenate(([0.0], np.cumsum((before - (after - added)) + (parts - added))))
    sums: Floats = (running[end] - running[start]) + (lost[end] - lost[start])
    return sums.clip(min=0.0)  # parts are not negative; what is left of rounding may be
