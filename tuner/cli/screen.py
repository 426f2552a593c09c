"""The live screen of a running study: what it knows, and how that is laid out in however many columns and lines there are.

Apart from `progress`, which decides whether there is a screen at all: here nothing is read from a terminal, so that every
size can be tested. What does not fit is folded first, then left out, the least important part first.
"""

import math
import time
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tuner import events
from tuner.budget import Ledger
from tuner.budget import Used
from tuner.cli.output import number
from tuner.cli.output import plain
from tuner.cli.output import quantity
from tuner.cli.output import summary
from tuner.condition import Condition
from tuner.front import non_dominated
from tuner.front import oriented
from tuner.objectives import OBJECTIVES
from tuner.records import TrialRecord
from tuner.results import LEFT_OUT
from tuner.results import Point
from tuner.results import evaluated
from tuner.results import open_results
from tuner.rules import Choice
from tuner.rules import Rule

if TYPE_CHECKING:
    from rich.console import Console
    from rich.console import ConsoleOptions
    from rich.text import Text

    from tuner.spec import LoadedStudy
    from tuner.store import Store

LOOK_S = 1.0
"""Between two looks at what is spent."""

RULE = "knee"
"""What the recommendation so far goes by."""

ROOMY = 20
"""Lines from which on parts are set apart by empty ones, and every budget has a line of its own."""

LABELS = {"s": "time", "Wh": "energy", "$": "money", "GPU-hours": "GPUs"}
"""What budgets are of, by units that do not say so."""

SHOWN_UNDER_WAY = 8
"""Trials under way that have a line of their own, at most."""

BAR = 24
"""Characters of a bar at most."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A config on the front so far."""

    mark: str
    """The trial's number; or, of what is expected, how many questions it has answered."""
    label: str
    values: Mapping[str, float]


@dataclass(slots=True)
class _Pass:
    """A config while it is asked, and after that until another is."""

    started: events.PassStarted
    done: int
    right: float = 0.0
    wrong: int = 0
    """Questions that failed."""
    is_over: bool = False


