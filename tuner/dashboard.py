"""What optuna-dashboard is given of a study that Optuna does not know: notes, plots with error bars, files that run.

Apart from `cli/dashboard`, which serves it. What is new or has changed since the last time is written where optuna-dashboard
looks for it, all notes and plots in one transaction: through its own functions a thousand notes take minutes, as each
reads all the others first.
"""

import itertools
import json
from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tuner import front as pareto
from tuner.answers import Answers
from tuner.answers import read_answers
from tuner.errors import UserError
from tuner.export import export_all
from tuner.figures import quantity
from tuner.figures import value_and_interval
from tuner.intervals import Interval
from tuner.objectives import OBJECTIVES
from tuner.records import TrialRecord
from tuner.results import Front
from tuner.results import Point
from tuner.rules import RULES
from tuner.rules import Choice
from tuner.rules import Rule
from tuner.rules import recommend
from tuner.spec import LoadedStudy
from tuner.store import Store
from tuner.tasks import SPLITS
from tuner.tasks import Split
from workflows.config import AgentConfig
from workflows.table import workflow_kind

BEGINNING = "dashboard:"
"""How the keys of everything begin that optuna-dashboard keeps with a study."""

END = "*Written by tuner, anew at every start. What you write below this line stays.*"
"""Ends our part of a note: the rest is somebody's own."""

REPORT = "report.html"
"""The study's report among its artifacts."""

KINDS = {".html": "text/html", ".yaml": "application/yaml", ".jsonl": "application/jsonl"}

COLOURS = {"front": "#4477aa", "near": "#ccbb44", "confirmed": "#228833", "others": "#bbbbbb"}


@dataclass(frozen=True, slots=True)
class Written:
    """How many notes and plots were new or had changed, and how many files there are."""

    notes: int
    plots: int
    files: int


@dataclass(frozen=True, slots=True)
class _Found:
    """What a study has found, as notes and plots tell it."""

    study: LoadedStudy
    store: Store
    front: Front
    deployable: Front
    """The same without agents that were told when they were right."""
    answers: Mapping[Split, Mapping[int, Answers]]
    """By split and trial id."""
    choices: Mapping[str, Choice]
    """What each rule without an argument recommends; nothing from a rule that does not apply."""

    @classmethod
    def read(cls, study: LoadedStudy, store: Store) -> "_Found":
        found = Front.read(study, store)
        told = any(trial.config is not None and trial.config.oracle for trial in found.trials)
        deployable = Front.read(study, store, deployable=True) if told else found
        answers = {split: read_answers(store, split, study.measured()) for split in SPLITS}
        return cls(study, store, found, deployable, answers, _choices(deployable))

    def points(self, trial: TrialRecord) -> list[Point]:
        """The trial as a point of the search and of the holdout questions, as far as it is shown there."""
        found = self.front
        every = (*found.search, *found.near, *found.infeasible, *found.confirmed)
        return [point for point in every if point.trial.trial_id == trial.trial_id]


def refresh(study: LoadedStudy, store: Store, folder: Path) -> Written:
    """Bring notes, plots and files to what the study has found by now.

    A note for the study and each of its trials, a plot of each pair of objectives, and in the folder a file for each config
    that is worth deploying, attached to its trial, and the report, attached to the study. What somebody wrote into a note stays, below ours. Plots need plotly
    (`pip install 'tuner[report]'`) and are left out without it.
    """
    found, kept = _Found.read(study, store), _Attributes(store.attributes(BEGINNING))
    notes = _write_notes(found, kept)
    plots = 0
    if plots_are_drawn():
        pairs = itertools.combinations(study.spec.objectives, 2)
        plots = sum(kept.plot(f"tuner-{x}-{y}", _plot(found, x, y)) for y, x in pairs)
    files = _attach(found, kept, folder)
    if plots_are_drawn() and found.front.search:
        from tuner.report import read_report
        from tuner.report.page import write_page

        write_page(read_report(study, store), store, folder / REPORT)
        kept.file(None, REPORT)
        files += 1
    store.save_attributes(kept.changed)
    return Written(notes, plots, files)


def refresh_notes(study: LoadedStudy, store: Store) -> int:
    """Bring the notes alone to what the study has found by now; how many were new or had changed."""
    kept = _Attributes(store.attributes(BEGINNING))
    notes = _write_notes(_Found.read(study, store), kept)
    store.save_attributes(kept.changed)
    return notes


def _write_notes(found: "_Found", kept: "_Attributes") -> int:
    beating = _beating(found)
    return kept.note(None, _study_note(found)) + sum(
        kept.note(trial.trial_id, _trial_note(found, trial, beating.get(trial.trial_id)))
        for trial in found.front.trials
    )


