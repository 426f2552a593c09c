"""Chain of thought (Wei et al., arXiv 2201.11903): reasoning, then the answer, in one call.

reply ← model(instruction, demonstrations with reasoning, question)
answer ← what follows the reply's last "Answer:"; where there is none, a second call asks for it
"""

from typing import ClassVar

from pydantic import Field

from workflows.agent_pack import AnswerForm
from workflows.agent_pack import Demonstration
from workflows.base import PromptParams
from workflows.prompt import ANSWER_STOP
from workflows.prompt import last_answer
from workflows.prompt import layout
from workflows.prompt import open_answer
from workflows.prompt import read_answer
from workflows.prompt import show_answer
from workflows.session import Session

LINE_TOKENS = 48
SOMETHING = 'root ::= " "? [^\\n ] [^\\n]*'
"""A line that is not empty: small models have nothing to say to one question in ten."""


class CotParams(PromptParams):
    """Knobs of chain of thought."""

    forms: ClassVar[tuple[AnswerForm, ...]] = ("line", "program")

    max_tokens: int = Field(default=256, ge=1, le=8192, description="for reasoning and answer")


class Cot:
    """Answers after reasoning in words."""

    def __init__(self, params: CotParams) -> None:
        self.params = params

    async def run(self, question: str, session: Session) -> str:
        """The answer at the end of the reasoning."""
        return await reason(
            question,
            session,
            params=self.params,
            max_tokens=self.params.max_tokens,
            seed=session.seed,
        )


async def reason(
    question: str, session: Session, *, params: PromptParams, max_tokens: int, seed: int
) -> str:
    """One chain of thought and its answer, drawn with this seed."""
    form = session.pack.answer
    demonstrations = session.demonstrations(question, params)

    def work(demo: Demonstration) -> str:
        return f"Reasoning: {demo.reasoning}\n{show_answer(demo.answer, form)}"

    prompt = layout(question, demonstrations, work) + "Reasoning:"
    system = (
        f"{session.pack.instruction} Reason step by step, then give the answer alone "
        'on a line that starts with "Answer:".'
    )
    reply = await session.complete(
        prompt,
        system=system,
        max_tokens=max_tokens,
        temperature=params.temperature,
        stop=("\nQuestion:",),
        seed=seed,
    )
    answer = last_answer(reply, form)
    if answer is not None:
        return answer
    reply = await session.complete(
        f"{prompt} {reply.strip().removesuffix('Answer:').rstrip()}\n{open_answer(form)}",
        system=system,
        max_tokens=LINE_TOKENS if form == "line" else max_tokens,
        temperature=params.temperature,
        stop=ANSWER_STOP[form],
        grammar=SOMETHING if form == "line" else None,
        seed=seed,
    )
    return read_answer(reply, form)
