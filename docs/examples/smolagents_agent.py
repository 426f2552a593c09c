"""A smolagents agent as a workflow, by the name `smolagents_agent:answer`; wants `pip install smolagents`.

Its model calls go through litellm and its tools through the session, so that all of them are measured.
"""

import asyncio
from typing import ClassVar

from pydantic import Field
from smolagents import CodeAgent
from smolagents import LiteLLMModel
from smolagents import LogLevel
from smolagents import Tool

from workflows import Params
from workflows import Session


class SmolagentsParams(Params):
    """The knobs that a search space may set."""

    max_steps: int = Field(default=6, ge=1, le=30)
    planning_interval: int = Field(default=0, ge=0, description="steps from plan to plan, 0: none")
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    max_tokens: int = Field(default=256, ge=1, description="for each step")


class SessionTool(Tool):
    """One of the task's tools; smolagents calls it in a thread, and it runs on the session's event loop."""

    inputs: ClassVar = {"argument": {"type": "string", "description": "what to give the tool"}}
    output_type = "string"

    def __init__(self, name: str, session: Session, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        self.description = session.tools[name].description
        self._session = session
        self._loop = loop
        super().__init__()

    def forward(self, argument: str) -> str:
        """The tool's observation."""
        call = self._session.act(self.name, argument)
        return asyncio.run_coroutine_threadsafe(call, self._loop).result().text


async def answer(question: str, session: Session, params: SmolagentsParams) -> str:
    """What the agent gives as its final answer."""
    loop = asyncio.get_running_loop()
    reach = session.litellm()
    agent = CodeAgent(
        tools=[SessionTool(name, session, loop) for name in session.tools],
        model=LiteLLMModel(
            model_id=reach.pop("model"),
            temperature=params.temperature,
            max_tokens=params.max_tokens,
            seed=session.seed,
            **reach,
        ),
        instructions=session.pack.instruction,
        max_steps=params.max_steps,
        planning_interval=params.planning_interval or None,
        verbosity_level=LogLevel.OFF,
    )
    # smolagents waits for its calls, and must not keep other questions waiting with it.
    return str(await asyncio.to_thread(agent.run, question))
