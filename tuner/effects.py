"""Which knobs matter, and what each value of a knob does to every objective.

Apart from `results`, which compares configs: here they are taken apart into their knobs. Every config tells something
of each of its values, so much may be known of a knob where little is known of any one config.

objective = level + a term for each knob that the config has + what is the config's own

Importance is Optuna's: what decides whether a config is among the best in an objective (PED-ANOVA, Watanabe et al.,
IJCAI 2023, arXiv 2304.10255; in its conditional form, arXiv 2601.20800, for knobs that only some configs have).
"""

import math
import warnings
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tuner.errors import UserError
from tuner.front import Floats
from tuner.front import resample_indices
from tuner.objectives import OBJECTIVES
from tuner.objectives import Objective
from tuner.records import TrialRecord
from tuner.results import evaluated
from tuner.sample import DRAWS
from tuner.sample import SEED
from tuner.spec import LoadedStudy
from tuner.store import Store
from workflows.config import Knob

FEWEST_CONFIGS = 8
"""Below so many evaluated configs nothing is said of knobs."""

MOST_VALUES = 12
"""A number that was tried with more values than this is looked at in RANGES of them, equally many configs in each."""

RANGES = 4

BEST_SHARE, BEST_CONFIGS = 0.1, 5
"""Importance is about being among this share of the configs; or among so many, which PED-ANOVA needs."""

RATIOS = np.geomspace(1e-2, 1e2, 17)
"""Of the variance of knobs' terms to that of configs' own parts; each is as likely as the others beforehand."""

Z = 1.959964
"""Standard errors from an estimate to the end of its 95 % interval."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What one value of a knob does, against the average over the knob's values, the other knobs being equal."""

    value: Knob
    """`low–high` where it is a range of values."""
    effect: float
    """A difference or a ratio, as `ObjectiveEffects.scale` says."""
    interval: tuple[float, float]
    """95 %, for other questions of the task and other configs of the space."""
    configs: int
    answers: int


@dataclass(frozen=True, slots=True)
class KnobEffects:
    """One knob, by its flat name: `workflow`, `react.max_steps`."""

    knob: str
    importance: float | None
    """Its share of what makes configs the best in the objective, 0 … 1; None where none are better than the rest."""
    values: tuple[Effect, ...]
    """In ascending order."""


@dataclass(frozen=True, slots=True)
class ObjectiveEffects:
    """What the knobs do to one objective, the most important knob first; no knobs where all configs are alike in it."""

    objective: str
    scale: Literal["difference", "ratio"]
    """Ratio where every answer took more than nothing (seconds, joules); shares differ by differences."""
    configs: int
    answers: int
    knobs: tuple[KnobEffects, ...]


@dataclass(frozen=True, slots=True)
class Factor:
    """A knob that was tried with several values, and which config has which."""

    name: str
    values: tuple[Knob, ...]
    codes: npt.NDArray[np.int64]
    """(configs,): the place of its value in `values`, -1 for a config that does not have the knob."""
    is_ordered: bool

    def basis(self) -> Floats:
        """(values, values - 1): independent terms to the values' terms, which add up to zero and vary by 1 on average.

        Those of ordered values are a random walk, so that neighbours are alike; others are exchangeable.
        """
        count = len(self.values)
        steps = np.arange(1.0, count + 1)
        covariance = np.minimum.outer(steps, steps) if self.is_ordered else np.eye(count)
        centring = np.eye(count) - 1 / count
        covariance = centring @ covariance @ centring
        variances, vectors = np.linalg.eigh(covariance / np.diag(covariance).mean())
        return np.asarray(
            vectors[:, 1:] * np.sqrt(variances[1:])
        )  # ascending: the first is the sum's

    def features(self) -> Floats:
        """(configs, values - 1): the basis at each config's value."""
        return np.where(self.codes[:, None] >= 0, self.basis()[self.codes], 0.0)


@dataclass(frozen=True, slots=True)
class Terms:
    """A factor's terms, one for each of its values, and their standard errors."""

    factor: Factor
    terms: Floats
    errors: Floats


def read_effects(study: LoadedStudy, store: Store) -> tuple[ObjectiveEffects, ...]:
    """What the knobs do to each objective of a study, by the search questions.

    Every trial with values counts, as much as it has answers to different questions: also one that was derived,
    stopped early, or infeasible. Raises UserError when they are fewer than FEWEST_CONFIGS.
    """
    trials = {trial.trial_id: trial for trial in evaluated(store.trials())}
    if len(trials) < FEWEST_CONFIGS:
        raise UserError(
            f"evaluated configs: {len(trials)}; fewer than {FEWEST_CONFIGS} say nothing of knobs",
            hint="tuner status shows how far the study is",
        )
    asked = store.asked("search")
    return tuple(
        _effects(study, trials, _amounts(store, asked, OBJECTIVES[name]), OBJECTIVES[name])
        for name in study.spec.objectives
    )


