import asyncio
import random
import time
from collections.abc import Callable
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows import AgentConfig
from workflows import AgentPack
from workflows import Document
from workflows import ModelError
from workflows import Outcome
from workflows import Request
from workflows import ScriptedLLM
from workflows import Session
from workflows import Span
from workflows import Trace
from workflows import build
from workflows.agent import Agent
from workflows.llm import OnText
from workflows.tools import Tool
from workflows.tools import Toolbox

SYSTEM = (
    "Answer about the villages. Actions: search[title] opens the page of that title; "
    "lookup[word] finds that word on the open page; calculate[expression] gives its value; "
    "finish[answer] ends with the answer."
)


async def run(llm: ScriptedLLM, pack: AgentPack, **params: bool | int | float | str) -> Outcome:
    config = AgentConfig(workflow="react", model="m", params=params)
    return await build(config, llms={"m": llm}, pack=pack).run("Where does Anna live?", seed=3)


async def test_thought_and_action_come_in_one_call(pack: AgentPack) -> None:
    llm = ScriptedLLM(
        [" I look.\nAction 1: search[Bert]", " I know.\nAction 2: finish[Elm]"],
    )
    outcome = await run(llm, pack)
    assert outcome.answer == "Elm"
    first, second = llm.requests
    assert first.system == second.system == SYSTEM
    assert first.prompt == "Question: Where does Anna live?\nThought 1:"
    assert second.prompt == (
        "Question: Where does Anna live?\n"
        "Thought 1: I look.\n"
        "Action 1: search[Bert]\n"
        "Observation 1: Bert is a baker. He lives in Elm.\n"
        "Thought 2:"
    )
    assert first.stop == ("\nObservation 1:",)
    assert second.stop == ("\nObservation 2:",)
    assert (first.max_tokens, first.temperature, first.seed) == (100, 0.0, 3)
    assert [span.name for span in outcome.spans] == ["scripted", "search", "scripted"]


@pytest.mark.parametrize("reply", [" I look.\nAnd more.", " I look.\nMore.\nAction 1:"])
async def test_a_thought_without_action_is_kept_to_its_first_line_and_asked_on(
    pack: AgentPack, reply: str
) -> None:
    llm = ScriptedLLM([reply, " finish[Oak]"])
    outcome = await run(llm, pack)
    assert outcome.answer == "Oak"
    assert llm.requests[1].prompt == (
        "Question: Where does Anna live?\nThought 1: I look.\nAction 1:"
    )
    assert llm.requests[1].stop == ("\nObservation 1:",)
    assert outcome.checkpoints[0].span_count == 2


async def test_a_thought_with_action_is_kept_whole(pack: AgentPack) -> None:
    llm = ScriptedLLM([" One.\nTwo.\nAction 1: search[Bert]", "\nAction 2: finish[x]"])
    await run(llm, pack)
    assert "Thought 1: One.\nTwo.\nAction 1: search[Bert]\n" in llm.requests[1].prompt


async def test_a_chat_model_may_repeat_the_markers(pack: AgentPack) -> None:
    llm = ScriptedLLM(["Thought 1: I know.\nAction 1: Action 1: Finish[Oak]"])
    assert (await run(llm, pack)).answer == "Oak"


async def test_without_thoughts_only_actions_are_asked_for(pack: AgentPack) -> None:
    llm = ScriptedLLM([" search[Bert]\nnoise", "Action 2: finish[Elm]"])
    outcome = await run(llm, pack, thoughts=False, few_shot=1)
    assert outcome.answer == "Elm"
    assert [request.prompt for request in llm.requests] == [
        "Question: Where does the smith live?\n"
        "Action 1: search[smith]\n"
        "Observation 1: Anna is the smith.\n"
        "Action 2: finish[Oak]\n"
        "\n"
        "Question: Where does Anna live?\n"
        "Action 1:",
        llm.requests[0].prompt + " search[Bert]\n"
        "Observation 1: Bert is a baker. He lives in Elm.\n"
        "Action 2:",
    ]


