"""ReAct (Yao et al., arXiv 2210.03629): thoughts, actions and observations in turn, until the agent finishes.

for i in 1 … max_steps:
    thought, action ← model(prompt so far + "Thought i:"), stopped before "Observation i:"
    if there is no action: keep the thought's first line, and ask once more for the action alone
    if the action is finish[answer]: return answer
    observation ← the tool's answer, or a message that the action is invalid
    append all three to the prompt
return "" as published, or what one last call answers: `at_budget`

Beyond the paper: observations may be cut and old steps dropped or summarised, since every step pays for
the prompt so far; and likely tool calls may start while the model still thinks (`speculate_tools`).
"""

import asyncio
from dataclasses import dataclass
from dataclasses import replace
from typing import ClassVar
from typing import Literal

from pydantic import Field

from workflows.agent_pack import AnswerForm
from workflows.base import PromptParams
from workflows.config import ACTOR
from workflows.errors import ModelError
from workflows.prompt import FENCE
from workflows.prompt import first_line
from workflows.prompt import layout
from workflows.prompt import read_block
from workflows.session import Session
from workflows.steps import Taken
from workflows.steps import choose
from workflows.steps import cut
from workflows.steps import observed
from workflows.steps import show_actions
from workflows.steps import show_demonstration
from workflows.steps import show_step
from workflows.steps import take
from workflows.tools import FINISH
from workflows.tools import Observation
from workflows.tools import Toolbox


class ReactParams(PromptParams):
    """Knobs of ReAct; 7 steps of 100 tokens at temperature 0 are the published defaults for HotpotQA."""

    anytime: ClassVar[str | None] = "max_steps"
    resumable: ClassVar[bool] = True
    forms: ClassVar[tuple[AnswerForm, ...]] = ("line", "program", "action")

    max_steps: int = Field(default=7, ge=1, le=64, description="calls that choose an action")
    max_tokens: int = Field(default=100, ge=1, le=4096, description="for each step")
    thoughts: bool = Field(default=True, description="whether a thought precedes each action")
    at_budget: Literal["empty", "answer"] = Field(
        default="empty",
        description="not finished after the last step: no answer, or one last call for it",
    )
    observation_chars: int = Field(
        default=100_000, ge=20, le=100_000, description="longer observations are cut in the prompt"
    )
    history: Literal["all", "last", "summary"] = Field(
        default="all",
        description="steps before the last `history_steps`: kept, dropped, summarised",
    )
    history_steps: int = Field(default=3, ge=1, le=64)
    summary_model: str = Field(default=ACTOR, description="writes the summaries")
    speculate_tools: int = Field(
        default=0, ge=0, le=4, description="tool calls started on a guess while the model thinks"
    )
    draft_model: str = Field(default=ACTOR, description="guesses the action, without a thought")


class React:
    """Answers with tools, one step at a time; leaves a checkpoint after each."""

    def __init__(self, params: ReactParams) -> None:
        self.params = params

    async def run(self, question: str, session: Session) -> str:
        """The argument of `finish`, or what `at_budget` says."""
        head = layout(
            question,
            session.demonstrations(question, self.params),
            lambda demo: show_demonstration(demo, session, thoughts=self.params.thoughts),
        )
        episode = Episode(head, session, self.params)
        return await episode.run()


