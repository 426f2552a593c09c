"""`tuner check`: everything that can be known before trial 1."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from tuner.cli.arguments import AsJson
from tuner.cli.arguments import StudyPath

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tuner.check import Forecast
    from tuner.check import Taken
    from tuner.space import Choices
    from tuner.spec import LoadedStudy


def check(study: StudyPath, as_json: AsJson = False) -> None:
    """Check a study without running it: files, data, models, meters; with a forecast from a few examples."""
    from tuner.check import CONFIRMED
    from tuner.check import check_study
    from tuner.cli.output import print_json
    from tuner.cli.output import print_table
    from tuner.cli.progress import open_progress
    from tuner.spec import load_study

    loaded = load_study(study)
    with open_progress(loaded) as report:
        forecast = check_study(loaded, report=report)
    if as_json:
        print_json(asdict(forecast))
        return
    print_table(f"{study} can run", ["", ""], _found(loaded, forecast))
    print_table(
        f"Forecast, mean [cheapest, dearest] of what {forecast.probes} probes took",
        ["", "a trial", "the search", f"holdout of {CONFIRMED} configs", "limit"],
        _predicted(forecast),
        wrap=True,
    )
    print(_ending(loaded, forecast))


def _found(study: "LoadedStudy", forecast: "Forecast") -> list[list[str]]:
    """What was looked at, and what there is."""
    from tuner.cli.output import number

    size = "a continuum" if forecast.configs is None else f"{forecast.configs} configs"
    questions = forecast.questions
    rows = [
        ["search space", size],
        ["questions", f"{questions['search']} search, {questions['holdout']} holdout"],
        ["models", ", ".join(map(_served, study.models.items()))],
        ["meters", ", ".join(f"{model}: {source}" for model, source in forecast.energy.items())],
    ]
    if forecast.at_once > 1:
        rows.append(["trials at once", str(forecast.at_once)])
    if any(study.models.values()):
        times = f"about {forecast.restarts} ×, {number(forecast.start_s)} s each"
        rows.append(["servers restart", times])
    return rows


def _served(model: "tuple[str, Mapping[str, Choices]]") -> str:
    """A model with its serving knobs and how many values each has."""
    name, knobs = model
    counts = ", ".join(f"{knob}: {len(domain.choices)}" for knob, domain in knobs.items())
    return f"{name} ({counts})" if counts else name


def _predicted(forecast: "Forecast") -> list[list[str]]:
    """Of each quantity, what it comes to."""
    from tuner.cli.output import number

    rows = [
        [
            f"{name}, {each.unit}" if each.unit not in name else name,
            *map(_range, (each.trial, each.search, each.holdout)),
            "" if each.limit is None else number(each.limit),
        ]
        for name, each in forecast.predictions.items()
    ]
    return rows if "energy_wh" in forecast.predictions else [*rows, ["energy_wh", "not metered"]]


def _range(taken: "Taken") -> str:
    from tuner.cli.output import number

    if taken.low == taken.high:
        return number(taken.mean)
    return f"{number(taken.mean)} [{number(taken.low)}, {number(taken.high)}]"


def _ending(study: "LoadedStudy", forecast: "Forecast") -> str:
    """Which limit the search comes to first."""
    by = f"by its limit on {forecast.ends_by}"
    if forecast.ends_by == "search_space":
        by = "with the whole search space tried"
    earlier = "; earlier, if the front gains nothing more" if study.spec.budget.plateau else ""
    return f"The search ends after about {_range(forecast.trials)} trials, {by}{earlier}."
