"""Going on from an earlier run: what is given again, what is made again, and when nothing of it may be used."""

import asyncio
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import replace

import pytest

from workflows import AgentConfig
from workflows import AgentPack
from workflows import ChatClient
from workflows import ModelError
from workflows import Outcome
from workflows import Request
from workflows import ScriptedLLM
from workflows import Session
from workflows import Span
from workflows import ToolError
from workflows import Trace
from workflows import build
from workflows.agent import Agent
from workflows.config import Knob
from workflows.llm import OnText
from workflows.resume import DepartedError
from workflows.resume import PastRun
from workflows.tools import Delayed
from workflows.tools import Tool
from workflows.tools import Toolbox

LOOKS = [" search[Anna]", " lookup[dog]", " lookup[dog]", " lookup[dog]", " finish[Oak]"]


def react(llm: ScriptedLLM, pack: AgentPack, steps: int, *, delay_s: float = 0.0) -> Agent:
    params: dict[str, Knob] = {"max_steps": steps, "thoughts": False}
    config = AgentConfig(workflow="react", model="m", params=params)
    return build(config, llms={"m": llm}, pack=pack, tool_delay_s=delay_s)


def past_of(outcome: Outcome) -> PastRun:
    """The run up to its last checkpoint."""
    last = outcome.checkpoints[-1]
    return PastRun(outcome.spans[: last.span_count], outcome.checkpoints, last.elapsed_s)


async def go_on(agent: Agent, past: PastRun) -> Outcome:
    return await agent.run_session("Where?", agent.open_session(past=past))


async def test_tools_are_left_as_the_earlier_run_left_them(pack: AgentPack) -> None:
    earlier = await react(ScriptedLLM(LOOKS[:3]), pack, 3).run("Where?")
    llm = ScriptedLLM(LOOKS[3:])
    outcome = await go_on(react(llm, pack, 5), past_of(earlier))
    assert [span.output for span in outcome.spans if span.name == "lookup"] == [
        "(Result 1 / 3) She has a dog.",
        "(Result 2 / 3) The dog sleeps.",
        "(Result 3 / 3) A dog guards Oak.",
    ]
    assert outcome.answer == "Oak"
    assert len(llm.requests) == 2


async def test_the_clock_goes_on_from_where_the_earlier_run_ended(pack: AgentPack) -> None:
    earlier = await react(ScriptedLLM(LOOKS, delay_s=0.03), pack, 2, delay_s=0.05).run("Where?")
    past = past_of(earlier)
    agent = react(ScriptedLLM(LOOKS[2:], delay_s=0.03), pack, 3, delay_s=0.05)
    began_s = time.perf_counter()
    session = agent.open_session(past=past)
    assert not session.on_its_own
    outcome = await agent.run_session("Where?", session)
    took_s = time.perf_counter() - began_s
    assert session.on_its_own
    assert outcome.spans[:4] == past.spans
    assert outcome.spans[4].start_s >= past.elapsed_s
    assert outcome.latency_s == pytest.approx(past.elapsed_s + took_s, abs=0.02)
    assert took_s < past.elapsed_s  # nothing was waited for a second time
    assert [c.elapsed_s for c in outcome.checkpoints[:2]] == [c.elapsed_s for c in past.checkpoints]


class Counter:
    """A kit of one tool that says how often it was called."""

    def __init__(self, *, ordered: bool) -> None:
        self.calls = 0
        self._ordered = ordered

    def tools(self) -> Iterable[Tool]:
        return (Tool("count", "count[anything]", self._count, ordered=self._ordered),)

    async def _count(self, argument: str) -> str:
        self.calls += 1
        if argument == "fail":
            raise ToolError(f"failed at call {self.calls}")
        return f"call {self.calls}"


