"""The holdout pass by itself: what a search found, measured on questions that it never saw, and what to make of that.

Apart from `study`, which ends every run with the same pass, and from `results`, which reads what it measured.
"""

from contextlib import closing
from dataclasses import dataclass

from tuner.errors import UserError
from tuner.events import Report
from tuner.results import Front
from tuner.results import Point
from tuner.results import open_results
from tuner.search import to_confirm
from tuner.spec import LoadedStudy
from tuner.study import confirm_study

CHANCE = 0.025
"""How often the 95 % interval of a drop lies above 0 where nothing dropped."""

_NAMED = 3
"""Figures that a sentence names."""


@dataclass(frozen=True, slots=True)
class Validation:
    """What the holdout questions said."""

    front: Front
    """Without agents that were told when they were right; what is confirmed has its drop since the search."""
    unconfirmed: tuple[int, ...]
    """Numbers of trials that were to be confirmed and could not be; why was reported on the way."""
    oracle: tuple[int, ...]
    """Numbers of trials on the search's front that are left out, since nobody can tell an agent in deployment when it is right."""

    def sentences(self) -> list[str]:
        """What to make of it, in a few sentences."""
        points = self.front.confirmed
        kept = sum(point.on_front for point in points)
        said = [f"{kept} of {_configs(len(points))} confirmed {_are(kept)} on the holdout front."]
        drops = [(point, name, drop) for point in points for name, drop in point.drop.items()]
        fallen = [(point, name) for point, name, drop in drops if drop.interval[0] > 0]
        if not fallen:
            said.append("No figure is worse than in the search by more than chance explains.")
        else:
            named = [f"{name} of trial {point.trial.number}" for point, name in fallen[:_NAMED]]
            more = len(fallen) - len(named)
            said.append(
                f"{len(fallen)} of {len(drops)} figures {_are(len(fallen))} worse than in the search by more than chance "
                f"explains: {', '.join(named)}{f' and {more} more' if more else ''} (chance alone does that to "
                f"{CHANCE * len(drops):.2g}): the search was lucky, or its questions were easier."
            )
        if self.unconfirmed:
            listed = ", ".join(map(str, self.unconfirmed))
            said.append(f"Could not be confirmed, for the reasons given above: {listed}.")
        if self.oracle:
            listed = ", ".join(map(str, self.oracle))
            said.append(
                f"Not confirmed, because they were told when they were right, which nobody can do in deployment: {listed}."
            )
        return said


def validate_study(study: LoadedStudy, *, report: Report = lambda event: None) -> Validation:
    """Measure what the study's front lacks of the holdout questions, and say what all of them said.

    Starts no server where nothing is lacking. Raises UserError for a study without holdout questions,
    or with nothing to confirm, and as `run_study` does.
    """
    if not study.task_options.holdout:
        raise UserError(
            f"{study.path}: task: holdout: is 0, so there are no questions that the search has not seen",
            hint=f"give a study of another name `holdout: 48`, say, and `warm_start: [{study.spec.name}]`",
        )
    with closing(open_results(study)) as store:
        _require_candidates(Front.read(study, store), Front.read(study, store, deployable=True))
        left = to_confirm(study, store)
    if left:
        confirm_study(study, report=report)
    with closing(open_results(study)) as store:
        return Validation(
            front=Front.read(study, store, deployable=True),
            unconfirmed=tuple(trial.number for trial in to_confirm(study, store)),
            oracle=tuple(p.trial.number for p in Front.read(study, store).search if _is_oracle(p)),
        )


def _require_candidates(everything: Front, deployable: Front) -> None:
    if deployable.candidates:
        return
    if everything.search:
        raise UserError(
            "every trial within the constraints was told when its answer was right (feedback: oracle), "
            "which nobody can do in deployment",
            hint="give the workflow `feedback: [self]` in a study of another name",
        )
    raise UserError(
        "there is nothing to confirm: no trial is complete and within the constraints",
        hint="tuner status shows how far the study is",
    )


def _is_oracle(point: Point) -> bool:
    return point.trial.config is not None and point.trial.config.oracle


def _configs(count: int) -> str:
    return f"{count} {'config' if count == 1 else 'configs'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
