"""`tuner check`: everything that can be known before trial 1."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from tuner.cli.arguments import AsJson
from tuner.cli.arguments import StudyPath

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tuner.space import Choices


def check(study: StudyPath, as_json: AsJson = False) -> None:
    """Check a study without running it: files, data, models, meters; with a forecast from a few examples."""
    from tuner.check import check_study
    from tuner.cli.output import number
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
    energy = (
        "not metered"
        if forecast.search_wh is None
        else f"{number(forecast.search_wh)} Wh ({', '.join(set(forecast.energy.values()))})"
    )
    rows = [
        [
            "search space",
            "a continuum" if forecast.configs is None else f"{forecast.configs} configs",
        ],
        [
            "questions",
            f"{forecast.questions['search']} search, {forecast.questions['holdout']} holdout",
        ],
        ["models", ", ".join(map(_served, loaded.models.items()))],
        ["meters", ", ".join(f"{model}: {source}" for model, source in forecast.energy.items())],
        [
            "an example takes",
            f"{number(forecast.seconds_per_example)} s (mean of {forecast.probes} probes)",
        ],
        [
            "the search will take",
            f"about {forecast.search_s:.0f} s and {energy}, then the holdout pass",
        ],
    ]
    if any(loaded.models.values()):
        times = f"about {forecast.restarts} ×, {number(forecast.start_s)} s each"
        rows.insert(-1, ["servers restart", times])
    print_table(f"{study} can run", ["", ""], rows)


def _served(model: "tuple[str, Mapping[str, Choices]]") -> str:
    """A model with its serving knobs and how many values each has."""
    name, knobs = model
    counts = ", ".join(f"{knob}: {len(domain.choices)}" for knob, domain in knobs.items())
    return f"{name} ({counts})" if counts else name
