"""What the verbs print with: tables for people, JSON for programs, and how a config and a value are written."""

import json
import shutil
import sys
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from tuner.figures import number as number
from tuner.figures import quantity as quantity
from tuner.figures import value_and_interval as value_and_interval
from tuner.objectives import OBJECTIVES
from workflows.config import AgentConfig

if TYPE_CHECKING:
    from tuner.events import Expected
    from tuner.records import TrialRecord
    from tuner.results import Point
    from tuner.spec import LoadedStudy

WIDE = 120
"""Characters from which on a value and its interval stand in one line."""


_CONTROLS = {
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"},
    0x7F: "\u2421",
    **dict.fromkeys((*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\ufffd"),
}
"""What moves the cursor, colours, clears or turns the line round, as its picture or U+FFFD."""


def plain(text: str) -> str:
    """A text that may come from a model, as a terminal may show it: it does nothing but stand there."""
    return text.translate(_CONTROLS)


def talk(text: str) -> None:
    """A line for the person, on stderr."""
    print(plain(text), file=sys.stderr, flush=True)


def command() -> str:
    """How this program was called, for lines that can be run as they are printed."""
    called, found = Path(sys.argv[0]), shutil.which("tuner")
    on_path = found is not None and called.exists() and Path(found).samefile(called)
    return "tuner" if on_path or not called.exists() else str(called)


def print_json(content: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(content, indent=2, ensure_ascii=False))


def width() -> int:
    """Characters of a line on stdout: the terminal's; in a pipe, as many as the widest that people read."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 160


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, wrap: bool = False
) -> None:
    """A table on stdout.

    Where that is too narrow, a config goes on in the next line, or every cell with `wrap`; others are cut.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    table.show_header = any(columns)
    for column in columns:
        table.add_column(
            column,
            no_wrap=not wrap and column != "config",
            overflow="fold" if wrap else "ellipsis",
        )
    for row in rows:
        table.add_row(*map(plain, row))
    Console(width=width(), highlight=False, markup=False).print(table)


def with_interval(point: "Point", name: str) -> str:
    """A point's value and interval."""
    return value_and_interval(name, point.values[name], point.intervals[name])


def header(name: str, sources: Mapping[str, str]) -> str:
    """An objective's column header: name, and below it unit and source of what was metered."""
    objective = OBJECTIVES[name]
    notes = [] if objective.unit in ("share", "s") else [objective.unit]
    if objective.needs == "meter" and sources:
        notes.append(sources["energy"])
    return f"{name}\n{', '.join(notes)}" if notes else name


def summary(study: "LoadedStudy", config: AgentConfig) -> str:
    """A config in one line: workflow, then the knobs that the study varies; one that is told when it is right is marked."""
    return study.label(config)


def marked(study: "LoadedStudy", trial: "TrialRecord") -> str:
    """A trial's config in one line, with the marks of runs that were not made for it."""
    marks = []
    if trial.derived_from is not None:
        marks.append(f"(derived from {trial.derived_from})")
    if trial.reused_from is not None:
        marks.append(f"(reused from {trial.reused_from})")
    return " ".join([summary(study, trial.config) if trial.config else "", *marks]).strip()


def print_points(study: "LoadedStudy", title: str, points: Sequence["Point"]) -> None:
    """A table of points with intervals, membership, and letters that those have in common which cannot be told apart.

    Those that are not within the constraints say so, and by how much.
    """
    names = study.spec.objectives
    sources = points[0].trial.sources if points else {}
    cells = {
        header(name, sources): [with_interval(each, name) for each in points] for name in names
    }
    if any(point.feasible for point in points):
        cells["on front"] = [
            f"{100 * point.membership:.0f} %" if point.feasible else "" for point in points
        ]
    if any(point.group for point in points):
        cells["alike"] = [point.group for point in points]
    if any(point.excess for point in points):
        cells["beyond its bound"] = [
            "\n".join(_beyond(point, name) for name in point.excess) for point in points
        ]
    _print_trials(
        title,
        [str(point.trial.number) for point in points],
        cells,
        [marked(study, point.trial) for point in points],
    )


def _print_trials(
    title: str,
    trials: Sequence[str],
    cells: Mapping[str, Sequence[str]],
    configs: Sequence[str] | None = None,
) -> None:
    """A table with a row for each trial, by column; where that is too wide, configs stand above the figures and intervals below."""
    if width() < WIDE:
        _print_narrow(title, trials, cells, configs)
        return
    columns = {"trial": trials, **({} if configs is None else {"config": configs}), **cells}
    print_table(title, list(columns), list(zip(*columns.values(), strict=True)))


def _print_narrow(
    title: str,
    trials: Sequence[str],
    cells: Mapping[str, Sequence[str]],
    configs: Sequence[str] | None,
) -> None:
    from rich.console import Console

    columns = [
        [name.replace(", ", "\n"), *(cell.replace(" [", "\n[") for cell in column)]
        for name, column in {"trial": trials, **cells}.items()
    ]
    sizes = [2 + max(len(line) for cell in each for line in cell.split("\n")) for each in columns]
    head, *rows = (_side_by_side(row, sizes) for row in zip(*columns, strict=True))
    console = Console(width=width(), highlight=False, markup=False, soft_wrap=True)
    console.print(title, style="bold")
    console.print(f"\n{head}\n{'─' * min(width(), sum(sizes))}")
    for place, row in enumerate(rows):
        if configs is not None:
            console.print(f"{trials[place]:{sizes[0]}}{configs[place]}")
            row = " " * sizes[0] + row[sizes[0] :]
        console.print(row)
    console.print()


def _side_by_side(cells: Iterable[str], sizes: Sequence[int]) -> str:
    """Cells of several lines, each so many characters wide."""
    lines = zip_longest(*(cell.split("\n") for cell in cells), fillvalue="")
    return "\n".join(
        "".join(f"{text:{size}}" for text, size in zip(line, sizes, strict=True)).rstrip()
        for line in lines
    )


def _beyond(point: "Point", name: str) -> str:
    return f"{name} {quantity(name, point.values[name])}, by {quantity(name, point.excess[name])}"


def expected_rows(
    study: "LoadedStudy", expected: Sequence["Expected"]
) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of a table of what configs are expected to come to."""
    names = study.spec.objectives
    rows = [
        [
            str(each.answered),
            summary(study, each.config),
            *(quantity(name, each.values[name]) for name in names),
        ]
        for each in expected
    ]
    return ["answered", "config", *names], rows


def print_drops(study: "LoadedStudy", points: Sequence["Point"]) -> None:
    """A table of how much worse confirmed points are than the search had them."""
    fallen = [point for point in points if point.drop]
    if fallen:
        cells = {
            name: [
                value_and_interval(name, point.drop[name].value, point.drop[name].interval)
                for point in fallen
            ]
            for name in study.spec.objectives
        }
        title = "How much worse they are there than in the search"
        _print_trials(title, [str(point.trial.number) for point in fallen], cells)
