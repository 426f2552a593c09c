"""What a study has found so far, read back from its store: points with intervals, the front, membership.

Apart from `front`, which is arithmetic, and from `study`, which produces: every reading verb and the holdout
pass stand on this.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from string import ascii_lowercase

import numpy as np

from tuner import front
from tuner.intervals import Interval
from tuner.intervals import difference_interval
from tuner.intervals import widening
from tuner.objectives import OBJECTIVES
from tuner.objectives import Objective
from tuner.records import TrialRecord
from tuner.sample import DRAWS
from tuner.sample import Sample
from tuner.sample import read_answers
from tuner.spec import LoadedStudy
from tuner.store import Store
from tuner.tasks import Split

PAIR_DRAWS = 1000
"""Resamples by which the points shown are told apart: what happens by chance in 1 % of them then does so ten times."""

MOST_INFEASIBLE = 10
"""Points shown at most that break a constraint, the nearest misses."""

LEFT_OUT = "the budget was spent before its turn came"
"""Why a trial that was asked for was never run."""


@dataclass(frozen=True, slots=True)
class Drop:
    """How much worse a config is on the holdout questions than it was on the search questions, in the objective's unit.

    The search shows the configs that looked best, and hence also those that were lucky: they drop.
    """

    value: float
    """Below 0 where it is better."""
    interval: Interval


@dataclass(frozen=True, slots=True)
class Point:
    """A trial's values over one split, and how sure they are."""

    trial: TrialRecord
    split: Split
    values: Mapping[str, float]
    """Objectives and constrained quantities; every question weighs the same, however often it was answered."""
    intervals: Mapping[str, Interval]
    """95 % confidence, by the method that fits the quantity; an end that so few questions do not tell is infinite."""
    on_front: bool
    """Whether no other feasible trial measured on this split dominates it, and it is feasible itself."""
    membership: float
    """Share of paired bootstrap resamples of the questions in which none does, once luck with the accuracy is allowed for."""
    n: int
    """Questions."""
    group: str = ""
    """A letter for each set of points shown that cannot be told apart, of which it is one; empty where it can be told from all."""
    excess: Mapping[str, float] = field(default_factory=dict)
    """By how much it breaks each constraint that it breaks, in that quantity's unit."""
    drop: Mapping[str, Drop] = field(default_factory=dict)
    """On the holdout questions: how far it fell, by objective."""

    @property
    def feasible(self) -> bool:
        """Whether it is within the constraints on this split, and was so when the search was told of it."""
        return self.trial.feasible and not self.excess


def open_results(study: LoadedStudy) -> Store:
    """A study's records, to be read. Raises StoreError when there are none, or they are of another space or models."""
    store = Store.open(study.storage_url, study.spec.name)
    store.require(study.fingerprint())
    return store