async def test_demonstrations_are_laid_out_as_the_run_itself(pack: AgentPack) -> None:
    llm = ScriptedLLM([" x\nAction 1: finish[y]"])
    await run(llm, pack, few_shot=2)
    assert llm.requests[0].prompt == (
        "Question: Where does the smith live?\n"
        "Thought 1: I look for the smith.\n"
        "Action 1: search[smith]\n"
        "Observation 1: Anna is the smith.\n"
        "Thought 2: I know.\n"
        "Action 2: finish[Oak]\n"
        "\n"
        "Question: Who bakes bread in Elm?\n"
        "Thought 1: Bert does.\n"
        "Action 1: finish[Bert]\n"
        "\n"
        "Question: Where does Anna live?\n"
        "Thought 1:"
    )


async def test_the_nearest_demonstration_stands_next_to_the_question(pack: AgentPack) -> None:
    llm = ScriptedLLM([" x\nAction 1: finish[y]"])
    await run(llm, pack, few_shot=2, demonstrations="nearest")
    prompt = llm.requests[0].prompt
    assert prompt.index("Who bakes") < prompt.index("Where does the smith")


@pytest.mark.parametrize(
    ("action", "shown"),
    [
        ("google[Anna]", "'google[Anna]'"),
        ("I do not know", "'I do not know'"),
        ("search", "'search'"),
        ("finish", "'finish'"),
        ("search Anna", "'search Anna'"),
    ],
)
async def test_an_invalid_action_is_an_observation_and_uses_a_step(
    pack: AgentPack, action: str, shown: str
) -> None:
    llm = ScriptedLLM([f" t\nAction 1: {action}", " u\nAction 2: search[Bert]"])
    outcome = await run(llm, pack, max_steps=2)
    assert outcome.answer == ""
    assert len(llm.requests) == 2
    assert (
        f"Action 1: {action}\nObservation 1: Invalid action {shown}. "
        "Known: search, lookup, calculate, finish.\n"
    ) in llm.requests[1].prompt
    assert outcome.spans[1].error is not None


async def test_a_tool_that_fails_is_an_observation(pack: AgentPack) -> None:
    llm = ScriptedLLM([" t\nAction 1: calculate[1/0]", " u\nAction 2: finish[x]"])
    outcome = await run(llm, pack)
    assert "Observation 1: Cannot calculate 1/0: " in llm.requests[1].prompt
    assert outcome.answer == "x"
    assert outcome.spans[1].error is not None


async def test_at_budget_empty_makes_no_further_call(pack: AgentPack) -> None:
    llm = ScriptedLLM(lambda _: " t\nsearch[Anna]")
    outcome = await run(llm, pack, max_steps=3)
    assert outcome.answer == ""
    assert [checkpoint.answer for checkpoint in outcome.checkpoints] == ["", "", ""]


@pytest.mark.parametrize("reply", ["Oak", " Oak ", "Action 2: finish[Oak", "finish[Oak"])
async def test_at_budget_answer_asks_once_more(pack: AgentPack, reply: str) -> None:
    llm = ScriptedLLM([" t\nAction 1: search[Bert]", reply])
    outcome = await run(llm, pack, max_steps=1, at_budget="answer")
    assert outcome.answer == "Oak"
    assert llm.requests[1].prompt == (
        "Question: Where does Anna live?\nThought 1: t\nAction 1: search[Bert]\n"
        "Observation 1: Bert is a baker. He lives in Elm.\nAction 2: finish["
    )
    assert llm.requests[1].stop == ("]", "\n")
    assert llm.requests[1].grammar is None
    assert [checkpoint.answer for checkpoint in outcome.checkpoints] == [None]


async def test_the_grammar_names_the_actions(pack: AgentPack) -> None:
    llm = ScriptedLLM(["no action", " finish[x]"])
    await run(llm, pack)
    action = '" "? (("search" | "lookup" | "calculate" | "finish") "[" ([^\\[\\]\\n] | "[" [^\\[\\]\\n]* [\\])]){1,200} "]")'
    assert llm.requests[0].grammar == (f'root ::= " " [^\\n]{{1,400}} "\\nAction 1:" {action}')
    assert llm.requests[1].grammar == f"root ::= {action}"


REPLIES = (
    " t\nAction {i}: search[Anna]",
    " t\nAction {i}: lookup[dog]",
    " t\nAction {i}: finish[Oak]",
    " t\nAction {i}: nonsense",
    " t\nAction {i}: calculate[1/0]",
    " only a thought",
    " finish[Elm]",
    "",
)


