"""Runs at other budgets: what smaller ones gave must be what they would have given, and a larger one goes on exactly."""

import asyncio
import re
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tuner.derive import Share
from tuner.derive import begun
from tuner.derive import cut_short
from tuner.derive import derive
from tuner.derive import larger
from tuner.derive import shares
from tuner.derive import smaller
from tuner.derive import with_budget
from tuner.evaluate import NO_PAST
from tuner.evaluate import Past
from tuner.evaluate import evaluate
from tuner.load import Load
from tuner.measure import NoMeter
from tuner.measure import Sample
from tuner.records import NOT_REUSED
from tuner.records import ExampleRun
from tuner.records import Reading
from tuner.records import Reused
from tuner.space import SearchSpace
from tuner.tasks import Example
from tuner.tasks import Task
from workflows import LLM
from workflows import AgentConfig
from workflows import AgentPack
from workflows import ChatClient
from workflows import Document
from workflows import Request
from workflows import ScriptedLLM
from workflows import Span
from workflows import Trace
from workflows import build
from workflows.base import Checkpoint
from workflows.config import Knob
from workflows.llm import OnText

# Which configs hold which

SPACE = SearchSpace.model_validate(
    {
        "format_version": 1,
        "name": "s",
        "workflows": {
            "direct": {"few_shot": [0, 1]},
            "react": {
                "few_shot": [0, 2],
                "at_budget": ["empty", "answer"],
                "max_steps": [8, 2, 4],
                "history": {"choices": ["all", "last"], "when": {"max_steps": ">= 4"}},
                "history_steps": {"choices": [2, 3], "when": {"history": "last"}},
            },
            "reflexion": {
                "judge_model": ["big", "small"],
                "max_steps": [2, 3],
                "max_trials": {"low": 1, "high": 3, "when": {"max_steps": 3}},
            },
            "lats": {"iterations": 4, "children": [1, 2]},
            "llmcompiler": {"join_tokens": [50, 100]},
            "cascade": {
                "costly": "react",
                "samples": [2, 3],
                "costly.max_steps": [2, 4, 8],
            },
        },
    }
)
MODELS = ("big", "small")


def others(config: AgentConfig, knob: str) -> dict[str, Knob]:
    return {name: value for name, value in config.params.items() if name != knob}


def test_the_configs_around_one_are_those_that_differ_in_the_budget_alone() -> None:
    listed = SPACE.configs(MODELS)
    assert listed is not None
    configs = list(listed)
    knobs = {
        "react": "max_steps",
        "reflexion": "max_trials",
        "lats": "iterations",
        "llmcompiler": "max_rounds",
    }
    pairs = 0
    for config in configs:
        knob = knobs.get(config.workflow, "")
        alike = [
            each
            for each in configs
            if (each.workflow, each.model) == (config.workflow, config.model)
            and others(each, knob) == others(config, knob)
            and each != config
        ]
        alike.sort(key=lambda each: int(each.params[knob]))
        below = [each for each in alike if each.params[knob] < config.params[knob]]  # type: ignore[operator]
        assert smaller(SPACE, MODELS, config) == tuple(reversed(below))
        assert larger(SPACE, MODELS, config) == tuple(alike[len(below) :])
        pairs += len(alike)
    assert pairs > 50


def config_of(workflow: str, **params: Knob) -> AgentConfig:
    full = {**params}
    found = SPACE.configs(MODELS)
    assert found is not None
    return next(
        each
        for each in found
        if each.workflow == workflow and {**each.params, **full} == each.params
    )


def test_a_knob_that_hangs_on_the_budget_must_be_what_it_is_without_it() -> None:
    kept = config_of("react", max_steps=8, history="all")
    assert [each.params["max_steps"] for each in smaller(SPACE, MODELS, kept)] == [4, 2]
    dropped = config_of("react", max_steps=8, history="last")
    assert [each.params["max_steps"] for each in smaller(SPACE, MODELS, dropped)] == [4]
    least = config_of("react", max_steps=2)
    assert [each.params["max_steps"] for each in larger(SPACE, MODELS, least)] == [4, 8]