def plots_are_drawn() -> bool:
    """Whether what plots and the report need is installed."""
    return all(find_spec(name) is not None for name in ("plotly", "jinja2"))


class _Attributes:
    """A study's attributes in memory, in the place of the storage that optuna-dashboard writes them to one by one."""

    _study_id = 0

    def __init__(self, known: Mapping[str, Any]) -> None:
        self._known = known
        self._of: dict[int | None, dict[str, Any]] = defaultdict(dict)
        for key, value in known.items():
            self._of[_owner(key)][key] = value
        self._asked: int | None = None
        self.changed: dict[str, Any] = {}

    # What optuna-dashboard asks of a trial, its study, and the study's storage.

    @property
    def storage(self) -> "_Attributes":
        return self

    _storage = study = storage

    @property
    def _trial_id(self) -> int | None:
        return self._asked

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._of[self._asked]

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._of[self._asked][key] = value
        if self._known.get(key) != value:
            self.changed[key] = value

    # What we do with it.

    def file(self, trial_id: int | None, name: str) -> None:
        """Name a file of the artifact folder as a trial's, or the study's. Optuna's own way refuses trials that have ended."""
        key = f"artifacts:{name}" if trial_id is None else f"{BEGINNING}artifacts:{trial_id}:{name}"
        kind = KINDS[Path(name).suffix]
        meta = {"artifact_id": name, "filename": name, "mimetype": kind, "encoding": None}
        self._asked = None
        self.set_study_system_attr(self._study_id, key, json.dumps(meta))

    def note(self, trial_id: int | None, text: str) -> bool:
        """Set a note, unless it reads so already; whether it did not."""
        from optuna_dashboard import get_note
        from optuna_dashboard import save_note

        self._asked = trial_id
        before = get_note(self)
        *ours, own = before.split(END)
        body = f"{text}\n\n{END}{own if ours else _below(own)}"
        if body == before:
            return False
        save_note(self, body)
        return True

    def plot(self, name: str, figure: Any) -> bool:
        """Set a plot, unless it looks so already; whether it did not."""
        from optuna_dashboard import save_plotly_graph_object

        self._asked = None
        before = len(self.changed)
        save_plotly_graph_object(self, figure, graph_object_id=name)
        return len(self.changed) > before


def _owner(key: str) -> int | None:
    """Whose a key is: a trial's, by id, or the study's own."""
    owner = key.removeprefix(BEGINNING).partition(":")[0]
    return int(owner) if owner.isdecimal() else None


def _below(own: str) -> str:
    return f"\n\n{own}" if own else ""


# Notes


def _study_note(found: _Found) -> str:
    study, front = found.study, found.front
    lines = [
        f"**{study.spec.name}**: {', '.join(study.spec.objectives)} of agents on the task {study.spec.task['name']}, "
        f"{study.task_options.examples} questions to search with and {study.task_options.holdout} to confirm.",
        "",
        f"{len(front.trials)} trials, {len(front.search)} of them on the front, {len(front.confirmed)} confirmed.",
    ]
    if found.choices:
        lines += ["", "| rule | trial | config | why |", "|---|---|---|---|"]
        lines += [
            f"| `{rule}` | {choice.point.trial.number} | {_cell(_label(study, choice.point.trial))} | {_cell(choice.brief)} |"
            for rule, choice in found.choices.items()
        ]
    if front.confirmed:
        lines += ["", "Chosen among the configs that were confirmed on the holdout questions."]
    return "\n".join(lines)


def _choices(deployable: Front) -> dict[str, Choice]:
    found = {}
    for name, kind in RULES.items():
        if ":" in kind.form:
            continue
        try:
            found[name] = recommend(deployable, Rule.parse(name))
        except UserError:  # there is no point yet, or no objective that the rule goes by
            continue
    return found


def _trial_note(found: _Found, trial: TrialRecord, beaten_by: int | None) -> str:
    if trial.config is None:
        return "Interrupted before it was settled what to try."
    parts = [
        f"**{_label(found.study, trial)}** on `{trial.config.model}`",
        _origin(trial),
        _values(found, trial),
        *_standing(found, trial, beaten_by),
        _knobs(trial.config),
    ]
    return "\n\n".join(part for part in parts if part)


def _label(study: LoadedStudy, trial: TrialRecord) -> str:
    return "" if trial.config is None else study.label(trial.config)


def _cell(text: str) -> str:
    """A text within a table of Markdown."""
    return text.replace("|", "\\|").replace("\n", " ")


