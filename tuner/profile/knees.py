"""The knees that a study asks for: open loads of a config, one after the other, until the highest sustained rate is known.

Apart from `rates`, which shows what was measured, because here it is settled what is measured next. A sweep depends on
nothing but what it has measured, and each of its points is kept as a study of its own: read again from the first
one on, it stands where it stood when it was interrupted.
"""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner.knee import LoadPoint
from tuner.knee import Sweep
from tuner.knee import load_point
from tuner.knee import next_load
from tuner.knee import swept
from tuner.load import Load
from tuner.profile.evaluation import Evaluation

Measured = Callable[[int, Load], Evaluation | None]
"""The n-th point of a sweep, under that load; None where it is not measured yet."""


@dataclass(frozen=True, slots=True)
class KneeSearch:
    """A sweep over a config as far as it is known."""

    of: Evaluation
    """The config under the study's own load."""
    points: tuple[LoadPoint, ...]
    evaluations: tuple[Evaluation, ...]
    """Those behind the points, in the order in which they were measured."""
    following: Load | None
    """What is to be measured next; None once the knee is known, or cannot be."""
    problem: str | None = None
    """Why it cannot be known."""

    @property
    def sweep(self) -> Sweep | None:
        """What the points say; None where there are none."""
        return swept(self.points) if self.points else None


def search_knee(of: Evaluation, measured: Measured) -> KneeSearch:
    """The sweep over a config, from its first load to the first that is not measured yet.

    Begins at half a question per mean latency under the study's own load. Ends without a knee at a load whose
    trial failed. Raises UserError for too few questions.
    """
    if not of.queries:
        return KneeSearch(of, (), (), None, of.problem or "it failed")
    latency_s = float(np.mean([query.latency_s for query in of.queries]))
    points: list[LoadPoint] = []
    found: list[Evaluation] = []
    problem = None
    while load := next_load(points, latency_s=latency_s):
        at = measured(len(points), load)
        if at is None:
            return KneeSearch(of, tuple(points), tuple(found), load)
        if not at.queries:
            problem = f"at {load.rate:.3g} a second: {at.problem or 'it failed'}"
            break
        points.append(load_point(load, at.runs, at))
        found.append(at)
    return KneeSearch(of, tuple(points), tuple(found), None, problem)


def knee_notes(searches: Sequence[KneeSearch]) -> list[str]:
    """What was found of each, in a sentence."""
    return [_note(each) for each in searches]


def _note(search: KneeSearch) -> str:
    of = f"{search.of.label} on {search.of.model}"
    sweep = search.sweep
    if sweep is None or sweep.knee is None:
        why = search.problem or "not even the lowest rate was sustained"
        return f"{of}: no knee was found ({why})."
    knee = sweep.knee
    _, bad = knee.bracket_per_s
    above = "the client gave way before the server" if bad is None else f"below {bad:.3g}"
    slow = "" if knee.p95_s is None else f", p95 {knee.p95_s:.3g} s"
    few = "" if knee.last_good.n >= knee.enough else f"; {knee.enough} questions would be enough"
    ended = f"; the sweep ended {search.problem}" if search.problem else ""
    return (
        f"{of}: the knee is at {knee.rate_per_s:.3g} a second ({above}{slow}, "
        f"n = {knee.last_good.n}{few}{ended})."
    )
