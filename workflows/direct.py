"""Direct answering: one call, question to answer; the baseline of every comparison.

answer ← model(instruction, demonstrations, question)
"""

from typing import ClassVar

from pydantic import Field

from workflows.agent_pack import AnswerForm
from workflows.base import PromptParams
from workflows.prompt import ANSWER_STOP
from workflows.prompt import layout
from workflows.prompt import open_answer
from workflows.prompt import read_answer
from workflows.prompt import show_answer
from workflows.session import Session


class DirectParams(PromptParams):
    """Knobs of direct answering."""

    forms: ClassVar[tuple[AnswerForm, ...]] = ("line", "program", "text")

    max_tokens: int = Field(default=48, ge=1, le=8192)


class Direct:
    """Answers in one call."""

    def __init__(self, params: DirectParams) -> None:
        self.params = params

    async def run(self, question: str, session: Session) -> str:
        """The reply, as the task's form of answer has it: its first line, its program, or all of it."""
        form = session.pack.answer
        demonstrations = session.demonstrations(question, self.params)
        prompt = layout(question, demonstrations, lambda demo: show_answer(demo.answer, form))
        alone = "" if form == "text" else " Give the answer alone."
        reply = await session.complete(
            prompt + open_answer(form),
            system=f"{session.pack.instruction}{alone}",
            max_tokens=self.params.max_tokens,
            temperature=self.params.temperature,
            stop=ANSWER_STOP[form],
        )
        return read_answer(reply, form)
