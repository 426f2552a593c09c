"""ReAct (Yao et al., arXiv 2210.03629): thoughts, actions and observations in turn, until the agent finishes.

for i in 1 … max_steps:
    thought, action ← model(prompt so far + "Thought i:"), stopped before "Observation i:"
    if there is no action: keep the thought's first line, and ask once more for the action alone
    if the action is finish[answer]: return answer
    observation ← the tool's answer, or a message that the action is invalid
    append all three to the prompt
return "" as published, or what one last call answers: `at_budget`
"""

import re
from typing import ClassVar
from typing import Literal

from pydantic import Field

from workflows.agent_pack import Demonstration
from workflows.base import Params
from workflows.prompt import first_line
from workflows.prompt import layout
from workflows.session import Session

FINISH = "finish"
_ACTION = re.compile(r"\s*(\w+)\s*\[(.*)\]", re.DOTALL)


class ReactParams(Params):
    """Knobs of ReAct; 7 steps of 100 tokens at temperature 0 are the published defaults for HotpotQA."""

    anytime: ClassVar[str | None] = "max_steps"

    max_steps: int = Field(default=7, ge=1, le=64, description="calls that choose an action")
    max_tokens: int = Field(default=100, ge=1, le=4096, description="for each step")
    thoughts: bool = Field(default=True, description="whether a thought precedes each action")
    at_budget: Literal["empty", "answer"] = Field(
        default="empty",
        description="not finished after the last step: no answer, or one last call for it",
    )


class React:
    """Answers with tools, one step at a time; leaves a checkpoint after each."""

    def __init__(self, params: ReactParams) -> None:
        self.params = params

    async def run(self, question: str, session: Session) -> str:
        """The argument of `finish`, or what `at_budget` says."""
        system = _system(session)
        text = layout(
            question,
            session.demonstrations(question, self.params),
            lambda demo: _work(demo, thoughts=self.params.thoughts),
        )
        for step in range(1, self.params.max_steps + 1):
            thought, action = await self._choose(step, text, system, session)
            tool, argument = parse_action(action)
            if tool == FINISH:
                session.checkpoint(step, argument)
                return argument
            observation = await session.act(tool, argument)
            text += _step_text(step, thought, action, observation)
            session.checkpoint(step, "" if self.params.at_budget == "empty" else None)
        if self.params.at_budget == "empty":
            return ""
        reply = await session.complete(
            f"{text}Action {self.params.max_steps + 1}: {FINISH}[",
            system=system,
            max_tokens=self.params.max_tokens,
            temperature=self.params.temperature,
            stop=("]", "\n"),
        )
        return first_line(reply.rpartition(f"{FINISH}[")[2])

    async def _choose(
        self, step: int, text: str, system: str, session: Session
    ) -> tuple[str | None, str]:
        """The thought (None without thoughts) and the action's line."""

        async def ask(prompt: str, grammar: str) -> str:
            return await session.complete(
                prompt,
                system=system,
                max_tokens=self.params.max_tokens,
                temperature=self.params.temperature,
                stop=(f"\nObservation {step}:",),
                grammar=grammar,
            )

        marker = f"Action {step}:"
        action = _grammar_action(session)
        if not self.params.thoughts:
            reply = await ask(f"{text}{marker}", f"root ::= {action}")
            return None, first_line(reply.replace(marker, "", 1))
        reply = await ask(
            f"{text}Thought {step}:", f'root ::= " " [^\\n]{{1,400}} "\\n{marker}" {action}'
        )
        thought, _, rest = reply.partition(marker)
        thought = thought.replace(f"Thought {step}:", "", 1).strip()
        if not rest.strip():
            thought = first_line(thought)
            rest = await ask(f"{text}Thought {step}: {thought}\n{marker}", f"root ::= {action}")
        return thought, first_line(rest.replace(marker, "", 1))


def parse_action(line: str) -> tuple[str, str]:
    """Tool and argument of `tool[argument]`, to the last bracket; of any other line, no tool ("") and the line."""
    match = _ACTION.match(line)
    if match is None:
        return "", line.strip()
    return match[1].lower(), match[2].strip()


def _system(session: Session) -> str:
    actions = [tool.description for tool in session.tools.values()]
    actions.append(f"{FINISH}[answer] ends with the answer")
    return f"{session.pack.instruction} Actions: {'; '.join(actions)}."


def _grammar_action(session: Session) -> str:
    names = " | ".join(f'"{name}"' for name in (*session.tools, FINISH))
    return f'" "? ({names}) "[" [^\\[\\]\\n]{{1,200}} "]"'


def _work(demo: Demonstration, *, thoughts: bool) -> str:
    return "".join(
        _step_text(
            number,
            step.thought if thoughts else None,
            f"{step.tool}[{step.argument}]",
            step.observation if step.tool != FINISH else None,
        )
        for number, step in enumerate(demo.steps, 1)
    ).rstrip("\n")


def _step_text(step: int, thought: str | None, action: str, observation: str | None) -> str:
    text = "" if thought is None else f"Thought {step}: {thought}\n"
    text += f"Action {step}: {action}\n"
    return text if observation is None else f"{text}Observation {step}: {observation}\n"