def _origin(trial: TrialRecord) -> str:
    """Where its runs come from, and how it ended."""
    lines = []
    if trial.derived_from is not None:
        lines.append(
            f"Derived from the checkpoints of trial {trial.derived_from}, at no cost of its own."
        )
    if trial.reused_from is not None:
        lines.append(f"Taken over from {trial.reused_from}, at no cost of its own.")
    if trial.replay_of is not None:
        lines.append(f"The same config as trial {trial.replay_of}, whose evaluation it repeats.")
    if trial.stopped is not None:
        lines.append(f"Stopped: {trial.stopped}.")
    if trial.failure is not None:
        lines.append(f"Failed: {trial.failure}")
    if trial.state in ("running", "waiting"):
        lines.append("Not ended yet.")
    return "\n\n".join(lines)


def _knobs(config: AgentConfig) -> str:
    """Each knob with its value and, for a workflow that is built in, what it means."""
    if not config.params:
        return ""
    fields = {} if ":" in config.workflow else workflow_kind(config.workflow).params.model_fields
    rows = ["| knob | value | |", "|---|---|---|"]
    for name, value in config.params.items():
        known = fields.get(name)
        meaning = "" if known is None else known.description or ""
        rows.append(f"| {name} | {_cell(str(value))} | {_cell(meaning)} |")
    return "\n".join(rows)


