"""Functions of the user's as workflows: what is accepted, what is refused and how, and that their calls are measured."""

import asyncio
import gc
import importlib.util
import re
import sys
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tuner.space import SearchSpace
from workflows import AgentConfig
from workflows import AgentPack
from workflows import ChatClient
from workflows import ConfigError
from workflows import ModelError
from workflows import ModelSettings
from workflows import Params
from workflows import ScriptedLLM
from workflows import build
from workflows.agent import Agent
from workflows.table import workflow_kind
from workflows.tools import Tool

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SCRIPT = ROOT / "benchmarks" / "loopback.py"

# litellm and what it stands on warn of themselves.
pytestmark = pytest.mark.filterwarnings("ignore", "error:::workflows")

HEAD = """
from typing import ClassVar
from pydantic import Field
from workflows import Params
from workflows import Session
"""
PLAIN = """
async def answer(question, session):
    reply = await session.complete(question, system="s", max_tokens=9)
    return reply.upper()
"""
KNOBS = """
class Knobs(Params):
    rounds: int = Field(default=2, ge=1)
    mark: str = "!"

async def answer(question: str, session: Session, params: Knobs) -> str:
    assert isinstance(params, Knobs)
    return params.mark * params.rounds
"""

Write = Callable[[str], str]


def import_loopback() -> ModuleType:
    spec = importlib.util.spec_from_file_location("loopback", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["loopback"] = module
    spec.loader.exec_module(module)
    return module


loopback = import_loopback()


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """litellm drops some of its clients unclosed, which is to be said here and not at the end of all tests."""
    yield
    gc.collect()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module where Python finds it, and gives the name that it has: another in each test."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(source: str) -> str:
        name = f"mine_{abs(hash(tmp_path)):x}"
        (tmp_path / f"{name}.py").write_text(HEAD + source)
        return name

    return write


def agent(name: str, llm: object = None, form: str = "line", **params: Any) -> Agent:
    pack = AgentPack(instruction="Answer.", answer=form)  # type: ignore[arg-type]
    config = AgentConfig(workflow=name, model="m", params=params)
    return build(config, llms={"m": llm or ScriptedLLM([])}, pack=pack)  # type: ignore[dict-item]


async def test_a_function_is_a_workflow(write: Write) -> None:
    one = agent(f"{write(PLAIN)}:answer", ScriptedLLM(["oak"]))
    outcome = await one.run("Where?")
    assert outcome.answer == "OAK"
    assert [span.input for span in outcome.spans] == ["s\n\nWhere?"]


async def test_its_params_are_its_knobs(write: Write) -> None:
    name = f"{write(KNOBS)}:answer"
    assert set(workflow_kind(name).params.model_fields) == {"rounds", "mark"}
    assert (await agent(name).run("Where?")).answer == "!!"
    assert (await agent(name, rounds=3, mark="?").run("Where?")).answer == "???"


@pytest.mark.parametrize(
    ("params", "message"),
    [({"rounds": 0}, r":answer\.rounds: .*\(given: 0\)"), ({"round": 1}, r":answer\.round: ")],
)
def test_a_bad_knob_is_refused(write: Write, params: dict[str, Any], message: str) -> None:
    name = f"{write(KNOBS)}:answer"
    with pytest.raises(ConfigError, match=message) as caught:
        agent(name, **params)
    assert "rounds, mark" in str(caught.value.hint)


@pytest.mark.parametrize("form", ["line", "program", "text", "action"])
@pytest.mark.parametrize("source", [PLAIN, KNOBS])
def test_any_form_of_answer_will_do(write: Write, source: str, form: str) -> None:
    agent(f"{write(source)}:answer", form=form)


def test_unless_the_params_say_which(write: Write) -> None:
    declared = 'Params):\n    forms: ClassVar = ("program",)'
    name = f"{write(KNOBS.replace('Params):', declared, 1))}:answer"
    agent(name, form="program")
    with pytest.raises(ConfigError, match="it gives: a program"):
        agent(name, form="line")


def test_a_function_that_needs_tools_is_refused_a_task_without(write: Write) -> None:
    declared = "Params):\n    needs_tools: ClassVar = True"
    name = f"{write(KNOBS.replace('Params):', declared, 1))}:answer"
    with pytest.raises(ConfigError, match="no tools"):
        agent(name)


OTHERS = """
from functools import partial

class Box:
    class Inner:
        @staticmethod
        async def answer(question, session):
            return "inner"

class Callable:
    async def __call__(self, question: str, session: Session, params: "Knobs") -> str:
        return params.mark

class Knobs(Params):
    mark: str = "object"

instance = Callable()

async def verbose(prefix, question, session, params: "Knobs", *, loud=False):
    return prefix + params.mark

made = partial(verbose, "partial ")
"""


@pytest.mark.parametrize(
    ("attribute", "answer"),
    [("Box.Inner.answer", "inner"), ("instance", "object"), ("made", "partial object")],
)
async def test_any_async_callable_will_do(write: Write, attribute: str, answer: str) -> None:
    assert (await agent(f"{write(OTHERS)}:{attribute}").run("Where?")).answer == answer


async def test_annotations_may_be_for_type_checkers_only(tmp_path: Path, write: Write) -> None:
    name = write("")
    source = KNOBS.replace("session: Session", "session: Elsewhere")
    (tmp_path / f"{name}.py").write_text(f"from __future__ import annotations\n{HEAD}{source}")
    assert (await agent(f"{name}:answer").run("Where?")).answer == "!!"


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(ConfigError) as caught:
        workflow_kind("nosuch:thing")
    assert str(caught.value) == (
        "workflow nosuch:thing: there is no module nosuch, installed or in the current folder"
    )
    assert caught.value.hint == "start in the module's folder, or install it"
    with pytest.raises(ConfigError, match=r"there is no module workflows\.nosuch,"):
        workflow_kind("workflows.nosuch:thing")


@pytest.mark.parametrize("name", [":", "json:", ":answer", "a b:c", "./my.py:answer", "a:b:c"])
def test_a_name_of_another_form(name: str) -> None:
    with pytest.raises(ConfigError, match="is not of the form module:function"):
        workflow_kind(name)


ASYNC = "async def answer(question, session{}): return ''\n"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def answer(question, session): return ''", "is not an async function"),
        ("class answer:\n    async def __call__(self, question, session): ...", "is not an async"),
        ("answer = 3", "is not an async function"),
        ("async def other(question, session): ...", "has no answer"),
        ("", "has no answer"),
        ("async def answer(question): ...", r"takes \(question\), and must take"),
        (ASYNC.format(", params, more"), r"takes \(question, session, params, more\), and must"),
        (ASYNC.format(", *, more"), r"takes \(question, session, \*, more\), and must"),
        (ASYNC.format(", params"), "params: has no annotation"),
        (ASYNC.format(", params: int"), r"params: <class 'int'> is no subclass of workflows\.Par"),
        (ASYNC.format(", knobs: dict[str, int]"), r"knobs: dict\[str, int\] is no subclass"),
        (ASYNC.format(', params: "Gone"'), "params: name 'Gone' is not defined"),
        (
            f"class P(Params):\n    rounds: int\n{ASYNC.format(', params: P')}",
            r"params: P\.rounds: has no default",
        ),
        (
            f"class P(Params):\n    anytime: ClassVar = 'x'\n{ASYNC.format(', params: P')}",
            r"params: P\.anytime: no knob is named 'x'",
        ),
        ("import nosuch_library", "cannot be imported: No module named 'nosuch_library'"),
        ("from json import nosuch", "cannot be imported: cannot import name 'nosuch'"),
        ("def answer(:", r"cannot be imported: invalid syntax \(mine_\w+\.py, line 6\)"),
    ],
)
def test_what_is_no_workflow_is_refused(write: Write, source: str, message: str) -> None:
    name = f"{write(source)}:answer"
    with pytest.raises(ConfigError, match=f"^workflow {name}: .*{message}"):
        workflow_kind(name)


