"""A profile beside what a paper published: the same quantity of the same workflow, here and there, row by row.

Apart from the figures, which know no paper. A paper's rows are of its own models, GPUs and questions: what can be
expected to agree are ratios, which are set apart.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

from tuner.profile import Profile
from tuner.profile.estimate import missing
from tuner.profile.estimate import ratio
from tuner.profile.figures import FIGURES
from tuner.profile.pairing import ABSENT
from tuner.profile.pairing import Pair
from tuner.profile.pairing import Published
from tuner.profile.pairing import by_value
from tuner.profile.pairing import by_workflow
from tuner.profile.pairing import caching
from tuner.profile.pairing import energy
from tuner.profile.pairing import like_shown
from tuner.profile.pairing import memory
from tuner.profile.pairing import model_size
from tuner.profile.pairing import more_turns
from tuner.profile.pairing import rates
from tuner.profile.pairing import trade
from tuner.profile.table import Column
from tuner.profile.table import Key
from tuner.published import load_paper

STAND_IN = "hotpotqa"
"""The paper's task that stands beside a task which it does not have."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A profile beside a paper."""

    name: str
    title: str
    source: str
    note: str
    task: str
    """The paper's task whose figures these are."""
    figures: Mapping[str, tuple[Pair, ...]]
    """By number; none for a figure that the paper has no numbers of."""
    ratios: tuple[Pair, ...]
    """What travels from one machine and model to another better than seconds and joules."""


@dataclass(frozen=True, slots=True)
class Line:
    """The pairs of one workflow and the same keys, by the name of the quantity."""

    workflow: str
    keys: Mapping[str, Key]
    pairs: Mapping[str, Pair]


def lines(pairs: Sequence[Pair]) -> list[Line]:
    """Pairs as rows of a table, in the order in which they come."""
    found: dict[tuple[Key, ...], dict[str, Pair]] = {}
    for pair in pairs:
        key = (pair.workflow, *(part for item in pair.keys.items() for part in item))
        found.setdefault(key, {})[pair.column.name] = pair
    return [
        Line(first.workflow, first.keys, row)
        for row in found.values()
        for first in [next(iter(row.values()))]
    ]


def columns(pairs: Sequence[Pair]) -> list[Column]:
    """The quantities that pairs are of, each once."""
    return list({pair.column.name: pair.column for pair in pairs}.values())


def compare(profile: Profile, name: str) -> Comparison:
    """The profile beside a paper's figures. Raises UserError for a paper that is not known."""
    paper = load_paper(name)
    tasks = {row.get("task") for figure in paper.figures.values() for row in figure.rows}
    task = profile.task if profile.task in tasks else STAND_IN
    published = {
        number: [row for row in figure.rows if row.get("task") == task]
        for number, figure in paper.figures.items()
    }
    figures = {
        **{number: by_workflow(profile, number, published) for number in ("4", "5", "6", "8")},
        "9": caching(profile, published),
        "11": rates(profile, published),
        "12": memory(profile, published),
        "13": trade(profile, published),
        "14": by_value(profile, "14", "budget", published),
        "15": by_value(profile, "15", "few_shot", published),
        "16": more_turns(profile, published),
        "17": model_size(profile, published),
        "III": energy(profile, paper),
    }
    return Comparison(
        name=name,
        title=paper.title,
        source=paper.source,
        note=paper.note,
        task=task,
        figures={number: _known(figures.get(number, ())) for number in FIGURES},
        ratios=tuple(_ratios(profile, published, figures)),
    )


def _known(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """The pairs of quantities that the paper has at all; what only we have stands in our own table."""
    known = {pair.column.name for pair in pairs if pair.paper is not None}
    return tuple(pair for pair in pairs if pair.column.name in known)


def _ratios(
    profile: Profile, published: Published, figures: Mapping[str, Sequence[Pair]]
) -> list[Pair]:
    """Calls and latency against CoT, energy against a single turn, idle share, and what prefix caching gains."""
    found = [
        *_against_cot(profile, published, "4", "llm_calls", "model calls ÷ cot's"),
        *_against_cot(profile, published, "5", "latency_mean_s", "latency ÷ cot's"),
        *_against_single_turn(figures["III"]),
        *(pair for pair in figures["6"] if pair.column.name == "idle_share"),
    ]
    table = profile.table("9")
    kept = {
        row.of.workflow: row
        for row in reversed(like_shown(profile, table))
        if row.keys["prefix_cache"] is True
    }
    theirs = {(str(row["workflow"]), row["prefix_cache"]): row for row in published["9"]}
    for name, of in (("prefill_gain", "prefill_s"), ("call_gain", "call_s")):
        paper = {
            workflow: float(row[of]) / float(theirs[workflow, True][of])
            for (workflow, cached), row in theirs.items()
            if not cached and (workflow, True) in theirs
        }
        for workflow in dict.fromkeys([*paper, *kept]):
            row = kept.get(workflow)
            here = ABSENT if row is None else row.values[name]
            found.append(Pair(workflow, {}, table.column(name), here, paper.get(workflow)))
    return found


def _against_single_turn(pairs: Sequence[Pair]) -> list[Pair]:
    """Energy ratios, those of each of the paper's models as a quantity of its own."""
    found = []
    models = dict.fromkeys(pair.keys["paper model"] for pair in pairs if pair.keys)
    for pair in pairs:
        if pair.column.name != "energy_ratio":
            continue
        for model in [pair.keys["paper model"]] if pair.keys else models:
            column = replace(
                pair.column,
                name=f"{pair.column.name}_{model}",
                title=f"energy {pair.column.title}; paper: {model}",
            )
            found.append(replace(pair, keys={}, column=column))
    return found


def _against_cot(
    profile: Profile, published: Published, figure: str, name: str, title: str
) -> list[Pair]:
    column = Column(f"{name}_ratio", "×", title)
    field = name.removesuffix("_mean_s") + "_s" if name.endswith("_mean_s") else name
    cot = profile.shown.get("cot")
    theirs = {str(row["workflow"]): float(row[name]) for row in published[figure]}
    found = []
    for workflow in dict.fromkeys([*theirs, *profile.shown]):
        each = profile.shown.get(workflow)
        if workflow == "cot":
            continue
        here = ABSENT
        if each is not None and cot is None:
            here = missing("the study has no cot")
        elif each is not None and cot is not None:
            under = {run.example_id: getattr(run, field) for run in cot.runs}
            both = [run for run in each.runs if run.example_id in under]
            here = ratio(
                [getattr(run, field) for run in both], [under[run.example_id] for run in both]
            )
        paper = theirs[workflow] / theirs["cot"] if {workflow, "cot"} <= theirs.keys() else None
        found.append(Pair(workflow, {}, column, here, paper))
    return found
