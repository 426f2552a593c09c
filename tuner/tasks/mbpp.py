"""MBPP (Austin et al., arXiv 2108.07732): short Python programs from one sentence, judged by hidden tests.

    {"task_id": 11, "text": "Write a function to double a number.", "code": "def twice(x):\\n    return 2 * x",
     "test_list": ["assert twice(2) == 4", …], "test_setup_code": "", "challenge_test_list": []}

The official files: mbpp.jsonl, and sanitized-mbpp.json, which says `prompt` for `text` and has `test_imports`.
A sentence does not say what the function is called, so the question shows how the first test calls it, without
the value that it expects; the paper's prompts show all tests instead. An answer is right when all tests pass,
challenge tests included.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from pydantic import AliasChoices
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


class Options(TaskOptions):
    """Keys of `task: {name: mbpp}` in a study."""

    path: str = Field(
        description="mbpp.jsonl or sanitized-mbpp.json of google-research/google-research"
    )


class _Problem(Row):
    task_id: int
    text: Text = Field(validation_alias=AliasChoices("text", "prompt"))
    code: Text
    test_list: tuple[Text, ...] = Field(min_length=1)
    test_setup_code: str = ""
    test_imports: tuple[str, ...] = ()
    challenge_test_list: tuple[str, ...] = ()


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
    return Task("mbpp", pack, search, holdout, _score)


async def _score(example: Example, answer: str) -> float:
    return await passes(answer, Tests.model_validate_json(example.secret))


def _examples(path: Path) -> Iterator[Example]:
    for place, problem in read_rows(path, _Problem):
        call = _call(problem)
        if call is None:
            raise DataError(
                f"{place}: test_list: the first test calls nothing that `code` defines: {problem.test_list[0]!r}",
                hint="is it the official file? Each test calls the function that `code` defines",
            )
        # A program may import what it likes; its tests rely on what the reference imports.
        imports = [
            ast.unparse(statement)
            for statement in ast.parse(problem.code).body
            if isinstance(statement, ast.Import | ast.ImportFrom)
        ]
        tests = Tests(
            before="\n".join([*imports, *problem.test_imports]),
            tests="\n".join(
                [problem.test_setup_code, *problem.test_list, *problem.challenge_test_list]
            ),
        )
        yield Example(
            str(problem.task_id),
            _question(problem.text, call),
            (problem.code,),
            secret=tests.model_dump_json(),
        )


def _call(problem: _Problem) -> str | None:
    """The first test's call of a function that the reference defines, as it stands there."""
    try:
        nodes = list(ast.walk(ast.parse(problem.test_list[0])))
    except (SyntaxError, ValueError):
        return None
    for node in nodes:
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and defines(problem.code, node.func.id)
        ):
            return ast.get_source_segment(problem.test_list[0], node)
    return None


def _question(text: str, call: str) -> str:
    return f"{text}\nIt is called like this: {call}"


DEMONSTRATIONS = (
    programmed(
        _question(
            "Write a function to find how often a digit occurs in a whole number.",
            "count_digit(7707, 7)",
        ),
        "Write the number as text without its sign and count the digit's character in it.",
        """
        def count_digit(number, digit):
            return str(abs(number)).count(str(digit))
        """,
        (
            "As text the digits can be counted. I try a negative number as well.",
            """
            def count_digit(number, digit):
                return str(abs(number)).count(str(digit))

            print(count_digit(7707, 7), count_digit(-12, 2), count_digit(0, 0))
            """,
            "3 1 1",
        ),
        end="All three are right.",
    ),
    programmed(
        _question(
            "Write a function to find the words of a text that are longer than a given length.",
            'long_words("the old ferry sank", 3)',
        ),
        "Split the text into words and keep those whose length is larger than the given one, in their order.",
        """
        def long_words(text, length):
            return [word for word in text.split() if len(word) > length]
        """,
        (
            "I keep the longer words in their order.",
            """
            def long_words(text, length):
                return [word for word in text.split() if len(word) > length]

            print(long_words("the old ferry sank", 3))
            """,
            "['ferry', 'sank']",
        ),
        end="These are the words with more than 3 letters.",
    ),
    programmed(
        _question(
            "Write a function to check whether the numbers of a list go up and down in turns.",
            "is_zigzag([1, 5, 2, 6])",
        ),
        "Look at each three neighbours. The middle one must be larger than both others or smaller than both. Two numbers must differ, and fewer than two are always in order.",
        """
        def is_zigzag(numbers):
            steps = [after - before for before, after in zip(numbers, numbers[1:])]
            turns = all(one * two < 0 for one, two in zip(steps, steps[1:]))
            return turns and all(step != 0 for step in steps)
        """,
        (
            "The steps between neighbours must change their sign each time.",
            """
            def is_zigzag(numbers):
                steps = [after - before for before, after in zip(numbers, numbers[1:])]
                return all(one * two < 0 for one, two in zip(steps, steps[1:]))

            print(is_zigzag([1, 5, 2, 6]), is_zigzag([1, 2, 3]), is_zigzag([4, 4]))
            """,
            "True False True",
        ),
        (
            "Two equal numbers go neither up nor down, so no step may be zero.",
            """
            def is_zigzag(numbers):
                steps = [after - before for before, after in zip(numbers, numbers[1:])]
                turns = all(one * two < 0 for one, two in zip(steps, steps[1:]))
                return turns and all(step != 0 for step in steps)

            print(is_zigzag([1, 5, 2, 6]), is_zigzag([1, 2, 3]), is_zigzag([4, 4]))
            """,
            "True False False",
        ),
        end="Now equal neighbours are refused.",
    ),
    programmed(
        _question(
            "Write a function to put the items of a list into groups of a given size, the last one perhaps smaller.",
            "in_groups([1, 2, 3, 4, 5], 2)",
        ),
        "Start at every position that is a multiple of the size and take that many items from there. A slice at the end is shorter by itself.",
        """
        def in_groups(items, size):
            return [items[start:start + size] for start in range(0, len(items), size)]
        """,
        (
            "Slices from every multiple of the size. I try an empty list too.",
            """
            def in_groups(items, size):
                return [items[start:start + size] for start in range(0, len(items), size)]

            print(in_groups([1, 2, 3, 4, 5], 2))
            print(in_groups([], 3))
            """,
            "[[1, 2], [3, 4], [5]]\n[]",
        ),
        end="The last group holds what is left.",
    ),
)
