"""The knee of servers whose capacity is known: in simulated time, where a sweep takes none, and once in real time."""

import asyncio
import heapq
import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

import tuner
from tuner.errors import UserError
from tuner.evaluate import BROKEN_OFF
from tuner.evaluate import evaluate
from tuner.knee import RESOLUTION
from tuner.knee import SLOWDOWN
from tuner.knee import LoadPoint
from tuner.knee import Run
from tuner.knee import find_knee
from tuner.knee import judge
from tuner.knee import load_point
from tuner.knee import sweep
from tuner.load import Asked
from tuner.load import ClientWatch
from tuner.load import Load
from tuner.load import arrivals_s
from tuner.load import report
from tuner.measure import NoMeter
from tuner.records import ExampleRun
from tuner.records import PassRecord
from tuner.records import Reading
from tuner.tasks import Example
from tuner.tasks import Task
from workflows import AgentConfig
from workflows import AgentPack
from workflows import Request
from workflows import Span
from workflows import Trace
from workflows import build
from workflows.llm import OnText

METER = Reading(7.2, "counting", "nothing real")


def run_of(
    number: int, latency_s: float, *, error: str | None = None, edge: bool = False
) -> ExampleRun:
    return ExampleRun(
        example_id=f"e{number}",
        repeat=0,
        answer="yes",
        score=1.0,
        error=error,
        latency_s=latency_s,
        energy=METER,
        tokens_in=1,
        tokens_out=1,
        tokens_cached=0,
        cost_usd=None,
        llm_calls=1,
        tool_calls=0,
        llm_s=latency_s,
        tool_only_s=0.0,
        started_s=0.0,
        checkpoints=(),
        spans=(),
        edge=edge,
    )


def simulated(
    places: int,
    *,
    count: int,
    service_s: float = 1.0,
    refuses_beyond: float = math.inf,
    client_per_s: float = math.inf,
    loads: list[Load] | None = None,
) -> Run:
    """An M/D/c server in simulated time: questions are answered as they came, `places` at once, in the same time each.

    Beyond a queue of `refuses_beyond` it fails them at once; a client that asks `client_per_s` at most asks the
    others late.
    """

    async def run(load: Load) -> tuple[Sequence[ExampleRun], PassRecord]:
        if loads is not None:
            loads.append(load)
        assert load.rate is not None
        due = arrivals_s(load.rate, count, warm_up=load.warm_up, cool_down=load.cool_down)
        free, begins_s, client_s = [0.0] * places, [], -math.inf
        asked, failed = [], []
        for number, due_s in enumerate(due):
            client_s = max(due_s, client_s + 1 / client_per_s)
            waiting = sum(begin_s > client_s for begin_s in begins_s[-1000:])
            failed.append(waiting > refuses_beyond)
            if failed[-1]:
                ended_s = client_s + 0.01
            else:
                begin_s = max(client_s, heapq.heappop(free))
                begins_s.append(begin_s)
                ended_s = begin_s + service_s
                heapq.heappush(free, ended_s)
            edge = not load.warm_up <= number < load.warm_up + count
            asked.append(Asked(due_s, client_s, ended_s, 1, edge=edge))
        over_s = max(each.ended_s for each in asked if not each.edge)
        kept = [
            (replace(each, ended_s=min(each.ended_s, over_s), answered=each.ended_s <= over_s), bad)
            for each, bad in zip(asked, failed, strict=True)
            if each.arrived_s <= over_s
        ]
        runs = [
            run_of(
                number,
                each.ended_s - each.arrived_s,
                error="refused" if bad else None if each.answered else BROKEN_OFF,
                edge=each.edge,
            )
            for number, (each, bad) in enumerate(kept)
        ]
        found = report(load, [each for each, _ in kept], ClientWatch())
        servers = {"m": {"queue_time_mean_s": 0.25}, "other": {"queue_time_mean_s": None}}
        return runs, PassRecord(0, METER, None, servers, {}, asdict(found))

    return run