def scripted(script: int) -> ScriptedLLM:
    """A model whose reply is a function of the request, finishing now and then."""

    def reply(request: Request) -> str:
        rng = random.Random(f"{script} {request.text()}")
        step = request.prompt.count("Observation ") + 1
        return rng.choices(REPLIES, weights=(4, 4, 1, 3, 3, 4, 2, 1))[0].format(i=step)

    return ScriptedLLM(reply)


DOGS = AgentPack(
    instruction="Answer.",
    toolkits=("browser", "calculator"),
    documents=(Document(title="Anna", sentences=("A dog.", "No cat.", "Two dogs.")),),
)


@given(
    script=st.integers(0, 10**6),
    budget=st.integers(2, 7),
    params=st.fixed_dictionaries(
        {"thoughts": st.booleans(), "at_budget": st.sampled_from(["empty", "answer"])},
        optional={
            "history": st.sampled_from(["last", "summary"]),
            "history_steps": st.integers(1, 2),
            "observation_chars": st.just(20),
            "speculate_tools": st.integers(1, 3),
        },
    ),
)
async def test_a_checkpoint_is_the_run_at_that_budget(
    script: int, budget: int, params: dict[str, bool | int | str]
) -> None:
    llm = scripted(script)
    whole = await run(llm, DOGS, max_steps=budget, **params)
    assert [c.budget for c in whole.checkpoints] == list(range(1, len(whole.checkpoints) + 1))
    assert len(whole.checkpoints) <= budget
    for smaller in range(1, budget):
        own = scripted(script)
        short = await run(own, DOGS, max_steps=smaller, **params)
        if smaller >= len(whole.checkpoints):  # finished by then: the two runs are one
            assert short.answer == whole.answer == whole.checkpoints[-1].answer
            assert own.requests == llm.requests
            continue
        checkpoint = whole.checkpoints[smaller - 1]
        spans = whole.spans[: checkpoint.span_count]
        # Where the answer would have taken a call that was not made, that call is all that is missing.
        expected = short.spans if checkpoint.answer is not None else short.spans[:-1]
        assert checkpoint.answer == (short.answer if params["at_budget"] == "empty" else None)
        assert [(s.name, s.input, s.output) for s in spans] == [
            (s.name, s.input, s.output) for s in expected
        ]
        assert sum(s.tokens_in or 0 for s in spans) == sum(s.tokens_in or 0 for s in expected)
        assert sum(s.tokens_out or 0 for s in spans) == sum(s.tokens_out or 0 for s in expected)
        assert checkpoint.elapsed_s <= whole.latency_s


async def test_a_failing_model_ends_the_run(pack: AgentPack) -> None:
    with pytest.raises(ModelError, match="down"):
        await run(ScriptedLLM([" t\nAction 1: search[Anna]", ModelError("down")]), pack)


async def test_long_observations_are_cut_in_the_prompt_alone(pack: AgentPack) -> None:
    llm = ScriptedLLM([" t\nAction 1: search[Bert]", " u\nAction 2: finish[x]"])
    outcome = await run(llm, pack, observation_chars=20)
    assert llm.requests[1].prompt.endswith("Observation 1: Bert is a baker. He…\nThought 2:")
    assert outcome.spans[1].output == "Bert is a baker. He lives in Elm."


def steps_in(prompt: str) -> list[str]:
    """What a prompt shows of the run, by the numbers of its actions."""
    shown = prompt.partition("Anna live?\n")[2]
    return [
        line.split(":")[0].removeprefix("Action ") for line in shown.splitlines() if "Act" in line
    ]


def looks(finish: int) -> Callable[[Request], str]:
    """A model that searches until it finishes with a step."""

    def reply(request: Request) -> str:
        if request.prompt.endswith("Summary:"):
            return f" Bert bakes, {request.prompt.count('Observation')}.\nAnd more."
        step = request.prompt.rpartition("Thought ")[2].removesuffix(":")
        return f" t\nAction {step}: {'finish[x]' if int(step) == finish else 'search[Bert]'}"

    return reply


async def test_history_last_drops_old_steps(pack: AgentPack) -> None:
    llm = ScriptedLLM(looks(5))
    outcome = await run(llm, pack, history="last", history_steps=2)
    assert outcome.answer == "x"
    assert [steps_in(request.prompt) for request in llm.requests] == [
        [],
        ["1"],
        ["1", "2"],
        ["2", "3"],
        ["3", "4"],
    ]


