"""`tuner effects`: which knobs matter, and what each of their values does to every objective."""

from typing import TYPE_CHECKING

from tuner.cli.arguments import AsJson
from tuner.cli.arguments import StudyPath

if TYPE_CHECKING:
    from tuner.effects import Effect
    from tuner.effects import KnobEffects
    from tuner.effects import ObjectiveEffects


def effects(study: StudyPath, as_json: AsJson = False) -> None:
    """Show which knobs matter for each objective, and what their best and worst values do, with 95 % intervals."""
    from dataclasses import asdict

    from tuner.cli.output import print_json
    from tuner.cli.output import print_table
    from tuner.effects import read_effects
    from tuner.results import open_results
    from tuner.spec import load_study

    loaded = load_study(study)
    found = read_effects(loaded, open_results(loaded))
    if as_json:
        print_json({"study": loaded.spec.name, "objectives": [asdict(each) for each in found]})
        return
    for each in found:
        if each.knobs:
            rows = [_row(each, knob) for knob in each.knobs]
            columns = ["knob", "matters", "best value (configs):", "worst value (configs):"]
            print_table(_title(each), columns, rows, wrap=True)
        else:
            print(f"{each.objective}: {each.configs} configs do not differ in it\n")


def _title(found: "ObjectiveEffects") -> str:
    from tuner.objectives import OBJECTIVES

    unit = OBJECTIVES[found.objective].unit
    against = {
        "ratio": "×",
        "difference": "percentage points from" if unit == "share" else f"{unit} from",
    }
    return (
        f"{found.objective}, {against[found.scale]} the average over a knob's values "
        f"({found.configs} configs, {found.answers:,} answers)"
    )


def _row(found: "ObjectiveEffects", knob: "KnobEffects") -> list[str]:
    from tuner.objectives import OBJECTIVES

    is_maximised = OBJECTIVES[found.objective].direction == "maximize"
    values = sorted(knob.values, key=lambda value: value.effect, reverse=is_maximised)
    matters = "–" if knob.importance is None else f"{100 * knob.importance:.0f} %"
    return [knob.knob, matters, _written(found, values[0]), _written(found, values[-1])]


def _written(found: "ObjectiveEffects", effect: "Effect") -> str:
    """A value, the configs that have it, and its effect: `nearest (4): +23 [18, 28]`."""
    from tuner.cli.output import number
    from tuner.objectives import OBJECTIVES

    value = str(effect.value).lower() if isinstance(effect.value, bool) else str(effect.value)
    figures = (effect.effect, *effect.interval)
    if found.scale == "ratio":
        middle, low, high = (f"{figure:.2f}" for figure in figures)
        return f"{value} ({effect.configs}): ×{middle} [{low}, {high}]"
    if OBJECTIVES[found.objective].unit == "share":
        middle, low, high = (f"{100 * figure:z.0f}" for figure in figures)
    else:
        middle, low, high = map(number, figures)
    sign = "" if middle.startswith("-") or middle == "0" else "+"
    return f"{value} ({effect.configs}): {sign}{middle} [{low}, {high}]"
