"""What one question may use: the models, the tools, the demonstrations. Dies with the question, so no state leaks into the next."""

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from workflows.agent_pack import AgentPack
from workflows.agent_pack import Demonstration
from workflows.base import Checkpoint
from workflows.base import Outcome
from workflows.base import PromptParams
from workflows.config import ACTOR
from workflows.errors import ConfigError
from workflows.llm import LLM
from workflows.llm import ChatClient
from workflows.llm import OnText
from workflows.llm import Request
from workflows.resume import OnReadAgain
from workflows.resume import PastRun
from workflows.resume import Recall
from workflows.tools import Observation
from workflows.tools import Toolbox
from workflows.tools import call_tool
from workflows.trace import Span
from workflows.trace import Trace
from workflows.trace import keepable

Oracle = Callable[[str], Awaitable[float]]
"""An answer to its score, by the right answer; only whoever has the right answer can give one."""

OnProgress = Callable[[Span | Checkpoint], None]
"""Hears of each call and each round of a run as it ends; a call may end in another thread."""


class Session:
    """One question's access to the world. Every call goes through it and is timed on its trace."""

    def __init__(
        self,
        *,
        llms: Mapping[str, LLM],
        actor: str,
        pack: AgentPack,
        tools: Toolbox,
        seed: int = 0,
        oracle: Oracle | None = None,
        trace: Trace | None = None,
        past: PastRun | None = None,
        on_read_again: OnReadAgain | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.trace = Trace() if trace is None else trace
        self.seed = seed
        self.pack = pack
        self.tools = tools
        self._llms = llms
        self._actor = actor
        self._oracle = oracle
        self._checkpoints: list[Checkpoint] = []
        self._is_branch = False
        self._recall = None if past is None else Recall(past, self.trace, on_read_again)
        self._on_progress = on_progress
        if on_progress is not None:
            self.trace.listeners.append(on_progress)

    @property
    def on_its_own(self) -> bool:
        """Whether it has come to the end of its past, or had none: only then are its calls made."""
        return self._recall is None or self._recall.is_over

    async def complete(
        self,
        prompt: str,
        *,
        system: str,
        max_tokens: int,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        grammar: str | None = None,
        json_schema: Mapping[str, Any] | None = None,
        seed: int | None = None,
        model: str = ACTOR,
        on_text: OnText | None = None,
    ) -> str:
        """A model's continuation of the prompt; `on_text` hears of its pieces as they come. Raises ModelError.

        `grammar` (GBNF) and `json_schema` hold where the model's server offers them, and are left
        out elsewhere: a workflow parses replies as if they did not exist.
        """
        request = Request(
            system=system,
            prompt=prompt,
            max_tokens=max_tokens,
            temperature=temperature,
            stop=tuple(stop),
            grammar=grammar,
            json_schema=json_schema,
            seed=self.seed if seed is None else seed,
        )
        if self._recall is not None:
            reply = await self._recall.reply(request, self.llm(model))
            if reply is not None:
                if on_text is not None and reply:
                    on_text(reply)
                return reply
        return await self.llm(model).complete(request, self.trace, on_text)

    def llm(self, model: str = ACTOR) -> LLM:
        """The model of that name, or the config's own."""
        return self._llms[self._actor if model == ACTOR else model]

    def litellm(self, model: str = ACTOR) -> dict[str, Any]:
        """The arguments with which litellm, and what is built on it, reaches a model of the study.

        Raises ConfigError where the model is not on a server, as in a test.
        """
        llm = self.llm(model)
        if not isinstance(llm, ChatClient):
            raise ConfigError(
                f"model {model!r} is a {type(llm).__name__}, which litellm cannot reach",
                hint="ask it by: await session.complete(…)",
            )
        return llm.litellm_arguments()

    async def act(
        self, tool: str, argument: str, *, tools: Toolbox | None = None, speculative: bool = False
    ) -> Observation:
        """The observation that a tool gives; an unknown tool's is a message that lists the known ones.

        `tools` is a fork of the session's, for a workflow that tries several ways.
        """
        box = self.tools if tools is None else tools
        if self._recall is not None:
            seen = await self._recall.observe(box, tool, argument)
            if seen is not None:
                return seen
        return await call_tool(box, tool, argument, self.trace, speculative=speculative)

    async def oracle(self, answer: str) -> float:
        """The answer's score. Raises ConfigError where no right answer is known, as outside a study."""
        if self._oracle is None:
            raise ConfigError(
                "feedback: oracle asks whether an answer is right, and nobody knows that here",
                hint="use feedback: self",
            )
        return await self._oracle(answer)

    def demonstrations(self, question: str, params: PromptParams) -> Sequence[Demonstration]:
        """The demonstrations that the params ask for, in prompt order."""
        return self.pack.choose(question, params.few_shot, params.demonstrations)

    def branch(self, *, actor: str = ACTOR, seed: int | None = None) -> "Session":
        """A session for an attempt at the same question: its own tools and checkpoints, the same trace.

        The tools are forks of this session's as they are now.
        """
        branch = Session(
            llms=self._llms,
            actor=self._actor if actor == ACTOR else actor,
            pack=self.pack,
            tools=self.tools.fork(),
            seed=self.seed if seed is None else seed,
            oracle=self._oracle,
            trace=self.trace,
        )
        branch._recall, branch._is_branch = self._recall, True
        return branch

    def checkpoint(self, budget: int, answer: str | None) -> None:
        """Record what the run would return if its budget ended now."""
        if self._recall is not None and not self._is_branch:
            left = self._recall.checkpoint(budget, answer)
            if left is not None:
                self._checkpoints.append(left)
                return
        answer = None if answer is None else keepable(answer)
        reached = Checkpoint(budget, answer, len(self.trace.spans), self.trace.now_s())
        self._checkpoints.append(reached)
        if self._on_progress is not None:
            self._on_progress(reached)

    def outcome(self, answer: str) -> Outcome:
        """The run as data, ended now. Raises DepartedError where there was more to its past."""
        if self._recall is not None:
            self._recall.go_on()
        return Outcome(
            keepable(answer), self.trace.now_s(), tuple(self._checkpoints), tuple(self.trace.spans)
        )
