"""Demonstrations worked out with tools, written down as rows; apart, because most tasks write theirs so."""

from workflows.agent_pack import Demonstration
from workflows.agent_pack import Step
from workflows.tools import FINISH


def worked(
    question: str, reasoning: str, answer: str, *actions: tuple[str, str, str, str], end: str
) -> Demonstration:
    """A demonstration whose steps are (thought, tool, argument, observation), then the answer after the thought `end`."""
    steps = [
        Step(thought=thought, tool=tool, argument=argument, observation=observation)
        for thought, tool, argument, observation in actions
    ]
    return Demonstration(
        question=question,
        answer=answer,
        reasoning=reasoning,
        steps=(*steps, Step(thought=end, tool=FINISH, argument=answer)),
    )


def calculated(
    question: str, reasoning: str, answer: str, *sums: tuple[str, str, str], end: str
) -> Demonstration:
    """A demonstration whose steps are sums (thought, expression, value), then the answer after the thought `end`."""
    actions = [(thought, "calculate", expression, value) for thought, expression, value in sums]
    return worked(question, reasoning, answer, *actions, end=end)
