"""`tuner validate`: measures the front on the holdout questions, and shows how far it fell."""

from typing import TYPE_CHECKING
from typing import Any

from tuner.cli.arguments import AsJson
from tuner.cli.arguments import StudyPath

if TYPE_CHECKING:
    from tuner.spec import LoadedStudy
    from tuner.validate import Validation


def validate(study: StudyPath, as_json: AsJson = False) -> None:
    """Confirm the front, and what cannot be told from it, on questions that the search never saw; show the drop."""
    from tuner.cli.output import print_json
    from tuner.cli.progress import open_progress
    from tuner.spec import load_study

    loaded = load_study(study)
    with open_progress(loaded) as report:
        from tuner.validate import validate_study  # seconds of import

        found = validate_study(loaded, report=report)
    if as_json:
        print_json(_content(loaded, found))
    else:
        _print(loaded, found)


def _print(study: "LoadedStudy", found: "Validation") -> None:
    from tuner.cli.output import print_drops
    from tuner.cli.output import print_points

    points = found.front.confirmed
    if points:
        title = f"On {points[0].n} holdout questions, which the search never saw"
        print_points(study, title, points)
        print_drops(study, points)
    print("\n".join(found.sentences()))


def _content(study: "LoadedStudy", found: "Validation") -> dict[str, Any]:
    from tuner.content import point_content

    return {
        "study": study.spec.name,
        "questions": study.task_options.holdout,
        "points": [point_content(point) for point in found.front.confirmed],
        "unconfirmed": list(found.unconfirmed),
        "oracle": list(found.oracle),
        "sentences": found.sentences(),
    }
