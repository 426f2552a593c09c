from collections.abc import Iterable

import pytest

from workflows import AgentPack
from workflows import Demonstration
from workflows import ScriptedLLM
from workflows import Session
from workflows import Step
from workflows.prompt import fenced
from workflows.steps import Action
from workflows.steps import Taken
from workflows.steps import choose
from workflows.steps import end_of
from workflows.steps import observed
from workflows.steps import read_action
from workflows.steps import show_actions
from workflows.steps import show_demonstration
from workflows.steps import show_step
from workflows.steps import take
from workflows.tools import Observation
from workflows.tools import Tool
from workflows.tools import Toolbox

PROGRAM = "x = [1]\n\nprint(x[0])"


class Desk:
    """A tool of each kind."""

    def __init__(self, *, sells: bool = False) -> None:
        self._sells = sells

    def tools(self) -> Iterable[Tool]:
        yield Tool("look", "look[word] looks", self.look)
        yield Tool("run", "run with a program in a fenced block runs it", self.run, block=True)
        if self._sells:
            yield Tool("buy", "buy[name] ends by buying", self.buy, ends=True)

    async def look(self, word: str) -> str:
        return f"Seen: {word}."

    async def run(self, program: str) -> str:
        return f"Ran {len(program.splitlines())} lines."

    async def buy(self, name: str) -> str:
        return f"Bought {name}"


def session(
    llm: ScriptedLLM | None = None, *, sells: bool = False, program: bool = False
) -> Session:
    pack = AgentPack(instruction="Do it.", answer="program" if program else "line")
    llms = {"m": ScriptedLLM([]) if llm is None else llm}
    return Session(llms=llms, actor="m", pack=pack, tools=Toolbox([Desk(sells=sells)]))


@pytest.mark.parametrize(
    ("line", "tool", "argument"),
    [
        ("search[Anna]", "search", "Anna"),
        ("  Search [ Anna ] trailing", "search", "Anna"),
        ("finish[f[1] and g[2]]", "finish", "f[1] and g[2]"),
        ("lookup[]", "lookup", ""),
        ("\n\nsearch[Anna]\nnoise", "search", "Anna"),
        ("finish", "", "finish"),
        ("finish[", "", "finish["),
        ("I think search[x]", "", "I think search[x]"),
        ("", "", ""),
    ],
)
def test_an_action_on_a_line(line: str, tool: str, argument: str) -> None:
    action = read_action(line)
    assert (action.tool, action.argument) == (tool, argument)
    assert action.text == line.strip().partition("\n")[0]


def test_an_action_that_was_broken_off_is_closed() -> None:
    assert read_action(" search[River Lor") == Action("search", "River Lor", "search[River Lor]")


@pytest.mark.parametrize(
    "reply",
    [
        f" run\n{fenced(PROGRAM)}",
        f"Run:\n{fenced(PROGRAM)}\nIt prints 1.",
        f"run ```python\n{PROGRAM}\n```",
        f"run\n\n```\n{PROGRAM}\n```\n\n```python\nnoise\n```",
        f"run\n```python\n{PROGRAM}",
    ],
)
def test_an_action_in_a_fence(reply: str) -> None:
    assert read_action(reply) == Action("run", PROGRAM, f"run\n{fenced(PROGRAM)}")


def test_words_before_a_fence_are_no_tool() -> None:
    action = read_action(f"Here is the code:\n{fenced(PROGRAM)}")
    assert action == Action("", "Here is the code:", "Here is the code:")


async def test_taking_a_step() -> None:
    here = session()
    looked, answer = await take(Taken("t", read_action("look[tree]"), None), here, here.tools)
    assert (looked.observation, answer) == ("Seen: tree.", None)
    ran, answer = await take(
        Taken("t", read_action(f"run\n{fenced(PROGRAM)}"), None), here, here.tools
    )
    assert (ran.observation, answer) == ("Ran 3 lines.", None)
    done, answer = await take(Taken("t", read_action("finish[Oak]"), None), here, here.tools)
    assert (done.observation, answer) == (None, "Oak")
    assert [span.name for span in here.trace.spans] == ["look", "run"]


async def test_where_a_tool_ends_its_observation_is_the_answer_and_finish_is_none() -> None:
    here = session(sells=True)
    bought, answer = await take(Taken("t", read_action("buy[hat]"), None), here, here.tools)
    assert (bought.observation, answer) == (None, "Bought hat")
    finished, answer = await take(Taken("t", read_action("finish[hat]"), None), here, here.tools)
    assert answer is None
    assert finished.observation == "Invalid action 'finish[hat]'. Known: look, run, buy."
    assert end_of(here.tools) == "buy"
    assert end_of(session().tools) == "finish"


def test_an_observation_that_was_had_before() -> None:
    step = Taken(None, read_action("look[x]"), None)
    assert observed(step, Observation("y")) == (Taken(None, step.action, "y"), None)
    assert observed(step, Observation("y", ends=True)) == (step, "y")


def test_steps_are_shown_with_their_number() -> None:
    action = read_action("look[x]")
    assert show_step(2, Taken("t", action, "o")) == (
        "Thought 2: t\nAction 2: look[x]\nObservation 2: o\n"
    )
    assert show_step(2, Taken(None, action, None)) == "Action 2: look[x]\n"


def test_the_instruction_tells_how_a_run_ends() -> None:
    told = "Do it. Actions: look[word] looks; run with a program in a fenced block runs it; "
    assert show_actions(session()) == f"{told}finish[answer] ends with the answer."
    assert show_actions(session(program=True)) == (
        f"{told}finish with a program in a fenced block gives the answer."
    )
    assert show_actions(session(sells=True)) == f"{told}buy[name] ends by buying."


def test_a_demonstration_shows_programs_in_fences() -> None:
    demo = Demonstration(
        question="q",
        answer=PROGRAM,
        steps=(
            Step(thought="I try.", tool="run", argument=PROGRAM, observation="1"),
            Step(thought="Good.", tool="finish", argument=PROGRAM),
        ),
    )
    assert show_demonstration(demo, session(program=True), thoughts=True) == (
        f"Thought 1: I try.\nAction 1: run\n{fenced(PROGRAM)}\nObservation 1: 1\n"
        f"Thought 2: Good.\nAction 2: finish\n{fenced(PROGRAM)}"
    )


async def test_programs_are_asked_for_by_the_grammar_and_read_from_the_reply() -> None:
    llm = ScriptedLLM([f" I try.\nAction 1: run\n{fenced(PROGRAM)}\nObservation 1: made up"])
    here = session(llm, program=True)

    async def ask(prompt: str, stop: tuple[str, ...], grammar: str) -> str:
        return await here.complete(prompt, system="", max_tokens=99, stop=stop, grammar=grammar)

    taken = await choose(1, "Question: q\n", here, ask, thoughts=True)
    assert taken == Taken("I try.", Action("run", PROGRAM, f"run\n{fenced(PROGRAM)}"), None)
    grammar = llm.requests[0].grammar
    assert grammar is not None
    assert grammar.endswith(
        '" "? (("look") "[" ([^\\[\\]\\n] | "[" [^\\[\\]\\n]* [\\])]){1,200} "]" | ("run" | "finish") "\\n```python\\n" '
        '([^`\\n] [^\\n]* "\\n" | "\\n")+ "```")'
    )
