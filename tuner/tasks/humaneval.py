"""HumanEval (Chen et al., arXiv 2107.03374): Python functions from their docstrings, judged by hidden tests.

    {"task_id": "HumanEval/7", "prompt": "def twice(x: int) -> int:\\n    \\"\\"\\" Double x. \\"\\"\\"\\n",
     "entry_point": "twice", "canonical_solution": "    return 2 * x\\n",
     "test": "def check(candidate):\\n    assert candidate(2) == 4\\n"}

The official file, compressed or not. An answer is the whole function, or its body alone as a continuation of
the prompt. What stands before the function in the prompt (imports, helpers) stands before the answer too, so
that an answer need not repeat it and may redefine it. An answer is right when all tests pass.
"""

import ast
import textwrap
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from tuner.errors import DataError
from tuner.tasks import Example
from tuner.tasks import Task
from tuner.tasks import TaskOptions
from tuner.tasks.programs import Tests
from tuner.tasks.programs import defines
from tuner.tasks.programs import passes
from tuner.tasks.programs import programmed
from tuner.tasks.reading import Row
from tuner.tasks.reading import Text
from tuner.tasks.reading import draw_splits
from tuner.tasks.reading import read_rows
from workflows.agent_pack import AgentPack

INSTRUCTION = "Write the Python function. The answer is a program with the whole function in it."
_ASK = "Complete this function so that it does what its docstring says."


class Options(TaskOptions):
    """Keys of `task: {name: humaneval}` in a study."""

    path: str = Field(description="HumanEval.jsonl.gz of openai/human-eval, or its text")


class _Problem(Row):
    task_id: Text
    prompt: str
    entry_point: Text
    canonical_solution: str
    test: str


def load(options: Options, base: Path) -> Task:
    """The task on a file. Raises DataError when the file cannot be used or holds too few questions."""
    path = base / options.path
    search, holdout = draw_splits(
        _examples(path), options, path=path, shown=(demo.question for demo in DEMONSTRATIONS)
    )
    pack = AgentPack(
        instruction=INSTRUCTION,
        demonstrations=DEMONSTRATIONS,
        toolkits=("python",),
        answer="program",
    )
    return Task("humaneval", pack, search, holdout, _score)


async def _score(example: Example, answer: str) -> float:
    tests = Tests.model_validate_json(example.secret)
    return await passes(_program(tests.before, tests.entry, answer), tests)


def _examples(path: Path) -> Iterator[Example]:
    for place, problem in read_rows(path, _Problem):
        if _first_line(problem.prompt, problem.entry_point) is None:
            raise DataError(
                f"{place}: prompt: no function {problem.entry_point!r} in it",
                hint="is it the official file? `entry_point` names the function that `prompt` begins",
            )
        tests = Tests(
            before=problem.prompt,
            entry=problem.entry_point,
            tests=f"{problem.test}\n\ncheck({problem.entry_point})\n",
        )
        yield Example(
            problem.task_id,
            f"{_ASK}\n\n{problem.prompt.strip()}",
            (problem.prompt + problem.canonical_solution,),
            secret=tests.model_dump_json(),
        )


def _program(prompt: str, entry: str, answer: str) -> str:
    """The answer with what it may rely on before it."""
    if defines(answer, entry):
        return "".join(prompt.splitlines(keepends=True)[: _first_line(prompt, entry)]) + answer
    body = answer.strip("\n")
    if not body.startswith((" ", "\t")):
        body = textwrap.indent(body, "    ")
    return f"{prompt.rstrip()}\n{body}\n"


def _first_line(prompt: str, entry: str) -> int | None:
    """Where a function begins, counted from 0; None where there is none."""
    try:
        body = ast.parse(prompt).body
    except (SyntaxError, ValueError):
        return None
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name == entry:
            return node.lineno - 1
    return None


