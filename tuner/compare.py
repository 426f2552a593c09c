"""Configs, studies and values of a knob side by side: paired differences of what they scored and took, and how sure those are.

Apart from `results`, which says what is on a front: here it is asked which of two is better. Both have answered the same
questions, so it is each question's difference that counts: what is hard for both says nothing about either.

A difference is `first` − `second` in the quantity's unit; its interval is of 95 % confidence:

- shares (accuracy): from both Wilson intervals and how far right answers go together (Newcombe 1998, Statistics in Medicine
  17, method 10; in the form of Zou and Donner 2008, ibid. 27);
- means and quantiles (time, energy, tokens, money): by resampling questions, all answers to one together, with the spread
  widened as so few questions need (`intervals.widening`). Of a quantile about which so few questions say nothing, both ends are
  infinite.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner import front
from tuner.answers import Answers
from tuner.answers import read_answers
from tuner.errors import UserError
from tuner.intervals import TAIL
from tuner.intervals import Interval
from tuner.intervals import paired_difference_interval
from tuner.intervals import widening
from tuner.objectives import OBJECTIVES
from tuner.objectives import Amounts
from tuner.objectives import Objective
from tuner.records import TrialRecord
from tuner.results import Front
from tuner.results import evaluated
from tuner.rules import Choice
from tuner.rules import Rule
from tuner.rules import recommend
from tuner.spec import LoadedStudy
from tuner.store import Store
from tuner.tasks import Split
from workflows.config import Knob

Places = npt.NDArray[np.int64]

DRAWS = 4000
"""Resamples of the questions; the ends of an interval are then known to about 2 % of its length."""

SEED = 0

ALWAYS = ("accuracy", "latency_mean_s", "energy_wh", "tokens_total")
"""Compared beside a study's objectives and constraints, where they were measured."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One quantity of two configs on the same questions."""

    quantity: str
    first: float
    second: float
    value: float
    """`first` − `second`."""
    interval: Interval

    @property
    def better(self) -> str | None:
        """`first` or `second`; None where nothing measured tells them apart at this confidence."""
        low, high = self.interval
        if low <= 0.0 <= high:
            return None
        more = low > 0.0
        return "first" if more == (OBJECTIVES[self.quantity].direction == "maximize") else "second"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two things side by side."""

    first: str
    second: str
    n: int
    """Questions that both have answered."""
    differences: tuple[Difference, ...]
    configs: int = 1
    """Pairs of configs behind it, each on those questions."""


def difference(objective: Objective, first: Amounts, second: Amounts) -> Difference:
    """How much more the first has of a quantity, by (questions, answers) amounts of the same questions in the same order."""
    values = objective.of(first), objective.of(second)
    if objective.unit == "share":
        interval = paired_difference_interval(
            values[0],
            objective.interval(first),
            values[1],
            objective.interval(second),
            correlation=_correlation(first.mean(axis=1), second.mean(axis=1)),
        )
    else:
        interval = _resampled(objective, first, second)
    return Difference(objective.name, *values, values[0] - values[1], interval)


def _correlation(first: Amounts, second: Amounts) -> float:
    """Pearson's, which of right and wrong answers is φ; 0 where one does not vary.

    What is above 0 is moved towards it by Newcombe's correction: so few answers as make a difference narrow by chance would.
    """
    spread = float(first.std() * second.std())
    if spread == 0.0:
        return 0.0
    together = float(((first - first.mean()) * (second - second.mean())).mean())
    if together > 0.0:
        together = max(0.0, together - 1 / (2 * len(first)))
    return max(-1.0, min(1.0, together / spread))


def _resampled(objective: Objective, first: Amounts, second: Amounts) -> Interval:
    """By scipy's bootstrap over questions; unknown of a single question, and of a quantile that so few do not tell."""
    from scipy.stats import bootstrap

    questions = len(first)
    if questions < 2 or not _is_told(objective, questions):
        return -math.inf, math.inf
    if np.array_equal(first, second):
        return 0.0, 0.0

    def statistic(places: Amounts, axis: int) -> Amounts:
        chosen = np.moveaxis(places, axis, -1).astype(np.int64)
        both = (
            objective.summary(each[chosen].reshape(*chosen.shape[:-1], -1))
            for each in (first, second)
        )
        return np.asarray(next(both) - next(both))

    found = bootstrap(
        (np.arange(questions),),
        statistic,
        vectorized=True,
        n_resamples=DRAWS,
        method="percentile",
        rng=np.random.default_rng(SEED),
    )
    value, wider = objective.of(first) - objective.of(second), widening(questions)
    low, high = found.confidence_interval
    return value + wider * (float(low) - value), value + wider * (float(high) - value)


