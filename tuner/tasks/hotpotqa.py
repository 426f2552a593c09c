"""HotpotQA (Yang et al., arXiv 1809.09600): questions over several Wikipedia pages, from the official files.

    {"_id": "5a…", "question": "Which river flows through …?", "answer": "Lorn", "type": "bridge", "level": "hard",
     "supporting_facts": [["Karst", 1]], "context": [["Karst", ["Karst is a town.", " The Lorn flows …"]], …]}

Distractor and fullwiki files, as published (one JSON array) or one row a line. The paragraphs of all rows
are the agent's library; where a title comes with different texts, the first stays. Supporting facts are
not used.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from tuner.errors import DataError
from tuner.tasks import Example
from tuner.tasks import Task
from tuner.tasks import TaskOptions
from tuner.tasks.reading import Row
from tuner.tasks.reading import Text
from tuner.tasks.reading import draw_splits
from tuner.tasks.reading import read_rows
from tuner.tasks.scoring import best_of
from tuner.tasks.scoring import exact_match
from tuner.tasks.scoring import f1
from tuner.tasks.worked import worked
from workflows.agent_pack import AgentPack
from workflows.agent_pack import Document

INSTRUCTION = "Answer the question with a few words: a name, a number, a date, or yes or no."


class Options(TaskOptions):
    """Keys of `task: {name: hotpotqa}` in a study."""

    path: str = Field(
        description="a train or dev file from hotpotqa.github.io; test files tell no answers"
    )
    score: Literal["exact", "f1"] = Field(
        default="exact", description="exact match, or F1 over words"
    )


class _Question(Row):
    id: Text | int = Field(alias="_id")  # copies that go about number the rows
    question: Text
    answer: Text | None = None
    type: str = ""
    context: tuple[tuple[Text, tuple[str, ...]], ...]


def load(options: Options, base: Path) -> Task:
    """The task on a file. Raises DataError when the file cannot be used or holds too few questions."""
    path = base / options.path
    library: dict[str, Document] = {}
    search, holdout = draw_splits(
        _examples(path, library),
        options,
        path=path,
        shown=(demo.question for demo in DEMONSTRATIONS),
    )
    pack = AgentPack(
        instruction=INSTRUCTION,
        demonstrations=DEMONSTRATIONS,
        toolkits=("browser",),
        documents=tuple(library.values()),
    )
    return Task(
        "hotpotqa", pack, search, holdout, best_of(f1 if options.score == "f1" else exact_match)
    )


def _examples(path: Path, library: dict[str, Document]) -> Iterator[Example]:
    """The file's questions; their paragraphs join the library on the way."""
    for place, row in read_rows(path, _Question):
        if row.answer is None:
            raise DataError(
                f"{place}: answer: missing",
                hint="HotpotQA's test files tell no answers: use a train or dev file",
            )
        for title, sentences in row.context:
            if title not in library:
                stripped = (sentence.strip() for sentence in sentences)
                library[title] = Document(title=title, sentences=tuple(filter(None, stripped)))
        yield Example(str(row.id), row.question, (row.answer,), row.type)


