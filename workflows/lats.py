"""LATS (Zhou et al., arXiv 2310.04406): Monte Carlo tree search over thoughts, actions and observations.

repeat `iterations` times, or until every way has ended:
    select: from the root on to the child of highest UCT, until a node has no children
    expand: n samples of its next step, duplicates dropped, each taken on a fork of the node's tools
    value: the model rates each child from 1 to 10, scaled to 0.1 … 1
    roll out from the child rated best: n samples a level, rated, on from the best, until one answers
    back-propagate: the roll-out's reward joins the mean value of that child and of all above it
an answer that is judged right ends the search; of wrong ones, the first few are reflected on
return the answer of highest reward; among equals the one rated best, then the earliest

UCT = value + exploration · sqrt(2 ln(parent's visits) / visits); before the first visit, the rating. As in
the paper's code, the steps of a roll-out do not join the tree, and a roll-out without an answer counts as -1.
Unlike there, a node owns its tools, a rating stays with the child that it is of, roll-outs draw n samples too,
and the search always ends.

Iterations are serial. Within one, the samples are drawn concurrently, then the children take their tools, are
rated and judged concurrently; nothing depends on which is done first. Every prompt but the judge's continues
one that steps are drawn from: to rate a step, a server that caches prompts reads little more than what it led to.
"""

import asyncio
import math
import re
import zlib
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from statistics import fmean
from typing import ClassVar
from typing import Literal

from pydantic import Field

from workflows.agent_pack import AnswerForm
from workflows.base import PromptParams
from workflows.config import ACTOR
from workflows.feedback import LESSON
from workflows.feedback import Feedback
from workflows.feedback import Judge
from workflows.feedback import show_lessons
from workflows.prompt import layout
from workflows.session import Session
from workflows.steps import Taken
from workflows.steps import choose
from workflows.steps import cut
from workflows.steps import show_actions
from workflows.steps import show_demonstration
from workflows.steps import show_step
from workflows.steps import take
from workflows.together import together
from workflows.tools import Toolbox

UNFINISHED = -1.0
"""The reward of a roll-out without an answer, as published: less than that of a wrong one."""

RATE = (
    "Rate these steps from 1 (they lead nowhere) to 10 (they lead to the right answer), "
    "by a number alone.\nRating:"
)
RATING_TOKENS = 8
REFLECT = (
    "Say in a sentence or two why the attempt failed, and what to do differently next time; "
    "do not answer the question.\nWhat to do differently:"
)
REFLECTION_TOKENS = 100

_RATING = re.compile(r"(?<![\d.])(10|[1-9])(?!\d)")


class LatsParams(PromptParams):
    """Knobs of LATS; the defaults are those published for HotpotQA."""

    anytime: ClassVar[str | None] = "iterations"
    resumable: ClassVar[bool] = True
    forms: ClassVar[tuple[AnswerForm, ...]] = ("line", "program", "action")

    temperature: float = Field(default=1.0, ge=0.0, le=2.0, description="of samples and ratings")
    iterations: int = Field(default=30, ge=1, le=1024)
    children: int = Field(default=5, ge=1, le=64, description="samples of a node's next step")
    depth: int = Field(default=7, ge=1, le=64, description="steps on any way")
    rollout_depth: int = Field(default=4, ge=0, le=64, description="steps of a roll-out")
    exploration: float = Field(default=1.0, ge=0.0, le=10.0, description="weight of UCT's root")
    unvisited: Literal["value", "infinite"] = Field(
        default="value", description="UCT before the first visit: the model's rating, or infinite"
    )
    evaluations: int = Field(default=1, ge=1, le=16, description="ratings of a node; their mean")
    reflections: int = Field(
        default=3, ge=0, le=16, description="wrong answers that are reflected on; the first ones"
    )
    max_tokens: int = Field(default=100, ge=1, le=4096, description="for each step")
    observation_chars: int = Field(
        default=100_000, ge=20, le=100_000, description="longer observations are cut in the prompt"
    )
    feedback: Feedback = Field(default="self", description="who says whether an answer is right")
    value_model: str = Field(default=ACTOR, description="rates nodes and judges answers")
    reflection_model: str = Field(default=ACTOR, description="writes the reflections")


class Lats:
    """Answers by tree search; leaves a checkpoint after each iteration."""

    def __init__(self, params: LatsParams) -> None:
        self.params = params

    async def run(self, question: str, session: Session) -> str:
        """The answer that was judged right, or the best of the wrong ones. Raises what the first call to fail raised."""
        return await Search(question, session, self.params).run()