@pytest.mark.parametrize("workflow", ["direct", "lats", "llmcompiler", "cascade"])
def test_without_a_choice_of_budget_there_are_none(workflow: str) -> None:
    config = config_of(workflow)
    assert smaller(SPACE, MODELS, config) == larger(SPACE, MODELS, config) == ()


def test_a_workflow_without_a_budget_cannot_be_given_one() -> None:
    with pytest.raises(ValueError, match="direct has no budget"):
        with_budget(config_of("direct"), 3)


# What was given

PACK = AgentPack(
    instruction="Answer.",
    toolkits=("browser",),
    documents=(Document(title="Anna", sentences=("Anna has a dog.", "The dog sleeps.")),),
)
QUESTIONS = 6


class Watts:
    """Draws 10 W; its joules are those of its own clock, so that nothing else has to be waited for."""

    source = "watts"
    scope = "nothing real"
    tick_s = 0.0
    devices = ()

    def read(self) -> Sample:
        now_s = perf_counter()
        return Sample(now_s, 10.0 * now_s)


def reply(request: Request) -> str:
    """Question n takes n + 1 steps, looks the dog up on the way, and is answered rightly where n is even."""
    number = int(re.findall(r"Question (\d+)\?", request.prompt)[-1])
    step = request.prompt.count("Observation ") + 1
    if "finish[" in request.prompt.splitlines()[-1]:
        return "forced]"
    if step > number:
        return f" finish[{'yes' if number % 2 == 0 else 'no'}]"
    return " search[Anna]" if step == 1 else " lookup[dog]"


def make_task(*, fails: bool = False) -> Task:
    examples = tuple(Example(f"e{n}", f"Question {n}?", ("yes",)) for n in range(QUESTIONS))

    async def score(example: Example, answer: str) -> float:
        if fails:
            raise LookupError("no scorer")
        return {"yes": 1.0, "forced": 0.5}.get(answer, 0.0)

    return Task("test", PACK, examples, (), score)


TASK = make_task()


def react(steps: int, at_budget: str = "empty", **params: Knob) -> AgentConfig:
    given = {"max_steps": steps, "thoughts": False, "at_budget": at_budget, **params}
    return AgentConfig(workflow="react", model="m", params=given)


async def run(
    config: AgentConfig,
    examples: Sequence[Example] = TASK.search,
    *,
    load: Load = Load(concurrency=1),  # noqa: B008 - frozen
    past: Past = NO_PAST,
    window: int = 0,
    meter: Any = None,
    llm: LLM | None = None,
) -> list[ExampleRun]:
    """All runs, edges included."""
    runs: list[ExampleRun] = []
    await evaluate(
        build(config, llms={"m": llm or ScriptedLLM(reply, delay_s=0.002)}, pack=PACK),
        examples,
        task=TASK,
        meter=meter or Watts(),
        load=load,
        record=runs.append,
        window=window,
        idle_w=2.0,
        past=past,
    )
    return runs


def in_order(runs: Sequence[ExampleRun]) -> list[ExampleRun]:
    return sorted((each for each in runs if not each.edge), key=lambda each: each.example_id)


def edges(runs: Sequence[ExampleRun]) -> list[ExampleRun]:
    return [each for each in runs if each.edge]


def what(run: ExampleRun) -> tuple[Any, ...]:
    """All that does not depend on the clock."""
    return (
        run.example_id,
        run.answer,
        run.score,
        run.error,
        run.tokens_in,
        run.tokens_out,
        run.tokens_cached,
        run.cost_usd,
        run.llm_calls,
        run.tool_calls,
        [(span.kind, span.name, span.input, span.output) for span in run.spans],
        [(each.budget, each.answer, each.span_count) for each in run.checkpoints],
    )