class Screen:
    """What is known of a study while it runs, drawn anew whenever rich asks for it."""

    def __init__(self, study: "LoadedStudy") -> None:
        self._study = study
        self._names = study.spec.objectives
        self._state = "starting"
        self._note = ""
        self.said: list[str] = []
        """What is worth reading once the screen is gone."""
        self._passes: dict[int, _Pass] = {}
        """By trial; the last one stays until another begins."""
        self._known: dict[int, _Row] = {}
        """Whole trials within the constraints, by number."""
        self._failures: list[str] = []
        self._rows: tuple[_Row, ...] = ()
        self._is_expected = False
        self._choice: tuple[_Row, str] | None = None
        """What is recommended so far, and why."""
        self._store: Store | None = None
        self._ledger: Ledger | None = None
        self._looked_s = -math.inf
        self._used: Sequence[Used] = ()
        self._search_s = 0.0
        self._is_searching = True
        self._started_s = time.perf_counter()

    def __call__(self, event: events.Event) -> None:
        """Take note of an event."""
        match event:
            case events.Talk(text):
                if not self._passes:
                    self._state = text
                else:
                    self._note = text
                    self.said.append(text)
            case events.PassStarted():
                self._passes = {n: each for n, each in self._passes.items() if not each.is_over}
                self._passes[event.trial] = _Pass(event, event.finished)
                self._state = "searching" if event.split == "search" else "confirming"
                self._look()
            case events.ExampleFinished(trial, run):
                self._passes[trial].done += 1
                self._passes[trial].right += run.score
                self._passes[trial].wrong += run.error is not None
            case events.PassEnded(trial):
                self._passes[trial].is_over = True
            case events.FrontExpected(configs):
                self._is_expected = True
                self._settle(
                    [
                        _Row(str(each.answered), summary(self._study, each.config), each.values)
                        for each in configs
                    ]
                )
            case events.TrialEnded():
                self._end_trial(event)
                self._look()
            case events.StudyEnded(reason):
                self._state, self._is_searching = f"search ended: {reason}", False
                self.said.append(self._state)

    def close(self) -> None:
        """Look no more."""
        if self._store is not None:
            self._store.close()

    def _end_trial(self, event: events.TrialEnded) -> None:
        if event.failure not in (None, LEFT_OUT):
            self._failures.append(f"trial {event.trial}: {event.failure}")
            self.said.append(f"trial {event.trial} failed: {event.failure}")
        if event.values is None or event.config is None or event.replay_of is not None:
            return
        if event.stopped is None:
            self._learn(event.trial, summary(self._study, event.config), event.values)
            if not self._is_expected:
                self._settle(list(self._known.values()))

    def _learn(self, trial: int, label: str, values: Mapping[str, float]) -> None:
        bounds = self._study.spec.constraints.items()
        if all(Condition.parse(text).holds(values[name]) for name, text in bounds):
            self._known[trial] = _Row(str(trial), label, values)

    def _look(self) -> None:
        """See what is spent, unless that was just seen; and, the first time, what earlier runs have found."""
        if time.perf_counter() - self._looked_s < LOOK_S:
            return
        if self._store is None or self._ledger is None:
            self._store = open_results(self._study)
            self._ledger = Ledger(self._study, self._store)
            for trial in evaluated(self._store.trials()):
                if trial.config is None or trial.values is None or not trial.feasible:
                    continue
                if trial.stopped is None:
                    self._learn(trial.number, summary(self._study, trial.config), trial.values)
            self._settle(list(self._known.values()))
        row = self._store.row()
        self._used, self._search_s = self._ledger.used(), 0.0 if row is None else row.search_s
        self._looked_s = time.perf_counter()

    def _settle(self, rows: Sequence[_Row]) -> None:
        """The front of these configs, best in the first objective first, and which of them is recommended."""
        if not rows:
            return
        directions = [OBJECTIVES[name].direction for name in self._names]
        table = np.array([[row.values[name] for name in self._names] for row in rows])
        values = oriented(table, directions)
        places = np.flatnonzero(non_dominated(values))
        order = sorted(places.tolist(), key=lambda place: tuple(values[place]))
        self._rows = tuple(rows[place] for place in order)
        choice = _recommended(self._rows, self._names)
        self._choice = self._rows[choice.point.trial.number], choice.brief

    # How it is laid out

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[Text]":
        """As many lines as the terminal has, at most."""
        yield from self.lines(options.max_width, console.size.height)

    def lines(self, width: int, height: int) -> "list[Text]":
        """The screen in so many columns, and not more than so many lines."""
        from rich.text import Text

        roomy = height >= ROOMY
        gap = [Text()] if roomy else []
        head = [self._headline(width)]
        budgets = self._budgets(width) if roomy else self._budgets_in_a_line(width)
        under_way = self._under_way(width, SHOWN_UNDER_WAY if roomy else 2)
        advice = self._advice(width, 3 if roomy else 1)
        trouble = self._trouble(width)
        fixed = [*head, *budgets, *gap, *under_way, *gap, *advice, *trouble]
        left = height - len(fixed) - len(gap)
        front = self._front(width, left)
        return [*fixed, *(gap if front else []), *front][:height]

    def _headline(self, width: int) -> "Text":
        from rich.text import Text

        text = Text(f"{self._study.spec.name}: {self._state}", style="bold")
        spent = _duration(time.perf_counter() - self._started_s)
        right = f"{spent}{self._time_left()}"
        if width >= len(text) + len(right) + 2:
            text.append(" " * (width - len(text) - len(right)))
            text.append(right, style="dim")
        text.truncate(width, overflow="ellipsis")
        return text

    def _time_left(self) -> str:
        """How long the search will go on, by the limit of which most is spent."""
        share = max((used.spent / used.limit for used in self._used), default=0.0)
        if not self._is_searching or not share or not self._search_s:
            return ""
        return f", about {_duration(max(0.0, self._search_s * (1 / share - 1)))} of searching left"

    def _budgets(self, width: int) -> "list[Text]":
        """A line for each limit: what is spent, what is left, and a bar."""
        from rich.text import Text

        rows = [
            (
                LABELS.get(used.unit, used.unit),
                f"{_amount(used, used.spent)} of {_amount(used, used.limit)}{_unit(used)}",
                f"{_amount(used, max(0.0, used.limit - used.spent))}{_unit(used)} left",
            )
            for used in self._used
        ]
        sizes = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
        lines = []
        for used, row in zip(self._used, rows, strict=True):
            line = Text(
                "  ".join(f"{cell:{size}}" for cell, size in zip(row, sizes, strict=True)) + "  "
            )
            room = min(BAR, width - len(line))
            if room >= BAR // 3:
                line.append_text(_bar(used.spent / used.limit, room))
            line.truncate(width, overflow="ellipsis")
            lines.append(line)
        return lines

    def _budgets_in_a_line(self, width: int) -> "list[Text]":
        from rich.text import Text

        if not self._used:
            return []
        text = Text(
            ", ".join(
                f"{_amount(used, used.spent)} of {_amount(used, used.limit)}"
                + (_unit(used) or ("" if used.unit == "s" else f" {used.unit}"))
                for used in self._used
            )
        )
        text.truncate(width, overflow="ellipsis")
        return [text]

    def _under_way(self, width: int, most: int) -> "list[Text]":
        """The trials under way, and how far each is: two lines for one, else as many as there may be, a line each."""
        from rich.text import Text

        passes = [each for each in self._passes.values() if not each.is_over]
        if len(passes) < 2:
            passes = passes or list(self._passes.values())[-1:]
            return [line for each in passes for line in self._whole(each, width)]
        lines = []
        for each in passes[: most if len(passes) <= most else most - 1]:
            count = f"{each.done:{len(str(each.started.examples))}} of {each.started.examples}  "
            line = _bar(each.done / max(1, each.started.examples), BAR // 3)
            line.append(f"  {count}{self._named(each)}")
            line.truncate(width, overflow="ellipsis")
            lines.append(line)
        hidden = len(passes) - len(lines)
        return lines + ([Text(f"and {hidden} more under way", style="dim")] if hidden else [])

    def _named(self, each: "_Pass") -> str:
        what = "holdout, trial" if each.started.split == "holdout" else "trial"
        return f"{what} {each.started.trial}: {summary(self._study, each.started.config)}"

    def _whole(self, each: "_Pass", width: int) -> "list[Text]":
        label = _cut(self._named(each), width, "")
        count = f"{each.done} of {each.started.examples} questions, {each.right:.0f} right"
        if each.wrong:
            count += f", {each.wrong} failed"
        line = _bar(each.done / max(1, each.started.examples), min(BAR, max(0, width - 40)))
        line.append(f"{'  ' if len(line) else ''}{count}")
        line.truncate(width, overflow="ellipsis")
        return [label, line]

    def _advice(self, width: int, most: int) -> "list[Text]":
        """What is recommended so far."""

        if self._choice is None:
            return [_cut("no trial is complete yet", width, "dim")] if self._passes else []
        row, why = self._choice
        place = "" if self._is_expected else f"trial {row.mark}, "
        first = f"{RULE} so far: {place}{row.label}"
        values = ", ".join(f"{name} {quantity(name, row.values[name])}" for name in self._names)
        if most == 1:
            return [_cut(f"{first}: {why}", width, "green")]
        return [_cut(line, width, "green") for line in (first, f"  {values}", f"  {why}")][:most]

    def _trouble(self, width: int) -> "list[Text]":
        lines = []
        if self._failures:
            count = len(self._failures)
            text = f"{count} failed; the last: {self._failures[-1]}" if count > 1 else f"failed: {self._failures[-1]}"  # fmt: skip
            lines.append(_cut(text, width, "red"))
        if self._note:
            lines.append(_cut(self._note, width, "dim"))
        return lines

    def _front(self, width: int, height: int) -> "list[Text]":
        """The front so far, as many rows as there is room for: in one line each, or config above figures; columns that do not fit are left out."""
        from rich.text import Text

        figures = [[quantity(name, row.values[name]) for name in self._names] for row in self._rows]
        mark = "answered" if self._is_expected else "trial"
        first = len(mark) + 2
        sizes = [
            2 + max(len(name), *(len(row[place]) for row in figures), 0)
            for place, name in enumerate(self._names)
        ]
        longest = max((len(row.label) for row in self._rows), default=0) + 2
        in_one = first + min(longest, 40) + sum(sizes) <= width
        shown = len(sizes)
        while not in_one and shown > 1 and first + sum(sizes[:shown]) > width:
            shown -= 1
        each, title = (1 if in_one else 2), self._title()
        room = (height - 2) // each
        if not self._rows or room < 1:
            return []
        kept = len(self._rows) if room >= len(self._rows) else max(1, (height - 3) // each)
        label = width - first - sum(sizes) if in_one else width - first
        label = min(label, longest) if in_one else label
        dropped = [] if shown == len(sizes) else [f"without {', '.join(self._names[shown:])}"]
        hidden = len(self._rows) - kept
        more = [f"and {hidden} more"] if hidden else []

        def cells(values: Sequence[str]) -> str:
            return "".join(
                f"{value:>{size}}" for value, size in zip(values, sizes[:shown], strict=False)
            )

        head = f"{mark:{first}}" + (f"{'config':{label}}" if in_one else "") + cells(self._names)
        lines = [_cut("; ".join([title, *dropped]), width, "bold"), _cut(head, width, "dim")]
        for row, values in list(zip(self._rows, figures, strict=True))[:kept]:
            style = "green" if self._choice is not None and row is self._choice[0] else ""
            name = Text(row.label)
            name.truncate(label - 2 if in_one else label, overflow="ellipsis")
            if in_one:
                text = f"{row.mark:{first}}{name.plain:{label}}{cells(values)}"
                lines.append(_cut(text, width, style))
            else:
                lines.append(_cut(f"{row.mark:{first}}{name.plain}", width, style))
                lines.append(_cut(" " * first + cells(values), width, style))
        if more and len(lines) < height:
            lines.append(_cut(more[0], width, "dim"))
        return lines

    def _title(self) -> str:
        return (
            "front so far, as all answers make it likely" if self._is_expected else "front so far"
        )


def _recommended(rows: Sequence[_Row], names: Sequence[str]) -> Choice:
    """What the rule chooses by estimates alone; the choice's trial number is the row's place."""
    points = [
        Point(
            trial=TrialRecord(
                trial_id=place,
                number=place,
                state="complete",
                config=None,
                values=row.values,
                feasible=True,
                replay_of=None,
                failure=None,
                sources={},
            ),
            split="search",
            values=row.values,
            intervals={name: (row.values[name], row.values[name]) for name in names},
            on_front=True,
            membership=1.0,
            n=0,
        )
        for place, row in enumerate(rows)
    ]
    return Rule.parse(RULE).choose(points, names)


def _cut(text: str, width: int, style: str) -> "Text":
    from rich.text import Text

    line = Text(plain(" ".join(text.split("\n"))), style=style)
    line.truncate(width, overflow="ellipsis")
    return line


def _bar(share: float, width: int) -> "Text":
    from rich.text import Text

    full = round(min(1.0, max(0.0, share)) * width)
    return Text().append("━" * full, style="cyan").append("─" * (width - full), style="dim")


def _amount(used: Used, value: float) -> str:
    return _duration(value) if used.unit == "s" else number(value)


def _unit(used: Used) -> str:
    """The unit where neither label nor amount has it."""
    return f" {used.unit}" if used.unit in LABELS and used.unit != "s" else ""


def _duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 5 min`; what is 0 of the smaller unit is left out."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    unit, part, per = ("min", "s", 60) if whole < 3600 else ("h", "min", 3600)
    rest = whole % per if per == 60 else whole % per // 60
    return f"{whole // per} {unit} {rest} {part}" if rest else f"{whole // per} {unit}"
