"""Your own questions, from files of JSON lines; no code needed.

`path` holds one question a row. `answer` is the right answer or a list of right ones; `id` is optional (the
row's number stands in for it); other keys are passed over:

    {"id": "q1", "question": "Who wrote the 2023 safety report?", "answer": ["Mara Okoye", "M. Okoye"]}

`documents`, optional, holds pages that agents may search: `title`, and `text` or a list of `sentences`. Text
is cut into sentences after ". ", "! " and "? ":

    {"title": "Safety report 2023", "text": "The report was written by Mara Okoye. It covers all sites."}

`demonstrations`, optional, holds worked examples for few-shot prompts, best first: `question` and `answer`;
`reasoning` for the workflows that reason; `steps` for those that use tools, each with `thought`, `tool`
(search, lookup, calculate; finish in the last), `argument`, and the `observation` that the tool gives:

    {"question": "Who runs the Oslo site?", "answer": "Per Lie", "reasoning": "The page on Oslo names Per Lie.",
     "steps": [{"thought": "I open its page.", "tool": "search", "argument": "Oslo site", "observation": "Per Lie runs it."},
               {"thought": "It is Per Lie.", "tool": "finish", "argument": "Per Lie"}]}
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
from typing import Literal

from pydantic import Field

from tuner.errors import DataError
from tuner.tasks import Example
from tuner.tasks import Prose
from tuner.tasks import Task
from tuner.tasks import TaskOptions
from tuner.tasks.reading import Row
from tuner.tasks.reading import Text
from tuner.tasks.reading import draw_splits
from tuner.tasks.reading import read_rows
from tuner.tasks.scoring import SCORES
from tuner.tasks.scoring import best_of
from tuner.tasks.scoring import last_number
from workflows.agent_pack import AgentPack
from workflows.agent_pack import Demonstration
from workflows.agent_pack import Document
from workflows.tools import FINISH
from workflows.tools import load_toolkits

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class Options(TaskOptions):
    """Keys of `task: {name: jsonl}` in a study."""

    path: str = Field(description="questions and answers, JSON lines")
    documents: str | None = Field(default=None, description="pages to search, JSON lines")
    demonstrations: str | None = Field(default=None, description="worked examples, JSON lines")
    instruction: Annotated[str, Prose()] = Field(default="Answer the question.", min_length=1)
    calculator: bool = Field(default=False, description="whether agents have a calculator")
    score: Literal["exact", "f1", "number", "contains"] = Field(
        default="exact", description="how an answer is compared with the right ones"
    )


class _Question(Row):
    question: Text
    answer: Text | Annotated[tuple[Text, ...], Field(min_length=1)]
    id: Text | int | None = None


class _Page(Row):
    title: Text
    text: Text | None = None
    sentences: tuple[Text, ...] | None = None


def load(options: Options, base: Path) -> Task:
    """The task on a user's files. Raises DataError when one cannot be used or holds too few questions."""
    path = base / options.path
    pack = AgentPack(
        instruction=options.instruction,
        toolkits=(("browser",) if options.documents else ())
        + (("calculator",) if options.calculator else ()),
        documents=_documents(base / options.documents) if options.documents else (),
    )
    if options.demonstrations:
        demonstrations = _demonstrations(base / options.demonstrations, pack)
        pack = pack.model_copy(update={"demonstrations": demonstrations})
    search, holdout = draw_splits(
        _examples(path, numeric=options.score == "number"),
        options,
        path=path,
        shown=(demonstration.question for demonstration in pack.demonstrations),
    )
    return Task("jsonl", pack, search, holdout, best_of(SCORES[options.score]))


def _examples(path: Path, *, numeric: bool) -> Iterator[Example]:
    for number, (place, row) in enumerate(read_rows(path, _Question), 1):
        answers = (row.answer,) if isinstance(row.answer, str) else row.answer
        for answer in answers:
            if numeric and last_number(answer) is None:
                raise DataError(
                    f"{place}: answer: expected a number, since `score` is number; found {answer!r}",
                    hint="mend the answer, or leave `score` out of the task",
                )
        yield Example(str(number if row.id is None else row.id), row.question, answers)


def _documents(path: Path) -> tuple[Document, ...]:
    pages: dict[str, Document] = {}
    for place, row in read_rows(path, _Page):
        if (row.text is None) == (row.sentences is None):
            raise DataError(
                f"{place}: expected either text or sentences, found {'neither' if row.text is None else 'both'}",
                hint="give each page one of the two: text, or sentences as a list",
            )
        title = row.title.casefold()
        if title in pages:
            raise DataError(
                f"{place}: title: {row.title!r} is a title already",
                hint="agents open a page by its title, whatever its case: give each page its own",
            )
        sentences = row.sentences if row.text is None else tuple(_SENTENCE_END.split(row.text))
        pages[title] = Document(title=row.title, sentences=sentences or ())
    return tuple(pages.values())


def _demonstrations(path: Path, pack: AgentPack) -> tuple[Demonstration, ...]:
    known = [tool.name for toolkit in load_toolkits(pack) for tool in toolkit().tools()]
    demonstrations = []
    for place, demonstration in read_rows(path, Demonstration):
        tools = [step.tool for step in demonstration.steps]
        if tools and (tools[-1] != FINISH or not set(tools[:-1]) <= set(known)):
            raise DataError(
                f"{place}: steps: expected tools among {', '.join(known) or 'none'}, and {FINISH} as the last; "
                f"found {', '.join(tools)}",
                hint=f"write only tools that the task has, and end with {FINISH}",
            )
        demonstrations.append(demonstration)
    return tuple(demonstrations)
