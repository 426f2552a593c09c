"""The built-in task: look-up questions about invented villages, drawn from a seed, so that a first study needs no dataset.

Villages, their people and the trades are pages, each a title and sentences `key: value`. A village's
people stand past the opening that `search` shows, so that finding them takes `lookup`:

    Oxford   land: coast. crop: hay. tree: cedar. bird: goose. stone: sand. baker: Anna. vintner: Max. …
    Anna     village: Oxford. friend: Tom. pet: fox.
    baker    sells: bread.

A question's kind says how many tool calls lead to its answer; an agent that works in steps needs one
more, to finish. `general` questions alone can be answered without the pages, by a model that knows
what a baker sells:

    general  25 %  What does the baker of Oxford sell?                      search
    1 hop    30 %  What is the pet of Anna?                                 search
    2 hops   30 %  Who is the baker of Oxford?                              search, lookup
    3 hops   10 %  Which pet does the baker in Oxford keep?                 search, lookup, search
    4 hops    5 %  Which pet does a friend of the baker in Oxford keep?     search, lookup, search, search

An answer is right when it is the expected one after normalisation. The demonstrations, four for each
way of asking, are about villages, people and trades of their own, which no question mentions.
"""

import random
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from itertools import zip_longest
from pathlib import Path

from pydantic import Field

from tuner.tasks import Example
from tuner.tasks import Split
from tuner.tasks import Task
from tuner.tasks import TaskOptions
from tuner.tasks.scoring import best_of
from tuner.tasks.scoring import exact_match
from workflows.agent_pack import AgentPack
from workflows.agent_pack import Demonstration
from workflows.agent_pack import Document
from workflows.agent_pack import Step
from workflows.tools.browser import OPENING_SENTENCES

INSTRUCTION = "Answer the question in one word."

SHARES: Mapping[str, int] = {"general": 25, "1 hop": 30, "2 hops": 30, "3 hops": 10, "4 hops": 5}
"""Per cent of the questions that are of each kind."""

TEMPLATES: tuple[tuple[str, str, str], ...] = (
    ("general", "What does the {trade} of {village} sell?", "{trade}/sells"),
    ("1 hop", "What is the pet of {person}?", "{person}/pet"),
    ("1 hop", "What is the village of {person}?", "{person}/village"),
    ("1 hop", "What is the land of {village}?", "{village}/land"),
    ("2 hops", "Who is the {trade} of {village}?", "{village}/{trade}"),
    ("2 hops", "What is the pet of the friend of {person}?", "{person}/friend/pet"),
    ("2 hops", "What is the land of the village of {person}?", "{person}/village/land"),
    ("3 hops", "Which pet does the {trade} in {village} keep?", "{village}/{trade}/pet"),
    ("3 hops", "Where does a friend of {person}'s friend live?", "{person}/friend/friend/village"),
    (
        "3 hops",
        "What land surrounds the home of {person}'s friend?",
        "{person}/friend/village/land",
    ),
    (
        "4 hops",
        "Which pet does a friend of the {trade} in {village} keep?",
        "{village}/{trade}/friend/pet",
    ),
    (
        "4 hops",
        "Where does the friend of the {trade} in {village} live?",
        "{village}/{trade}/friend/village",
    ),
)
"""Kind, wording, and route: the page to start from, then the facts that lead on, the last to the answer.

No two wordings share all their words, so that BM25 tells the demonstrations of each from the rest.
"""

DEMONSTRATIONS_PER_TEMPLATE = 4

TRADES: Mapping[str, str] = {
    "baker": "bread",
    "bookseller": "books",
    "brewer": "beer",
    "fisher": "fish",
    "florist": "flowers",
    "furrier": "fur",
    "glassblower": "glass",
    "goldsmith": "gold",
    "shoemaker": "shoes",
    "soapmaker": "soap",
    "vintner": "wine",
}
"""Trade to what it sells."""

DEMONSTRATION_TRADES: Mapping[str, str] = {
    "chandler": "candles",
    "draper": "cloth",
    "jeweler": "jewels",
    "milkmaid": "milk",
    "potter": "pots",
    "toymaker": "toys",
}

