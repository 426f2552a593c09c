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

AnswerForm = Literal["line", "program", "text", "action"]
"""One line; Python source; a reply of several lines; what a tool gives that ends the run (a purchase)."""


class Document(BaseModel):
    """One page of the agent's library."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    sentences: tuple[str, ...]


class Product(BaseModel):
    """One article of the shop: what its pages show, and what a purchase is judged by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asin: str
    title: str
    price: float = Field(description="dollars")
    options: tuple[tuple[str, tuple[str, ...]], ...] = Field(
        default=(), description="names of options, each with the values to choose from"
    )
    description: str = ""
    features: tuple[str, ...] = ()
    attributes: tuple[str, ...] = Field(
        default=(), description="what it is like, in a few words each; on no page"
    )
    query: str = Field(default="", description="what it was found by; on no page")
    category: str = Field(default="", description="from the department down; on no page")


class Step(BaseModel):
    """One step of a demonstrated ReAct run; the last step's tool is `finish`, or one that ends the run."""

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
    answer: AnswerForm = Field(default="line", description="what an answer of this task looks like")
    documents: tuple[Document, ...] = Field(
        default=(), description="pages that the browser toolkit reads"
    )
    products: tuple[Product, ...] = Field(
        default=(), description="articles that the shop toolkit sells"
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
