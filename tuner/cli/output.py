"""What the verbs print with: tables for people, JSON for programs, and how a config and a value are written."""

import json
import shutil
import sys
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from tuner.objectives import OBJECTIVES
from workflows.config import AgentConfig

if TYPE_CHECKING:
    from tuner.results import Point
    from tuner.spec import LoadedStudy


def talk(text: str) -> None:
    """A line for the person, on stderr."""
    print(text, file=sys.stderr, flush=True)


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
        table.add_column(column, no_wrap=not wrap and column != "config")
    for row in rows:
        table.add_row(*row)
    Console(width=width(), highlight=False, markup=False).print(table)


def number(value: float) -> str:
    """Three significant digits, plain where that is short."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def quantity(name: str, value: float) -> str:
    """An objective's value with its unit's look: shares as percentages."""
    return f"{100 * value:.0f} %" if OBJECTIVES[name].unit == "share" else number(value)


def with_interval(point: "Point", name: str) -> str:
    """Value and interval, `67 % [47, 82]`."""
    low, high = point.intervals[name]
    if OBJECTIVES[name].unit == "share":
        return f"{100 * point.values[name]:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"
    return f"{number(point.values[name])} [{number(low)}, {number(high)}]"


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


def print_points(study: "LoadedStudy", title: str, points: Sequence["Point"]) -> None:
    """A table of points, with intervals and membership."""
    names = study.spec.objectives
    sources = points[0].trial.sources if points else {}
    rows = [
        [
            str(point.trial.number),
            summary(study, point.trial.config) if point.trial.config else "",
            *(with_interval(point, name) for name in names),
            f"{100 * point.membership:.0f} %",
        ]
        for point in points
    ]
    columns = ["trial", "config", *(header(name, sources) for name in names), "on front"]
    print_table(title, columns, rows)