# One token each in most vocabularies, after a space as well as after a bracket: a small model copies
# them without mistakes, and prompts stay short.
VILLAGES = """
Lincoln Newton Boston Oxford Cambridge Reading Madison Jackson Harvard Washington Ash Bell Cross Mill
Burn Marsh Hope Union Clark Grant Gates Webster
"""
PEOPLE = """
Anna Tom Mary John Paul Peter Mark Luke Jane Alice Rose Ben Sam Dan Max Adam Frank George Henry Jack
James Maria Martin Nick Robert Sarah Simon Thomas Victor William Emily Carl David Edward Fred Jean Lily
Lewis Louis Ray Ross Tim Alex Andrew Arthur Bill Bob Charles Chris Daniel Donald Elizabeth Greg Jacob
Jeff Jim Joseph Ken Kim Lee Marie Matthew Michael Neil Pat Richard Samuel Scott Stephen Virginia Anne
Phil Alexander Benny Josh Jon Jamie Leon Matt Don Rob Ali Maya Davis Wilson Taylor Jones Johnson
Williams Collins
"""
LANDS = ("coast", "field", "forest", "hill", "island", "lake", "plain", "river")
CROPS = ("apples", "beans", "corn", "hay", "hops", "rice", "wheat")
TREES = ("oak", "pine", "elm", "fir", "birch", "willow", "cedar", "maple")
BIRDS = ("duck", "crow", "owl", "hawk", "dove", "swan", "goose", "robin")
STONES = ("slate", "chalk", "flint", "granite", "marble", "clay", "sand", "lime")
PETS = (
    "bear",
    "bird",
    "cat",
    "dog",
    "fox",
    "hen",
    "horse",
    "lion",
    "mouse",
    "pig",
    "snake",
    "wolf",
)

VILLAGERS = 4
"""People of a village, each of another trade."""

DEMONSTRATION_VILLAGES = 4
LARGEST_SPLIT = 120  # every seed gives as many; one kind or another runs out soon after


class Options(TaskOptions):
    """The `task:` keys of a study on villages.

    `seed` draws the villages, the questions and their order. With one seed, a smaller split is the
    beginning of a larger one, and neither split depends on the size of the other.
    """

    examples: int = Field(
        default=24, ge=1, le=LARGEST_SPLIT, description="questions in the search split"
    )
    holdout: int = Field(
        default=48, ge=0, le=LARGEST_SPLIT, description="questions in the holdout split"
    )


@dataclass(frozen=True, slots=True)
class World:
    """Villages and the trades plied there, with a page for each of them and each of the people."""

    villages: Sequence[str]
    trades: Mapping[str, str]
    pages: Mapping[str, Mapping[str, str]]
    """Title to facts, in the order of the page's sentences."""

    def residents(self, village: str) -> dict[str, str]:
        """Trade to person."""
        return {key: who for key, who in self.pages[village].items() if key in self.trades}


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and the route to its answer with the names filled in."""

    kind: str
    text: str
    route: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact on the way to an answer."""

    page: str
    key: str
    value: str
    in_opening: bool

    def __str__(self) -> str:
        return f"The {self.key} of {self.page} is {self.value}."


def load(options: Options, _base: Path) -> Task:
    """The villages of `options.seed` as a task; reads no file."""
    draw = random.Random(options.seed)
    villages = VILLAGES.split()
    draw.shuffle(villages)
    people = PEOPLE.split()
    draw.shuffle(people)
    shown = DEMONSTRATION_VILLAGES
    demonstrated = _make_world(
        villages[:shown], people[: shown * VILLAGERS], DEMONSTRATION_TRADES, draw
    )
    asked = _make_world(villages[shown:], people[shown * VILLAGERS :], TRADES, draw)
    pools: dict[Split, dict[str, list[Question]]] = {"search": {}, "holdout": {}}
    for kind in SHARES:
        by_template = list(_questions(kind, asked, draw))
        pools["search"][kind] = _alternate(found[0::2] for found in by_template)
        pools["holdout"][kind] = _alternate(found[1::2] for found in by_template)
    return Task(
        name="villages",
        pack=AgentPack(
            instruction=INSTRUCTION,
            demonstrations=_demonstrations(demonstrated, draw),
            toolkits=("browser",),
            documents=(*_documents(demonstrated), *_documents(asked)),
        ),
        search=_deal("search", options.examples, pools["search"], asked),
        holdout=_deal("holdout", options.holdout, pools["holdout"], asked),
        score=best_of(exact_match),
    )


def _make_world(
    villages: Sequence[str],
    people: Sequence[str],
    trades: Mapping[str, str],
    draw: random.Random,
) -> World:
    pages: dict[str, dict[str, str]] = {trade: {"sells": goods} for trade, goods in trades.items()}
    people = people[: len(villages) * VILLAGERS]
    circle = draw.sample(people, len(people))
    friends = dict(zip(circle, circle[1:] + circle[:1], strict=True))
    for number, village in enumerate(villages):
        villagers = people[number * VILLAGERS : (number + 1) * VILLAGERS]
        residents = dict(zip(draw.sample(sorted(trades), VILLAGERS), villagers, strict=True))
        pages[village] = {
            "land": draw.choice(LANDS),
            "crop": draw.choice(CROPS),
            "tree": draw.choice(TREES),
            "bird": draw.choice(BIRDS),
            "stone": draw.choice(STONES),
            **residents,
        }
        for person in villagers:
            pages[person] = {
                "village": village,
                "friend": friends[person],
                "pet": draw.choice(PETS),
            }
    return World(villages, trades, pages)