def _is_told(objective: Objective, questions: int) -> bool:
    """Whether so many questions have a quantile between their least and their largest amount, almost surely."""
    share = objective.quantile
    return share is None or max(share**questions, (1 - share) ** questions) <= TAIL


# Trials of one study


@dataclass(frozen=True, slots=True)
class Compared:
    """Trials, each beside the first of them."""

    split: Split
    trials: tuple[TrialRecord, ...]
    pairs: tuple[Pair, ...]


def compare_trials(
    study: LoadedStudy, store: Store, numbers: Sequence[int], split: Split | None = None
) -> Compared:
    """Each trial beside the first, on the questions that both have answered.

    Without a split, on the holdout questions where all have answered some, else on those of the search. Raises UserError for a
    trial that there is not, and for two without a question in common.
    """
    known = {trial.number: trial for trial in store.trials()}
    for number in numbers:
        if number not in known:
            last = f"0 to {max(known)}" if known else "none yet"
            raise UserError(f"there is no trial {number}", hint=f"trials of the study: {last}")
    trials = tuple(known[number] for number in numbers)
    names = _quantities(study)
    if split is None:
        answers = read_answers(store, "holdout", names)
        split = "holdout" if all(_own(t, known) in answers for t in trials) else "search"
    answers = read_answers(store, split, names)
    for trial in trials:
        if _own(trial, known) not in answers:
            raise UserError(
                f"trial {trial.number} has answered no {split} questions",
                hint="tuner front shows the trials with values; --split says on which questions to compare",
            )
    first, *others = trials
    pairs = tuple(
        _pair(
            f"trial {first.number}",
            f"trial {other.number}",
            answers[_own(first, known)],
            answers[_own(other, known)],
        )
        for other in others
    )
    return Compared(split, trials, pairs)


def _quantities(study: LoadedStudy) -> list[str]:
    return list(dict.fromkeys([*study.measured(), *ALWAYS]))


def _own(trial: TrialRecord, known: Mapping[int, TrialRecord]) -> int:
    """The id of the trial whose answers these are: a replay has those of the one that it repeats."""
    return trial.trial_id if trial.replay_of is None else known[trial.replay_of].trial_id


def _pair(first: str, second: str, one: Answers, other: Answers) -> Pair:
    common = sorted(set(one.questions) & set(other.questions))
    if not common:
        raise UserError(
            f"{first} and {second} have no question in common",
            hint="compare trials that were asked more: tuner front shows those with all questions",
        )
    a, b = one.on(common), other.on(common)
    return Pair(
        first,
        second,
        len(common),
        tuple(
            difference(OBJECTIVES[name], a.amounts[name], b.amounts[name])
            for name in a.amounts
            if name in b.amounts
        ),
    )


# Values of a knob, models among them, within one study


def compare_by(
    study: LoadedStudy, store: Store, knob: str, split: Split = "search"
) -> tuple[Pair, ...]:
    """Values of a knob beside each other, by configs that differ in nothing else: each question's mean over those configs.

    `model` is a knob like any other. Raises UserError for a knob that the study does not vary, and where no two configs differ
    in it alone.
    """
    answers = read_answers(store, split, _quantities(study))
    found: dict[tuple[object, ...], dict[Knob, Answers]] = defaultdict(dict)
    seen: set[str] = set()
    for trial in evaluated(store.trials()):
        if trial.config is None or trial.stopped is not None or trial.trial_id not in answers:
            continue
        knobs = {"workflow": trial.config.workflow, **study.knobs(trial.config)}
        seen |= knobs.keys()
        if knob in knobs:
            value = knobs.pop(knob)
            found[tuple(sorted(knobs.items()))][value] = answers[trial.trial_id]
    if knob not in seen:
        raise UserError(
            f"--by {knob}: the study does not vary it",
            hint=f"what its whole trials differ in: {', '.join(sorted(seen)) or 'none yet'}",
        )
    values = sorted({value for group in found.values() for value in group}, key=str)
    pairs = [
        pair
        for one, other in itertools.combinations(values, 2)
        if (pair := _averaged(knob, one, other, list(found.values()))) is not None
    ]
    if not pairs:
        raise UserError(
            f"--by {knob}: no two whole trials differ in it alone",
            hint="let the study search on, or compare trials: tuner compare STUDY TRIAL TRIAL",
        )
    return tuple(pairs)