@cache
def measured(steps: int, at_budget: str = "empty") -> list[ExampleRun]:
    return in_order(asyncio.run(run(react(steps, at_budget))))


@pytest.mark.parametrize("budget", range(1, 6))
def test_a_derived_run_is_what_a_run_at_that_budget_gives(budget: int) -> None:
    derived = asyncio.run(derive(TASK, measured(5), [], budget))
    for short, own, whole in zip(derived, measured(budget), measured(5), strict=True):
        assert short is not None
        assert what(short) == what(own)
        assert (short.reused.latency_s, short.reused.energy_j) == (short.latency_s, short.energy_j)
        assert short.reused.tokens == (short.tokens_in or 0) + (short.tokens_out or 0)
        assert short.llm_s + short.tool_only_s <= short.latency_s <= whole.latency_s


def test_where_an_answer_would_take_another_call_there_is_none() -> None:
    derived = asyncio.run(derive(TASK, measured(5, "answer"), [], 3))
    assert [each is None for each in derived] == [n >= 3 for n in range(QUESTIONS)]
    own = measured(3, "answer")
    known = [pair for pair in zip(derived, own, strict=True) if pair[0] is not None]
    assert all(what(short) == what(whole) for short, whole in known if short)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_larger_budget_takes_no_less_and_the_largest_takes_all(concurrency: int) -> None:
    async def made() -> tuple[list[ExampleRun], list[list[float]]]:
        runs = in_order(await run(react(5), load=Load(concurrency=concurrency)))
        by_budget = [await derive(TASK, runs, [], budget) for budget in range(1, 7)]
        return runs, [[one.energy_j or 0.0 for one in each if one] for each in by_budget]

    runs, joules = asyncio.run(made())
    for fewer, more in pairwise(joules):
        assert all(a <= b for a, b in zip(fewer, more, strict=True))
    assert sum(joules[-1]) == pytest.approx(sum(each.energy_j or 0.0 for each in runs))
    assert sum(joules[0]) < sum(joules[-1])


@pytest.mark.parametrize("load", [Load(concurrency=2), Load(rate=200.0, warm_up=2, cool_down=2)])
def test_block_by_block_it_is_the_same_as_all_at_once(load: Load) -> None:
    async def made() -> None:
        blocks = [
            await run(react(5), TASK.search[first : first + 2], load=load, window=number)
            for number, first in enumerate((0, 2, 4))
        ]
        at_once = await derive(
            TASK, [r for b in blocks for r in in_order(b)], [r for b in blocks for r in edges(b)], 2
        )
        piecewise = [await derive(TASK, in_order(block), edges(block), 2) for block in blocks]
        assert at_once == tuple(each for block in piecewise for each in block)
        assert all(each is not None and each.energy_j is not None for each in at_once)

    asyncio.run(made())


def test_what_nobody_used_is_shared_out_by_time() -> None:
    """10 W for 12 s, of which the run's calls hold 8 s: the 40 J of the rest are 4 J for each of its 10 s."""
    spans = [("llm", 0.0, 4.0), ("tool", 4.0, 6.0), ("llm", 6.0, 8.0)]
    whole = replace(
        measured(5)[5],
        started_s=1.0,
        latency_s=10.0,
        spans=tuple(Span(kind, "m", start, end, "", "") for kind, start, end in spans),  # type: ignore[arg-type]
        checkpoints=(Checkpoint(1, "a", 1, 5.0), Checkpoint(2, "a", 3, 8.0)),
        energy=Reading(120.0, "watts", "nothing real", seconds=12.0, idle_j=24.0),
        samples=((12.0, 120.0),),
    )
    assert shares([whole]) == {("e5", 0): Share(120.0, (50.0 + 20.0, 80.0 + 32.0))}
    went_on = replace(whole, reused=Reused(6.0, 1000.0))
    ((_, share),) = shares([went_on]).items()
    # Its new calls hold 2 s, and the 100 J of the rest are 25 J for each of its new 4 s.
    assert share == Share(1120.0, (None, 1000.0 + 20.0 + 50.0))