def test_a_bug_in_the_module_keeps_its_traceback(write: Write) -> None:
    with pytest.raises(ZeroDivisionError):
        workflow_kind(f"{write('1 / 0')}:answer")


@pytest.mark.parametrize("given", ["None", "42", "['a']"])
async def test_an_answer_is_a_text(write: Write, given: str) -> None:
    name = f"{write(f'async def answer(question, session): return {given}')}:answer"
    with pytest.raises(ConfigError, match=re.escape(f"workflow {name}: gave {given} for")):
        await agent(name).run("Where?")


async def test_an_error_of_the_model_goes_to_the_caller_and_leaves_its_span(write: Write) -> None:
    one = agent(f"{write(PLAIN)}:answer", ScriptedLLM([ModelError("down")]))
    session = one.open_session()
    with pytest.raises(ModelError, match="down"):
        await one.run_session("Where?", session)
    assert [span.error for span in session.trace.spans] == ["down"]


ROUNDS = """
class Knobs(Params):
    anytime: ClassVar = "rounds"
    rounds: int = Field(default=3, ge=1)

async def answer(question, session, params: Knobs):
    for number in range(1, params.rounds + 1):
        reply = await session.complete(f"{question} {number}", system="", max_tokens=9)
        if number < params.rounds:
            session.checkpoint(number, reply)
    return reply
"""


