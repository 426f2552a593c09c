"""The contract between a workflow and whoever runs it: params, one async method, and what a run leaves behind."""

from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import ClassVar
from typing import Literal
from typing import Protocol

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

from workflows.trace import Span

if TYPE_CHECKING:
    from workflows.session import Session


class Params(BaseModel):
    """Knobs that every workflow has; each workflow's own model extends it.

    `anytime` names the knob that is a budget in rounds, None where there is none: a run at budget B
    leaves a Checkpoint after each round b < B, which stands for a run at budget b.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    anytime: ClassVar[str | None] = None

    few_shot: int = Field(default=0, ge=0, le=8, description="demonstrations in the prompt")
    demonstrations: Literal["fixed", "nearest"] = Field(
        default="fixed", description="the pool's first, or those nearest to the question by BM25"
    )
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)


class Workflow(Protocol):
    """A method of answering: holds its params, keeps no state between questions."""

    async def run(self, question: str, session: "Session") -> str:
        """The answer, "" when there is none. Raises what the model or a tool raised."""
        ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a run would have returned, had its budget ended after this round.

    `answer` is None where that would have taken a call that was not made.
    """

    budget: int
    answer: str | None
    span_count: int
    """How many of the run's spans had ended by then."""
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answered question: the answer, the rounds on the way, and every call that was made."""

    answer: str
    latency_s: float
    checkpoints: tuple[Checkpoint, ...]
    spans: tuple[Span, ...]
