"""What one question may use: the model, the tools, the demonstrations. Dies with the question, so no state leaks into the next."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from workflows.agent_pack import AgentPack
from workflows.agent_pack import Demonstration
from workflows.base import Checkpoint
from workflows.base import Outcome
from workflows.base import Params
from workflows.llm import LLM
from workflows.llm import Request
from workflows.tools import Tool
from workflows.tools import call_tool
from workflows.trace import Trace


class Session:
    """One question's access to the world. Every call goes through it and is timed on its trace."""

    def __init__(
        self, *, llm: LLM, pack: AgentPack, tools: Mapping[str, Tool], seed: int = 0
    ) -> None:
        self.trace = Trace()
        self.seed = seed
        self.pack = pack
        self.tools = tools
        self._llm = llm
        self._checkpoints: list[Checkpoint] = []

    async def complete(
        self,
        prompt: str,
        *,
        system: str,
        max_tokens: int,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        grammar: str | None = None,
        json_schema: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> str:
        """The model's continuation of the prompt. Raises ModelError.

        `grammar` (GBNF) and `json_schema` hold where the model's server offers them, and are left
        out elsewhere: a workflow parses replies as if they did not exist.
        """
        request = Request(
            system=system,
            prompt=prompt,
            max_tokens=max_tokens,
            temperature=temperature,
            stop=tuple(stop),
            grammar=grammar,
            json_schema=json_schema,
            seed=self.seed if seed is None else seed,
        )
        return await self._llm.complete(request, self.trace)

    async def act(self, tool: str, argument: str) -> str:
        """The observation that a tool gives; an unknown tool's is a message that lists the known ones."""
        return await call_tool(self.tools, tool, argument, self.trace)

    def demonstrations(self, question: str, params: Params) -> Sequence[Demonstration]:
        """The demonstrations that the params ask for, in prompt order."""
        return self.pack.choose(question, params.few_shot, params.demonstrations)

    def checkpoint(self, budget: int, answer: str | None) -> None:
        """Record what the run would return if its budget ended now."""
        self._checkpoints.append(
            Checkpoint(budget, answer, len(self.trace.spans), self.trace.now_s())
        )

    def outcome(self, answer: str) -> Outcome:
        """The run as data, ended now."""
        return Outcome(
            answer, self.trace.now_s(), tuple(self._checkpoints), tuple(self.trace.spans)
        )