def _averaged(
    knob: str, one: Knob, other: Knob, groups: Sequence[Mapping[Knob, Answers]]
) -> Pair | None:
    """Two values by all configs that were tried with both; None where there are none."""
    both = [(group[one], group[other]) for group in groups if one in group and other in group]
    if not both:
        return None
    common = sorted(set.intersection(*(set(each.questions) for pair in both for each in pair)))
    if not common:
        return None
    sides = [[each.on(common) for each in side] for side in zip(*both, strict=True)]
    differences = []
    for name in sides[0][0].amounts:
        if all(name in each.amounts for side in sides for each in side):
            # Answers of all configs to a question lie in a row: they are resampled together.
            first, second = (_side_by_side([each.amounts[name] for each in side]) for side in sides)
            differences.append(difference(OBJECTIVES[name], first, second))
    return Pair(f"{knob}={one}", f"{knob}={other}", len(common), tuple(differences), len(both))


def _side_by_side(amounts: Sequence[Amounts]) -> Amounts:
    """(questions, answers) of several configs, each weighing the same however often it was asked."""
    length = math.lcm(*(each.shape[1] for each in amounts))
    return np.concatenate([np.repeat(each, length // each.shape[1], axis=1) for each in amounts], 1)


# Studies


@dataclass(frozen=True, slots=True)
class Volume:
    """The hypervolume of a study's front in a frame that all studies compared share: 1 for the best of all in everything.

    The frame goes from the best to MARGIN beyond the worst, so that the best in one objective counts though it is the worst in others.
    """

    study: str
    value: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Studies:
    """Studies side by side."""

    split: Split
    """Of the recommended configs."""
    objectives: tuple[str, ...]
    """Those that all have, in which the volumes are measured."""
    choices: tuple[Choice, ...]
    pairs: tuple[Pair, ...]
    """Each study's recommended config beside the first's."""
    volumes: tuple[Volume, ...]
    volume_differences: tuple[tuple[float, Interval], ...]
    """Of the first study's volume and each other's."""


def compare_studies(studies: Sequence[LoadedStudy], stores: Sequence[Store], rule: Rule) -> Studies:
    """Each study's recommended config beside the first's, and how much of the common range their fronts hold.

    Raises UserError where their questions differ, where they have fewer than two objectives in common, and where one has nothing
    to recommend.
    """
    _require_same_questions(studies, stores)
    objectives = tuple(
        name
        for name in studies[0].spec.objectives
        if all(name in study.spec.objectives for study in studies)
    )
    if len(objectives) < 2:
        raise UserError(
            "the studies have fewer than two objectives in common: "
            + "; ".join(f"{s.spec.name}: {', '.join(s.spec.objectives)}" for s in studies),
            hint="compare studies of the same objectives",
        )
    choices = tuple(
        recommend(Front.read(study, store), rule)
        for study, store in zip(studies, stores, strict=True)
    )
    split: Split = (
        "holdout" if all(choice.point.split == "holdout" for choice in choices) else "search"
    )
    names = [name for name in _quantities(studies[0]) if _in_all(name, studies)]
    answers = [read_answers(store, split, names) for store in stores]
    labels = [
        f"{study.spec.name}/{choice.point.trial.number}"
        for study, choice in zip(studies, choices, strict=True)
    ]
    chosen = [of[choice.point.trial.trial_id] for of, choice in zip(answers, choices, strict=True)]
    pairs = tuple(
        _pair(labels[0], label, chosen[0], other)
        for label, other in zip(labels[1:], chosen[1:], strict=True)
    )
    volumes, differences = _volumes(studies, stores, objectives)
    return Studies(split, objectives, choices, pairs, volumes, differences)


def _in_all(name: str, studies: Sequence[LoadedStudy]) -> bool:
    return name in ALWAYS or all(name in study.measured() for study in studies)


def _require_same_questions(studies: Sequence[LoadedStudy], stores: Sequence[Store]) -> None:
    rows = [store.row() for store in stores]
    tasks = [None if row is None else row.fingerprint.get("task") for row in rows]
    for study, task in zip(studies[1:], tasks[1:], strict=True):
        if task is None or task != tasks[0]:
            raise UserError(
                f"{studies[0].spec.name} and {study.spec.name} were asked different questions: "
                "their tasks, options or data are not the same",
                hint="give both studies the same `task:`, with the same examples, holdout and seed",
            )


def _volumes(
    studies: Sequence[LoadedStudy], stores: Sequence[Store], objectives: Sequence[str]
) -> tuple[tuple[Volume, ...], tuple[tuple[float, Interval], ...]]:
    """By the whole trials within the constraints, on the search questions.

    Every resample asks the same questions of all studies. As the best of several resampled fronts is too good, intervals are
    turned round: what resampling adds is taken off (Davison and Hinkley 1997, chapter 5).
    """
    measured = [OBJECTIVES[name] for name in objectives]
    directions = [each.direction for each in measured]
    tables = [
        _whole(study, store, objectives) for study, store in zip(studies, stores, strict=True)
    ]
    for study, table in zip(studies, tables, strict=True):
        if not table:
            raise UserError(
                f"{study.spec.name} has no trial that was asked all questions",
                hint="let it search on: tuner run STUDY",
            )
    questions = len(tables[0][0][objectives[0]])
    indices = front.resample_indices(questions, 200, SEED)

    def values(table: Sequence[Mapping[str, Amounts]], places: Places | None) -> front.Floats:
        columns = [
            [
                each.of(of[each.name])
                if places is None
                else each.summary(of[each.name][places].reshape(len(places), -1))
                for each in measured
            ]
            for of in table
        ]
        found = np.array(columns, dtype=np.float64)
        return front.oriented(found if places is None else found.transpose(2, 0, 1), directions)

    seen = [values(table, None) for table in tables]
    low = np.min([each.min(axis=0) for each in seen], axis=0)
    high = np.max([each.max(axis=0) for each in seen], axis=0)
    span = np.where(high > low, high - low, 1.0) * (1 + front.MARGIN)
    corner = np.ones(len(objectives))

    def volume(each: front.Floats) -> float:
        return front.hypervolume((each - low) / span, corner)

    held = [volume(each) for each in seen]
    drawn = np.array([[volume(draw) for draw in values(table, indices)] for table in tables])
    volumes = tuple(
        Volume(study.spec.name, value, _turned(value, draws))
        for study, value, draws in zip(studies, held, drawn, strict=True)
    )
    differences = tuple(
        (held[0] - value, _turned(held[0] - value, drawn[0] - draws))
        for value, draws in zip(held[1:], drawn[1:], strict=True)
    )
    return volumes, differences


def _turned(value: float, draws: front.Floats) -> Interval:
    least, most = np.quantile(draws, [TAIL, 1 - TAIL])
    return 2 * value - float(most), 2 * value - float(least)


def _whole(
    study: LoadedStudy, store: Store, objectives: Sequence[str]
) -> list[Mapping[str, Amounts]]:
    """Of each whole trial within the constraints, what it took on every question, in the order of their ids."""
    answers = read_answers(store, "search", objectives)
    questions = study.task_options.examples
    return [
        answers[trial.trial_id].amounts
        for trial in evaluated(store.trials())
        if trial.feasible and trial.stopped is None and trial.trial_id in answers
        if len(answers[trial.trial_id].questions) == questions
        if all(name in answers[trial.trial_id].amounts for name in objectives)
    ]
