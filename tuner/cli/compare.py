"""`tuner compare`: configs, studies or values of a knob side by side, with paired differences."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Annotated
from typing import Any

import typer

from tuner.cli.arguments import AsJson
from tuner.cli.arguments import RuleText
from tuner.cli.arguments import StudyPath
from tuner.cli.completion import complete_other

if TYPE_CHECKING:
    from tuner.compare import Difference
    from tuner.compare import Pair
    from tuner.spec import LoadedStudy
    from tuner.tasks import Split


def compare(
    study: StudyPath,
    others: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TRIAL|STUDY",
            help="Trials of the study, or other studies.",
            autocompletion=complete_other,
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="KNOB", help="Compare the values of a knob, such as model."),
    ] = None,
    rule: RuleText = "knee",
    split: Annotated[
        str | None,
        typer.Option(metavar="SPLIT", help="search or holdout: on which questions."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what is better, and how surely: paired differences with 95 % intervals.

    STUDY TRIAL TRIAL…: trials of one study, each beside the first.
    STUDY STUDY…: what a rule recommends in each, beside the first, and how much their fronts hold.
    STUDY --by KNOB: values of a knob, by configs that differ in nothing else.
    """
    from contextlib import ExitStack

    from tuner.errors import UserError
    from tuner.results import open_results
    from tuner.spec import load_study

    given, chosen = others or [], _split(split)
    numbers = [text for text in given if text.isdecimal()]
    if (by is not None and given) or (numbers and len(numbers) < len(given)):
        raise UserError(
            f"{' '.join(given)}{'' if by is None else f' and --by {by}'}: compares more than one kind of thing",
            hint=_GRAMMAR,
        )
    if by is None and (not given or len(numbers) == 1):
        raise UserError("there is nothing to compare with", hint=_GRAMMAR)
    paths = [study, *(Path(text) for text in given if not numbers)]
    studies = [load_study(path) for path in paths]
    with ExitStack() as stack:
        stores = []
        for each in studies:
            stores.append(open_results(each))
            stack.callback(stores[-1].close)
        if by is not None:
            content = _by(studies[0], stores[0], by, chosen)
        elif numbers:
            content = _trials(studies[0], stores[0], [int(text) for text in numbers], chosen)
        else:
            content = _studies(studies, stores, rule)
    if as_json:
        from tuner.cli.output import print_json

        print_json({key: value for key, value in content.items() if key != "text"})
    else:
        _print(content)


_GRAMMAR = (
    "tuner compare STUDY TRIAL TRIAL…, tuner compare STUDY STUDY…, or tuner compare STUDY --by KNOB"
)


def _split(text: str | None) -> "Split | None":
    from tuner.errors import UserError
    from tuner.tasks import SPLITS

    for split in SPLITS:
        if text == split:
            return split
    if text is None:
        return None
    raise UserError(f"--split {text!r} is none of a study's", hint=f"one of: {', '.join(SPLITS)}")


def _trials(study: "LoadedStudy", store: Any, numbers: Sequence[int], split: "Split | None") -> dict[str, Any]:  # fmt: skip
    from tuner.cli.output import marked
    from tuner.compare import compare_trials

    found = compare_trials(study, store, numbers, split)
    return {
        "kind": "trials",
        "study": study.spec.name,
        "split": found.split,
        "trials": [
            {
                "trial": trial.number,
                "config": None if trial.config is None else trial.config.model_dump(),
                "label": marked(study, trial),
            }
            for trial in found.trials
        ],
        "pairs": [_pair(pair) for pair in found.pairs],
        "text": [f"trial {trial.number}: {marked(study, trial)}" for trial in found.trials],
    }


def _by(study: "LoadedStudy", store: Any, knob: str, split: "Split | None") -> dict[str, Any]:
    from tuner.compare import compare_by

    pairs = compare_by(study, store, knob, split or "search")
    return {
        "kind": "knob",
        "study": study.spec.name,
        "split": split or "search",
        "knob": knob,
        "pairs": [_pair(pair) for pair in pairs],
        "text": [f"{study.spec.name} by {knob}: configs that differ in nothing else"],
    }