async def test_history_summary_sums_up_several_old_steps_at_a_time(pack: AgentPack) -> None:
    writer = ScriptedLLM(looks(0))
    llm = ScriptedLLM(looks(7))
    config = AgentConfig(
        workflow="react",
        model="m",
        params={"history": "summary", "history_steps": 2, "summary_model": "w"},
    )
    agent = build(config, llms={"m": llm, "w": writer}, pack=pack)
    outcome = await agent.run("Where does Anna live?")
    assert outcome.answer == "x"
    assert [steps_in(request.prompt) for request in llm.requests] == [
        [],
        ["1"],
        ["1", "2"],
        ["1", "2", "3"],
        ["3", "4"],
        ["3", "4", "5"],
        ["5", "6"],
    ]
    first, second = writer.requests
    assert steps_in(first.prompt) == ["1", "2"]
    assert steps_in(second.prompt) == ["3", "4"]
    summary = "Question: Where does Anna live?\nSummary of the steps before: Bert bakes, 2.\n"
    assert second.prompt.startswith(f"{summary}Thought 3:")
    assert llm.requests[4].prompt.startswith(f"{summary}Thought 3:")
    assert first.stop == ("\n",)
    # The call belongs to the step that it was made for.
    assert [checkpoint.span_count for checkpoint in outcome.checkpoints] == [2, 4, 6, 8, 11, 13, 15]


async def test_an_empty_summary_keeps_the_one_before(pack: AgentPack) -> None:
    summaries = iter(["Summary: Bert bakes.", ""])

    def reply(request: Request) -> str:
        return next(summaries) if request.prompt.endswith("Summary:") else looks(4)(request)

    llm = ScriptedLLM(reply)
    await run(llm, pack, history="summary", history_steps=1)
    assert llm.requests[-1].prompt == (
        "Question: Where does Anna live?\nSummary of the steps before: Bert bakes.\n"
        "Thought 3: t\nAction 3: search[Bert]\n"
        "Observation 3: Bert is a baker. He lives in Elm.\nThought 4:"
    )


class Timed:
    """A model whose replies take what the script says: request to reply and seconds."""

    def __init__(self, script: Callable[[Request], tuple[str | Exception, float]]) -> None:
        self.requests: list[Request] = []
        self._script = script

    async def complete(self, request: Request, trace: Trace, on_text: OnText | None = None) -> str:
        self.requests.append(request)
        reply, delay_s = self._script(request)
        return await ScriptedLLM([reply], delay_s=delay_s).complete(request, trace, on_text)


class Well:
    """A tool that takes its time and remembers how often it was drawn from."""

    def __init__(self, calls: list[str], delay_s: float) -> None:
        self._calls = calls
        self._delay_s = delay_s
        self._drawn = 0

    def tools(self) -> Iterable[Tool]:
        return (Tool("draw", "draw[bucket] draws water", self.draw, ordered=True),)

    async def draw(self, bucket: str) -> str:
        self._calls.append(bucket)
        await asyncio.sleep(self._delay_s)
        self._drawn += 1
        return f"{bucket} {self._drawn}"


class Drawing:
    """A run of ReAct at the well, with an actor and a draft model that are told what to say and when."""

    def __init__(
        self,
        actor: list[tuple[str | Exception, float]],
        draft: Callable[[Request], tuple[str | Exception, float]],
        *,
        guesses: int = 1,
        delay_s: float = 0.0,
        **params: bool | int | float | str,
    ) -> None:
        replies = iter(actor)
        self.actor = Timed(lambda _: next(replies))
        self.draft = Timed(draft)
        self.calls: list[str] = []
        config = AgentConfig(
            workflow="react",
            model="m",
            params={"speculate_tools": guesses, "draft_model": "d", **params},
        )
        pack = AgentPack(instruction="Draw.", toolkits=("calculator",))
        self.agent: Agent = build(config, llms={"m": self.actor, "d": self.draft}, pack=pack)
        self.session: Session = self.agent.open_session(seed=5)
        self.session.tools = Toolbox([Well(self.calls, delay_s)])

    async def run(self) -> Outcome:
        outcome = await self.agent.run_session("Where?", self.session)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return outcome


def of(outcome: Outcome, kind: str) -> list[Span]:
    return [span for span in outcome.spans if span.kind == kind]