def test_without_a_meter_there_is_no_energy_and_the_reason_stays() -> None:
    runs = in_order(asyncio.run(run(react(5), meter=NoMeter())))
    derived = asyncio.run(derive(TASK, runs, [], 2))
    for short, whole in zip(derived, runs, strict=True):
        assert short is not None
        assert short.energy_j is None
        assert short.energy.problem == whole.energy.problem is not None


def test_energy_that_cannot_be_split_is_missing_only_where_it_was_to_be() -> None:
    runs = [replace(each, samples=()) for each in measured(5)]
    derived = asyncio.run(derive(TASK, runs, [], 2))
    ended = [len(each.checkpoints) < 2 for each in runs]
    assert [each is not None and each.energy_j is not None for each in derived] == ended
    cut = [each for each, whole in zip(derived, ended, strict=True) if each and not whole]
    assert {each.energy.problem for each in cut} == {
        "the energy could not be split over checkpoints"
    }


def test_a_run_that_failed_later_is_one_that_did_not_at_a_smaller_budget() -> None:
    failed = replace(measured(5)[5], error="ModelError: gone", answer="", score=0.0)
    early, late = (asyncio.run(derive(TASK, [failed], [], budget))[0] for budget in (2, 6))
    assert early is not None
    assert early.error is None
    assert late is not None
    assert late.error == "ModelError: gone"


def test_a_scorer_that_fails_fails_that_example() -> None:
    task = make_task(fails=True)
    derived = asyncio.run(derive(task, measured(5), [], 2))
    # The last one's answer was scored when it was made: it is the whole run's.
    errors = [None, None, *["LookupError: no scorer"] * 3, None]
    assert [each.error for each in derived if each] == errors


def test_of_two_checkpoints_of_a_round_the_later_counts() -> None:
    whole = measured(5)[5]
    twice = replace(
        whole, checkpoints=(replace(whole.checkpoints[0], answer="x"), *whole.checkpoints)
    )
    assert cut_short(twice, None, 1).answer == whole.checkpoints[0].answer


# Going on

LOADS = [
    Load(concurrency=1),
    Load(concurrency=3),
    Load(concurrency=2, warm_up=2, cool_down=2),
    Load(rate=300.0),
    Load(rate=300.0, warm_up=2, cool_down=2),
]


@pytest.mark.parametrize("load", LOADS, ids=str)
@pytest.mark.parametrize(
    ("first", "then", "at_budget"), [(2, 5, "empty"), (2, 5, "answer"), (5, 3, "answer")]
)
def test_a_run_that_goes_on_is_what_a_run_at_that_budget_gives(
    first: int, then: int, at_budget: str, load: Load
) -> None:
    wanted = measured(then, at_budget)

    async def made() -> None:
        earlier, config = react(first, at_budget), react(then, at_budget)
        before = await run(earlier, load=load)
        past = begun(config, earlier, in_order(before), edges(before))
        assert past.keys() == {example.id for example in TASK.search}
        llm = ScriptedLLM(reply, delay_s=0.002)
        went_on = await run(config, load=load, past=past, window=1, llm=llm)

        for each, own in zip(in_order(went_on), wanted, strict=True):
            assert what(each) == what(own)
            start = past[each.example_id]
            assert each.reused == start.taken_over().reused
            assert each.spans[: len(start.spans)] == start.spans
            assert each.spans[len(start.spans) :] == each.new_spans
            assert each.latency_s >= start.latency_s
            assert (each.energy_j or 0.0) >= (start.energy_j or 0.0)
            assert each.began_s > -1e-6
        new = [span for each in went_on for span in each.new_spans if span.kind == "llm"]
        assert len(llm.requests) == len(new)
        # Nothing is counted twice: what is new adds up to what was metered in this window.
        new_j = sum((each.energy_j or 0.0) - each.reused.energy_j for each in went_on)
        assert new_j == pytest.approx(max(j for each in went_on for _, j in each.samples))
        if not edges(went_on):
            whole_j = sum(share.whole_j for share in shares(went_on).values())
            reused_j = sum(each.reused.energy_j for each in went_on)
            assert whole_j - reused_j == pytest.approx(new_j)

    asyncio.run(made())


