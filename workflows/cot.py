"""Chain of thought (Wei et al., arXiv 2201.11903): reasoning, then the answer, in one call.

reply ← model(instruction, demonstrations with reasoning, question)
answer ← what follows the reply's last "Answer:"; where there is none, a second call asks for it
"""

from pydantic import Field

from workflows.agent_pack import Demonstration
from workflows.base import Params
from workflows.prompt import first_line
from workflows.prompt import last_answer
from workflows.prompt import layout
from workflows.session import Session

ANSWER_TOKENS = 48


class CotParams(Params):
    """Knobs of chain of thought."""

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
    question: str, session: Session, *, params: Params, max_tokens: int, seed: int
) -> str:
    """One chain of thought and its answer, drawn with this seed."""
    demonstrations = session.demonstrations(question, params)
    prompt = layout(question, demonstrations, _work) + "Reasoning:"
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
    answer = last_answer(reply)
    if answer is not None:
        return answer
    reply = await session.complete(
        f"{prompt} {reply.strip().removesuffix('Answer:').rstrip()}\nAnswer:",
        system=system,
        max_tokens=ANSWER_TOKENS,
        temperature=params.temperature,
        stop=("\n",),
        seed=seed,
    )
    return first_line(reply.replace("Answer:", "", 1))


def _work(demo: Demonstration) -> str:
    return f"Reasoning: {demo.reasoning}\nAnswer: {demo.answer}"