def _questions(kind: str, world: World, draw: random.Random) -> Iterator[list[Question]]:
    """All questions of a kind, one shuffled list for each of its templates."""
    for of_kind, wording, route in TEMPLATES:
        if of_kind != kind:
            continue
        found = [
            Question(
                kind,
                wording.format_map(names),
                tuple(route.format_map(names).split("/")),
            )
            for names in _names(wording, world)
        ]
        found = [question for question in found if _is_sound(question, world)]
        draw.shuffle(found)
        yield found


def _names(wording: str, world: World) -> Iterator[dict[str, str]]:
    """What may stand in a wording's braces: a village with one of its people and one of its trades."""
    for village in world.villages:
        residents = world.residents(village)
        for person in residents.values() if "{person}" in wording else ("",):
            for trade in residents if "{trade}" in wording else ("",):
                yield {"village": village, "person": person, "trade": trade}


def _is_sound(question: Question, world: World) -> bool:
    """Whether the way leads to no page twice, and the answer is not in the question."""
    facts = _follow(question.route, world)
    visited = [fact.page for fact in facts]
    words = question.text.rstrip("?").split()
    return len(set(visited)) == len(visited) and facts[-1].value not in words


def _follow(route: Sequence[str], world: World) -> list[Fact]:
    """The facts along a route; the last one's value is the answer."""
    page, *keys = route
    facts: list[Fact] = []
    for key in keys:
        on_page = world.pages[page]
        in_opening = key in list(on_page)[:OPENING_SENTENCES]
        facts.append(Fact(page, key, on_page[key], in_opening))
        page = on_page[key]
    return facts


def _alternate(lists: Iterable[Sequence[Question]]) -> list[Question]:
    """The first of each list, then the second of each, and so on."""
    rounds = chain.from_iterable(zip_longest(*lists))
    return [question for question in rounds if question is not None]


def _deal(
    split: Split, count: int, pools: Mapping[str, Sequence[Question]], world: World
) -> tuple[Example, ...]:
    """`count` questions, each of the kind that is furthest behind its share, so that every beginning has the mix."""
    examples: list[Example] = []
    dealt = dict.fromkeys(SHARES, 0)
    for number in range(1, count + 1):
        kind = max(SHARES, key=lambda name: SHARES[name] * number - 100 * dealt[name])
        question = pools[kind][dealt[kind]]
        dealt[kind] += 1
        answer = _follow(question.route, world)[-1].value
        examples.append(Example(f"{split}-{number:03}", question.text, (answer,), kind))
    return tuple(examples)


def _demonstrations(world: World, draw: random.Random) -> tuple[Demonstration, ...]:
    """A few of each template; the kinds alternate, so that the first ones show them all."""
    kinds = [
        _alternate(found[:DEMONSTRATIONS_PER_TEMPLATE] for found in _questions(kind, world, draw))
        for kind in SHARES
    ]
    return tuple(_demonstrate(question, world) for question in _alternate(kinds))


def _demonstrate(question: Question, world: World) -> Demonstration:
    facts = _follow(question.route, world)
    return Demonstration(
        question=question.text,
        answer=facts[-1].value,
        reasoning=" ".join(str(fact) for fact in facts),
        steps=tuple(_steps(facts, world)),
    )


def _steps(facts: Sequence[Fact], world: World) -> Iterator[Step]:
    """Search for each page, look up what its opening does not show, finish; observations as the browser gives them."""
    thought = f"I need the page of {facts[0].page}."
    for fact in facts:
        sentences = _sentences(world.pages[fact.page])
        opening = " ".join(sentences[:OPENING_SENTENCES])
        yield Step(thought=thought, tool="search", argument=fact.page, observation=opening)
        if not fact.in_opening:
            yield Step(
                thought=f"I need the {fact.key} of {fact.page}.",
                tool="lookup",
                argument=fact.key,
                observation=f"(Result 1 / 1) {fact.key}: {fact.value}.",
            )
        thought = str(fact)
    yield Step(thought=thought, tool="finish", argument=facts[-1].value)


def _documents(world: World) -> Iterator[Document]:
    for title, facts in world.pages.items():
        yield Document(title=title, sentences=_sentences(facts))


def _sentences(facts: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{key}: {value}." for key, value in facts.items())
