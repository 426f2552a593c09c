"""Cascade (FrugalGPT, Chen et al., arXiv 2305.05176): a cheap way answers first, a costly one only where that is doubted.

answers ← the cheap workflow on `cheap_model`, `samples` times concurrently, each with its own seed
answer  ← the most frequent one
trust   ← doubt: votes: the share of the answers that agree with it; judge: its reward by the judge;
          both: the lesser of the two
return answer where trust ≥ threshold, else what the costly workflow answers

The knobs of the two workflows stand beside those of the cascade, as `cheap.max_tokens` or `costly.few_shot`.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import ClassVar
from typing import Literal

from pydantic import ConfigDict
from pydantic import Field
from pydantic import ValidationError
from pydantic import model_validator

from workflows.agent_pack import AgentPack
from workflows.answer import vote
from workflows.base import Params
from workflows.base import Workflow
from workflows.config import ACTOR
from workflows.errors import ConfigError
from workflows.feedback import Feedback
from workflows.feedback import Judge
from workflows.self_consistency import majority
from workflows.session import Session
from workflows.table import WorkflowKind
from workflows.table import workflow_kind
from workflows.together import together

SAMPLING_TEMPERATURE = 0.7
"""Of the cheap workflow, where nothing else is said and its answers are to vote: at 0 they would all agree."""


class CascadeParams(Params):
    """Knobs of a cascade, and `cheap.…` and `costly.…` for those of its two workflows."""

    model_config = ConfigDict(extra="allow")
    nested: ClassVar[tuple[str, ...]] = ("cheap", "costly")

    cheap: str = Field(default="direct", description="the workflow that answers first")
    costly: str = Field(default="react", description="the workflow that answers what is doubted")
    cheap_model: str = Field(default=ACTOR, description="the model of the cheap workflow")
    samples: int = Field(default=3, ge=1, le=16, description="answers of the cheap workflow")
    doubt: Literal["votes", "judge", "both"] = "votes"
    threshold: float = Field(default=0.6, ge=0.0, le=1.0, description="trust that is enough")
    feedback: Feedback = "self"
    judge_model: str = ACTOR

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        """Every knob of the two workflows, checked by their own models."""
        if not isinstance(given, Mapping):
            return given
        own = {name: knob for name, knob in given.items() if "." not in name}
        names = {name: own.get(name, cls.model_fields[name].default) for name in cls.nested}
        for name in given:
            if name.partition(".")[0] not in names and name not in cls.model_fields:
                raise ValueError(f"unknown knob {name!r}; known: {', '.join(cls.model_fields)}")
        filled = dict(own)
        for within, workflow in names.items():
            knobs = dict(_within(within, given))
            kind = _kind(within, workflow)
            votes = own.get("doubt", "votes") != "judge" and own.get("samples", 3) != 1
            if within == "cheap" and votes and "temperature" in kind.params.model_fields:
                knobs.setdefault("temperature", SAMPLING_TEMPERATURE)
            try:
                params = kind.params.model_validate(knobs)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in (within, *first["loc"]))
                raise ValueError(f"{where}: {first['msg']} (given: {first['input']!r})") from None
            filled |= {f"{within}.{name}": knob for name, knob in params.model_dump().items()}
        return filled

    def within(self, name: str) -> tuple[WorkflowKind, Params]:
        """One of the two workflows, and its params."""
        kind = _kind(name, getattr(self, name))
        return kind, kind.params.model_validate(dict(_within(name, self.model_dump())))

    def unfit(self, pack: AgentPack) -> str | None:
        """Why one of the two cannot answer from the pack."""
        for name in self.nested:
            _, params = self.within(name)
            if (reason := params.unfit(pack)) is not None:
                return f"{name}: {getattr(self, name)}: {reason}"
        return None


class Cascade:
    """Answers cheaply where it can."""

    def __init__(self, params: CascadeParams) -> None:
        self.params = params
        self._cheap = _make(params, "cheap")
        self._costly = _make(params, "costly")

    async def run(self, question: str, session: Session) -> str:
        """The cheap answer where it is trusted, else the costly one. Raises what the first sample to fail raised."""
        branches = [
            session.branch(actor=self.params.cheap_model, seed=session.seed + index)
            for index in range(self.params.samples)
        ]
        answers = await together(self._cheap.run(question, branch) for branch in branches)
        same = vote if session.pack.answer == "line" else str.strip
        answer = majority(answers, same)
        share = sum(same(other) == same(answer) for other in answers) / len(answers)
        if answer and await self._trust(question, answer, share, session) >= self.params.threshold:
            return answer
        return await self._costly.run(question, session.branch())

    async def _trust(self, question: str, answer: str, share: float, session: Session) -> float:
        if self.params.doubt == "judge":
            share = 1.0
        if self.params.doubt == "votes" or share < self.params.threshold:
            return share
        judge = Judge(question, session, how=self.params.feedback, model=self.params.judge_model)
        verdict = await judge.judge(answer)
        return min(share, verdict.reward)


def _within(name: str, params: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for knob, value in params.items():
        if knob.startswith(f"{name}."):
            yield knob.removeprefix(f"{name}."), value


def _kind(within: str, workflow: Any) -> WorkflowKind:
    try:
        return workflow_kind(str(workflow))
    except ConfigError as error:
        raise ValueError(f"{within}: {error}") from None


def _make(params: CascadeParams, name: str) -> Workflow:
    kind, own = params.within(name)
    workflow: Workflow = kind.make(own)
    return workflow