async def test_a_function_may_leave_checkpoints(write: Write) -> None:
    name = f"{write(ROUNDS)}:answer"
    assert workflow_kind(name).params.anytime == "rounds"
    llm = ScriptedLLM(lambda request: request.prompt[-1])
    whole = await agent(name, llm, rounds=3).run("Where?")
    assert [(point.budget, point.answer) for point in whole.checkpoints] == [(1, "1"), (2, "2")]
    for point in whole.checkpoints:
        alone = await agent(name, llm, rounds=point.budget).run("Where?")
        assert alone.answer == point.answer
        assert [span.input for span in alone.spans] == [
            span.input for span in whole.spans[: point.span_count]
        ]


BOTH_WAYS = """
import asyncio
import litellm

def ask(session, question):
    messages = [{"role": "user", "content": f"by litellm {question}"}]
    return litellm.completion(messages=messages, max_tokens=9, **session.litellm())

async def answer(question, session):
    await asyncio.gather(
        asyncio.to_thread(ask, session, question),
        session.complete(f"by session {question}", system="", max_tokens=9),
    )
    return question
"""


def client(server: Any, **settings: Any) -> ChatClient:
    given = {"model": "hosted_vllm/org/name", "api_base": server.address, "timeout_s": 10.0}
    return ChatClient(ModelSettings(**{**given, **settings}))


@pytest.mark.parametrize("endpoint", ["chat", "completion"])
async def test_calls_by_the_session_and_past_it_are_each_measured_once(
    write: Write, endpoint: str
) -> None:
    async with loopback.serve(loopback.Behaviour(text="a b", delay_s=0.02)) as server:
        llm = client(server, endpoint=endpoint)
        one = agent(f"{write(BOTH_WAYS)}:answer", llm)
        outcomes = await asyncio.gather(*(one.run(f"{number}") for number in range(3)))
        await llm.close()
    for outcome in outcomes:
        assert sorted(span.input for span in outcome.spans) == [
            f"by litellm {outcome.answer}",
            f"by session {outcome.answer}",
        ]
        for span in outcome.spans:
            assert (span.name, span.tokens_in, span.tokens_out) == ("hosted_vllm/org/name", 16, 2)


HANGING = """
import litellm

async def answer(question, session):
    messages = [{"role": "user", "content": question}]
    await litellm.acompletion(messages=messages, **session.litellm())
"""


async def test_a_cancelled_question_leaves_the_call_that_was_under_way(write: Write) -> None:
    async with loopback.serve(loopback.Behaviour(script=("hang",))) as server:
        llm = client(server)
        one = agent(f"{write(HANGING)}:answer", llm)
        session = one.open_session()
        task = asyncio.create_task(one.run_session("Where?", session))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await llm.close()
    assert [(span.input, span.error) for span in session.trace.spans] == [("Where?", "cancelled")]


