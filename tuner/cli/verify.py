"""`tuner verify`: measures an exported configuration again, and says whether what it claims still holds."""

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Annotated

import typer

from tuner.cli.arguments import AllowCustom
from tuner.cli.arguments import AsJson

if TYPE_CHECKING:
    from tuner.claims import Judged
    from tuner.verify import Verification


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Exported configuration.")],
    questions: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="Ask the first N of the claim's questions, not all."),
    ] = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIGURE=T",
            help="How much worse is still as claimed: accuracy=0.05 is 5 points, latency_p50_s=0.25 a quarter more.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where the task's files are, if they were moved."),
    ] = None,
    allow_custom: AllowCustom = False,
    as_json: AsJson = False,
) -> None:
    """Ask the questions of the claim again. Exit status 1: a figure is worse than tolerated, for sure."""
    import sys

    from tuner.cli.output import print_json
    from tuner.cli.output import talk
    from tuner.verify import content
    from tuner.verify import verify as measure_again

    found = measure_again(
        file,
        questions=questions,
        tolerances=_tolerances(tolerance or ()),
        data=data,
        allow_custom=allow_custom,
        say=talk,
    )
    if as_json:
        print_json({"file": str(file), **content(found)})
    else:
        _print(file, found)
    if found.outcome == "fails":
        sys.exit(1)


def _tolerances(given: Sequence[str]) -> Mapping[str, float]:
    import math

    from tuner.errors import UserError

    tolerances = {}
    for text in given:
        name, _, number = text.partition("=")
        try:
            tolerances[name] = float(number)
        except ValueError:
            tolerances[name] = math.nan
        if not 0 <= tolerances[name] < math.inf:
            raise UserError(
                f"--tolerance {text!r}: is not a figure with what is tolerated of it, 0 or more",
                hint="write accuracy=0.05 or latency_p50_s=0.25",
            )
    return tolerances


def _print(file: Path, found: "Verification") -> None:
    from tuner.cli.output import print_table
    from tuner.cli.output import quantity
    from tuner.cli.output import value_and_interval

    title = f"{file}: {found.questions} of {found.of} {found.split} questions asked again"
    rows = [
        [
            claim.name,
            quantity(claim.name, claim.claimed),
            quantity(claim.name, claim.now),
            value_and_interval(claim.name, claim.worse, claim.interval),
            quantity(claim.name, claim.tolerated),
            {"holds": "holds", "fails": "does not hold", "undecided": "cannot be told"}[
                claim.outcome
            ],
        ]
        for claim in found.claims
    ]
    if rows:
        print_table(title, ["figure", "claimed", "now", "worse by", "tolerated", ""], rows)
    print("\n".join(_sentences(found)))


def _sentences(found: "Verification") -> list[str]:
    said = []
    if found.failed:
        said.append(f"{found.failed} of {found.questions} questions failed, which counts as wrong.")
    said += [f"{name} is left out: it {reason}." for name, reason in found.left_out.items()]
    said += [f"Note: {note}." for note in found.notes]
    said += [_undecided(claim, found) for claim in found.claims if claim.outcome == "undecided"]
    fallen = [claim.name for claim in found.claims if claim.outcome == "fails"]
    if fallen:
        said.append(f"The claim does not hold: {' and '.join(fallen)} {'is' if len(fallen) == 1 else 'are'} worse than tolerated.")  # fmt: skip
    elif found.outcome == "holds":
        said.append("The claim holds.")
    else:
        said.append("Nothing speaks against the claim; whether all of it holds cannot be told.")
    return said


def _undecided(claim: "Judged", found: "Verification") -> str:
    from tuner.cli.output import quantity

    worst = claim.interval[1]
    said = f"{claim.name} cannot be told with {claim.questions} questions"
    if worst < float("inf"):
        said += f": it may be worse by up to {quantity(claim.name, worst)}"
    if claim.needed is None:
        return f"{said}."
    said += f"; some {claim.needed:,} questions would tell"
    if claim.needed > found.of:
        said += (
            f", and the claim has {found.of}: a study with a larger `holdout` claims more surely"
        )
    return f"{said}."
