"""StrategyQA (Geva et al., arXiv 2101.02235): yes-or-no questions whose steps have to be guessed, from the official JSON.

    {"qid": "e0…", "term": "Heron", "description": "Wading bird", "question": "Could a heron see over a kitchen table?",
     "answer": true, "facts": ["A grey heron stands about a metre tall.", …], "decomposition": ["How tall is a heron?", …]}

Pages to search are made of the rows: one for each term, with its description and the facts of all its
questions. The facts are what people noted down to reason from, so an agent that finds the page has most of the
reasoning; without tools the question asks for knowledge. Decompositions and evidence are not used.

An answer is right when its first word is the right one of yes and no.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from tuner.errors import DataError
from tuner.tasks import Example
from tuner.tasks import Task
from tuner.tasks import TaskOptions
from tuner.tasks.pages import Pages
from tuner.tasks.reading import Row
from tuner.tasks.reading import Text
from tuner.tasks.reading import draw_splits
from tuner.tasks.reading import read_rows
from tuner.tasks.scoring import best_of
from tuner.tasks.worked import worked
from workflows.agent_pack import AgentPack
from workflows.answer import normalise

INSTRUCTION = "Answer the question with yes or no."


class Options(TaskOptions):
    """Keys of `task: {name: strategyqa}` in a study."""

    path: str = Field(
        description="strategyqa_train.json, or train.json or dev.json of eladsegal/strategyqa"
    )


class _Question(Row):
    qid: Text
    term: Text
    description: str = ""
    question: Text
    answer: bool | None = None
    facts: tuple[str, ...] = ()


def load(options: Options, base: Path) -> Task:
    """The task on a file. Raises DataError when the file cannot be used or holds too few questions."""
    path = base / options.path
    pages = Pages()
    search, holdout = draw_splits(
        _examples(path, pages),
        options,
        path=path,
        shown=(demo.question for demo in DEMONSTRATIONS),
    )
    pack = AgentPack(
        instruction=INSTRUCTION,
        demonstrations=DEMONSTRATIONS,
        toolkits=("browser",),
        documents=pages.documents(),
    )
    return Task("strategyqa", pack, search, holdout, best_of(same_verdict))


def same_verdict(answer: str, right: str) -> float:
    """1 when the answer's first word is the right one ("Yes, because …" is yes), else 0."""
    return float(normalise(answer).split()[:1] == [right])


def _examples(path: Path, pages: Pages) -> Iterator[Example]:
    """The file's questions; their facts join the pages on the way."""
    for place, row in read_rows(path, _Question):
        if row.answer is None:
            raise DataError(
                f"{place}: answer: missing",
                hint="StrategyQA's test file tells no answers: use a train or dev file",
            )
        texts = (text.strip() for text in (row.description, *row.facts))
        pages.add(row.term, (_sentence(text) for text in texts if text))
        yield Example(row.qid, row.question, ("yes" if row.answer else "no",))


def _sentence(text: str) -> str:
    """With a full stop: many facts lack one, and would run into the next."""
    return text if text[-1] in ".!?" else f"{text}."


