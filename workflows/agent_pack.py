"""What an agent needs besides its config: instruction, demonstrations, tools and their documents.

Apart from the config because a study varies the config while the pack stays fixed; an export carries both.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

from workflows.ranking import Ranking


class Document(BaseModel):
    """One page of the agent's library."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    sentences: tuple[str, ...]


class Step(BaseModel):
    """One step of a demonstrated ReAct run; the last step's tool is `finish`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    thought: str
    tool: str
    argument: str
    observation: str = ""


class Demonstration(BaseModel):
    """One question worked out for every workflow: the answer alone, the reasoning, and the steps with tools."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str
    answer: str
    reasoning: str = ""
    steps: tuple[Step, ...] = ()


class AgentPack(BaseModel):
    """Instruction, demonstration pool and tools of one task.

    `demonstrations` is a pool in order of preference: `fixed` takes its first k, `nearest` the k that
    BM25 ranks nearest to the question.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    instruction: str
    demonstrations: tuple[Demonstration, ...] = ()
    toolkits: tuple[str, ...] = Field(default=(), description="names from workflows.tools.TOOLKITS")
    documents: tuple[Document, ...] = Field(
        default=(), description="pages that the browser toolkit reads"
    )

    @cached_property
    def ranking(self) -> Ranking:
        """BM25 over the demonstrations' questions, made once."""
        return Ranking([demonstration.question for demonstration in self.demonstrations])

    def choose(
        self, question: str, count: int, how: Literal["fixed", "nearest"]
    ) -> Sequence[Demonstration]:
        """`count` demonstrations for a question, fewer when the pool is smaller.

        The nearest come with the very nearest last, next to the question.
        """
        if count == 0:
            return ()
        if how == "fixed":
            return self.demonstrations[:count]
        nearest = self.ranking.best(question, count)
        return [self.demonstrations[index] for index in reversed(nearest)]