def test_a_run_may_go_on_again_and_be_cut_where_it_was_new() -> None:
    wanted = measured(5)

    async def made() -> None:
        runs, past = in_order(await run(react(1))), dict[str, ExampleRun]()
        for first, then in ((1, 3), (3, 5)):
            past = begun(react(then), react(first), runs)
            runs = in_order(await run(react(then), past=past, window=then))
        assert [what(each) for each in runs] == [what(each) for each in wanted]
        assert [each.reused.latency_s for each in runs] == [
            past[f"e{n}"].latency_s for n in range(6)
        ]
        at_4, at_3, at_2 = [await derive(TASK, runs, [], budget) for budget in (4, 3, 2)]
        assert all(each and each.energy_j is not None for each in (*at_4, *at_3))
        for each, start in zip(at_3, past.values(), strict=True):
            assert each is not None
            assert each.energy_j == pytest.approx(start.energy_j, rel=0.05)
        # What lies within the reused part was metered elsewhere.
        ended = [len(each.checkpoints) < 2 for each in runs]
        assert [each is not None and each.energy_j is not None for each in at_2] == ended

    asyncio.run(made())


def test_what_departs_from_the_past_is_asked_anew() -> None:
    wanted, past = measured(5), begun(react(5), react(2), measured(2))

    async def made() -> None:
        changed = {
            key: replace(each, spans=(replace(each.spans[0], input="?"), *each.spans[1:]))
            for key, each in past.items()
            if key != "e1"
        }
        llm = ScriptedLLM(reply)
        runs = in_order(await run(react(5), past={**past, **changed}, llm=llm))
        assert [what(each) for each in runs] == [what(each) for each in wanted]
        assert [each.reused == NOT_REUSED for each in runs] == [n != 1 for n in range(QUESTIONS)]
        asked = sum(each.llm_calls for each in runs) - past["e1"].llm_calls
        assert len(llm.requests) == asked

    asyncio.run(made())


def test_a_run_that_fails_as_it_goes_on_keeps_what_it_had() -> None:
    def fail(request: Request) -> str | Exception:
        return OSError("gone")

    past = begun(react(5), react(2), measured(2))
    runs = asyncio.run(run(react(5), TASK.search[4:5], past=past, llm=ScriptedLLM(fail)))
    assert runs[0].error == "OSError: gone"
    assert runs[0].spans[:4] == past["e4"].spans
    assert runs[0].reused.latency_s == past["e4"].latency_s < runs[0].latency_s


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({"error": "ModelError: gone"}, {0, 1, 2, 4, 5}),
        ({"oracle": True}, {0, 1, 2, 4, 5}),
        # Without those the joules of a window cannot be split, so only what is taken whole has any.
        ({"spans": ()}, {0}),
        ({"samples": ()}, {0}),
    ],
)
def test_only_what_can_be_gone_on_from_exactly_is(
    change: Mapping[str, Any], left: set[int]
) -> None:
    runs = measured(2)
    changed = [*runs[:3], replace(runs[3], **change), *runs[4:]]
    assert begun(react(5), react(2), changed).keys() == {f"e{n}" for n in left}


def test_a_workflow_that_is_not_resumable_is_never_gone_on_from() -> None:
    config = AgentConfig(workflow="direct", model="m")
    assert begun(config, config, measured(2)) == {}


def test_without_any_energy_it_goes_on_without() -> None:
    runs = in_order(asyncio.run(run(react(2), meter=NoMeter())))
    assert len(begun(react(5), react(2), runs)) == QUESTIONS