@pytest.mark.parametrize("service_s", [0.05, 8.0])
@pytest.mark.parametrize(
    ("places", "count", "low", "high"),
    [(1, 200, 0.6, 1.0), (4, 200, 0.7, 1.05), (16, 200, 0.8, 1.1), (64, 400, 0.8, 1.1)],
)
async def test_the_knee_lies_near_the_capacity(
    places: int, count: int, low: float, high: float, service_s: float
) -> None:
    found = await sweep(simulated(places, count=count, service_s=service_s), latency_s=service_s)
    capacity = places / service_s
    assert found.knee is not None
    assert low * capacity <= found.knee.rate_per_s <= high * capacity
    lower, upper = found.knee.bracket_per_s
    assert upper is not None
    assert lower < upper <= lower * (1 + RESOLUTION) * 1.001
    lowest = found.points[0]
    assert lowest.rate == pytest.approx(0.5 / service_s)
    assert found.knee.p95_s is not None
    assert lowest.p95_s is not None
    assert found.knee.p95_s <= SLOWDOWN * lowest.p95_s
    rates = [point.rate for point in found.points]
    assert rates == sorted(rates)
    assert len(rates) <= 4 + math.log2(places * 2) + 1
    for point, (verdict, why) in zip(found.points, found.verdicts, strict=True):
        assert verdict == ("sustained" if point.rate <= found.knee.last_good.rate else "saturated")
        assert bool(why) == (verdict != "sustained")


async def test_a_knee_says_how_many_questions_would_place_it() -> None:
    few = (await sweep(simulated(64, count=50), latency_s=1.0)).knee
    enough = (await sweep(simulated(64, count=400), latency_s=1.0)).knee
    assert few is not None
    assert enough is not None
    assert few.last_good.n < few.enough
    assert enough.enough <= 400
    assert few.rate_per_s > 1.2 * 64
    assert enough.rate_per_s < 1.1 * 64
    alone = (await sweep(simulated(1, count=100), latency_s=1.0)).knee
    assert alone is not None
    assert alone.enough == 100


async def test_a_finer_resolution_takes_more_points_and_gives_a_narrower_bracket() -> None:
    run = simulated(8, count=200)
    coarse = await sweep(run, latency_s=1.0, resolution=0.3)
    fine = await sweep(run, latency_s=1.0, resolution=0.02)
    assert len(fine.points) > len(coarse.points)
    assert coarse.knee is not None
    assert fine.knee is not None
    low, high = coarse.knee.bracket_per_s
    assert high is not None
    assert low <= fine.knee.rate_per_s <= high


async def test_the_server_is_filled_before_and_kept_full_after() -> None:
    loads: list[Load] = []
    await sweep(simulated(8, count=200, loads=loads), latency_s=1.0)
    for load in loads:
        assert load.rate is not None
        assert load.warm_up >= 2 * load.rate * 1.0
        assert load.cool_down >= SLOWDOWN * load.rate * 1.0


async def test_the_python_in_the_guide_finds_a_knee() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "load.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]

    class Executor:
        """What the guide calls `executor`: four places, 0.1 s a question."""

        def under(self, load: Load) -> "Executor":
            self.load = load
            return self

        async def run(self, _config, _examples, record, *, window):
            runs, found = await simulated(4, count=100, service_s=0.1)(self.load)
            for run in runs:
                record(run)
            return (found,)

    last = code.strip().splitlines()[-1]
    body = textwrap.indent(code.replace(last, f"return ({last})"), "    ")
    names = {"tuner": tuner, "executor": Executor(), "config": None, "alone_s": 0.1}
    names["task"] = SimpleNamespace(search=())
    exec(f"async def guide():\n{body}", names)
    rate_per_s, p95_s, bracket_per_s = await names["guide"]()
    assert 28 <= rate_per_s <= 42
    assert p95_s >= 0.1
    assert bracket_per_s[0] == rate_per_s


async def test_a_sweep_that_starts_too_high_goes_down_first() -> None:
    found = await sweep(simulated(1, count=100, service_s=8.0), latency_s=1.0)
    assert found.knee is not None
    assert 0.6 / 8 <= found.knee.rate_per_s <= 1.05 / 8


async def test_a_server_that_refuses_what_is_too_much_is_saturated_though_fast() -> None:
    found = await sweep(simulated(4, count=100, refuses_beyond=3), latency_s=1.0)
    assert found.knee is not None
    assert found.knee.rate_per_s <= 5
    assert any("failed" in why for _, why in found.verdicts)
    assert found.knee.last_good.failed <= 5


