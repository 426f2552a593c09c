"""Direct answering: one call, question to answer; the baseline of every comparison.

answer ← model(instruction, demonstrations, question)
"""

from pydantic import Field

from workflows.base import Params
from workflows.prompt import first_line
from workflows.prompt import layout
from workflows.session import Session


class DirectParams(Params):
    """Knobs of direct answering."""

    max_tokens: int = Field(default=48, ge=1, le=4096)


class Direct:
    """Answers in one call."""

    def __init__(self, params: DirectParams) -> None:
        self.params = params

    async def run(self, question: str, session: Session) -> str:
        """The first line of the reply."""
        demonstrations = session.demonstrations(question, self.params)
        prompt = layout(question, demonstrations, lambda demo: f"Answer: {demo.answer}")
        reply = await session.complete(
            prompt + "Answer:",
            system=f"{session.pack.instruction} Give the answer alone.",
            max_tokens=self.params.max_tokens,
            temperature=self.params.temperature,
            stop=("\n",),
        )
        return first_line(reply.replace("Answer:", "", 1))