async def counted(kit: Counter, arguments: list[str], past: PastRun | None = None) -> Session:
    session = Session(
        llms={},
        actor="m",
        pack=AgentPack(instruction=""),
        tools=Toolbox([Delayed(kit, 0.001)]),
        past=past,
    )
    for argument in arguments:
        await session.act("count", argument)
    return session


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_tool_is_called_again_where_later_observations_depend_on_it(ordered: bool) -> None:
    earlier = await counted(Counter(ordered=ordered), ["a", "fail", "a"])
    spans = tuple(earlier.trace.spans)
    kit = Counter(ordered=ordered)
    session = await counted(kit, ["a", "fail", "a", "a"], PastRun(spans, (), 1.0))
    assert kit.calls == (4 if ordered else 1)
    assert tuple(session.trace.spans[:3]) == spans
    assert session.trace.spans[3].output == f"call {kit.calls}"


async def test_calls_that_ask_the_same_of_tools_in_other_states_are_told_apart() -> None:
    async def count(session: Session, order: Sequence[int]) -> list[str]:
        """What forks observe that have counted to 1 and to 2 before, in that order."""
        forks = [session.tools.fork() for _ in range(2)]
        for number, fork in enumerate(forks, 1):
            for _ in range(number):
                await session.act("count", "before", tools=fork)
        seen = {n: await session.act("count", "a", tools=forks[n]) for n in order}
        return [seen[n].text for n in range(2)]

    earlier, tools = await counted(Counter(ordered=True), []), Toolbox([Counter(ordered=True)])
    assert await count(earlier, (0, 1)) == ["call 2", "call 3"]
    past = PastRun(tuple(earlier.trace.spans), (), 1.0)
    session = Session(llms={}, actor="m", pack=AgentPack(instruction=""), tools=tools, past=past)
    assert await count(session, (1, 0)) == ["call 2", "call 3"]


async def test_a_tool_that_gives_something_else_than_before_ends_it() -> None:
    earlier = await counted(Counter(ordered=True), ["a", "a"])
    kit = Counter(ordered=True)
    kit.calls = 7
    with pytest.raises(DepartedError, match=r"count\[a\] gave something else"):
        await counted(kit, ["a", "a"], PastRun(tuple(earlier.trace.spans), (), 1.0))


class Flaky(ScriptedLLM):
    """Fails at the first try of each call, and tries once more, as a client does."""

    async def complete(self, request, trace, on_text=None):  # type: ignore[no-untyped-def]
        failed = Span("llm", "m", 0, 0, request.text(), "", error="busy", seed=request.seed)
        trace.add(failed)
        reply = await super().complete(request, trace, on_text)
        trace.spans[-1] = replace(trace.spans[-1], attempt=2)
        return reply


async def test_failed_tries_are_part_of_what_the_earlier_run_did(pack: AgentPack) -> None:
    earlier = await react(Flaky(LOOKS), pack, 2).run("Where?")
    llm = Flaky(LOOKS[2:])
    outcome = await go_on(react(llm, pack, 3), past_of(earlier))
    assert [span.error for span in outcome.spans] == ["busy", None, None] * 3
    assert len(llm.requests) == 1


def cancel_a_call(past: PastRun) -> PastRun:
    return replace(past, spans=(replace(past.spans[0], error="cancelled"), *past.spans[1:]))


def ask_otherwise(past: PastRun) -> PastRun:
    return replace(past, spans=(*past.spans[:2], replace(past.spans[2], input="?"), past.spans[3]))


def draw_otherwise(past: PastRun) -> PastRun:
    return replace(past, spans=(replace(past.spans[0], seed=None), *past.spans[1:]))


def answer_otherwise(past: PastRun) -> PastRun:
    changed = replace(past.checkpoints[-1], answer="Elm")
    return replace(past, checkpoints=(*past.checkpoints[:-1], changed))


def lose_a_checkpoint(past: PastRun) -> PastRun:
    return replace(past, checkpoints=past.checkpoints[1:])


def do_more(past: PastRun) -> PastRun:
    return replace(past, spans=(*past.spans, replace(past.spans[0], input="?")))


@pytest.mark.parametrize(
    "change",
    [cancel_a_call, ask_otherwise, draw_otherwise, answer_otherwise, lose_a_checkpoint, do_more],
)
async def test_a_run_that_departs_from_the_earlier_one_makes_no_call(
    change: Callable[[PastRun], PastRun], pack: AgentPack
) -> None:
    earlier = await react(ScriptedLLM(LOOKS), pack, 2).run("Where?")
    llm = ScriptedLLM(LOOKS)
    agent = react(llm, pack, 5)
    session = agent.open_session(past=change(past_of(earlier)))
    with pytest.raises(DepartedError):
        await agent.run_session("Where?", session)
    assert not session.on_its_own
    assert llm.requests == []


