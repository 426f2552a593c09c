"""GSM8K (Cobbe et al., arXiv 2110.14168): school arithmetic in words, from the official JSON lines; a calculator is at hand.

    {"question": "A box holds 6 eggs. How many do 4 boxes hold?", "answer": "4 boxes hold 4*6=24.\\n#### 24"}

The right answer stands after "####". An answer is right when its last number has the same value.
"""

from collections.abc import Iterator
from pathlib import Path

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
from tuner.tasks.scoring import last_number
from tuner.tasks.scoring import same_number
from tuner.tasks.worked import calculated
from workflows.agent_pack import AgentPack

INSTRUCTION = "Solve the problem. The answer is one number, without its unit."
_MARK = "####"


class Options(TaskOptions):
    """Keys of `task: {name: gsm8k}` in a study."""

    path: str = Field(description="train.jsonl or test.jsonl of openai/grade-school-math")


class _Problem(Row):
    question: Text
    answer: Text


def load(options: Options, base: Path) -> Task:
    """The task on a file. Raises DataError when the file cannot be used or holds too few questions."""
    path = base / options.path
    search, holdout = draw_splits(
        _examples(path), options, path=path, shown=(demo.question for demo in DEMONSTRATIONS)
    )
    pack = AgentPack(
        instruction=INSTRUCTION, demonstrations=DEMONSTRATIONS, toolkits=("calculator",)
    )
    return Task("gsm8k", pack, search, holdout, best_of(same_number))


def _examples(path: Path) -> Iterator[Example]:
    for number, (place, problem) in enumerate(read_rows(path, _Problem), 1):
        _, mark, answer = problem.answer.rpartition(_MARK)
        if not mark or last_number(answer) is None:
            raise DataError(
                f"{place}: answer: expected to end with a line '{_MARK} number', found {problem.answer[-60:]!r}",
                hint="is it the official file? Its answers end so",
            )
        yield Example(str(number), problem.question, (answer.strip(),))


DEMONSTRATIONS = (
    calculated(
        "A baker fills 6 trays with 12 rolls each and sells 50 of the rolls. How many rolls are left?",
        "6 trays of 12 rolls are 6*12 = 72 rolls. After selling 50 there are 72-50 = 22 left.",
        "22",
        ("First the number of rolls that were baked.", "6*12", "72"),
        ("Then take away the 50 that were sold.", "72-50", "22"),
        end="22 rolls are left.",
    ),
    calculated(
        "A museum charges $8 for an adult and $5 for a child. How many dollars do 2 adults and 3 children pay?",
        "The adults pay 2*8 = 16 dollars. The children pay 3*5 = 15 dollars. Together that is 16+15 = 31 dollars.",
        "31",
        ("Both groups can be added in one sum.", "2*8 + 3*5", "31"),
        end="They pay 31 dollars.",
    ),
    calculated(
        "A train covers 150 miles in 2.5 hours. At the same speed, how many miles does it cover in 4 hours?",
        "The speed is 150/2.5 = 60 miles an hour. In 4 hours the train covers 60*4 = 240 miles.",
        "240",
        ("I need the speed first.", "150/2.5", "60"),
        ("Now the distance in 4 hours.", "60*4", "240"),
        end="It covers 240 miles.",
    ),
    calculated(
        "Ali has 40 stamps. Ben has 14 fewer than Ali, and Nora has 3 times as many as Ben. How many stamps do the three have together?",
        "Ben has 40-14 = 26 stamps. Nora has 3*26 = 78 stamps. Together they have 40+26+78 = 144 stamps.",
        "144",
        ("Ben has 14 fewer than Ali's 40.", "40-14", "26"),
        ("Nora has three times as many as Ben.", "3*26", "78"),
        ("Add the stamps of all three.", "40+26+78", "144"),
        end="Together they have 144 stamps.",
    ),
    calculated(
        "A coat of $80 is reduced by 25%, and a voucher takes another $6 off. How many dollars does the coat cost then?",
        "After the reduction 75% of the price is left, which is 80*0.75 = 60 dollars. The voucher makes it 60-6 = 54 dollars.",
        "54",
        ("25% off leaves 75% of the price.", "80*0.75", "60"),
        ("The voucher comes off that.", "60-6", "54"),
        end="The coat costs 54 dollars.",
    ),
    calculated(
        "A tank for 90 liters is one third full. A tap adds 4 liters a minute. After how many minutes is the tank full?",
        "The tank holds 90/3 = 30 liters already, so 90-30 = 60 liters are missing. At 4 liters a minute that takes 60/4 = 15 minutes.",
        "15",
        ("How much is in the tank already?", "90/3", "30"),
        ("The rest, at 4 liters a minute.", "(90-30)/4", "15"),
        end="The tank is full after 15 minutes.",
    ),
    calculated(
        "A printer makes 18 pages a minute. How many minutes does it need for 5 copies of a report of 72 pages?",
        "5 copies of 72 pages are 5*72 = 360 pages. At 18 pages a minute that takes 360/18 = 20 minutes.",
        "20",
        ("First all pages of the 5 copies.", "5*72", "360"),
        ("Then the time for them.", "360/18", "20"),
        end="It needs 20 minutes.",
    ),
    calculated(
        "Every week Omar puts $15 into a jar and takes $4 out. After how many weeks are there $132 in the jar?",
        "Each week the jar gains 15-4 = 11 dollars. To reach 132 dollars takes 132/11 = 12 weeks.",
        "12",
        ("What does the jar gain in a week?", "15-4", "11"),
        ("How many such weeks make 132 dollars?", "132/11", "12"),
        end="It takes 12 weeks.",
    ),
)
