"""Reflexion (Shinn et al., arXiv 2303.11366): attempts at a question, each with what the failed ones before it taught.

for trial in 1 … max_trials:
    answer ← an episode of ReAct on fresh tools, with the memory in its prompt
    if this was the last trial: return answer
    if the answer is judged right: return it
    reflection ← model(the episode's steps, why it failed); it joins the memory
where the last episode has no answer, the latest that there was is returned

Published code stops at the right answer, which it looks up: here that is `feedback: oracle`. N trials
have N − 1 judgements and at most as many reflections: the last episode is never judged.
"""

from collections import deque
from typing import ClassVar
from typing import Literal

from pydantic import Field

from workflows.config import ACTOR
from workflows.feedback import LESSON
from workflows.feedback import Feedback
from workflows.feedback import Judge
from workflows.feedback import Verdict
from workflows.feedback import show_lessons
from workflows.feedback import show_steps
from workflows.prompt import layout
from workflows.react import Episode
from workflows.react import ReactParams
from workflows.session import Session
from workflows.steps import show_actions
from workflows.steps import show_demonstration

REFLECTION_TOKENS = 250  # as published


class ReflexionParams(ReactParams):
    """Knobs of Reflexion and of ReAct within it; 5 trials of 6 steps are the published defaults for HotpotQA."""

    anytime: ClassVar[str | None] = "max_trials"

    max_trials: int = Field(default=5, ge=1, le=64, description="episodes")
    max_steps: int = Field(default=6, ge=1, le=64, description="calls that choose an action")
    memory: Literal["none", "last", "reflections", "both"] = Field(
        default="reflections",
        description="what the next trial sees of those before it; last: the steps of the last one",
    )
    window: int = Field(
        default=3, ge=1, le=64, description="reflections that are kept; 3 as in ALFWorld's code"
    )
    transcript_chars: int = Field(
        default=6000,
        ge=200,
        le=100_000,
        description="of a trial's steps, where they are judged, reflected on or remembered",
    )
    feedback: Feedback = Field(default="self", description="who says whether an answer is right")
    judge_model: str = Field(default=ACTOR, description="judges, where feedback is self")
    reflection_model: str = Field(default=ACTOR, description="writes the reflections")


class Reflexion:
    """Answers in trials; leaves a checkpoint after each, before it is judged."""

    def __init__(self, params: ReflexionParams) -> None:
        self.params = params

    async def run(self, question: str, session: Session) -> str:
        """The answer that was judged right; else the last trial's, or where that has none the latest that there was."""
        params = self.params
        judge = Judge(question, session, how=params.feedback, model=params.judge_model)
        memory = _Memory(params)
        latest = ""
        for trial in range(1, params.max_trials + 1):
            episode = self._episode(question, session, memory, trial)
            answer = await episode.run()
            latest = answer or latest
            session.checkpoint(trial, latest)
            if trial == params.max_trials:
                break
            steps = show_steps(episode.taken, params.transcript_chars)
            verdict = await judge.judge(answer, steps)
            if verdict.right:
                break
            reflection = ""
            if memory.reflects:
                reflection = await self._reflect(question, session, steps, verdict)
            memory.add(steps, reflection)
        return latest

    def _episode(self, question: str, session: Session, memory: "_Memory", trial: int) -> Episode:
        """An attempt with tools of its own, and a seed of its own lest it repeat the one before."""
        branch = session.branch(seed=session.seed + trial - 1)
        head = layout(
            question,
            session.demonstrations(question, self.params),
            lambda demo: show_demonstration(demo, session, thoughts=self.params.thoughts),
            memory=memory.show(),
        )
        return Episode(head, branch, self.params)

    async def _reflect(self, question: str, session: Session, steps: str, verdict: Verdict) -> str:
        reply = await session.complete(
            f"Question: {question}\n{steps}{verdict.why}\nWhat to do differently:",
            system=(
                f"{show_actions(session)} The attempt below failed. Say in a sentence or two why, "
                "and what to do differently next time. Do not answer the question."
            ),
            max_tokens=REFLECTION_TOKENS,
            temperature=self.params.temperature,
            stop=("\n\n", "\nQuestion:"),
            grammar=LESSON,
            model=self.params.reflection_model,
        )
        return " ".join(reply.split())


class _Memory:
    """What the next trial sees of those before it."""

    def __init__(self, params: ReflexionParams) -> None:
        self.reflects = params.memory in ("reflections", "both")
        self._repeats = params.memory in ("last", "both")
        self._steps = ""
        self._reflections: deque[str] = deque(maxlen=params.window)

    def add(self, steps: str, reflection: str) -> None:
        """Remember a trial that failed; a reflection past the window drives out the oldest, an empty one teaches nothing."""
        self._steps = steps
        if reflection:
            self._reflections.append(reflection)

    def show(self) -> str:
        """The memory as prompts show it, "" before the first trial."""
        text = ""
        if self._repeats and self._steps:
            text += f"The last attempt at the next question failed:\n{self._steps}\n"
        return text + show_lessons(self._reflections)
