"""The contract between a workflow and whoever runs it: params, one async method, and what a run leaves behind."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import ClassVar
from typing import Literal
from typing import Protocol

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

from workflows.agent_pack import AgentPack
from workflows.agent_pack import AnswerForm
from workflows.trace import Span

if TYPE_CHECKING:
    from workflows.session import Session

_FORMS: dict[AnswerForm, str] = {
    "line": "a line of text",
    "program": "a program",
    "text": "a text of several lines",
    "action": "what a tool gives that ends the run",
}


class Params(BaseModel):
    """Knobs of a workflow; each has a model of its own that extends this one.

    A knob whose name ends with `_model` is a role: it names another model of the study, or `actor`
    for the config's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    anytime: ClassVar[str | None] = None
    """The knob that is a budget in rounds, None where there is none: a run at budget B leaves a
    Checkpoint after each round b < B, which stands for a run at budget b."""
    resumable: ClassVar[bool] = False
    """Whether a run may go on from one at another budget: all its calls go through the session, and what it does
    depends on what they gave alone."""
    published: ClassVar[Mapping[str, int]] = MappingProxyType({})
    """What papers set knobs to whose default here is another."""
    forms: ClassVar[tuple[AnswerForm, ...]] = ("line",)
    """Which forms of answer the workflow can give."""
    needs_tools: ClassVar[bool] = False
    nested: ClassVar[tuple[str, ...]] = ()
    """Knobs that name a workflow to hand the question to, whose own knobs are then called `NAME.knob`."""

    def unfit(self, pack: AgentPack) -> str | None:
        """Why a workflow with these params cannot answer from a pack, None where it can."""
        if pack.answer not in self.forms:
            given = ", ".join(_FORMS[form] for form in self.forms)
            return f"the task's answer is {_FORMS[pack.answer]}, and it gives: {given}"
        if self.needs_tools and not pack.toolkits:
            return "the task has no tools, and it plans calls of them"
        return None


class PromptParams(Params):
    """Knobs of the workflows that prompt with demonstrations: none unless asked for, since a task may have none.

    Six are what ReAct and its baselines (standard prompting, CoT, CoT-SC) had on HotpotQA (arXiv 2210.03629, section 3.2).
    """

    published: ClassVar[Mapping[str, int]] = MappingProxyType({"few_shot": 6})

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
