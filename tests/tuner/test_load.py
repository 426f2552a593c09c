"""Loads against a real event loop: what arrives when, what is kept full, what is broken off, and who was the limit."""

import asyncio
import importlib.util
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tuner.evaluate import BROKEN_OFF
from tuner.evaluate import Sitting
from tuner.evaluate import evaluate
from tuner.events import ExampleFinished
from tuner.load import Asked
from tuner.load import ClientWatch
from tuner.load import Lag
from tuner.load import Load
from tuner.load import arrivals_s
from tuner.load import report
from tuner.measure import NoMeter
from tuner.measure import Sample
from tuner.objectives import OBJECTIVES
from tuner.records import ExampleRun
from tuner.spec import LoadedStudy
from tuner.store import EDGE
from tuner.store import Store
from tuner.study import run_study
from tuner.tasks import SPLITS
from tuner.tasks import Example
from tuner.tasks import Task
from workflows import LLM
from workflows import AgentConfig
from workflows import AgentPack
from workflows import ChatClient
from workflows import ModelSettings
from workflows import Request
from workflows import ScriptedLLM
from workflows import Span
from workflows import Trace
from workflows import build
from workflows.llm import OnText
from workflows.llm import import_litellm

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "loopback.py"


def import_loopback() -> ModuleType:
    spec = importlib.util.spec_from_file_location("loopback", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["loopback"] = module
    spec.loader.exec_module(module)
    return module


PACK = AgentPack(instruction="Answer.")
SERVICE_S = 0.02


class Server:
    """A model that answers so many calls at once, each in the same time, and says how many are under way."""

    def __init__(self, places: int = 1000, service_s: float = SERVICE_S) -> None:
        self.under_way = 0
        self.asked: list[str] = []
        self.asked_s: list[float] = []
        self._service_s = service_s
        self._places = asyncio.Semaphore(places)

    async def complete(self, request: Request, trace: Trace, on_text: OnText | None = None) -> str:
        start_s = trace.now_s()
        self.asked.append(request.prompt)
        self.asked_s.append(time.perf_counter())
        self.under_way += 1
        error: str | None = "cancelled"
        try:
            async with self._places:
                await asyncio.sleep(self._service_s)
            error = None
            return "yes"
        finally:
            self.under_way -= 1
            span = Span("llm", "m", start_s, trace.now_s(), "", "" if error else "yes", error=error)
            trace.add(span)


class CountingMeter:
    """One joule more at every reading."""

    source = "counting"
    scope = "nothing real"
    tick_s = 0.0
    devices = ()

    def __init__(self) -> None:
        self.reads = 0

    def read(self) -> Sample:
        self.reads += 1
        return Sample(time.perf_counter(), float(self.reads))


def make_task(count: int) -> Task:
    examples = tuple(Example(f"e{n}", f"Question {n}?", ("yes",)) for n in range(count))

    async def score(example: Example, answer: str) -> float:
        return float(answer == "yes")

    return Task("test", PACK, examples, (), score)


async def ask(
    llm: LLM,
    load: Load,
    *,
    count: int = 8,
    first: int = 0,
    only: int | None = None,
    few_shot: int = 0,
    enough: int | None = None,
) -> tuple[list[ExampleRun], Sitting]:
    """The runs of `only` so many questions from the `first` on, or of fewer where so many answers are enough; and the sitting."""
    task = make_task(count)
    config = AgentConfig(workflow="direct", model="m", params={"few_shot": few_shot})
    runs: list[ExampleRun] = []
    sitting = await evaluate(
        build(config, llms={"m": llm}, pack=PACK),
        task.search[first:][:only],
        task=task,
        meter=CountingMeter(),
        load=load,
        record=runs.append,
        enough=lambda: enough is not None and sum(not run.edge for run in runs) >= enough,
    )
    return runs, sitting


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what the other end of a connection must notice first."""
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.01)


def parted(runs: list[ExampleRun]) -> tuple[list[ExampleRun], list[ExampleRun]]:
    """Measured and extra runs."""
    return [run for run in runs if not run.edge], [run for run in runs if run.edge]


# Arrivals


@pytest.mark.parametrize("seed", range(4))
def test_arrivals_are_a_poisson_process(seed: int) -> None:
    rate, count = 3.0, 20_000
    times = np.array(arrivals_s(rate, count, seed=seed))
    gaps = np.diff(times)
    assert gaps.mean() == pytest.approx(1 / rate, rel=4 / count**0.5)
    assert gaps.var() == pytest.approx(1 / rate**2, rel=4 * (8 / count) ** 0.5)
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 4 / count**0.5
    counts = np.histogram(times, np.arange(0, times[-1], 1.0))[0]
    assert counts.mean() == pytest.approx(counts.var(), rel=4 * (2 / len(counts)) ** 0.5)


@given(
    rate=st.floats(0.01, 1000),
    count=st.integers(1, 30),
    warm_up=st.integers(0, 9),
    cool_down=st.integers(0, 9),
    seed=st.integers(0, 3),
)
@settings(deadline=None)
def test_the_measured_arrive_alike_whatever_is_around_them(
    rate: float, count: int, warm_up: int, cool_down: int, seed: int
) -> None:
    times = arrivals_s(rate, count, warm_up=warm_up, cool_down=cool_down, seed=seed)
    assert times[0] == 0
    assert len(times) == warm_up + count + cool_down
    assert times == sorted(times)
    alone = np.array(arrivals_s(1.0, count, seed=seed))
    measured = np.array(times[warm_up : warm_up + count])
    np.testing.assert_allclose((measured - measured[0]) * rate, alone, rtol=1e-6, atol=1e-6)


async def test_questions_arrive_at_the_same_times_for_every_config() -> None:
    load = Load(rate=200.0, warm_up=3, cool_down=2)
    due = arrivals_s(200.0, 8, warm_up=3, cool_down=2)
    for few_shot, service_s in ((0, 0.001), (2, 0.03)):
        runs, sitting = await ask(Server(service_s=service_s), load, few_shot=few_shot)
        origin_s = min(run.started_s for run in runs)
        started = sorted(run.started_s - origin_s for run in runs)
        np.testing.assert_allclose(started, due[: len(started)], atol=1e-6)
        measured = [run.started_s for run in runs if not run.edge]
        assert sitting.load.span_s == pytest.approx(max(measured) - min(measured))
        assert sitting.load.offered_per_s == pytest.approx(7 / sitting.load.span_s)


async def test_latency_counts_from_arrival_also_when_the_client_asks_late() -> None:
    blocked_s, rate = 0.2, 50.0
    due = arrivals_s(rate, 4)
    assert 0.01 < due[1] < due[-1] < blocked_s / 2

    class Blocking(Server):
        async def complete(
            self, request: Request, trace: Trace, on_text: OnText | None = None
        ) -> str:
            if not self.asked:
                time.sleep(blocked_s)
            return await super().complete(request, trace, on_text)

    runs, sitting = await ask(Blocking(), Load(rate=rate), count=4)
    ordered = sorted(runs, key=lambda run: run.started_s)
    for run, due_s in zip(ordered[1:], due[1:], strict=True):
        (span,) = run.spans
        assert span.start_s >= blocked_s - due_s  # spans count from arrival as well
        assert span.start_s + SERVICE_S <= span.end_s <= run.latency_s
    assert sitting.load.start_lag_s is not None
    assert sitting.load.start_lag_s.max_s > blocked_s / 2
    assert sitting.load.client_limited
    assert "were asked" in (sitting.load.reason or "")


async def test_waiting_for_a_place_at_the_server_is_latency_and_no_limit_of_the_client() -> None:
    runs, _ = await ask(Server(places=1), Load(rate=10_000.0), count=6)
    latencies = sorted(run.latency_s for run in runs)
    for place, latency_s in enumerate(latencies, start=1):
        assert latency_s >= place * SERVICE_S - 0.005


# Warm-up and cool-down


@pytest.mark.parametrize("concurrency", [1, 3, 4])
async def test_a_closed_loop_keeps_so_many_under_way_from_first_to_last(concurrency: int) -> None:
    server = Server()
    seen: list[tuple[float, int]] = []

    async def look() -> None:
        while True:
            seen.append((time.perf_counter(), server.under_way))
            await asyncio.sleep(0.001)

    looking = asyncio.create_task(look())
    began_s = time.perf_counter()
    runs, sitting = await ask(server, Load(concurrency=concurrency, warm_up=5, cool_down=9))
    looking.cancel()
    measured, extras = parted(runs)
    opened_s = min(server.asked_s) - min(run.started_s for run in runs)
    start_s = opened_s + min(run.started_s for run in measured)
    end_s = opened_s + max(run.started_s + run.latency_s for run in measured)
    inside = [count for at_s, count in seen if start_s + 0.002 < at_s < end_s - 0.002]
    assert began_s < start_s < end_s
    assert inside
    assert set(inside) == {concurrency}
    assert sitting.load.under_way_mean == pytest.approx(concurrency, rel=0.1)
    assert len([run for run in extras if run.error is None]) >= 5


async def test_extra_questions_are_those_around_the_measured_ones_in_a_circle() -> None:
    server = Server(service_s=0.001)
    runs, _ = await ask(server, Load(concurrency=2, warm_up=10, cool_down=5), count=8, first=6)
    numbers = [int(re.findall(r"Question (\d+)", prompt)[-1]) for prompt in server.asked]
    assert numbers[:10] == [4, 5, 6, 7, 0, 1, 2, 3, 4, 5]
    assert numbers[10:13] == [6, 7, 0]
    assert [run.example_id for run in runs if not run.edge] == ["e6", "e7"]
    keys = Counter((run.example_id, run.repeat) for run in runs)
    assert max(keys.values()) == 1
    assert all(run.repeat >= 1 for run in runs if run.edge)
    assert all(run.repeat == 0 for run in runs if not run.edge)


@given(
    count=st.integers(0, 8),
    concurrency=st.none() | st.integers(1, 4),
    warm_up=st.integers(0, 5),
    cool_down=st.integers(0, 5),
)
@settings(deadline=None, max_examples=50)
def test_nothing_is_lost_and_the_stretches_add_up(
    count: int, concurrency: int | None, warm_up: int, cool_down: int
) -> None:
    load = Load(
        concurrency=concurrency,
        rate=None if concurrency else 5000.0,
        warm_up=warm_up,
        cool_down=cool_down,
    )
    runs, sitting = asyncio.run(ask(ScriptedLLM(lambda request: "yes"), load, count=count))
    measured, extras = parted(runs)
    assert sorted(run.example_id for run in measured) == [f"e{n}" for n in range(count)]
    assert len({(run.example_id, run.repeat) for run in runs}) == len(runs)
    assert len(extras) <= (warm_up + cool_down if count else 0)
    assert len(extras) >= (warm_up if count else 0)
    assert (sitting.load.questions, sitting.load.extras) == (len(measured), len(extras))
    stretches_j = sum(run.energy.gross_j or 0 for run in runs)
    # The closing read counts one itself, and the thread that samples may have read just before it.
    assert 1 <= (sitting.energy.gross_j or 0) - stretches_j <= 3
    assert {run.score for run in measured} <= {1.0}


@given(
    count=st.integers(0, 8),
    enough=st.integers(0, 9),
    concurrency=st.none() | st.integers(1, 4),
    warm_up=st.integers(0, 5),
    cool_down=st.integers(0, 5),
)
@settings(deadline=None, max_examples=50)
def test_once_it_is_enough_no_question_is_begun_and_none_is_lost(
    count: int, enough: int, concurrency: int | None, warm_up: int, cool_down: int
) -> None:
    load = Load(
        concurrency=concurrency,
        rate=None if concurrency else 5000.0,
        warm_up=warm_up,
        cool_down=cool_down,
    )
    llm = ScriptedLLM(lambda request: "yes")
    runs, sitting = asyncio.run(ask(llm, load, count=count, enough=enough))
    measured, extras = parted(runs)
    assert sorted(run.example_id for run in measured) == [f"e{n}" for n in range(len(measured))]
    assert [run.error for run in measured] == [None] * len(measured)
    assert min(count, enough) <= len(measured) <= count
    if concurrency or not enough:
        under_way = concurrency - 1 if concurrency and enough else 0
        assert len(measured) <= enough + under_way
    assert len({(run.example_id, run.repeat) for run in runs}) == len(runs)
    assert len(extras) <= warm_up + cool_down
    assert (sitting.load.questions, sitting.load.extras) == (len(measured), len(extras))
    stretches_j = sum(run.energy.gross_j or 0 for run in runs)
    assert 1 <= (sitting.energy.gross_j or 0) - stretches_j <= 3


@pytest.mark.parametrize("load", [Load(concurrency=8), Load(rate=100.0)], ids=str)
async def test_the_server_is_kept_full_while_the_last_of_enough_is_answered(load: Load) -> None:
    server = Server(service_s=0.1)
    load = load.model_copy(update={"cool_down": 50})
    runs, _ = await ask(server, load, count=80, enough=6)
    measured, extras = parted(runs)
    assert 6 <= len(measured) < 80
    assert {run.error for run in measured} == {None}
    ended_s = max(run.started_s + run.latency_s for run in measured)
    assert extras
    assert all(run.started_s <= ended_s + 0.1 for run in extras)
    assert [run for run in extras if run.error == BROKEN_OFF]
    assert server.under_way == 0


async def test_extra_questions_count_in_no_objective() -> None:
    """An agent that is right only on what is measured, and slow on the rest."""
    runs, _ = await ask(Server(), Load(concurrency=2, warm_up=3, cool_down=3))
    measured, extras = parted(runs)
    assert extras
    cut = [run for run in extras if run.error == BROKEN_OFF]
    assert cut
    assert all(run.score == 0 for run in cut)
    assert OBJECTIVES["accuracy"].value(measured) == 1


async def test_what_is_broken_off_leaves_its_spans_and_no_task() -> None:
    before = asyncio.all_tasks()
    runs, sitting = await ask(Server(), Load(rate=500.0, warm_up=2, cool_down=5000), count=4)
    assert asyncio.all_tasks() == before
    measured, extras = parted(runs)
    assert len(extras) < 5000  # the rest had not arrived yet
    cut = [run for run in extras if run.error == BROKEN_OFF]
    assert cut
    for run in cut:
        assert [(span.kind, span.error) for span in run.spans] == [("llm", "cancelled")]
    ended_s = max(run.started_s + run.latency_s for run in measured)
    assert max(run.started_s for run in runs) <= ended_s + 0.1
    assert sitting.load.extras == len(extras)


@pytest.mark.parametrize("fault", ["hang", "drip"])
async def test_what_is_broken_off_leaves_no_connection_open(fault: str) -> None:
    """Measured questions end once five extra ones are on their connections, silent or in mid-reply."""
    loopback = import_loopback()
    async with loopback.serve(loopback.Behaviour(script=[fault] * 5)) as server:
        client = ChatClient(ModelSettings(model="openai/m", api_base=server.address))

        class Both:
            async def complete(
                self, request: Request, trace: Trace, on_text: OnText | None = None
            ) -> str:
                if "Question 0" in request.prompt:
                    await until(lambda: server.open_connections == 5)
                    return "yes"
                return await client.complete(request, trace, on_text)

        runs, _ = await ask(Both(), Load(rate=1000.0, cool_down=5), count=6, only=1)
        assert [run.error for run in runs] == [None, *[BROKEN_OFF] * 5]
        await until(lambda: server.open_connections == 0)
        await client.close()


async def test_who_interrupts_gets_no_records_of_what_was_under_way() -> None:
    server = Server(service_s=10.0)
    runs: list[ExampleRun] = []
    task = make_task(4)
    agent = build(AgentConfig(workflow="direct", model="m"), llms={"m": server}, pack=PACK)
    before = asyncio.all_tasks()
    asking = asyncio.create_task(
        evaluate(
            agent,
            task.search,
            task=task,
            meter=NoMeter(),
            load=Load(rate=1000.0, warm_up=2, cool_down=2),
            record=runs.append,
        )
    )
    await asyncio.sleep(0.05)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert runs == []
    assert asyncio.all_tasks() == before
    assert server.under_way == 0


# The client's health


@pytest.mark.slow
async def test_a_callback_that_blocks_the_event_loop_is_the_clients_limit() -> None:
    loop = asyncio.get_running_loop()
    blocking = [loop.call_later(0.05 * n, time.sleep, 0.04) for n in range(30)]
    _, sitting = await ask(Server(), Load(concurrency=2, warm_up=8), count=24)
    for each in blocking:
        each.cancel()
    assert sitting.load.client_limited
    assert "event loop was" in (sitting.load.reason or "")


async def test_an_event_loop_that_computes_all_the_time_is_the_clients_limit() -> None:
    class Busy(Server):
        async def complete(
            self, request: Request, trace: Trace, on_text: OnText | None = None
        ) -> str:
            until_s = time.thread_time() + 0.02
            while time.thread_time() < until_s:
                pass
            trace.add(Span("llm", "m", 0.0, trace.now_s(), "", "yes"))
            return "yes"

    _, sitting = await ask(Busy(), Load(concurrency=2), count=20)
    # Not with a share of exactly one: a machine that is shared gives less.
    if sitting.load.cpu_share > 0.8:
        assert sitting.load.reason is not None
        assert "busy for" in sitting.load.reason
    assert sitting.load.cpu_share > 0.02


def test_calls_of_the_largest_load_do_not_wait_for_a_connection_in_this_process() -> None:
    import_litellm()
    from litellm import constants

    most = next(
        each.le for each in Load.model_fields["concurrency"].metadata if hasattr(each, "le")
    )
    assert constants.AIOHTTP_CONNECTOR_LIMIT_PER_HOST >= most == 1024
    assert most <= constants.AIOHTTP_CONNECTOR_LIMIT


def watched(lags_s: tuple[float, ...] = (), cpu_share: float = 0.0) -> ClientWatch:
    watch = ClientWatch()
    watch.lags_s, watch.cpu_share = list(lags_s), cpu_share
    return watch


def questions(
    count: int, *, late_s: float = 0.0, takes_s: float = 1.0, calls: int = 1
) -> list[Asked]:
    return [Asked(n, n + late_s, n + takes_s, calls) for n in range(count)]


@pytest.mark.parametrize(
    ("asked", "watch", "reason"),
    [
        (questions(40), watched((0.0004,) * 40, 0.1), None),
        (questions(40, late_s=0.04), watched(), None),
        (questions(40, late_s=0.06), watched(), "questions were asked 0.06 s late, and take 1 s"),
        (questions(40, late_s=0.009, takes_s=0.1), watched(), None),
        (questions(40, late_s=0.011, takes_s=0.1), watched(), "questions were asked 0.011 s late, and take 0.1 s"),
        (questions(40), watched((0.04,) * 40), None),
        (questions(40, calls=4), watched((0.04,) * 40), "its event loop was 0.04 s late, and a call takes 0.25 s"),
        (questions(40), watched((0.0,) * 99 + (0.5,)), None),  # a single hiccup
        (questions(40), watched((0.0,) * 9 + (0.5,)), "its event loop was 0.5 s late, and a call takes 1 s"),
        (questions(40), watched((), 0.9), "its event loop was busy for 90 % of the time"),
    ],
)  # fmt: skip
def test_the_client_is_the_limit_where_it_spoils_what_is_measured(
    asked: list[Asked], watch: ClientWatch, reason: str | None
) -> None:
    found = report(Load(rate=1.0), asked, watch)
    assert found.reason == reason
    assert found.client_limited == (reason is not None)


def test_no_p95_of_fewer_than_twenty() -> None:
    few, enough = Lag.of([1.0] * 19), Lag.of([1.0] * 20)
    assert few is not None
    assert enough is not None
    assert (few.n, few.p95_s, enough.p95_s) == (19, None, 1.0)
    assert Lag.of([]) is None


# Rates


def test_rates_are_counted_over_the_span_of_the_measured() -> None:
    asked = [Asked(n, n, n + 2.5, 1, edge=n < 4 or n >= 14) for n in range(18)]
    found = report(Load(rate=1.0, warm_up=4, cool_down=4), asked, watched())
    assert (found.questions, found.extras, found.span_s) == (10, 8, 9)
    assert found.offered_per_s == 1
    assert found.achieved_per_s == 1
    assert found.under_way_mean == pytest.approx(2.5)
    # Without a warm-up the first seconds are those of an empty server.
    alone = report(Load(rate=1.0), [each for each in asked if not each.edge], watched())
    assert alone.achieved_per_s == pytest.approx(7 / 9)


def test_a_closed_loop_offers_what_it_gets_done() -> None:
    found = report(Load(), [Asked(n, n, n + 1, 1) for n in range(5)], watched())
    assert (found.offered_per_s, found.achieved_per_s, found.span_s) == (None, 1.0, 5)
    assert (found.under_way_mean, found.start_lag_s) == (1, None)


@given(
    st.lists(
        st.builds(
            Asked,
            st.floats(0, 10),
            st.floats(10, 11),
            st.floats(11, 30),
            st.integers(0, 5),
            st.booleans(),
            st.booleans(),
        ),
        max_size=12,
    ),
    st.sampled_from([Load(), Load(rate=2.0), Load(concurrency=9, warm_up=2)]),
)
@settings(deadline=None)
def test_a_report_is_plain_json_with_rates_in_their_bounds(asked: list[Asked], load: Load) -> None:
    found = report(load, asked, watched((0.001,)))
    content = asdict(found)
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["declared"] == load.model_dump(exclude_defaults=True)
    assert found.achieved_per_s is None or found.achieved_per_s * found.span_s <= len(asked) + 1e-6
    assert found.under_way_mean is None or 0 <= found.under_way_mean <= len(asked) + 1e-6


# In a study


def kept(study: LoadedStudy) -> dict[int, list[tuple[ExampleRun, ...]]]:
    """Runs of each trial with a config: of the search split, of the holdout split, and extra ones."""
    store = Store.open(study.storage_url, study.spec.name)
    runs = {
        trial.number: [store.runs(trial.trial_id, split) for split in ("search", "holdout", EDGE)]
        for trial in store.trials()
        if trial.config is not None and trial.replay_of is None
    }
    store.close()
    return runs


def answers(runs: Sequence[ExampleRun]) -> list[tuple[str, int, str, float]]:
    return sorted((run.example_id, run.repeat, run.answer, run.score) for run in runs)


@pytest.mark.parametrize("load", ["{concurrency: 3, warm_up: 4, cool_down: 5}", "{rate: 100.0, warm_up: 4, cool_down: 9}"])  # fmt: skip
def test_a_study_keeps_extra_questions_apart(
    make_study: Callable[..., LoadedStudy], serve: Callable[..., Any], load: str
) -> None:
    with serve("--delay-s", "0.005") as server:
        study = make_study(trials=1, server=server, extra=f"load: {load}\n")
        events: list[Any] = []
        run_study(study, report=events.append)
    store = Store.open(study.storage_url, study.spec.name)
    finished = [event.run for event in events if isinstance(event, ExampleFinished)]
    assert not any(run.edge for run in finished)
    confirmed = 0
    for trial in store.trials():
        search, holdout = (store.runs(trial.trial_id, split) for split in SPLITS)
        assert trial.values is not None
        assert trial.values["accuracy"] == np.mean([run.score for run in search])
        assert len({run.example_id for run in search}) == len(search) == 10
        around = {split: store.extras(trial.trial_id, split) for split in SPLITS}
        assert {*around["search"], *around["holdout"]} == {*store.runs(trial.trial_id, EDGE)}
        for split, runs in (("search", search), ("holdout", holdout)):
            assert not any(run.edge for run in runs)
            assert all(run.edge and run.repeat >= 1 for run in around[split])
            assert {run.example_id for run in around[split]} <= {run.example_id for run in runs}
            for sitting in store.passes(trial.trial_id, split):
                assert sitting.load["declared"] == study.spec.load.model_dump(exclude_defaults=True)
                assert sitting.load["extras"] == len(around[split]) >= 4
                assert sitting.load["questions"] == len(runs)
                assert sitting.load["achieved_per_s"] is not None
        confirmed += bool(holdout)
    assert confirmed
    store.close()


@pytest.mark.slow
def test_an_interrupted_study_asks_extra_questions_anew_and_measured_ones_once(
    make_study: Callable[..., LoadedStudy], serve: Callable[..., Any]
) -> None:
    load = "load: {concurrency: 3, warm_up: 4, cool_down: 5}\n"
    with serve("--delay-s", "0.004") as server:
        whole = make_study(folder="whole", trials=1, server=server, extra=load)
        run_study(whole)
        pieces = make_study(folder="pieces", trials=1, server=server, extra=load)
        seen, interrupted = 0, 0

        def interrupt(event: object) -> None:
            nonlocal seen
            if isinstance(event, ExampleFinished):
                seen += 1
                if seen % 5 == 0:
                    os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C does

        for _ in range(50):
            try:
                run_study(pieces, report=interrupt)
                break
            except KeyboardInterrupt:
                interrupted += 1
    assert interrupted >= 2
    expected, found = kept(whole), kept(pieces)
    assert found.keys() == expected.keys()
    sittings = 0
    for number, (search, holdout, extras) in found.items():
        assert answers(search) == answers(expected[number][0])
        assert answers(holdout) == answers(expected[number][1])
        keys = [(run.example_id, run.repeat) for run in extras]
        assert len(set(keys)) == len(keys)
        assert min((repeat for _, repeat in keys), default=1) >= 1
        windows = [{run.window for run in runs} for runs in (search, holdout)]
        assert not windows[0] & windows[1]
        sittings += len({run.window for run in extras})
    assert sittings > sum(len({r.window for r in extras}) for *_, extras in expected.values())