def _values(found: _Found, trial: TrialRecord) -> str:
    """What was measured on either split, with intervals; what was told without answers of its own, as it was told."""
    known = {
        split: found.answers[split][trial.trial_id]
        for split in SPLITS
        if trial.trial_id in found.answers[split]
    }
    if not known:
        values = trial.values or {}
        return ", ".join(f"{name} {quantity(name, value)}" for name, value in values.items())
    heads = [f"{split}, {len(each.questions)} questions" for split, each in known.items()]
    rows = [f"| | {' | '.join(heads)} |", f"|---|{'---|' * len(known)}"]
    for name in found.study.measured():
        cells = [_measured(name, each) for each in known.values()]
        rows.append(f"| {_titled(name, trial.sources)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _measured(name: str, answers: Answers) -> str:
    amounts = answers.amounts.get(name)
    if amounts is None:
        return "not measured"
    objective = OBJECTIVES[name]
    return value_and_interval(name, objective.of(amounts), objective.interval(amounts))


def _titled(name: str, sources: Mapping[str, str]) -> str:
    """An objective with its unit, and the source of what is metered."""
    objective = OBJECTIVES[name]
    notes = [] if objective.unit == "share" else [objective.unit]
    if objective.needs == "meter" and "energy" in sources:
        notes.append(sources["energy"])
    return f"{name} ({', '.join(notes)})" if notes else name


def _standing(found: _Found, trial: TrialRecord, beaten_by: int | None) -> list[str]:
    """Where it stands among the others, and who recommends it."""
    lines = []
    for point in found.points(trial):
        where = f"{point.n} {point.split} questions"
        if point.excess:
            missed = ", ".join(
                f"{name} by {quantity(name, over)}" for name, over in point.excess.items()
            )
            lines.append(f"Not within the constraints on {where}: {missed}.")
            continue
        place = "On" if point.on_front else "Not on"
        text = f"{place} the front of {where}; on it in {100 * point.membership:.0f} % of resamples of them."
        if point.group:
            text += f" Alike with others marked {point.group}: nothing measured tells them apart."
        lines.append(text)
        if point.drop:
            drops = ", ".join(
                f"{name} {value_and_interval(name, drop.value, drop.interval)}"
                for name, drop in point.drop.items()
            )
            lines.append(f"How much worse than in the search (below 0 is better): {drops}.")
    if beaten_by is not None:
        lines.append(
            f"Not on the front: trial {beaten_by} is at least as good in everything, and better in something."
        )
    for rule, choice in found.choices.items():
        if choice.point.trial.trial_id == trial.trial_id:
            lines.append(f"Recommended by `{rule}`: {choice.why}.")
    return lines


def _beating(found: _Found) -> dict[int, int]:
    """Of each whole trial that is not shown as a point, by id, the number of one on the front that beats it."""
    names = found.study.spec.objectives
    directions = [OBJECTIVES[name].direction for name in names]
    members = [point for point in found.front.search if point.on_front]
    near = {point.trial.trial_id for point in found.front.candidates}
    whole = [
        trial
        for trial in found.front.trials
        if trial.values is not None and trial.feasible and trial.stopped is None
        if trial.replay_of is None and trial.trial_id not in near
    ]
    if not members or not whole:
        return {}
    best = pareto.oriented(
        np.array([[point.values[name] for name in names] for point in members]), directions
    )
    beating = {}
    for trial in whole:
        values = pareto.oriented(
            np.array([(trial.values or {})[name] for name in names]), directions
        )
        beats = (best <= values).all(axis=1) & (best < values).any(axis=1)
        if beats.any():
            beating[trial.trial_id] = members[int(beats.argmax())].trial.number
    return beating


# Plots


def _plot(found: _Found, x: str, y: str) -> Any:
    """All trials in two objectives: those shown as points with their intervals, coloured by what they are."""
    from plotly import graph_objects

    front, study = found.front, found.study
    shown = {point.trial.trial_id for point in front.candidates}
    others = [
        trial
        for trial in front.trials
        if trial.values is not None and trial.replay_of is None and trial.trial_id not in shown
    ]
    figure = graph_objects.Figure()
    figure.add_trace(
        graph_objects.Scatter(
            name="others",
            mode="markers",
            x=[(trial.values or {})[x] for trial in others],
            y=[(trial.values or {})[y] for trial in others],
            text=[f"trial {trial.number}: {_label(study, trial)}" for trial in others],
            hovertemplate="%{text}<br>%{x}, %{y}<extra></extra>",
            marker={"size": 5, "color": COLOURS["others"]},
        )
    )
    kinds = {"near the front": "near", "front, search questions": "front"}
    for (title, kind), points in zip(kinds.items(), (front.near, front.search), strict=True):
        figure.add_trace(_scatter(study, title, points, x, y, symbol="circle", kind=kind))
    figure.add_trace(
        _scatter(
            study,
            "confirmed, holdout questions",
            front.confirmed,
            x,
            y,
            symbol="diamond",
            kind="confirmed",
        )
    )
    sources = next((point.trial.sources for point in front.search), {})
    figure.update_layout(
        title={
            "text": f"{y} over {x}",
            "subtitle": {"text": "bars: 95 % intervals; size: how surely on the front"},
        },
        xaxis=_axis(x, sources),
        yaxis=_axis(y, sources),
        legend={"orientation": "h", "y": -0.25},
        template="plotly_white",
    )
    return figure


def _axis(name: str, sources: Mapping[str, str]) -> dict[str, Any]:
    share = OBJECTIVES[name].unit == "share"
    return {"title": {"text": _titled(name, sources)}, **({"tickformat": ".0%"} if share else {})}


def _scatter(
    study: LoadedStudy,
    title: str,
    points: Sequence[Point],
    x: str,
    y: str,
    *,
    symbol: str,
    kind: str,
) -> Any:
    from plotly import graph_objects

    return graph_objects.Scatter(
        name=title,
        mode="markers",
        x=[point.values[x] for point in points],
        y=[point.values[y] for point in points],
        error_x=_bars([(point.values[x], point.intervals[x]) for point in points]),
        error_y=_bars([(point.values[y], point.intervals[y]) for point in points]),
        text=[
            f"trial {point.trial.number}: {_label(study, point.trial)}<br>"
            f"on the front in {100 * point.membership:.0f} % of resamples"
            + "".join(
                f"<br>{name} {value_and_interval(name, point.values[name], point.intervals[name])}"
                for name in study.spec.objectives
            )
            for point in points
        ],
        hovertemplate="%{text}<extra></extra>",
        marker={
            "symbol": symbol,
            "size": [7 + 9 * point.membership for point in points],
            "color": COLOURS[kind],
        },
    )


def _bars(known: Sequence[tuple[float, Interval]]) -> dict[str, Any]:
    """Lengths from a value to the ends of its interval; none to an end that so few questions do not tell."""

    def length(distance: float) -> float:
        return distance if np.isfinite(distance) else 0.0

    return {
        "type": "data",
        "symmetric": False,
        "array": [length(high - value) for value, (_, high) in known],
        "arrayminus": [length(value - low) for value, (low, _) in known],
        "thickness": 1,
        "width": 3,
    }


# Files


def artifact_folder(study: LoadedStudy) -> Path:
    """Where the files lie that the dashboard shows with a study: beside the study's own."""
    return study.path.with_suffix(".artifacts")


def _attach(found: _Found, kept: _Attributes, folder: Path) -> int:
    """Attach to each trial that is worth deploying its config as a file that runs; how many there are.

    Worth deploying is the front of the confirmed trials, before there are any that of the search, and never agents that
    were told when they were right.
    """
    try:
        exported = export_all(found.study, found.store, folder=folder)
    except UserError:  # there is nothing to deploy yet
        return 0
    beside = [file.name for file in sorted(folder.glob("*.jsonl"))]
    for each in exported:
        for name in (each.path.name, *beside):
            kept.file(each.point.trial.trial_id, name)
    return len(exported)
