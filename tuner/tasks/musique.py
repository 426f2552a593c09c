"""MuSiQue (Trivedi et al., arXiv 2108.00573): questions of two to four hops over Wikipedia paragraphs, from the official JSON lines.

    {"id": "2hop__1_2", "question": "Which river flows through the town where the Amberline was built?", "answer": "Sonde",
     "answer_aliases": ["River Sonde"], "question_decomposition": [{…}, {…}],
     "paragraphs": [{"idx": 0, "title": "Vesterby", "paragraph_text": "Vesterby is a town. The Sonde …", "is_supporting": true}, …]}

The paragraphs of all rows are the agent's library. Those that share a title make one page, in the order
of the file and each sentence once: `search` opens the beginning of the first, and `lookup` finds what stands
in the others. Decompositions tell the number of hops; which paragraphs support an answer is not used.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from typing import Literal

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
from tuner.tasks.scoring import SCORES
from tuner.tasks.scoring import best_of
from tuner.tasks.worked import worked
from workflows.agent_pack import AgentPack

INSTRUCTION = "Answer the question with a few words: a name, a number or a date."

# After a full stop, but for that of an initial or a title ("Dr. J. Smith"), before a capital, a figure or an opening mark.
_SENTENCE_END = re.compile(
    r"""(?<=[.!?])(?<!\b[A-Z]\.)(?<!\b(?:Dr|Mr|Ms|St)\.)(?<!\bMrs\.)\s+(?=[A-Z0-9"'(])"""
)


class Options(TaskOptions):
    """Keys of `task: {name: musique}` in a study."""

    path: str = Field(
        description="musique_ans_v1.0_dev.jsonl or _train.jsonl of MuSiQue-Answerable"
    )
    score: Literal["exact", "f1"] = Field(
        default="exact", description="exact match, or F1 over words"
    )


class _Paragraph(Row):
    title: Text
    paragraph_text: Text


class _Question(Row):
    id: Text
    question: Text
    answer: Text | None = None
    answer_aliases: tuple[str, ...] = ()
    answerable: bool = True
    question_decomposition: tuple[Any, ...] = ()
    paragraphs: tuple[_Paragraph, ...]


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
    return Task("musique", pack, search, holdout, best_of(SCORES[options.score]))


def _examples(path: Path, pages: Pages) -> Iterator[Example]:
    """The file's questions; their paragraphs join the pages on the way."""
    for place, row in read_rows(path, _Question):
        if row.answer is None:
            raise DataError(
                f"{place}: answer: missing",
                hint="MuSiQue's test files tell no answers: use a train or dev file",
            )
        if not row.answerable:
            raise DataError(
                f"{place}: answerable: false, so there is no right answer",
                hint="use a file of MuSiQue-Answerable: musique_ans_…, not musique_full_…",
            )
        for paragraph in row.paragraphs:
            pages.add(paragraph.title, _SENTENCE_END.split(paragraph.paragraph_text))
        hops = len(row.question_decomposition)
        answers = (row.answer, *(alias for alias in row.answer_aliases if alias.strip()))
        yield Example(row.id, row.question, answers, f"{hops} hops" if hops else "")


# Places, ships and things here are invented: a model cannot have the answers by heart, and sees that they come from the pages.
DEMONSTRATIONS = (
    worked(
        "Which river flows through the town where the Amberline tram was built?",
        "The Amberline tram was built in Vesterby. The river that flows through Vesterby is the Sonde.",
        "Sonde",
        (
            "I need the town where the Amberline tram was built, then its river.",
            "search",
            "Amberline tram",
            "The Amberline tram is a narrow-gauge tram. It was built in Vesterby in 1904. It carries 200 passengers a day.",
        ),
        (
            "It was built in Vesterby. Which river flows through Vesterby?",
            "search",
            "Vesterby",
            "Vesterby is a town of 12,000 people. The river Sonde flows through it. Its yards once built trams and ferries.",
        ),
        end="The river that flows through Vesterby is the Sonde.",
    ),
    worked(
        "What is the capital of the province that contains the lake into which the Orrin flows?",
        "The Orrin flows into Lake Tarn. Lake Tarn is in the province of Hollin. The capital of Hollin is Merrow.",
        "Merrow",
        (
            "I need the lake into which the Orrin flows, its province, and the province's capital.",
            "search",
            "Orrin",
            "The Orrin is a river of 80 kilometres. It rises in the Gray Hills and flows into Lake Tarn.",
        ),
        (
            "It flows into Lake Tarn. Which province contains Lake Tarn?",
            "search",
            "Lake Tarn",
            "Lake Tarn is the deepest lake in the province of Hollin. Eels are caught in it.",
        ),
        (
            "The province is Hollin. What is its capital?",
            "search",
            "Hollin",
            "Hollin is a province in the north. It joined the kingdom in 1702. Its flag shows a heron. Its roads were paved late. Its main crop is rye.",
        ),
        (
            "The opening does not name the capital, so I look for the word on this page.",
            "lookup",
            "capital",
            "(Result 1 / 1) The capital of Hollin is Merrow.",
        ),
        end="The capital of Hollin is Merrow.",
    ),
    worked(
        "In what year was the company founded that makes the Larkwing bicycle?",
        "The Larkwing is made by Pellam Works. Pellam Works was founded in 1922.",
        "1922",
        (
            "I need the company that makes the Larkwing bicycle.",
            "search",
            "Larkwing bicycle",
            "Could not find Larkwing bicycle. Similar: Larkwing, Larkwing Cup, Bicycle lane.",
        ),
        (
            "There is a page of the title Larkwing.",
            "search",
            "Larkwing",
            "The Larkwing is a folding bicycle with small wheels. It is made by Pellam Works.",
        ),
        (
            "Pellam Works makes it. When was the company founded?",
            "search",
            "Pellam Works",
            "Pellam Works is a maker of bicycles and prams. It was founded in 1922 in a former mill.",
        ),
        end="Pellam Works was founded in 1922.",
    ),
    worked(
        "What is the main crop of the island with the harbour where the ship was built from which Cape Ennis was first sighted?",
        "Cape Ennis was first sighted from the Grey Heron. The Grey Heron was built in Port Alva. Port Alva is on the island of Skell. The main crop of Skell is barley.",
        "barley",
        (
            "I begin with the ship from which Cape Ennis was first sighted.",
            "search",
            "Cape Ennis",
            "Cape Ennis is the southern tip of Morra. It was first sighted in 1788 from the ship Grey Heron.",
        ),
        (
            "The ship is the Grey Heron. Where was it built?",
            "search",
            "Grey Heron",
            "The Grey Heron was a ship of three masts. It was built in Port Alva and launched in 1781.",
        ),
        (
            "It was built in Port Alva. On which island is that harbour?",
            "search",
            "Port Alva",
            "Port Alva is a harbour on the island of Skell. Ships have been built there since 1650.",
        ),
        (
            "The island is Skell. What is its main crop?",
            "search",
            "Skell",
            "Skell is an island of 40 square kilometres. About 900 people live there. A ferry has served it since 1920. Its highest hill is Ward Top. Its coast is rocky.",
        ),
        (
            "The opening does not say, so I look for crop on this page.",
            "lookup",
            "crop",
            "(Result 1 / 1) The main crop of Skell is barley.",
        ),
        end="The main crop of Skell is barley.",
    ),
    worked(
        "How tall is the landmark of the town in which Lantern Week is held?",
        "Lantern Week is held in Ferrin. The landmark of Ferrin is the Old Beacon. The Old Beacon is 48 metres tall.",
        "48 metres",
        (
            "I need the town in which Lantern Week is held.",
            "search",
            "Lantern Week",
            "Lantern Week is a festival of lights. It is held every February in Ferrin.",
        ),
        (
            "It is held in Ferrin. What is the landmark of Ferrin?",
            "search",
            "Ferrin",
            "Ferrin is a town on the coast. Its landmark is the Old Beacon, a tower of red brick.",
        ),
        (
            "The landmark is the Old Beacon. How tall is it?",
            "search",
            "Old Beacon",
            "The Old Beacon was finished in 1866. It is 48 metres tall and has 230 steps.",
        ),
        end="The Old Beacon is 48 metres tall.",
    ),
    worked(
        "In what year was the bridge over the Tavel Gorge opened to trains?",
        "The bridge over the Tavel Gorge is the Highspan. The Highspan was opened to trains in 1938.",
        "1938",
        (
            "I need the bridge over the Tavel Gorge.",
            "search",
            "Tavel Gorge",
            "The Tavel Gorge is 9 kilometres long. Its walls are of slate. The Highspan bridges it at its narrowest place.",
        ),
        (
            "The bridge is the Highspan. When was it opened to trains?",
            "search",
            "Highspan",
            "The Highspan is a bridge of steel. It has a single arch. Four years went into its building. It is painted green. Swifts nest below it.",
        ),
        (
            "The opening does not say. I look for opened on this page.",
            "lookup",
            "opened",
            "(Result 1 / 2) Its toll house opened in 1931.",
        ),
        (
            "That is the toll house. I look for the next place.",
            "lookup",
            "opened",
            "(Result 2 / 2) The bridge was opened to trains in 1938 and to cars in 1954.",
        ),
        end="The Highspan was opened to trains in 1938.",
    ),
    worked(
        "Which mountains does the road cross that begins in the town where the cheese is made for which the Copper Fair is known?",
        "The Copper Fair is known for Doss cheese. Doss is made in Arbel. The road that begins in Arbel is the Salt Way. The Salt Way crosses the Ember Range.",
        "Ember Range",
        (
            "I need the cheese for which the Copper Fair is known.",
            "search",
            "Copper Fair",
            "The Copper Fair is a market held every autumn. It is known for its stalls of Doss, a hard cheese.",
        ),
        (
            "The cheese is Doss. Where is it made?",
            "search",
            "Doss",
            "Doss is a hard cheese of sheep's milk. It is made in Arbel and ripens for a year.",
        ),
        (
            "It is made in Arbel. Which road begins there?",
            "search",
            "Arbel",
            "Arbel is a market town. The road called the Salt Way begins at its north gate.",
        ),
        (
            "The road is the Salt Way. Which mountains does it cross?",
            "search",
            "Salt Way",
            "The Salt Way is a road of 210 kilometres. It crosses the Ember Range and ends at the sea.",
        ),
        end="The Salt Way crosses the Ember Range.",
    ),
    worked(
        "What language is spoken in the country of the team that won the first Teal Regatta?",
        "The first Teal Regatta was won by Sable Oars. Sable Oars is a team from Corvana. The language spoken in Corvana is Corvan.",
        "Corvan",
        (
            "I need the team that won the first Teal Regatta.",
            "search",
            "Teal Regatta",
            "The Teal Regatta is a rowing race over six kilometres. The first was won by Sable Oars in 1899.",
        ),
        (
            "Sable Oars won it. Which country is the team from?",
            "search",
            "Sable Oars",
            "Sable Oars is a rowing team from Corvana. Its boats are black.",
        ),
        (
            "The country is Corvana. What language is spoken there?",
            "search",
            "Corvana",
            "Corvana is a country of lakes and low hills. Its people speak Corvan.",
        ),
        end="The people of Corvana speak Corvan.",
    ),
)