# People, places and works here are invented, but for mountains and countries that everybody knows: a model cannot have
# the answers by heart, and sees that they come from the pages.
DEMONSTRATIONS = (
    worked(
        "Which river flows through the town where the painter Ilse Varnholt grew up?",
        "Ilse Varnholt grew up in the town of Karst. The river that flows through Karst is the Lorn.",
        "Lorn",
        (
            "I need the town where Ilse Varnholt grew up, then its river.",
            "search",
            "Ilse Varnholt",
            "Ilse Varnholt (1871–1940) was a painter of landscapes. She grew up in Karst, where her father kept an inn. Her best known picture is The Ferry.",
        ),
        (
            "She grew up in Karst. Which river flows through Karst?",
            "search",
            "Karst",
            "Karst is a market town of 9,000 people. The river Lorn flows through it. The town is known for its stone bridge.",
        ),
        end="The river that flows through Karst is the Lorn.",
    ),
    worked(
        "Are Mount Kenya and Mount Etna both in Africa?",
        "Mount Kenya is in Kenya, which is in Africa. Mount Etna is in Sicily, which is in Europe. So they are not both in Africa.",
        "no",
        (
            "I look up where each of the two lies, Mount Kenya first.",
            "search",
            "Mount Kenya",
            "Mount Kenya is the highest mountain in Kenya and the second highest in Africa. Its highest peak is Batian.",
        ),
        (
            "Mount Kenya is in Africa. Now Mount Etna.",
            "search",
            "Mount Etna",
            "Mount Etna is an active volcano on the east coast of Sicily, Italy.",
        ),
        end="Mount Etna is in Italy, not in Africa, so the answer is no.",
    ),
    worked(
        "In what year did the composer of the opera The Salt Road die?",
        "The opera The Salt Road was composed by Anton Melzer. Anton Melzer died in 1921.",
        "1921",
        (
            "I need the composer of The Salt Road.",
            "search",
            "The Salt Road",
            "The Salt Road is an opera in three acts by Anton Melzer. It was first given in Prague in 1902. The story follows a carter and his daughter.",
        ),
        (
            "The composer is Anton Melzer. When did he die?",
            "search",
            "Anton Melzer",
            "Anton Melzer was a composer of operas and songs. He was born in Brno in 1858. He learned the trade in Vienna from his uncle. His first opera failed. He then taught for ten years.",
        ),
        (
            "The opening does not say when he died, so I look for the word on this page.",
            "lookup",
            "died",
            "(Result 1 / 1) Melzer died in Graz in 1921.",
        ),
        end="Anton Melzer died in 1921.",
    ),
    worked(
        "Who founded the club that plays at the football ground Old Quarry?",
        "The club that plays at Old Quarry is Tessel Rovers. Tessel Rovers was founded by Piet Adders.",
        "Piet Adders",
        (
            "I need the club that plays at Old Quarry.",
            "search",
            "Old Quarry",
            "Could not find Old Quarry. Similar: Old Quarry Ground, Old Quarry Road, Quarry Hill.",
        ),
        (
            "There is a page of the title Old Quarry Ground.",
            "search",
            "Old Quarry Ground",
            "Old Quarry Ground is a football ground in Tessel. It has been the home of Tessel Rovers since 1911.",
        ),
        (
            "The club is Tessel Rovers. Who founded it?",
            "search",
            "Tessel Rovers",
            "Tessel Rovers is a football club. It was founded in 1899 by the schoolmaster Piet Adders.",
        ),
        end="Tessel Rovers was founded by Piet Adders.",
    ),
    worked(
        "Which novel was published first, The Glass Orchard or Nine Winters?",
        "The Glass Orchard was published in 1934. Nine Winters was published in 1951. 1934 is before 1951, so The Glass Orchard was first.",
        "The Glass Orchard",
        (
            "I need the years of both novels.",
            "search",
            "The Glass Orchard",
            "The Glass Orchard is a novel by Edith Camber. It was published in 1934.",
        ),
        (
            "The Glass Orchard is of 1934. Now Nine Winters.",
            "search",
            "Nine Winters",
            "Nine Winters is the second novel of Tomas Rehn. It was published in 1951 and won a prize the year after.",
        ),
        end="1934 is before 1951, so The Glass Orchard was published first.",
    ),
    worked(
        "What is the official language of the country where the inventor of the Tolland lamp was born?",
        "The Tolland lamp was invented by Rui Camilo. Rui Camilo was born in Portugal. The official language of Portugal is Portuguese.",
        "Portuguese",
        (
            "I need the inventor of the Tolland lamp.",
            "search",
            "Tolland lamp",
            "The Tolland lamp is a miner's lamp with a double glass. Rui Camilo invented it in 1826.",
        ),
        (
            "Rui Camilo invented it. Where was he born?",
            "search",
            "Rui Camilo",
            "Rui Camilo (1790–1861) was an engineer. He was born in Braga, Portugal, and worked in the mines of Wales.",
        ),
        (
            "He was born in Portugal. I check its official language.",
            "search",
            "Portugal",
            "Portugal is a country in the south-west of Europe. Its capital is Lisbon. Its official language is Portuguese.",
        ),
        end="The official language of Portugal is Portuguese.",
    ),
    worked(
        "How many islands are there in the nature reserve in which Sandvik Lighthouse stands?",
        "Sandvik Lighthouse stands in Aldra Nature Reserve. Aldra Nature Reserve has 14 islands.",
        "14",
        (
            "I need the nature reserve of Sandvik Lighthouse.",
            "search",
            "Sandvik Lighthouse",
            "Sandvik Lighthouse was built in 1868. It stands in Aldra Nature Reserve and is open in summer.",
        ),
        (
            "It stands in Aldra Nature Reserve. How many islands has that?",
            "search",
            "Aldra Nature Reserve",
            "Aldra Nature Reserve lies off the west coast. It was founded in 1973. A ferry runs from May to September. Camping is not allowed. Its birds have been counted since 1980.",
        ),
        (
            "The opening does not give the number. I look for islands on this page.",
            "lookup",
            "islands",
            "(Result 1 / 2) Seals rest on the outer islands in winter.",
        ),
        (
            "That is not the number. I look for the next place.",
            "lookup",
            "islands",
            "(Result 2 / 2) There are 14 islands, two of them inhabited.",
        ),
        end="Aldra Nature Reserve has 14 islands.",
    ),
    worked(
        "Which of the two actors has also directed films, Dora Lindqvist or Hugo Marsh?",
        "Dora Lindqvist has played in films but directed none. Hugo Marsh has directed two films.",
        "Hugo Marsh",
        (
            "I look up both actors, Dora Lindqvist first.",
            "search",
            "Dora Lindqvist",
            "Dora Lindqvist is an actor of stage and film. She has played in more than thirty films and directed none.",
        ),
        (
            "She has directed none. Now Hugo Marsh.",
            "search",
            "Hugo Marsh",
            "Hugo Marsh is an actor and director. He directed the films Low Tide and The Night Porter's Son.",
        ),
        end="Hugo Marsh has directed films.",
    ),
)