class Episode:
    """One run of steps after a prompt's `head`, which ends with the question."""

    def __init__(self, head: str, session: Session, params: ReactParams) -> None:
        self.taken: list[Taken] = []
        """The steps so far, with observations as prompts show them."""
        self._head = head
        self._session = session
        self._params = params
        self._tools = session.tools
        self._system = show_actions(session)
        self._summary = ""
        self._summarised = 0
        """How many of the first steps the summary stands for."""

    async def run(self) -> str:
        """The answer that the steps led to; "" when there is none."""
        for number in range(1, self._params.max_steps + 1):
            answer = await self._step(number)
            if answer is not None:
                self._session.checkpoint(number, answer)
                return answer
            self._session.checkpoint(number, "" if self._cannot_answer() else None)
        return "" if self._cannot_answer() else await self._answer_now()

    def transcript(self) -> str:
        """The steps as prompts show them, all of them."""
        return "".join(show_step(number, taken) for number, taken in enumerate(self.taken, 1))

    def _cannot_answer(self) -> bool:
        """Whether the budget's end is the run's; a tool's answer takes a step that there is none left for."""
        return self._params.at_budget == "empty" or self._tools.end is not None

    async def _step(self, number: int) -> str | None:
        """Take a step; the answer when it was the last."""
        await self._summarise()
        text = self._prompt()
        if self._params.speculate_tools:
            taken, answer = await self._speculate(number, text)
        else:
            taken = await self._choose(number, text)
            taken, answer = await take(taken, self._session, self._tools)
        if taken.observation is not None:
            taken = replace(
                taken, observation=cut(taken.observation, self._params.observation_chars)
            )
        self.taken.append(taken)
        return answer

    def _prompt(self) -> str:
        """What stands before the next step."""
        first = self._summarised
        if self._params.history == "last":
            first = max(0, len(self.taken) - self._params.history_steps)
        return self._shown(first, len(self.taken))

    def _shown(self, first: int, end: int) -> str:
        """The head, what is summarised, and the steps from one to before another."""
        summary = f"Summary of the steps before: {self._summary}\n" if self._summary else ""
        steps = enumerate(self.taken[first:end], first + 1)
        return self._head + summary + "".join(show_step(number, taken) for number, taken in steps)

    async def _summarise(self) -> None:
        """Summarise old steps, several at a time, so that the prompt's beginning rarely changes."""
        kept = self._params.history_steps
        if self._params.history != "summary" or len(self.taken) - self._summarised < 2 * kept:
            return
        end = len(self.taken) - kept
        reply = await self._session.complete(
            f"{self._shown(self._summarised, end)}Summary:",
            system="Sum up in one line what these steps found out that helps to answer the question.",
            max_tokens=self._params.max_tokens,
            stop=("\n",),
            model=self._params.summary_model,
        )
        # One that is empty would forget what the summary before it had kept.
        self._summary = first_line(reply.replace("Summary:", "", 1)) or self._summary
        self._summarised = end

    async def _choose(self, number: int, text: str) -> Taken:
        return await choose(number, text, self._session, self._ask, thoughts=self._params.thoughts)

    async def _ask(self, prompt: str, stop: tuple[str, ...], grammar: str) -> str:
        return await self._session.complete(
            prompt,
            system=self._system,
            max_tokens=self._params.max_tokens,
            temperature=self._params.temperature,
            stop=stop,
            grammar=grammar,
        )

    async def _speculate(self, number: int, text: str) -> tuple[Taken, str | None]:
        """The next step, taken, and the answer where the run ended with it; tool calls guessed wrongly are stopped.

        Guesses that come too late start nothing, and still run to their end: a server counts the
        tokens of whole replies only, and what guessing costs must not get lost.
        """
        started: dict[tuple[str, str], _Started] = {}
        decided = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(self._params.speculate_tools):
                    group.create_task(self._guess(number, text, index, group, started, decided))
                taken = await self._choose(number, text)
                decided.set()
                right = started.pop((taken.action.tool, taken.action.argument), None)
                for wrong in started.values():
                    wrong.call.cancel()
                if right is None:
                    return await take(taken, self._session, self._tools)
                self._tools = right.tools
                return observed(taken, await right.call)
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _guess(
        self,
        number: int,
        text: str,
        index: int,
        group: asyncio.TaskGroup,
        started: "dict[tuple[str, str], _Started]",
        decided: asyncio.Event,
    ) -> None:
        """Guess the action, and start it on a fork of the tools if no other guess has."""

        async def ask(prompt: str, stop: tuple[str, ...], grammar: str) -> str:
            return await self._session.complete(
                prompt,
                system=self._system,
                max_tokens=self._params.max_tokens,
                temperature=self._params.temperature if index == 0 else 1.0,
                stop=stop,
                grammar=grammar,
                seed=self._session.seed + index,
                model=self._params.draft_model,
            )

        try:
            guessed = await choose(number, text, self._session, ask, thoughts=False)
        except ModelError:
            return  # a guess that failed costs what it cost, and the step goes on without it
        tool, argument = guessed.action.tool, guessed.action.argument
        known = tool in self._tools and not self._tools[tool].ends
        if not known or decided.is_set() or (tool, argument) in started:
            return
        fork = self._tools.fork()
        call = self._session.act(tool, argument, tools=fork, speculative=True)
        started[tool, argument] = _Started(group.create_task(call), fork)

    async def _answer_now(self) -> str:
        """What one last call answers."""
        program = self._session.pack.answer == "program"
        opening = f"{FINISH}\n{FENCE}python\n" if program else f"{FINISH}["
        reply = await self._session.complete(
            f"{self._prompt()}Action {self._params.max_steps + 1}: {opening}",
            system=self._system,
            max_tokens=self._params.max_tokens,
            temperature=self._params.temperature,
            stop=(f"\n{FENCE}\n",) if program else ("]", "\n"),
        )
        return read_block(reply) if program else first_line(reply.rpartition(f"{FINISH}[")[2])


@dataclass(frozen=True, slots=True)
class _Started:
    """A tool call under way that nobody has asked for yet."""

    call: asyncio.Task[Observation]
    tools: Toolbox
