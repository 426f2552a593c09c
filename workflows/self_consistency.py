"""Self-consistency (Wang et al., arXiv 2203.11171): the majority among several chains of thought.

answers ← n chains of thought at temperature > 0, drawn concurrently, each with its own seed
answer  ← the most frequent after normalisation; among equals, the one that was drawn first
"""

from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence

from pydantic import Field

from workflows.answer import vote
from workflows.base import PromptParams
from workflows.cot import reason
from workflows.session import Session
from workflows.together import together


class SelfConsistencyParams(PromptParams):
    """Knobs of self-consistency; the paper samples at temperature 0.7."""

    temperature: float = Field(default=0.7, gt=0.0, le=2.0)
    samples: int = Field(default=5, ge=1, le=64)
    max_tokens: int = Field(default=256, ge=1, le=8192, description="for each chain")


class SelfConsistency:
    """Answers by vote."""

    def __init__(self, params: SelfConsistencyParams) -> None:
        self.params = params

    async def run(self, question: str, session: Session) -> str:
        """The winner of the vote. Raises what the first chain to fail raised, the others being cancelled."""
        return majority(
            await together(
                reason(
                    question,
                    session,
                    params=self.params,
                    max_tokens=self.params.max_tokens,
                    seed=session.seed + index,
                )
                for index in range(self.params.samples)
            )
        )


def majority(answers: Sequence[str], same: Callable[[str], str] = vote) -> str:
    """The most frequent answer, in the form in which it was given first; ties go to the earliest.

    Answers are the same when `same` makes the same of them.
    """
    votes = Counter(same(answer) for answer in answers)
    most = max(votes.values())
    return next(answer for answer in answers if votes[same(answer)] == most)