def _amounts(
    store: Store, asked: Mapping[int, Sequence[tuple[str, int]]], objective: Objective
) -> dict[int, Floats]:
    """Each trial's amounts by question, of first answers; NaN where a question was not asked.

    A trial for which one was not measured is left out.
    """
    places = {
        example: n
        for n, example in enumerate(sorted({e for rows in asked.values() for e, _ in rows}))
    }
    found = {}
    for trial_id, rows in store.fields("search", objective.fields).items():
        amounts = objective.amounts(*rows.T)
        if not np.isnan(amounts).any():
            row = np.full(len(places), np.nan)
            for (example, repeat), amount in zip(asked[trial_id], amounts, strict=True):
                if repeat == 0:
                    row[places[example]] = amount
            found[trial_id] = row
    return found


def _effects(
    study: LoadedStudy,
    trials: Mapping[int, TrialRecord],
    known: Mapping[int, Floats],
    objective: Objective,
) -> ObjectiveEffects:
    configs = [
        (config, known[trial_id])
        for trial_id, trial in trials.items()
        if trial_id in known and (config := trial.config) is not None
    ]
    if len(configs) < FEWEST_CONFIGS:
        return ObjectiveEffects(objective.name, "difference", len(configs), 0, ())
    amounts = np.array([row for _, row in configs])
    answers = (~np.isnan(amounts)).sum(axis=1)
    is_ratio = objective.unit != "share" and bool((amounts[~np.isnan(amounts)] > 0).all())
    figures = _figures(objective, amounts, logarithmic=is_ratio)
    knobs = []
    if np.ptp(figures[0]) > 0:
        flats = [study.space.flat(config, study.models) for config, _ in configs]
        sign = -1.0 if objective.direction == "maximize" else 1.0
        importances = _importances(study, flats, sign * figures[0])
        found = terms_of(factors_of(flats), figures, answers / answers.max())
        # Knobs that nothing is decided by come in the order of what they change.
        found.sort(
            key=lambda each: (importances.get(each.factor.name, 0.0), np.ptp(each.terms)),
            reverse=True,
        )
        knobs = [
            KnobEffects(
                each.factor.name,
                importances.get(each.factor.name),
                tuple(_effects_of(each, answers, is_ratio)),
            )
            for each in found
        ]
    return ObjectiveEffects(
        objective=objective.name,
        scale="ratio" if is_ratio else "difference",
        configs=len(configs),
        answers=int(answers.sum()),
        knobs=tuple(knobs),
    )


def _effects_of(found: Terms, answers: npt.NDArray[np.int64], is_ratio: bool) -> Iterator[Effect]:
    for code, value in enumerate(found.factor.values):
        centre, half = float(found.terms[code]), Z * float(found.errors[code])
        figures = (centre, centre - half, centre + half)
        effect, low, high = map(math.exp, figures) if is_ratio else figures
        own = answers[found.factor.codes == code]
        yield Effect(value, effect, (low, high), configs=len(own), answers=int(own.sum()))


def _figures(objective: Objective, amounts: Floats, *, logarithmic: bool) -> Floats:
    """(1 + DRAWS, configs): the objective of each config over all questions, then over resamples of them, the same for all.

    A config that was asked only some questions is set right by how the configs that were asked all differ
    between those and all: what is left of it is not that its questions were easy.
    """

    def summary(rows: Floats) -> Floats:
        values = objective.summary(rows)
        return np.log(values) if logarithmic else values

    answered = ~np.isnan(amounts)
    whole = amounts[answered.all(axis=1)]
    count = amounts.shape[1]
    picks = np.vstack([np.arange(count), resample_indices(count, DRAWS, SEED)])
    figures = np.empty((len(picks), len(amounts)))
    for asked in np.unique(answered, axis=0):
        rows = (answered == asked).all(axis=1)
        for draw, places in enumerate(picks):
            kept = places[asked[places]]
            if not len(kept):
                kept = np.flatnonzero(asked)
            figures[draw, rows] = summary(amounts[rows][:, kept])
            if len(whole) and not asked.all():
                figures[draw, rows] += (summary(whole[:, places]) - summary(whole[:, kept])).mean()
    return figures


# Importance


def _importances(
    study: LoadedStudy, flats: Sequence[Mapping[str, Knob]], losses: Floats
) -> dict[str, float]:
    """Optuna's importances of the knobs, which add up to 1; none where the best are no better than the rest."""
    import optuna

    share = max(BEST_SHARE, min(0.5, BEST_CONFIGS / len(losses)))
    if np.sort(losses)[math.ceil(share * len(losses)) - 1] == losses.max():
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # A study of its own: told of one objective, and of no trial that replays another or failed.
    told = optuna.create_study(direction="minimize")
    for flat, loss in zip(flats, losses, strict=True):
        trial = optuna.trial.FixedTrial(dict(flat))
        study.space.sample(trial, study.models)
        told.add_trial(
            optuna.trial.create_trial(
                value=float(loss), params=trial.params, distributions=trial.distributions
            )
        )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=share)
    with warnings.catch_warnings():
        # That few configs have a knob; each effect says how many.
        warnings.filterwarnings("ignore", "Some regimes for parameter")
        return optuna.importance.get_param_importances(told, evaluator=evaluator)