DEMONSTRATIONS = (
    worked(
        "Could an adult blue whale lie in a standard shipping container?",
        "An adult blue whale is about 25 metres long. A standard shipping container is about 12 metres long. 25 is more than 12, so it could not.",
        "no",
        (
            "I compare two lengths, the whale's first.",
            "search",
            "Blue whale",
            "Largest of all animals. An adult blue whale is about 25 metres long.",
        ),
        (
            "The whale is about 25 metres long. How long is the container?",
            "search",
            "Shipping container",
            "Steel box for freight. A standard shipping container is about 12 metres long.",
        ),
        end="25 metres do not go into 12 metres, so the answer is no.",
    ),
    worked(
        "Are there more squares on a chessboard than days in any two months in a row?",
        "A chessboard has 64 squares. A month has at most 31 days, so two months have at most 62. 64 is more than 62, so there are.",
        "yes",
        (
            "I need the number of squares first.",
            "search",
            "Chessboard",
            "Board for the game of chess. A chessboard has eight rows of eight squares.",
        ),
        (
            "That makes 64 squares. How long can a month be?",
            "search",
            "Month",
            "Part of a year. A month has 28 to 31 days.",
        ),
        end="Two months have at most 62 days, and 64 is more, so the answer is yes.",
    ),
    worked(
        "Would a lit candle go on burning in the open on the Moon?",
        "A candle's flame needs oxygen. The Moon has almost no air, so there is no oxygen. The candle would go out.",
        "no",
        (
            "What does a candle need to burn?",
            "search",
            "Candle",
            "Wick in a block of wax. The flame of a candle takes oxygen from the air around it.",
        ),
        (
            "It needs oxygen from the air. Is there air on the Moon?",
            "search",
            "Moon",
            "Natural satellite of the Earth. The Moon has almost no atmosphere. Its gravity is a sixth of the Earth's.",
        ),
        end="Without air there is no oxygen for the flame, so the answer is no.",
    ),
    worked(
        "Could bamboo of the fastest kind outgrow a house of two floors within a month?",
        "The fastest bamboo grows about 90 centimetres a day, which is 27 metres in 30 days. A house of two floors is less than 10 metres tall, so it could.",
        "yes",
        (
            "How fast does bamboo grow?",
            "search",
            "Bamboo",
            "Woody kinds of grass. The fastest bamboo grows about 90 centimetres in a day.",
        ),
        (
            "In 30 days that is 27 metres. How tall are two floors?",
            "search",
            "Storey height",
            "Could not find Storey height. Similar: Storey, Height of land.",
        ),
        (
            "There is a page of the title Storey.",
            "search",
            "Storey",
            "Level of a building. One storey of a house is about 3 metres tall.",
        ),
        end="27 metres are more than two floors of about 3 metres, so the answer is yes.",
    ),
    worked(
        "Is marzipan safe for somebody who must not eat nuts?",
        "Marzipan is made of ground almonds and sugar. Almonds count as nuts for those who must not eat them. So it is not safe.",
        "no",
        (
            "What is marzipan made of?",
            "search",
            "Marzipan",
            "Sweet paste. Marzipan is made of sugar and ground almonds.",
        ),
        (
            "It holds almonds. Do they count as nuts?",
            "search",
            "Nut allergy",
            "Reaction of the body to nuts. Almonds, walnuts and cashews can all cause it.",
        ),
        end="Almonds can cause the allergy, so the answer is no.",
    ),
    worked(
        "Can a leap year be split into two halves of the same number of days?",
        "A leap year has 366 days. 366 is even, and half of it is 183, so it can.",
        "yes",
        (
            "How many days has a leap year?",
            "search",
            "Leap year",
            "Year with a day more. A leap year has 366 days, one of them on 29 February.",
        ),
        end="366 is even, so the answer is yes.",
    ),
    worked(
        "Would an ice cube float in a glass of pure alcohol?",
        "Ice has a density of about 0.92 grams per cubic centimetre. Pure alcohol has one of about 0.79. Ice is denser, so it sinks.",
        "no",
        (
            "What floats is less dense than what it floats in. I need the density of ice.",
            "search",
            "Ice",
            "Frozen water. Ice has a density of about 0.92 grams per cubic centimetre.",
        ),
        (
            "Now the density of alcohol.",
            "search",
            "Alcohol",
            "Clear liquid that burns. Pure alcohol boils at 78 degrees.",
        ),
        (
            "The opening does not give it, but a later sentence may.",
            "lookup",
            "density",
            "No more results.",
        ),
        (
            "This page does not say. Alcohol in drinks is ethanol, so I try that.",
            "search",
            "Ethanol",
            "Alcohol in wine and beer. Pure ethanol has a density of about 0.79 grams per cubic centimetre.",
        ),
        end="Ice is denser than alcohol and sinks, so the answer is no.",
    ),
    worked(
        "Can a giant tortoise outlive a house cat that was born in the same year?",
        "A giant tortoise can live for more than 100 years. A house cat lives for about 15 years. So the tortoise can outlive it.",
        "yes",
        (
            "How old does a giant tortoise grow?",
            "search",
            "Giant tortoise",
            "Large reptile of some islands. A giant tortoise can live for more than 100 years.",
        ),
        (
            "More than 100 years. And a house cat?",
            "search",
            "House cat",
            "Small tame cat. A house cat lives for about 15 years.",
        ),
        end="100 years are more than 15, so the answer is yes.",
    ),
)