def test_litellm_cannot_reach_a_script(write: Write) -> None:
    session = agent(f"{write(PLAIN)}:answer").open_session()
    with pytest.raises(ConfigError, match="model 'actor' is a ScriptedLLM"):
        session.litellm()


async def test_litellm_reaches_a_model_of_a_completion_endpoint(smollm2: Any, write: Write) -> None:
    assert smollm2.settings.endpoint == "completion"
    llm = ChatClient(smollm2.settings)
    outcome = await agent(f"{write(BOTH_WAYS)}:answer", llm).run("Say hello.")
    await llm.close()
    (past,) = (span for span in outcome.spans if span.input.startswith("by litellm"))
    assert past.error is None
    assert past.output
    assert past.tokens_in is not None
    assert past.tokens_out


TWO_STEPS = """Thought: I look first.
<code>
print(search(argument="Anna"))
</code>"""


async def test_the_example_of_smolagents(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("smolagents", reason="smolagents is not installed: pip install smolagents")
    monkeypatch.syspath_prepend(DOCS / "examples")
    searched: list[str] = []

    async def search(argument: str) -> str:
        searched.append(argument)
        return "Anna lives in Oak."

    async with loopback.serve(loopback.Behaviour(text=TWO_STEPS, record=True)) as server:
        llm = client(server)
        one = agent("smolagents_agent:answer", llm, max_steps=2, max_tokens=77)
        session = one.open_session(seed=5)
        tool = Tool("search", "search[title] opens a page", search)
        session.tools = {"search": tool}  # type: ignore[assignment]
        outcome = await one.run_session("Where does Anna live?", session)
        bodies = [received.body for received in server.received]
        await llm.close()
    # Two steps, and as they brought no answer a last call for one.
    assert [span.kind for span in outcome.spans] == ["llm", "tool", "llm", "tool", "llm"]
    assert {(body["model"], body["max_tokens"], body["seed"]) for body in bodies} == {
        ("org/name", 77, 5)
    }
    assert len(bodies) == 3
    assert searched == ["Anna", "Anna"]
    for span in outcome.spans:
        assert span.error is None
        if span.kind == "llm":
            assert span.output == TWO_STEPS
            assert (span.tokens_in, span.tokens_out) == (16, len(TWO_STEPS.split(" ")))
            assert "Where does Anna live?" in span.input
    assert "Anna lives in Oak." in outcome.spans[2].input
    assert outcome.answer == TWO_STEPS


GUIDE = (DOCS / "custom-workflows.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", GUIDE, flags=re.DOTALL)


async def test_the_function_of_the_guide_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (source,) = (text for language, text in BLOCKS if language == "python")
    (tmp_path / "my_agent.py").write_text(source)
    llm = ScriptedLLM(["Elm", "Oak", "Elm", "Oak\nQuestion: more"])
    outcome = await agent("my_agent:answer", llm, drafts=3).run("Where?")
    assert outcome.answer == "Oak"
    assert "Elm\nOak\nElm" in outcome.spans[-1].input


def test_the_spaces_of_the_guide_are_spaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("smolagents", reason="smolagents is not installed: pip install smolagents")
    monkeypatch.syspath_prepend(DOCS / "examples")
    monkeypatch.syspath_prepend(tmp_path)
    (source,) = (text for language, text in BLOCKS if language == "python")
    (tmp_path / "my_agent.py").write_text(source)
    contents = [yaml.safe_load(text) for language, text in BLOCKS if language == "yaml"]
    assert len(contents) == 2
    for content in contents:
        configs = list(SearchSpace.model_validate(content).configs(["m"]) or ())
        assert any(":" in config.workflow for config in configs)
        for config in configs:
            params = workflow_kind(config.workflow).params
            assert issubclass(params, Params)
            params.model_validate(config.params)


@pytest.mark.slow
def test_the_files_that_the_guide_points_to_are_there() -> None:
    linked = re.findall(r"\]\((examples/.*?)\)", GUIDE)
    assert linked
    for path in linked:
        assert (DOCS / path).is_file()