# Effects


def factors_of(flats: Sequence[Mapping[str, Knob]]) -> list[Factor]:
    """The knobs that were tried with several values, from each config's knobs by name."""
    factors = []
    for name in dict.fromkeys(name for flat in flats for name in flat):
        seen = {flat[name] for flat in flats if name in flat}
        numbers = all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in seen
        )
        values = sorted(seen, key=lambda value: value if numbers else str(value))
        if len(values) < 2:
            continue
        places = {value: code for code, value in enumerate(values)}
        codes = np.array([places[flat[name]] if name in flat else -1 for flat in flats])
        if numbers and len(values) > MOST_VALUES:
            values, codes = _in_ranges(values, codes)
        factors.append(Factor(name, tuple(values), codes, is_ordered=numbers))
    return factors


def _in_ranges(
    values: Sequence[Knob], codes: npt.NDArray[np.int64]
) -> tuple[list[Knob], npt.NDArray[np.int64]]:
    """Ranges of ascending numbers, about equally many configs in each, and which config is in which."""
    has = codes >= 0
    ends = np.quantile(codes[has], np.arange(1, RANGES) / RANGES)
    parts = np.searchsorted(np.unique(ends), codes, side="left")
    kept = np.unique(parts[has])
    inside = [codes[has & (parts == part)] for part in kept]
    labels: list[Knob] = [
        f"{_short(values[part.min()])}–{_short(values[part.max()])}" for part in inside
    ]
    return labels, np.where(has, np.searchsorted(kept, parts), -1)


def _short(value: Knob) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def terms_of(factors: Sequence[Factor], figures: Floats, weights: Floats) -> list[Terms]:
    """What each value of each factor does, by a linear model with random terms.

    `figures` is (1 + draws, configs): the configs' values, and the same with the questions resampled; `weights`
    (configs,) is how much each config counts. Terms are drawn from one normal distribution and configs' own parts
    from another. For each ratio of their variances, terms are predicted by their posterior mean (Robinson,
    Statistical Science 6, 1991), whose error has three parts: what resampling the questions changes in it, what
    other configs would have changed, and what shrinkage hides where little was seen. Ratios are averaged by
    their restricted likelihood.
    """
    root = np.sqrt(weights)[:, None]

    def centred(columns: Floats) -> Floats:
        return np.asarray(root * (columns - np.average(columns, axis=0, weights=weights)))

    inputs = centred(np.hstack([factor.features() for factor in factors]))
    outputs = centred(figures.T)
    left, scales, right = np.linalg.svd(inputs, full_matrices=False)
    shares, variances = _likelihoods(left.T @ outputs[:, 0], outputs[:, 0], scales)
    means, covariances = [], []
    for ratio, own in zip(RATIOS, variances, strict=True):
        gain = right.T * (scales / (scales**2 + 1 / ratio)) @ left.T
        found = gain @ outputs
        change = found[:, 1:] - found[:, :1]
        moved = outputs[:, 1:] - outputs[:, :1] - inputs @ change
        # What resampling moves in configs' own parts is there already, with the questions.
        beyond = max(0.0, own - float(moved.var(axis=1).mean()))
        hidden = np.eye(len(gain)) - gain @ inputs
        means.append(found[:, 0])
        covariances.append(
            change @ change.T / change.shape[1]
            + beyond * gain @ gain.T
            + own * ratio * hidden @ hidden.T
        )
    mean = np.average(means, axis=0, weights=shares)
    covariance = np.average(covariances, axis=0, weights=shares) + np.cov(
        np.transpose(means), aweights=shares, ddof=0
    )
    terms, start = [], 0
    for factor in factors:
        basis = factor.basis()
        part = slice(start, start + basis.shape[1])
        start = part.stop
        errors = np.sqrt(np.einsum("ij,jk,ik->i", basis, covariance[part, part], basis))
        terms.append(Terms(factor, basis @ mean[part], errors))
    return terms


def _likelihoods(along: Floats, outputs: Floats, scales: Floats) -> tuple[Floats, Floats]:
    """For each of RATIOS its share of the restricted likelihood, and the variance of configs' own parts under it.

    `along` are the centred outputs in the directions of the design, whose singular values are `scales`.
    """
    beside = max(0.0, float(outputs @ outputs - along @ along))
    freedom = len(outputs) - 1
    spread = 1.0 + RATIOS[:, None] * scales**2
    own = ((along**2 / spread).sum(axis=1) + beside) / freedom
    likelihood = -0.5 * (freedom * np.log(own) + np.log(spread).sum(axis=1))
    shares = np.exp(likelihood - likelihood.max())
    return shares / shares.sum(), own
