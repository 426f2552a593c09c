"""Single-turn chat, the baseline that agents' energy is compared with: one prompt, one reply; from ShareGPT files, or made here.

    [{"id": "a1_0", "conversations": [{"from": "human", "value": "How do tides work?"}, {"from": "gpt", "value": "…"}]}, …]

The first turn that a person wrote is the question; a conversation without one is passed over, and so is one
whose first is longer than `max_characters`. Without a file, prompts come from a small grammar: explanations,
comparisons, letters, plans, summaries, translations, programs and lists.

There is no right answer. The score is 1 where there is a reply with something in it: accuracy is the share of
prompts that were answered, and says nothing of how well.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from string import Formatter

from pydantic import Field

from tuner.tasks import Example
from tuner.tasks import Task
from tuner.tasks import TaskOptions
from tuner.tasks.reading import Row
from tuner.tasks.reading import draw_splits
from tuner.tasks.reading import read_rows
from workflows.agent_pack import AgentPack
from workflows.agent_pack import Demonstration

INSTRUCTION = "You are a helpful assistant."
_PEOPLE = ("human", "user")

TEMPLATES: Mapping[str, str] = {
    "explain": "Explain {phenomenon} {audience}.",
    "compare": "What are the advantages of {choice}? Say when you would take which.",
    "write": "Write {form} {occasion}.",
    "plan": "Plan {event} for {people} people, with a list of what has to be bought.",
    "summarise": "Summarise this in one sentence: {place} {change} {reaction}",
    "translate": "Translate into {language}: {sentence}",
    "code": "Write a {programming} function that {job}, and explain how it works.",
    "list": "Give me {count} ideas for {purpose}.",
}
"""Kind of prompt to its wording; each name in braces is filled with every one of its WORDS in turn."""

WORDS: Mapping[str, tuple[str, ...]] = {
    "phenomenon": (
        "why the sky is blue",
        "how tides work",
        "what inflation is",
        "how vaccines protect people",
        "why leaves change colour in autumn",
        "how a bicycle stays upright",
        "what a black hole is",
        "how the internet finds a website",
        "why bread rises",
        "how a refrigerator cools",
        "what an algorithm is",
        "how bees make honey",
        "why we dream",
        "how earthquakes are measured",
        "what compound interest is",
        "how batteries store energy",
    ),
    "audience": ("to a child of ten", "to a colleague over lunch", "in three short paragraphs"),
    "choice": (
        "trains over planes for a journey of 600 kilometres",
        "renting over buying a flat",
        "a laptop over a desktop computer",
        "tea over coffee in the morning",
        "working from home over working in an office",
        "a paper notebook over a notes app",
        "cats over dogs as pets",
        "swimming over running as exercise",
        "gas over induction for cooking",
        "fresh over frozen vegetables",
        "a public library over buying books",
        "learning a language alone over taking a course",
        "electric over petrol cars",
        "camping over staying in a hotel",
        "SQL over a spreadsheet for a small company's data",
        "one large monitor over two small ones",
        "a bank transfer over paying in cash",
        "wooden over plastic toys",
    ),
    "form": (
        "a short poem",
        "a friendly e-mail",
        "a speech of one minute",
        "a notice for the door",
    ),
    "occasion": (
        "about the first snow of the year",
        "to thank the neighbours for watering the plants",
        "for the opening of a small bakery",
        "about a train that is late again",
        "to welcome a new colleague",
        "about moving to another town",
        "to announce that the lift is being repaired",
        "for a grandmother's eightieth birthday",
        "about a lost umbrella",
        "to ask for volunteers at the school fair",
        "about the last day of the holidays",
        "to say that a concert has been put off",
    ),
    "event": (
        "a picnic in the park",
        "a weekend of hiking",
        "a dinner of three courses without meat",
        "a children's birthday party",
        "a games evening",
        "a day of cleaning up the river bank",
        "a farewell lunch at work",
        "a small flea market",
        "a cooking class",
        "a film night in the garden",
    ),
    "people": ("four", "six", "ten", "twenty"),
    "place": (
        "The library of Wexley has been open on Sundays since March.",
        "The ferry between Orsa and Tillen now runs every half hour.",
        "The swimming pool in Brackholm was closed for repairs all winter.",
        "The weekly market of Dunlow has moved from the square to the harbour.",
        "The museum of clocks in Averley has let visitors in without a ticket this year.",
        "The night bus to Marrick was cut from the timetable in autumn.",
        "The school in Tarnby starts an hour later than it used to.",
        "The old mill at Quenby has been turned into workshops.",
    ),
    "change": (
        "Twice as many people have come as in the year before, most of them families.",
        "The town had expected to save money, but costs have gone up by a tenth.",
        "A count over four weeks found no change in how many people use it.",
    ),
    "reaction": (
        "The council will decide in May whether it stays that way.",
        "Shopkeepers near by are pleased, while some neighbours complain about the noise.",
    ),
    "language": ("French", "Spanish", "German", "Italian", "Japanese"),
    "sentence": (
        "Where can I buy a ticket for the boat to the island?",
        "The meeting has been moved to Thursday at ten.",
        "My luggage has not arrived; it is a small green suitcase.",
        "Could we have a table by the window for five people?",
        "Please do not feed the ducks, as it makes them ill.",
        "I have been learning to play the cello for two years.",
        "The museum is closed on Mondays, but the garden is open.",
        "If it rains tomorrow, we shall take the bus.",
    ),
    "programming": ("Python", "JavaScript"),
    "job": (
        "reverses the words of a sentence",
        "counts how often each letter occurs in a text",
        "checks whether a number is prime",
        "finds the longest word in a list",
        "turns seconds into hours, minutes and seconds",
        "merges two sorted lists",
        "removes duplicates from a list and keeps its order",
        "tells whether a year is a leap year",
        "computes the median of some numbers",
        "checks that brackets are balanced",
        "turns a Roman numeral into a number",
        "finds two numbers in a list that add up to a target",
        "shuffles a deck of cards",
        "splits a list into pieces of equal length",
        "formats a price with two decimals",
        "finds the words that two texts have in common",
    ),
    "count": ("three", "five", "ten"),
    "purpose": (
        "using up stale bread",
        "a rainy afternoon with two children",
        "saving electricity at home",
        "a small balcony garden",
        "presents that cost next to nothing",
        "getting a team to know each other",
        "drinking more water during the day",
        "the name of a bicycle repair shop",
        "learning ten new words a day",
        "a short talk about the sea",
        "making a long train journey pleasant",
        "things to do with old jars",
    ),
}


class Options(TaskOptions):
    """Keys of `task: {name: chat}` in a study."""

    path: str | None = Field(
        default=None, description="conversations in ShareGPT's format; else prompts are made"
    )
    max_characters: int = Field(
        default=2000, ge=1, description="of a prompt in the file; longer ones are passed over"
    )


class _Turn(Row):
    author: str = Field(alias="from")
    value: str | None = None


class _Conversation(Row):
    conversations: tuple[_Turn, ...]


def load(options: Options, base: Path) -> Task:
    """The task on a file or on prompts made here. Raises DataError when the file cannot be used or there are too few prompts."""
    path = Path("prompts made here") if options.path is None else base / options.path
    search, holdout = draw_splits(
        _made() if options.path is None else _read(path, options.max_characters),
        options,
        path=path,
        shown=(demo.question for demo in DEMONSTRATIONS),
    )
    pack = AgentPack(instruction=INSTRUCTION, demonstrations=DEMONSTRATIONS, answer="text")
    return Task("chat", pack, search, holdout, answered)


async def answered(example: Example, answer: str) -> float:
    """1 where there is a reply with something in it, else 0."""
    return float(bool(answer.strip()))


def _read(path: Path, max_characters: int) -> Iterator[Example]:
    for number, (_, row) in enumerate(read_rows(path, _Conversation), 1):
        turns = (turn.value or "" for turn in row.conversations if turn.author in _PEOPLE)
        prompt = next(turns, "").strip()
        if 0 < len(prompt) <= max_characters:
            # By the row: ids in files that go about come more than once.
            yield Example(str(number), prompt, ())


def _made() -> Iterator[Example]:
    for kind, wording in TEMPLATES.items():
        names = [name for _, name, _, _ in Formatter().parse(wording) if name]
        fillings = product(*(WORDS[name] for name in names))
        for number, words in enumerate(fillings, 1):
            prompt = wording.format(**dict(zip(names, words, strict=True)))
            yield Example(f"{kind}-{number:03}", prompt, (), kind)


DEMONSTRATIONS = (
    Demonstration(
        question="Explain why ice is slippery to a child of ten.",
        answer=(
            "The very top of ice is never quite solid. It is covered by a film of loose, wobbly water, far "
            "thinner than a hair.\n\nWhen you step on it, your foot glides on that film as on a wet floor."
        ),
    ),
    Demonstration(
        question="Write a notice for the door about a plumber who comes on Friday.",
        answer=(
            "Dear neighbours,\n\nthe plumber comes on Friday between 8 and 12. The water will be off for an "
            "hour at most. Please keep the cellar door unlocked.\n\nThank you!"
        ),
    ),
    Demonstration(
        question="Give me three ideas for a walk in the rain.",
        answer=(
            "1. Count how many kinds of umbrella you meet.\n2. Follow a gutter to where its water goes.\n"
            "3. End in a café and dry your socks on the radiator."
        ),
    ),
    Demonstration(
        question="Translate into French: The shop opens at nine.",
        answer="Le magasin ouvre à neuf heures.",
    ),
)