DEMONSTRATIONS = (
    programmed(
        f'''{_ASK}

def longest_run(items: list) -> int:
    """ Give the length of the longest run of equal neighbours, 0 for an empty list.
    >>> longest_run([4, 4, 7, 7, 7, 4])
    3
    """''',
        "Go through the items and count how long the current run is. The count starts again at 1 when an item differs from the one before it. The best count seen is the answer, and it stays 0 for an empty list.",
        """
        def longest_run(items: list) -> int:
            best = count = 0
            for position, item in enumerate(items):
                same = position > 0 and item == items[position - 1]
                count = count + 1 if same else 1
                best = max(best, count)
            return best
        """,
        (
            "I count the current run and keep the best. I try it on the example and on an empty list.",
            """
            def longest_run(items: list) -> int:
                best = count = 0
                for position, item in enumerate(items):
                    same = position > 0 and item == items[position - 1]
                    count = count + 1 if same else 1
                    best = max(best, count)
                return best

            assert longest_run([4, 4, 7, 7, 7, 4]) == 3
            assert longest_run([]) == 0
            print(longest_run([1, 2, 3]))
            """,
            "1",
        ),
        end="All of it is as it should be.",
    ),
    programmed(
        f'''{_ASK}

def initials(name: str) -> str:
    """ Give the first letter of every word in capitals, with a dot after each.
    >>> initials("ana lopes")
    'A.L.'
    """''',
        "Split the name at white space into words. Of each word take the first letter as a capital and add a dot. Join all of them.",
        """
        def initials(name: str) -> str:
            return "".join(word[0].upper() + "." for word in name.split())
        """,
        (
            "Each word gives its first letter and a dot. I try it with odd spaces and without a name.",
            """
            def initials(name: str) -> str:
                return "".join(word[0].upper() + "." for word in name.split())

            print(initials("ana lopes"))
            print(initials("  mira  van dorn "))
            print(repr(initials("")))
            """,
            "A.L.\nM.V.D.\n''",
        ),
        end="It holds for odd spaces and for no name at all.",
    ),
    programmed(
        f'''{_ASK}

from typing import List

def first_above(levels: List[float], limit: float) -> int:
    """ Give the position of the first level that is larger than the limit, -1 if there is none.
    >>> first_above([0.5, 2.0, 3.0], 1.0)
    1
    """''',
        "Go through the levels with their positions. The first level above the limit decides, so return its position at once. When the loop ends without one, return -1.",
        """
        from typing import List

        def first_above(levels: List[float], limit: float) -> int:
            for position, level in enumerate(levels):
                if level > limit:
                    return position
            return -1
        """,
        (
            "The first larger level decides. I try an equal level too, which does not count.",
            """
            from typing import List

            def first_above(levels: List[float], limit: float) -> int:
                for position, level in enumerate(levels):
                    if level > limit:
                        return position
                return -1

            print(first_above([0.5, 2.0, 3.0], 1.0))
            print(first_above([1.0, 1.0], 1.0))
            """,
            "1\n-1",
        ),
        end="An equal level is not larger, so -1 is right.",
    ),
    programmed(
        f'''{_ASK}

def merge_counts(first: dict, second: dict) -> dict:
    """ Add up the counts of two dictionaries, key by key, and leave out what adds up to zero.
    >>> merge_counts({{"a": 1, "b": 2}}, {{"b": -2, "c": 3}})
    {{'a': 1, 'c': 3}}
    """''',
        "Copy the first dictionary so that the caller's stays as it is. Add each count of the second one, with 0 where a key is missing. At the end keep the keys whose count is not zero.",
        """
        def merge_counts(first: dict, second: dict) -> dict:
            total = dict(first)
            for key, count in second.items():
                total[key] = total.get(key, 0) + count
            return {key: count for key, count in total.items() if count != 0}
        """,
        (
            "I add the second to a copy of the first.",
            """
            def merge_counts(first: dict, second: dict) -> dict:
                total = dict(first)
                for key, count in second.items():
                    total[key] = total.get(key, 0) + count
                return total

            print(merge_counts({"a": 1, "b": 2}, {"b": -2, "c": 3}))
            """,
            "{'a': 1, 'b': 0, 'c': 3}",
        ),
        (
            "The key with zero must go.",
            """
            def merge_counts(first: dict, second: dict) -> dict:
                total = dict(first)
                for key, count in second.items():
                    total[key] = total.get(key, 0) + count
                return {key: count for key, count in total.items() if count != 0}

            print(merge_counts({"a": 1, "b": 2}, {"b": -2, "c": 3}))
            """,
            "{'a': 1, 'c': 3}",
        ),
        end="Now it is as in the example.",
    ),
)