def test_a_window_that_was_taken_over_whole_is_split_as_when_it_was_made() -> None:
    taken = [each.taken_over() for each in measured(5)]
    assert shares(taken) == shares(measured(5))
    own = asyncio.run(derive(TASK, measured(5), [], 2))
    assert asyncio.run(derive(TASK, taken, [], 2)) == own


class Caching(ChatClient):
    """A model whose server keeps prefixes: it says so, and takes a while to read a prompt again."""

    def __init__(self) -> None:
        self.read_again: list[str] = []
        self._llm = ScriptedLLM(reply, delay_s=0.002)

    async def complete(self, request: Request, trace: Trace, on_text: OnText | None = None) -> str:
        text = await self._llm.complete(request, trace, on_text)
        trace.spans[-1] = replace(trace.spans[-1], tokens_cached=1)
        return text

    async def read(self, request: Request, reply: str, trace: Trace) -> None:
        self.read_again.append(f"{request.prompt}{reply}")
        start_s = trace.now_s()
        await asyncio.sleep(0.1)
        text = request.text()
        trace.add(Span("llm", "m", start_s, trace.now_s(), text, "", None, 40, 1, 0))


@pytest.mark.parametrize("load", LOADS, ids=str)
def test_what_servers_read_again_is_an_extra_run_and_counts_in_no_other(load: Load) -> None:
    async def made() -> None:
        before = await run(react(2), load=load, llm=Caching())
        past = begun(react(5), react(2), in_order(before), edges(before))
        llm = Caching()
        went_on = await run(react(5), load=load, past=past, window=1, llm=llm)
        # Questions 0 and 1 had ended by themselves; of the others the last prompt holds those before.
        assert len(llm.read_again) == 4
        read = [each for each in edges(went_on) if {span.tokens_in for span in each.spans} == {40}]
        assert sorted(each.example_id for each in read) == ["e2", "e3", "e4", "e5"]
        assert [each.tokens_in for each in read] == [40] * 4
        assert all(each.latency_s >= 0.1 for each in read)
        for each in in_order(went_on):
            new_s = each.latency_s - each.reused.latency_s
            assert new_s < sum(s.end_s - s.start_s for s in each.new_spans) + 0.08
        new_j = sum((each.energy_j or 0.0) - each.reused.energy_j for each in went_on)
        assert new_j == pytest.approx(max(j for each in went_on for _, j in each.samples))
        if load.concurrency == 1:
            assert all((each.energy_j or 0.0) >= 1.0 for each in read)  # 10 W
        known = shares(in_order(went_on), edges(went_on))
        assert known.keys() == {(example.id, 0) for example in TASK.search}

    asyncio.run(made())


# Arithmetic


@settings(max_examples=50)
@given(
    elapsed=st.lists(st.floats(0.1, 9.0), min_size=1, max_size=5).map(sorted),
    joules=st.floats(0.0, 100.0),
    budget=st.integers(1, 6),
)
def test_a_cut_is_part_of_the_whole(elapsed: list[float], joules: float, budget: int) -> None:
    whole = replace(
        measured(5)[5],
        latency_s=10.0,
        energy=Reading(200.0, "watts", "x", seconds=20.0, idle_j=40.0),
        checkpoints=tuple(Checkpoint(n, "a", n, s) for n, s in enumerate(elapsed, 1)),
    )
    short = cut_short(whole, Share(150.0, tuple(joules for _ in elapsed)), budget)
    if budget > len(elapsed):
        assert short == replace(whole, energy=replace(whole.energy, gross_j=150.0), samples=())
        return
    assert short.latency_s == elapsed[budget - 1]
    assert short.energy_j == joules
    assert short.energy.seconds == pytest.approx(2 * short.latency_s)
    assert short.energy.idle_j == pytest.approx(4 * short.latency_s)
    assert len(short.spans) == budget
    assert [each.budget for each in short.checkpoints] == list(range(1, budget + 1))