def _studies(studies: "Sequence[LoadedStudy]", stores: Sequence[Any], rule: str) -> dict[str, Any]:
    from tuner.cli.output import marked
    from tuner.cli.output import number
    from tuner.compare import compare_studies
    from tuner.export import ends
    from tuner.rules import Rule

    found = compare_studies(studies, stores, Rule.parse(rule))
    chosen = list(zip(studies, found.choices, strict=True))
    text = [
        f"{study.spec.name}: trial {choice.point.trial.number}, {marked(study, choice.point.trial)}: {choice.brief}"
        for study, choice in chosen
    ]
    text.append(f"\nHypervolume of the fronts in {', '.join(found.objectives)}, on the search questions, in a range that all share:")  # fmt: skip
    text += [f"  {v.study}: {_with_ends(number(v.value), v.interval)}" for v in found.volumes]
    for other, (value, interval) in zip(found.volumes[1:], found.volume_differences, strict=True):
        low, high = interval
        which = "cannot be told apart" if low <= 0 <= high else f"{found.volumes[0].study if low > 0 else other.study} holds more"  # fmt: skip
        text.append(f"  {found.volumes[0].study} − {other.study}: {_with_ends(number(value), interval)}, {which}")  # fmt: skip
    return {
        "kind": "studies",
        "rule": rule,
        "split": found.split,
        "recommended": [
            {
                "study": study.spec.name,
                "trial": choice.point.trial.number,
                "label": marked(study, choice.point.trial),
                "why": choice.why,
            }
            for study, choice in chosen
        ],
        "pairs": [_pair(pair) for pair in found.pairs],
        "hypervolume": {
            "objectives": list(found.objectives),
            "studies": [
                {"study": each.study, "value": each.value, "interval": ends(each.interval)}
                for each in found.volumes
            ],
            "differences": [
                {"first": found.volumes[0].study, "second": other.study, "value": value, "interval": ends(interval)}
                for other, (value, interval) in zip(found.volumes[1:], found.volume_differences, strict=True)
            ],
        },
        "text": text,
    }  # fmt: skip


def _with_ends(value: str, interval: tuple[float, float]) -> str:
    from tuner.cli.output import number

    return f"{value} [{number(interval[0])}, {number(interval[1])}]"


def _pair(pair: "Pair") -> dict[str, Any]:
    from tuner.export import ends
    from tuner.objectives import OBJECTIVES

    def named(difference: "Difference") -> str | None:
        return {None: None, "first": pair.first, "second": pair.second}[difference.better]

    return {
        "first": pair.first,
        "second": pair.second,
        "questions": pair.n,
        "configs": pair.configs,
        "differences": [
            {
                "quantity": each.quantity,
                "unit": OBJECTIVES[each.quantity].unit,
                "first": each.first,
                "second": each.second,
                "difference": each.value,
                "interval": ends(each.interval),
                "better": named(each),
            }
            for each in pair.differences
        ],
    }


def _print(content: dict[str, Any]) -> None:
    """The pairs as tables, below what is compared."""
    from tuner.cli.output import print_table
    from tuner.cli.output import quantity

    print("\n".join(content["text"]))
    for pair in content["pairs"]:
        configs = f"{pair['configs']} pairs of configs on " if pair["configs"] > 1 else ""
        print()
        print_table(
            f"{pair['first']} beside {pair['second']}: {configs}{pair['questions']} {content['split']} questions",
            ["", pair["first"], pair["second"], "difference, 95 % interval", "better"],
            [
                [
                    f"{each['quantity']}{'' if each['unit'] == 'share' else ', ' + each['unit']}",
                    quantity(each["quantity"], each["first"]),
                    quantity(each["quantity"], each["second"]),
                    _difference(each),
                    each["better"] or "cannot be told",
                ]
                for each in pair["differences"]
            ],
            wrap=True,
        )


def _difference(each: dict[str, Any]) -> str:
    """Of shares in percentage points."""
    from tuner.cli.output import number

    share = each["unit"] == "share"

    def written(value: float) -> str:
        return f"{100 * value:+.0f}" if share else f"{'+' if value > 0 else ''}{number(value)}"

    low, high = (end if end is None else written(end) for end in each["interval"])
    unit = " points" if share else ""
    return f"{written(each['difference'])}{unit} [{low or '-∞'}, {high or '∞'}]"