async def test_a_guessed_call_runs_while_the_actor_thinks() -> None:
    drawing = Drawing(
        [(" t\nAction 1: draw[red]", 0.3), (" u\nAction 2: finish[x]", 0.0)],
        lambda request: (" draw[red]" if "Action 1:" in request.prompt else " no", 0.0),
        delay_s=0.3,
    )
    started_s = time.perf_counter()
    outcome = await drawing.run()
    assert time.perf_counter() - started_s < 0.55
    assert outcome.answer == "x"
    assert drawing.calls == ["red"]
    assert "Action 1: draw[red]\nObservation 1: red 1\n" in drawing.actor.requests[1].prompt
    (call,) = of(outcome, "tool")
    assert call.speculative
    assert call.error is None
    thinking = of(outcome, "llm")[1]
    assert thinking.output.startswith(" t")
    assert thinking.start_s <= call.start_s < thinking.end_s
    guess = drawing.draft.requests[0]
    assert guess.prompt == "Question: Where?\nAction 1:"
    assert guess.system == drawing.actor.requests[0].system
    assert guess.stop == ("\nObservation 1:",)
    assert guess.grammar is not None


async def test_a_guess_that_is_right_gives_its_state_to_the_run() -> None:
    drawing = Drawing(
        [
            (" t\nAction 1: draw[blue]", 0.02),
            (" t\nAction 2: draw[red]", 0.02),
            (" t\nAction 3: draw[blue]", 0.02),
            (" t\nAction 4: finish[x]", 0.02),
        ],
        lambda _: (" draw[red]", 0.0),
    )
    outcome = await drawing.run()
    # Wrong, right, wrong, and none asked for: what was drawn on a wrong guess is not remembered.
    assert drawing.calls == ["red", "blue", "red", "red", "blue", "red"]
    prompt = drawing.actor.requests[-1].prompt
    assert [line for line in prompt.splitlines() if line.startswith("Obs")] == [
        "Observation 1: blue 1",
        "Observation 2: red 2",
        "Observation 3: blue 3",
    ]
    calls = of(outcome, "tool")
    assert {span.input for span in calls if span.speculative} == {"red"}
    assert {span.input for span in calls if not span.speculative} == {"blue"}


async def test_the_cursor_of_an_adopted_call_goes_on(pack: AgentPack) -> None:
    actions = ["search[Anna]", "lookup[dog]", "lookup[dog]", "finish[x]"]

    def reply(request: Request) -> str:
        step = request.prompt.count("Observation ") + 1
        return f" t\nAction {step}: {actions[step - 1]}"

    alone = await run(ScriptedLLM(reply), pack)
    guessed = await run(ScriptedLLM(reply, delay_s=0.01), pack, speculate_tools=2)
    shown = [span.output for span in of(alone, "tool")]
    assert shown[1:] == ["(Result 1 / 3) She has a dog.", "(Result 2 / 3) The dog sleeps."]
    thoughts = [span.input for span in of(guessed, "llm") if span.input.endswith("Thought 4:")]
    assert thoughts == [of(alone, "llm")[-1].input]


async def test_several_guesses_differ_in_seed_and_temperature_and_start_a_call_once() -> None:
    def guess(request: Request) -> tuple[str, float]:
        first = request.prompt.endswith("?\nAction 1:")
        return (f" draw[b{max(request.seed, 6)}]" if first else " no", 0.0)

    drawing = Drawing(
        [(" t\nAction 1: draw[b7]", 0.05), (" t\nAction 2: finish[x]", 0.0)],
        guess,
        guesses=3,
        temperature=0.2,
    )
    await drawing.run()
    first = [r for r in drawing.draft.requests if r.prompt.endswith("Action 1:")]
    assert [(r.seed, r.temperature) for r in first] == [(5, 0.2), (6, 1.0), (7, 1.0)]
    assert drawing.calls == ["b6", "b7"]


async def test_a_guess_that_comes_too_late_starts_nothing_and_is_paid_for() -> None:
    drawing = Drawing(
        [(" t\nAction 1: draw[red]", 0.01), (" u\nAction 2: finish[x]", 0.01)],
        lambda _: (" draw[red]", 0.1),
        delay_s=0.02,
    )
    outcome = await drawing.run()
    assert drawing.calls == ["red"]
    (call,) = of(outcome, "tool")
    assert not call.speculative
    guess = next(span for span in of(outcome, "llm") if "Thought" not in span.input)
    assert call.end_s < guess.end_s  # the step's own call did not wait for it
    assert all(span.error is None and span.tokens_out for span in of(outcome, "llm"))