def counted(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Trials that count against the budget: those that ended, less what cost nothing and what was never run."""
    return [
        trial
        for trial in trials
        if trial.state in ("complete", "failed") and not trial.is_free and trial.failure != LEFT_OUT
    ]


def evaluated(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Trials with values of their own: complete, and not a replay of another."""
    return [
        trial
        for trial in trials
        if trial.state == "complete" and trial.values is not None and trial.replay_of is None
    ]


@dataclass(frozen=True, slots=True)
class Front:
    """What a study has found; points stand with the best in the first objective first."""

    objectives: tuple[str, ...]
    search: tuple[Point, ...]
    """The feasible trials that no other dominates on the search questions."""
    confirmed: tuple[Point, ...]
    """The trials measured again, on all holdout questions; some may be dominated there."""
    near: tuple[Point, ...] = ()
    """Feasible trials that others dominate on the search questions, perhaps by chance; the likeliest members first."""
    infeasible: tuple[Point, ...] = ()
    """Trials that broke a constraint on the search questions, the nearest misses first."""
    trials: tuple[TrialRecord, ...] = ()
    """Every trial of the study at that moment, in the order of their numbers."""

    @property
    def candidates(self) -> tuple[Point, ...]:
        """The points worth confirming on the holdout questions."""
        return (*self.search, *self.near)

    @classmethod
    def read(
        cls, study: LoadedStudy, store: Store | None = None, *, deployable: bool = False
    ) -> "Front":
        """The front as the study's storage has it now; `store` spares opening it once more. Raises StoreError.

        With `deployable`, agents that were told when they were right do not count: nobody can tell
        them in deployment, and no other agent need be better.
        """
        if store is None:
            with closing(open_results(study)) as opened:
                return cls.read(study, opened, deployable=deployable)
        trials = store.trials()
        whole = [
            trial
            for trial in _whole(trials)
            if not deployable or (trial.config is not None and not trial.config.oracle)
        ]
        searched = Sample.read(study, store, whole, "search")
        again = Sample.read(study, store, whole, "holdout")
        search, near = _front_and_near(searched.within())
        return cls(
            study.spec.objectives,
            search=search,
            confirmed=_confirmed(again.within(), searched),
            near=near,
            infeasible=_misses(searched),
            trials=tuple(trials),
        )


def every_point(study: LoadedStudy, store: Store) -> tuple[Point, ...]:
    """Every evaluated trial on the search questions, on the front or not, in the order of their numbers.

    Unlike in `Front`, also those that others dominate for sure, all that break a constraint, and those that were stopped,
    by the questions that they answered. The latter two are on no front: their membership is 0. None has letters.
    """
    trials = store.trials()
    whole = Sample.read(study, store, _whole(trials), "search")
    within = whole.within()
    on_front = np.zeros(len(whole.trials), dtype=np.bool_)
    shares = np.zeros(len(whole.trials))
    if within.trials:
        places = [place for place, trial in enumerate(whole.trials) if trial.feasible]
        on_front[places] = front.non_dominated(within.values())
        shares[places] = within.memberships()
    points = _points(whole, on_front, shares, [""] * len(whole.trials))
    ended = {trial.trial_id: trial for trial in evaluated(trials) if trial.stopped is not None}
    answered = read_answers(study, store, "search", list(ended))
    stopped = [
        _points(whole.of(ended[trial_id], answers), np.array([False]), np.zeros(1), [""])[0]
        for trial_id, answers in answered.items()
    ]
    return tuple(sorted((*points, *stopped), key=lambda point: point.trial.number))


def hypervolume_gain(
    study: LoadedStudy, store: Store, last: int
) -> tuple[float, float, float] | None:
    """What the `last` trials that count against the budget added to the front's hypervolume, as a share of it before.

    With its 95 % interval, over the same resampled questions for all trials, and turned round (Davison and Hinkley 1997,
    chapter 5): resampling adds luck to luck, and what it adds is taken off. An interval that reaches down to 0 says that
    the gain may be luck. The volume reaches from the best to the worst value of any feasible trial, each objective
    scaled to that range. None before there are trials to compare, or where the front had no volume.
    """
    trials = store.trials()
    ended = counted(trials)
    sample = Sample.read(study, store, _whole(trials), "search").within()
    if len(ended) <= last or len(sample.trials) < 2:
        return None
    earlier = np.array([trial.number < ended[-last].number for trial in sample.trials])
    values = sample.values()
    low, high = values.min(axis=0), values.max(axis=0)
    # Those that matter to either volume, and those that are on the front as it is.
    before_ = np.flatnonzero(earlier)
    kept = {*sample.contenders(), *before_[sample.at(before_.tolist()).contenders()].tolist()}
    kept |= {*np.flatnonzero(front.non_dominated(values)).tolist()}
    kept |= {*before_[front.non_dominated(values[before_])].tolist()}
    sample, values = sample.at(sorted(kept)), values[sorted(kept)]
    earlier = earlier[sorted(kept)]
    draws = np.concatenate([values[np.newaxis], sample.draws(DRAWS)])
    scaled = (draws - low) / np.where(high > low, high - low, 1.0)
    reference = np.ones(len(sample.objectives))
    before, after = (
        np.array([front.hypervolume(draw[some], reference) for draw in scaled])
        for some in (earlier, np.ones_like(earlier))
    )
    if before[0] == 0.0:
        return None
    gains = (after - before) / before[0]
    least, most = np.quantile(gains[1:], [0.025, 0.975])
    gain = float(gains[0])
    return gain, 2 * gain - float(most), 2 * gain - float(least)


# How trials are compared


def _whole(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Those with values of their own that were not stopped."""
    return [trial for trial in evaluated(trials) if trial.stopped is None]


def _groups(sample: Sample) -> list[str]:
    """Of each trial, the letters of the sets of trials that it cannot be told apart from."""
    letters = [""] * len(sample.trials)
    if len(sample.trials) > 1 and sample.questions > 1:
        values = sample.values()
        spread = widening(sample.questions) * (sample.draws(PAIR_DRAWS) - values)
        same = front.alike(values + spread)
        for number, members in enumerate(front.groups(same)):
            for member in members:
                letters[member] += _letter(number)
    return letters


def _points(
    sample: Sample, on_front: front.Flags, memberships: front.Floats, groups: Sequence[str]
) -> tuple[Point, ...]:
    """Every trial as a point."""
    each = zip(on_front, memberships, groups, strict=True)
    return tuple(_point(sample, place, *every) for place, every in enumerate(each))


def _point(sample: Sample, place: int, on_front: bool, membership: float, group: str) -> Point:
    answers = sample.answers(place)
    return Point(
        trial=sample.trials[place],
        split=sample.split,
        values={name: OBJECTIVES[name].of(each) for name, each in answers.items()},
        intervals={name: OBJECTIVES[name].interval(each) for name, each in answers.items()},
        on_front=bool(on_front),
        membership=float(membership),
        n=sample.questions,
        group=group,
        excess=sample.excess(place),
    )


def _front_and_near(sample: Sample) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
    """The front, best in the first objective first, and what is near it, the likeliest members first."""
    if not sample.trials:
        return (), ()
    values = sample.values()
    on_front = front.non_dominated(values)
    shares = sample.memberships()
    members = sorted(np.flatnonzero(on_front).tolist(), key=lambda place: tuple(values[place]))
    others = np.flatnonzero(~on_front & (shares >= front.NEAR)).tolist()
    shown = [*members, *sorted(others, key=lambda place: -shares[place])[: front.MOST_NEAR]]
    together = sample.at(shown)
    points = _points(together, on_front[shown], shares[shown], _groups(together))
    return points[: len(members)], points[len(members) :]


def _confirmed(sample: Sample, searched: Sample) -> tuple[Point, ...]:
    """The trials of a second measurement, best in the first objective first, and how far they fell since the first."""
    if not sample.trials:
        return ()
    values = sample.values()
    within = [place for place in range(len(values)) if not sample.excess(place)]
    on_front, shares = np.zeros(len(values), dtype=np.bool_), np.zeros(len(values))
    if within:
        on_front[within] = front.non_dominated(values[within])
        shares[within] = sample.at(within).memberships()
    order = sorted(range(len(values)), key=lambda place: tuple(values[place]))
    ordered = sample.at(order)
    points = _points(ordered, on_front[order], shares[order], _groups(ordered))
    places = {trial.trial_id: place for place, trial in enumerate(searched.trials)}
    return tuple(
        replace(
            point,
            drop=_drops(sample.objectives, point, searched.answers(places[point.trial.trial_id])),
        )
        if point.trial.trial_id in places
        else point
        for point in points
    )


def _drops(
    objectives: Sequence[Objective], point: Point, before: Mapping[str, front.Floats]
) -> dict[str, Drop]:
    drops = {}
    for o in objectives:
        now = point.values[o.name], point.intervals[o.name]
        then = o.of(before[o.name]), o.interval(before[o.name])
        worse, better = (then, now) if o.direction == "maximize" else (now, then)
        drops[o.name] = Drop(worse[0] - better[0], difference_interval(*worse, *better))
    return drops


def _misses(sample: Sample) -> tuple[Point, ...]:
    """The trials that broke a constraint, those that broke it by the smallest part of its bound first."""
    broke = sample.at([n for n, trial in enumerate(sample.trials) if not trial.feasible])
    parts = np.zeros(len(broke.trials))
    for name, bound in sample.constraints.items():
        limit = float(bound.value)
        over = broke.figures(name) - limit
        parts = np.maximum(parts, (over if bound.sign == "<=" else -over) / (abs(limit) or 1.0))
    nearest = np.argsort(parts, kind="stable")[:MOST_INFEASIBLE].tolist()
    none = np.zeros(len(nearest))
    return _points(broke.at(nearest), none > 0, none, [""] * len(nearest))


def _letter(number: int) -> str:
    """a … z, then a1 … z1, and so on."""
    return ascii_lowercase[number % 26] + (str(number // 26) if number >= 26 else "")