@dataclass(slots=True, eq=False)
class Node:
    """A way from the question, up to some step."""

    parent: "Node | None"
    tools: Toolbox
    """In the state that the steps led to; nobody else's."""
    depth: int = 0
    """How many steps it is."""
    text: str = ""
    """The steps as prompts show them."""
    answer: str | None = None
    """None where the last step is not the end."""
    reward: float | None = None
    """The answer's, None before it is judged."""
    rating: float = 0.0
    """By the model, 0 … 1; where it was not asked, the rating of the step before."""
    value: float = 0.0
    """Mean reward of the roll-outs through it."""
    visits: int = 0
    """How many these are."""
    closed: bool = False
    """Whether no way leads on: it has an answer, or is as deep as allowed, or all its children are closed."""
    children: "list[Node]" = field(default_factory=list)


class Search:
    """The search for one question's answer."""

    def __init__(self, question: str, session: Session, params: LatsParams) -> None:
        self.root = Node(None, session.tools)
        self._question = question
        self._session = session
        self._params = params
        self._system = show_actions(session)
        self._demonstrations = session.demonstrations(question, params)
        self._judge = Judge(question, session, how=params.feedback, model=params.value_model)
        self._rewards: dict[str, float] = {}
        """By answer."""
        self._best: Node | None = None
        """Of those with an answer."""
        self._failures: list[str] = []
        """How each wrong answer was come to, and why it is wrong."""
        self._lessons: list[str] = []
        """What the first failures taught."""

    async def run(self) -> str:
        """The answer that the search led to; "" when there is none."""
        for number in range(1, self._params.iterations + 1):
            node = self.select()
            if node is None:
                break
            await self._iterate(node, number)
            self._session.checkpoint(number, self._answer())
            if self._right():
                break
        return self._answer()

    def select(self) -> Node | None:
        """The node to expand, None where every way has ended."""
        node = self.root
        while node.children:
            leading_on = _open(node.children)
            if leading_on:
                node = max(leading_on, key=lambda child: (self._uct(child), child.rating))
            elif node.parent is None:
                return None
            else:
                node.closed = True
                node = node.parent
        return node

    def _uct(self, node: Node) -> float:
        if node.visits == 0:
            return node.rating if self._params.unvisited == "value" else math.inf
        assert node.parent is not None
        spread = math.sqrt(2 * math.log(node.parent.visits) / node.visits)
        return node.value + self._params.exploration * spread

    async def _iterate(self, node: Node, number: int) -> None:
        await self._expand(node, f"{number}/0")
        if self._right():
            return
        leading_on = _open(node.children)
        if leading_on:
            node = max(leading_on, key=_rating)
            reward = await self._roll_out(node, number)
        else:
            reward = _reward(node.children)
        back_propagate(node, reward)

    async def _expand(self, node: Node, place: str) -> None:
        """Give the node its children, rated or judged."""
        drawn = await self._draw(node, place)

        async def rate(taking: "asyncio.Task[Node]", index: int) -> None:
            child = await taking
            if not child.closed:
                await self._rate(child, f"{place}/{index}")

        async def judge(taking: "Sequence[asyncio.Task[Node]]") -> None:
            # Not each for itself: which of two equal answers is judged must not depend on their tools' haste.
            await self._judge_all([await task for task in taking])

        try:
            async with asyncio.TaskGroup() as group:
                taking = [group.create_task(self._take(node, taken)) for taken in drawn]
                for index, task in enumerate(taking):
                    group.create_task(rate(task, index))
                group.create_task(judge(taking))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        node.children = [task.result() for task in taking]

    async def _roll_out(self, node: Node, number: int) -> float:
        """The reward of the answers that a way on from the node comes to first."""
        for level in range(1, self._params.rollout_depth + 1):
            place = f"{number}/{level}"
            drawn = await self._draw(node, place)
            children = await together(self._take(node, taken) for taken in drawn)
            leading_on = _open(children)
            if any(child.answer is not None for child in children) or not leading_on:
                await self._judge_all(children)
                return _reward(children)
            if len(leading_on) > 1:  # else there is nothing to choose
                await together(
                    self._rate(child, f"{place}/{index}") for index, child in enumerate(leading_on)
                )
            node = max(leading_on, key=_rating)
        return UNFINISHED

    async def _draw(self, node: Node, place: str) -> list[Taken]:
        """The node's next steps, none twice, not yet taken."""
        await self._reflect()
        text = self._head() + node.text

        async def sample(index: int) -> Taken:
            async def ask(prompt: str, stop: tuple[str, ...], grammar: str) -> str:
                return await self._session.complete(
                    prompt,
                    system=self._system,
                    max_tokens=self._params.max_tokens,
                    temperature=self._params.temperature,
                    stop=stop,
                    grammar=grammar,
                    seed=self._seed(place, str(index)),
                )

            return await choose(node.depth + 1, text, self._session, ask, thoughts=True)

        return list(
            dict.fromkeys(await together(sample(index) for index in range(self._params.children)))
        )

    async def _take(self, node: Node, taken: Taken) -> Node:
        tools = node.tools.fork()
        taken, answer = await take(taken, self._session, tools)
        if taken.observation is not None:
            taken = replace(
                taken, observation=cut(taken.observation, self._params.observation_chars)
            )
        depth = node.depth + 1
        return Node(
            node,
            tools,
            depth,
            node.text + show_step(depth, taken),
            answer,
            rating=node.rating,
            closed=answer is not None or depth == self._params.depth,
        )

    def _head(self) -> str:
        """What stands before the first step: demonstrations, lessons, the question."""
        return layout(
            self._question,
            self._demonstrations,
            lambda demo: show_demonstration(demo, self._session, thoughts=True),
            memory=show_lessons(self._lessons),
        )

    async def _rate(self, node: Node, place: str) -> None:
        """Set the node's rating to the mean of its ratings; one that cannot be read is 0."""
        replies = await together(
            self._session.complete(
                f"{self._head()}{node.text}{RATE}",
                system=self._system,
                max_tokens=RATING_TOKENS,
                temperature=self._params.temperature,
                grammar='root ::= " "? ("10" | [1-9])',
                seed=self._seed(place, "rating", str(index)),
                model=self._params.value_model,
            )
            for index in range(self._params.evaluations)
        )
        node.rating = fmean(read_rating(reply) / 10 for reply in replies)

    async def _judge_all(self, nodes: Iterable[Node]) -> None:
        """Judge the answers among the nodes, each answer once in a search: asked on every way to it, a model says yes in the end."""
        answers = {node: node.answer for node in nodes if node.answer is not None}
        new: dict[str, Node] = {}
        for node, answer in answers.items():
            if answer not in self._rewards:
                new.setdefault(answer, node)
        verdicts = await together(
            self._judge.judge(answer, node.text) for answer, node in new.items()
        )
        for (answer, node), verdict in zip(new.items(), verdicts, strict=True):
            self._rewards[answer] = verdict.reward
            if not verdict.right:
                self._failures.append(f"{node.text}{verdict.why}\n")
        for node, answer in answers.items():
            node.reward = self._rewards[answer]
            if self._best is None or _rank(node) > _rank(self._best):
                self._best = node

    async def _reflect(self) -> None:
        """Learn from failures; here, before a prompt that shows it, so that no lesson is drawn in vain."""
        due = self._failures[len(self._lessons) : self._params.reflections]
        self._lessons += await together(self._lesson(failure) for failure in due)

    async def _lesson(self, failure: str) -> str:
        """One line, "" where the model has nothing to say."""
        reply = await self._session.complete(
            f"{self._head()}{failure}{REFLECT}",
            system=self._system,
            max_tokens=REFLECTION_TOKENS,
            stop=("\n\n", "\nQuestion:"),
            grammar=LESSON,
            model=self._params.reflection_model,
        )
        return " ".join(reply.split())

    def _seed(self, *path: str) -> int:
        """A seed that depends on the place in the search alone, not on the calls before it."""
        return zlib.crc32("/".join((str(self._session.seed), *path)).encode()) & 0x7FFFFFFF

    def _right(self) -> bool:
        return self._best is not None and _reward([self._best]) >= 1

    def _answer(self) -> str:
        return "" if self._best is None else self._best.answer or ""


def back_propagate(node: Node, reward: float) -> None:
    """Let a roll-out's reward join the running mean of the node and of all above it."""
    above: Node | None = node
    while above is not None:
        above.visits += 1
        above.value += (reward - above.value) / above.visits
        above = above.parent


def read_rating(reply: str) -> int:
    """The first number from 1 to 10 in a reply, 0 where there is none."""
    match = _RATING.search(reply)
    return int(match[1]) if match else 0


def _open(nodes: Iterable[Node]) -> list[Node]:
    return [node for node in nodes if not node.closed]


def _rating(node: Node) -> float:
    return node.rating


def _reward(nodes: Iterable[Node]) -> float:
    """The best reward among them, that of an unfinished roll-out where none has an answer."""
    return max((node.reward for node in nodes if node.reward is not None), default=UNFINISHED)


def _rank(node: Node) -> tuple[float, bool, float]:
    """What makes one answer better than another: its reward, that it is not empty, its rating."""
    return _reward([node]), node.answer != "", node.rating