async def test_wrong_guesses_are_stopped_and_leave_their_spans() -> None:
    drawing = Drawing(
        [(" t\nAction 1: finish[x]", 0.05)],
        lambda request: (" draw[red]", 0.0) if request.seed == 5 else (" draw[blue]", 0.1),
        guesses=2,
        delay_s=30.0,
    )
    started_s = time.perf_counter()
    outcome = await drawing.run()
    assert time.perf_counter() - started_s < 5
    assert outcome.answer == "x"
    (call,) = of(outcome, "tool")
    assert (call.input, call.error, call.speculative) == ("red", "cancelled", True)
    assert [span.error for span in of(outcome, "llm")] == [None] * 3
    assert outcome.checkpoints[-1].span_count == len(outcome.spans) == 4
    # The tokens of a guess that was not used are paid for all the same.
    assert sum(span.tokens_out or 0 for span in outcome.spans) > len(
        ["t", "Action", "1:", "finish[x]"]
    )


@pytest.mark.parametrize(
    "guess", [ModelError("down"), " finish[y]", " fetch[z]", " nonsense", "", " draw[", "\n\n"]
)
async def test_a_useless_guess_does_not_touch_the_run(guess: str | Exception) -> None:
    drawing = Drawing(
        [(" t\nAction 1: draw[red]", 0.02), (" u\nAction 2: finish[x]", 0.02)],
        lambda _: (guess, 0.0),
    )
    outcome = await drawing.run()
    assert outcome.answer == "x"
    assert drawing.calls == ["red"]
    assert not any(span.speculative for span in outcome.spans)


async def test_a_tool_that_ends_the_run_is_never_called_on_a_guess(pack: AgentPack) -> None:
    sold: list[str] = []

    class Stall:
        def tools(self) -> Iterable[Tool]:
            return (Tool("buy", "buy[name] ends by buying", self.buy, ends=True),)

        async def buy(self, name: str) -> str:
            sold.append(name)
            return f"Bought {name}"

    drawing = Drawing([(" t\nAction 1: buy[hat]", 0.05)], lambda _: (" buy[coat]", 0.0))
    drawing.session.tools = Toolbox([Stall()])
    assert (await drawing.run()).answer == "Bought hat"
    assert sold == ["hat"]


async def test_the_actor_s_failure_is_the_run_s_and_stops_the_guesses() -> None:
    down = ModelError("down")
    drawing = Drawing([(down, 0.05)], lambda _: (" draw[red]", 0.0), delay_s=30.0)
    with pytest.raises(ModelError) as caught:
        await drawing.run()
    assert caught.value is down
    assert asyncio.all_tasks() == {asyncio.current_task()}
    errors = {span.name: span.error for span in drawing.session.trace.spans if span.error}
    assert errors == {"scripted": "down", "draw": "cancelled"}


@pytest.mark.parametrize("thinking_s", [0.0, 30.0])
async def test_cancelled_while_guesses_run_it_leaves_no_task(thinking_s: float) -> None:
    drawing = Drawing(
        [(" t\nAction 1: draw[red]", thinking_s)],
        lambda _: (" draw[red]", 0.0),
        guesses=2,
        delay_s=30.0,
    )
    task = asyncio.create_task(drawing.run())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert {s.error for s in drawing.session.trace.spans if s.kind == "tool"} == {"cancelled"}


@given(script=st.integers(0, 10**6), guesses=st.integers(1, 4))
async def test_guessing_changes_what_a_run_costs_and_not_what_it_says(
    script: int, guesses: int
) -> None:
    plain = await run(scripted(script), DOGS)
    outcomes = [await run(scripted(script), DOGS, speculate_tools=guesses) for _ in range(2)]
    first, again = outcomes
    assert first.answer == plain.answer
    assert [c.answer for c in first.checkpoints] == [c.answer for c in plain.checkpoints]
    shown = [(span.name, span.input, span.output, span.error) for span in first.spans]
    assert shown == [(span.name, span.input, span.output, span.error) for span in again.spans]
    thoughts = [span.input for span in of(plain, "llm")]
    assert set(thoughts) <= {span.input for span in of(first, "llm")}