async def test_a_limit_of_the_client_is_never_the_knee() -> None:
    """A server without end: what gives way is whoever asks."""
    found = await sweep(simulated(10_000, count=60, client_per_s=10.0), latency_s=1.0)
    assert found.knee is not None
    assert found.knee.bracket_per_s[1] is None
    assert found.knee.rate_per_s <= 10
    limited = [v for v in found.verdicts if v[0] == "client-limited"]
    assert limited
    assert all("were asked" in why for _, why in limited)
    assert not any(verdict == "saturated" for verdict, _ in found.verdicts)


async def test_a_client_that_cannot_even_ask_slowly_finds_no_knee() -> None:
    found = await sweep(simulated(4, count=30, client_per_s=0.001), latency_s=1.0)
    assert found.knee is None
    assert {verdict for verdict, _ in found.verdicts} == {"client-limited"}


async def test_too_few_questions_for_a_p95_are_refused() -> None:
    with pytest.raises(UserError, match="19 questions have none") as caught:
        await sweep(simulated(4, count=19), latency_s=1.0)
    assert caught.value.hint is not None
    assert "20 or more" in caught.value.hint


# The arithmetic


def point(rate: float, p95_s: float | None = 1.0, **changes: object) -> LoadPoint:
    made = LoadPoint(
        rate=rate,
        n=100,
        failed=0,
        offered_per_s=rate,
        achieved_per_s=rate,
        under_way_mean=rate,
        span_s=100 / rate,
        mean_s=1.0,
        p50_s=1.0,
        p95_s=p95_s,
        p99_s=None,
        energy_wh=None,
        queue_s=None,
        client_limited=False,
        reason=None,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_what_makes_a_point_bad() -> None:
    points = [
        point(1),
        point(2, 3.0),
        point(3, 3.1),
        point(4, failed=6),
        point(5, achieved_per_s=4.6, under_way_mean=9.0, p50_s=1.3),
        point(6, achieved_per_s=4.6, under_way_mean=9.0, p50_s=1.3),
        point(7, 9.0, client_limited=True, reason="busy"),
    ]
    verdicts = judge(points)
    assert [verdict for verdict, _ in verdicts] == [
        "sustained", "sustained", "saturated", "saturated", "saturated", "saturated", "client-limited",
    ]  # fmt: skip
    assert [why for _, why in verdicts[2:]] == [
        "p95 is 3.1 times that at the lowest rate",
        "6 of 100 questions failed",
        "8 of 100 questions were left over",
        "23 of 100 questions were left over",
        "busy",
    ]


def test_what_chance_leaves_over_is_no_saturation() -> None:
    """With 64 under way on average, 15 more at the end than at the start are nothing unusual."""
    full = point(10, under_way_mean=64.0, p50_s=1.3)
    (_, verdict) = judge([point(1), replace(full, achieved_per_s=8.5)])
    assert verdict[0] == "sustained"
    (_, verdict) = judge([point(1), replace(full, achieved_per_s=8.0)])
    assert verdict[0] == "saturated"


def test_a_server_as_fast_as_an_idle_one_has_no_backlog() -> None:
    """Three of twenty under way at the end, by chance, and none at the start."""
    (_, verdict) = judge(
        [point(1), point(2, n=20, achieved_per_s=1.7, under_way_mean=0.5, span_s=10.0)]
    )
    assert verdict[0] == "sustained"


def test_a_good_point_above_a_bad_one_does_not_count() -> None:
    knee = find_knee([point(1), point(4, 9.0), point(2), point(8)])
    assert knee is not None
    assert (knee.last_good.rate, knee.bracket_per_s) == (2, (2, 4))


def test_a_point_of_the_clients_limit_decides_nothing() -> None:
    limited = point(2, 50.0, client_limited=True, reason="busy")
    knee = find_knee([point(1), limited, point(4, 9.0)])
    assert knee is not None
    assert knee.bracket_per_s == (1, 4)
    knee = find_knee([point(1), limited])
    assert knee is not None
    assert knee.bracket_per_s == (1, None)
    assert find_knee([limited]) is None


def test_no_knee_without_points_or_without_a_p95() -> None:
    assert find_knee([]) is None
    with pytest.raises(ValueError, match="20 questions or more"):
        find_knee([point(1), point(2, None)])


RATES = st.lists(st.integers(1, 50), min_size=1, max_size=12, unique=True)


@given(RATES, st.data())
@settings(deadline=None)
def test_the_knee_does_not_depend_on_the_order_and_lies_below_all_that_is_bad(
    rates: list[int], data: st.DataObject
) -> None:
    points = [
        point(
            rate,
            data.draw(st.sampled_from([1.0, 2.0, 9.0])),
            client_limited=data.draw(st.booleans()),
        )
        for rate in rates
    ]
    knee = find_knee(points)
    assert find_knee(data.draw(st.permutations(points))) == knee
    verdicts = dict(zip(rates, (verdict for verdict, _ in judge(points)), strict=True))
    bad = [rate for rate, verdict in verdicts.items() if verdict == "saturated"]
    good = [
        r for r, verdict in verdicts.items() if verdict == "sustained" and r < min(bad, default=99)
    ]
    assert (None if knee is None else knee.last_good.rate) == max(good, default=None)
    if knee is not None:
        assert (None if knee.first_bad is None else knee.first_bad.rate) == min(bad, default=None)


async def test_a_point_says_what_was_measured_and_no_more() -> None:
    load = Load(rate=2.0, warm_up=10, cool_down=10)
    found = load_point(load, *await simulated(4, count=99)(load))
    assert (found.n, found.failed, found.rate) == (99, 0, 2.0)
    assert found.p95_s is not None
    assert found.p50_s <= found.p95_s
    assert found.p99_s is None
    assert found.queue_s == 0.25
    assert found.energy_wh == pytest.approx(0.002)
    assert load_point(load, *await simulated(4, count=100)(load)).p99_s is not None
    runs, record = await simulated(4, count=5)(load)
    unmetered = [replace(run, energy=Reading(None, "none", "nothing", "why")) for run in runs]
    bare = load_point(load, unmetered, replace(record, servers={"m": {}}))
    assert (bare.energy_wh, bare.queue_s, bare.p95_s) == (None, None, None)
    with pytest.raises(ValueError, match="open load"):
        load_point(Load(), runs, record)
    with pytest.raises(ValueError, match="measured under it"):
        load_point(load, [run for run in runs if run.edge], record)


# In real time


class Server:
    """A model that answers so many calls at once, each in the same time."""

    def __init__(self, places: int, service_s: float) -> None:
        self._places = asyncio.Semaphore(places)
        self._service_s = service_s

    async def complete(self, request: Request, trace: Trace, on_text: OnText | None = None) -> str:
        start_s = trace.now_s()
        async with self._places:
            await asyncio.sleep(self._service_s)
        trace.add(Span("llm", "m", start_s, trace.now_s(), "", "yes"))
        return "yes"


@pytest.mark.slow
async def test_a_sweep_of_a_real_event_loop_finds_the_capacity_of_its_server() -> None:
    service_s, places, count = 0.03, 6, 20
    examples = tuple(Example(f"e{n}", f"Question {n}?", ("yes",)) for n in range(count))

    async def score(example: Example, answer: str) -> float:
        return 1.0

    task = Task("test", AgentPack(instruction="Answer."), examples, (), score)
    llm = Server(places, service_s)
    agent = build(AgentConfig(workflow="direct", model="m"), llms={"m": llm}, pack=task.pack)

    async def run(load: Load) -> tuple[Sequence[ExampleRun], PassRecord]:
        runs: list[ExampleRun] = []
        sitting = await evaluate(
            agent, examples, task=task, meter=NoMeter(), load=load, record=runs.append
        )
        return runs, PassRecord(0, sitting.energy, None, {}, {}, asdict(sitting.load))

    before = asyncio.all_tasks()
    found = await sweep(run, latency_s=service_s, resolution=0.5)
    assert asyncio.all_tasks() == before
    capacity = places / service_s
    assert found.knee is not None
    assert [point.n for point in found.points] == [count] * len(found.points)
    low, high = found.knee.bracket_per_s
    if high is None:  # on a machine too busy to ask in time, which must then be said
        assert any(verdict == "client-limited" for verdict, _ in found.verdicts)
    else:
        assert 0.4 * capacity <= low <= 1.5 * capacity
        assert high >= 0.9 * capacity