async def test_a_run_that_ended_by_itself_is_gone_through_and_nothing_else(
    pack: AgentPack,
) -> None:
    earlier = await react(ScriptedLLM([" finish[Oak]"], delay_s=0.01), pack, 2).run("Where?")
    past = PastRun(earlier.spans, earlier.checkpoints, earlier.latency_s)
    llm = ScriptedLLM([ModelError("nobody should ask")])
    outcome = await go_on(react(llm, pack, 5), past)
    assert (outcome.answer, outcome.spans, outcome.checkpoints) == (
        earlier.answer,
        earlier.spans,
        earlier.checkpoints,
    )
    assert outcome.latency_s == pytest.approx(earlier.latency_s, abs=1e-3)


class Caching(ChatClient):
    """A model on a server that keeps prefixes, in name only."""

    def __init__(self, name: str) -> None:
        self.read_again: list[tuple[str, str]] = []
        self._name = name

    async def complete(self, request: Request, trace: Trace, on_text: OnText | None = None) -> str:
        span = Span("llm", self._name, trace.now_s(), trace.now_s(), request.text(), "new")
        trace.add(span)
        return "new"

    async def read(self, request: Request, reply: str, trace: Trace) -> None:
        await asyncio.sleep(0.05)
        self.read_again.append((request.prompt, reply))
        trace.add(Span("llm", self._name, 0.0, 0.05, request.text(), ""))


@pytest.mark.parametrize(("cached", "is_read"), [(1, True), (0, False), (None, False)])
async def test_servers_read_again_what_they_had_cached_once_for_calls_at_once(
    cached: int | None, is_read: bool
) -> None:
    asked = [("a", "m", "b"), ("ab", "m", "c"), ("x", "m", "y"), ("ab", "n", "z")]
    spans = [
        Span("llm", m, 0, 1, prompt, out, None, 5, 1, cached, seed=0) for prompt, m, out in asked
    ]
    # Another seed for the other model, since nothing else tells its call from the one before.
    past = PastRun((*spans[:3], replace(spans[3], seed=1)), (), 1.0)
    models = {"m": Caching("m"), "n": Caching("n")}
    heard: list[Trace] = []
    session = Session(
        llms=models,
        actor="m",
        pack=AgentPack(instruction=""),
        tools=Toolbox(),
        past=past,
        on_read_again=heard.append,
    )

    async def ask(prompt: str, model: str, seed: int = 0) -> str:
        return await session.complete(prompt, system="", max_tokens=9, model=model, seed=seed)

    replies = [
        await ask("a", "m"),
        await ask("ab", "m"),
        await ask("x", "m"),
        await ask("ab", "n", 1),
    ]
    assert replies == ["b", "c", "y", "z"]
    assert await asyncio.gather(*(ask("more", "m", seed) for seed in range(3))) == ["new"] * 3
    assert session.trace.spans[4].start_s >= 1.0
    assert session.trace.spans[4].start_s == pytest.approx(
        1.0, abs=0.008
    )  # reading took none of it
    if is_read:
        assert models["m"].read_again == [("ab", "c"), ("x", "y")]
        assert models["n"].read_again == [("ab", "z")]
        assert [len(trace.spans) for trace in heard] == [3]
    else:
        assert models["m"].read_again == models["n"].read_again == []
        assert heard == []


async def test_whoever_listens_hears_the_whole_reply_again() -> None:
    heard: list[str] = []
    request = Request(prompt="?", system="s", max_tokens=9)
    span = Span("llm", "m", 0.0, 1.0, request.text(), "a b c", seed=0)
    session = Session(
        llms={"m": ScriptedLLM([])},
        actor="m",
        pack=AgentPack(instruction=""),
        tools=Toolbox(),
        past=PastRun((span,), (), 1.0),
    )
    reply = await session.complete("?", system="s", max_tokens=9, on_text=heard.append)
    assert (reply, heard) == ("a b c", ["a b c"])
