"""The pooled sampler: spends by the question, guided by one surrogate of each objective that all configs share.

until the budget is spent:
    fit a Bayesian linear model over knobs and pairs of knobs to every question answered so far, one for each
        objective: accuracy in logits, what it costs in logarithms; a config's own deviation is part of it
    draw each model once; take the draw's front over the whole space
    give a block of questions to a config of that front that has not had all of them

A posterior draw decides where doubt is worth a look (Thompson 1933; for fronts Bradford et al., J. Glob. Optim. 2018).
A few questions on many configs inform each other, which means per config throw away. Apart from the other
samplers, which are Optuna's and propose whole trials.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve
from scipy.linalg import solve_triangular

from tuner.condition import Condition
from tuner.front import MOST_NEAR
from tuner.front import NEAR
from tuner.front import adding_most
from tuner.front import non_dominated
from tuner.objectives import Objective

if TYPE_CHECKING:
    import optuna

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Knob = bool | int | float | str
Flat = Mapping[str, Knob]
"""A config's knobs by their flat names: `workflow`, `model`, `react.max_steps`."""

BLOCK = 6
"""Questions given at once."""

SHOWN_AFTER = 6
"""Questions that a config must have had before it is shown on a front."""

FIRST_CONFIGS = 12
"""Configs drawn at random before the model is asked: of all workflows as many, of those that differ in their budget the largest."""

STRETCH = 3.0
"""A larger budget is run in a config's place if a question takes so many times as long at most: it tells of both."""

FEATURES = 70
"""At most so many directions of single knobs, and so many of pairs; what others add is left to a config's deviation."""

ENCODED_ON = 1500
"""Candidates that those directions are chosen by."""

FITTED_ON = 150
"""Configs that the scales of the model are fitted on, drawn anew each time."""

GROWTH = 1.15
"""The scales are fitted anew when so many times as many configs have been seen."""

DRAWS_TRIED = 4
"""Draws whose front has had all its questions before the last front is finished instead."""

CHEAP = 0.5
"""A config of the draw's front is picked by its seconds per question to the power of minus this."""

DRAWS = 32
"""Draws by which configs are judged that may be on the front."""

ADDS = 0.005
"""Share of the hypervolume that a config has to add to be worth all its questions."""

_SCALES = [
    (main, pair, own)
    for main in (0.5, 1.0, 2.0, 4.0)
    for pair in (0.05, 0.2, 0.8)
    for own in (0.01, 0.05, 0.2)
]
"""Variances of single knobs, of pairs and of a config's own deviation, as shares of the variance seen."""

_LEVEL = 25.0
"""Variance of the overall level, likewise: nothing is known of it."""


def make(seed: int) -> "optuna.samplers.BaseSampler":
    """What Optuna has for a sampler meanwhile: every trial is enqueued with its config, so it is asked for nothing."""
    import optuna

    return optuna.samplers.RandomSampler(seed=seed)


@dataclass(frozen=True, slots=True)
class Block:
    """Questions, by their place in the study's order, that a config is to be given next."""

    config: int
    """Its place among the candidates."""
    questions: tuple[int, ...]


class Pool:
    """The candidates of a study with what is known of them."""

    def __init__(
        self,
        candidates: Sequence[Flat],
        objectives: Sequence[Objective],
        *,
        questions: int,
        seed: int,
        optimised: int | None = None,
        cost: int | None = None,
        bounds: Mapping[int, Condition] | None = None,
        covered_by: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Encode the candidates, which takes seconds for 100,000.

        The first `optimised` objectives (all by default) make the front; objective `cost` is what a question of a
        config takes; `bounds` are constraints on objectives, by place. `covered_by[i]` are the candidates whose
        runs cover candidate i at no cost: those with larger budgets.
        """
        self._objectives = tuple(objectives)
        self._optimised = len(objectives) if optimised is None else optimised
        self._signs = np.array(
            [
                -1.0 if each.direction == "maximize" else 1.0
                for each in objectives[: self._optimised]
            ]
        )
        self._cost = cost
        self._bounds = dict(bounds or {})
        self._questions = questions
        self._seed = seed
        self._covered_by = covered_by or [()] * len(candidates)
        self._is_covered = np.array(
            [len(larger) > 0 for larger in self._covered_by], dtype=np.bool_
        )
        workflows = [str(flat.get("workflow")) for flat in candidates]
        self._workflow = np.unique(workflows, return_inverse=True)[1]
        basis, group = encode(candidates)
        self._surfaces = [_Surface(basis, group, each, questions) for each in objectives]
        self._answered = np.zeros((len(candidates), questions), dtype=np.bool_)
        self._excluded = np.zeros(len(candidates), dtype=np.bool_)
        self._first = self._first_questions()
        self._fitted_at = 0
        self._is_stale = False

    def observe(self, config: int, amounts: Floats) -> None:
        """All that is known of a candidate: (questions, objectives), NaN where a question was not answered."""
        answered = ~np.isnan(amounts).any(axis=1)
        if not answered.any():
            return
        self._answered[config] = answered
        for surface, column in zip(self._surfaces, amounts[answered].T, strict=True):
            surface.observe(config, column)
        self._is_stale = True

    def is_excluded(self, config: int) -> bool:
        """Whether a candidate cannot be run."""
        return bool(self._excluded[config])

    def begin(self, config: int) -> Block:
        """The next questions of a candidate."""
        return self._block(config, self._answered)

    def exclude(self, config: int) -> None:
        """Never propose a candidate again: it cannot be run."""
        self._excluded[config] = True

    def propose(
        self,
        step: int,
        *,
        among: npt.NDArray[np.bool_] | None = None,
        busy: Mapping[int, Sequence[int]] | None = None,
    ) -> Block | None:
        """What to run next; None when nothing is left that may be on the front, or nothing until the `busy` have answered.

        The same for the same observations and `step`. Candidates that `among` leaves out have to wait. `busy` are
        questions that others are giving at the moment, by config: they are not given twice.
        """
        rng = np.random.default_rng([self._seed, step])
        given = self._answered.copy()
        for config, questions in (busy or {}).items():
            given[config, list(questions)] = True
        open_ = ~given.all(axis=1) & ~self._excluded
        if among is not None:
            open_ &= among
        if not open_.any():
            return None
        tried = np.asarray(given.any(axis=1))
        # Smaller budgets have answers without being run.
        untried = open_ & ~tried
        is_first = (tried & ~self._is_covered).sum() < FIRST_CONFIGS
        # Where the largest of all families have been tried the model has enough to go by.
        if is_first and ((untried & ~self._is_covered).any() or not tried.any()):
            return self._block(self._first_config(untried, tried, rng), given)
        if not self._answered.any():
            return None  # all that is left are smaller budgets of what is busy, which has their answers too
        self._refresh()
        for _ in range(DRAWS_TRIED):
            values = np.stack([surface.draw(rng) for surface in self._surfaces], axis=1)
            front = self._front(values)
            front = front[open_[front]]
            if len(front):
                picked = self._stretched(self._pick(front, values, rng), values, open_)
                return self._block(picked, given)
        lacking = [config for config in self.front() if open_[config]]
        return self._block(lacking[0], given) if lacking else None

    def estimates(self) -> Floats:
        """(candidates, objectives): what each is expected to come to over all questions, by its own answers and the others'."""
        self._refresh()
        columns = [surface.natural(surface.mean()) for surface in self._surfaces]
        return np.stack(columns, axis=1)

    def front(self, least: int = SHOWN_AFTER) -> Ints:
        """The candidates with `least` answers or more that no other of them is expected to dominate."""
        known = self._known(least)
        if not len(known):
            return known
        self._refresh()
        values = np.stack([surface.mean() for surface in self._surfaces], axis=1)
        return known[self._front(values[known])]

    def near(self, least: int = SHOWN_AFTER) -> Ints:
        """Candidates that others are expected to dominate, perhaps wrongly; the likeliest members of the front first."""
        known = self._known(least)
        if not len(known):
            return known
        draws = self._draws(known)
        shares = np.zeros(len(known))
        for draw in draws:
            shares[self._front(draw)] += 1 / len(draws)
        others = np.flatnonzero((shares >= NEAR) & ~np.isin(known, self.front(least)))
        return known[others[np.argsort(-shares[others], kind="stable")][:MOST_NEAR]]

    def best(self, least: int = SHOWN_AFTER) -> Ints:
        """The candidates that together are expected to hold nearly all of the front's hypervolume, what adds most first."""
        known = self._known(least)
        if not len(known):
            return known
        draws = self._draws(known)
        means = np.stack([surface.mean()[known] for surface in self._surfaces], axis=1)
        within = np.flatnonzero(self._excess(means) <= 0)
        if not len(within):
            return self.front(least)
        columns = [
            self._signs[k] * self._surfaces[k].natural(draws[:, within, k])
            for k in range(self._optimised)
        ]
        return known[within[adding_most(np.stack(columns, axis=2), ADDS)]]

    def _known(self, least: int) -> Ints:
        least = min(least, self._questions)
        return np.flatnonzero((self._answered.sum(axis=1) >= least) & ~self._excluded)

    def _draws(self, configs: Ints) -> Floats:
        """(draws, configs, objectives) on the surfaces' scales; the same for the same observations."""
        self._refresh()
        rng = np.random.default_rng([self._seed, int(self._answered.sum())])
        return np.stack(
            [
                np.stack([surface.draw(rng, configs) for surface in self._surfaces], axis=1)
                for _ in range(DRAWS)
            ]
        )

    def _first_questions(self) -> Ints:
        """Where in the order each config begins: families together, so that their runs cover the same questions.

        Others begin elsewhere: were the first questions the same for all, what is odd about those few would
        look like a trait of every config.
        """
        rng = np.random.default_rng(self._seed)
        first = rng.integers(self._questions, size=len(self._answered))
        for config, larger in enumerate(self._covered_by):
            if larger:
                first[config] = first[max(larger)]
        return first

    def _first_config(
        self, untried: npt.NDArray[np.bool_], tried: npt.NDArray[np.bool_], rng: np.random.Generator
    ) -> int:
        """One of a workflow that was tried least: workflows with many knobs have most of the candidates."""
        largest = untried & ~self._is_covered
        left = np.flatnonzero(largest if largest.any() else untried)
        counts = np.bincount(self._workflow[tried & ~self._is_covered], minlength=len(tried))
        least = left[counts[self._workflow[left]] == counts[self._workflow[left]].min()]
        workflow = rng.choice(np.unique(self._workflow[least]))
        return int(rng.choice(least[self._workflow[least] == workflow]))

    def _block(self, config: int, given: npt.NDArray[np.bool_]) -> Block:
        order = (np.arange(self._questions) + self._first[config]) % self._questions
        waiting = order[~given[config, order]]
        return Block(config, tuple(int(question) for question in waiting[:BLOCK]))

    def _refresh(self) -> None:
        if not self._is_stale:
            return
        seen = int(self._answered.any(axis=1).sum())
        is_due = seen >= self._fitted_at * GROWTH + 1
        rng = np.random.default_rng([self._seed, seen])
        for surface in self._surfaces:
            surface.refresh(rng if is_due else None)
        if is_due:
            self._fitted_at = seen
        self._is_stale = False

    def _front(self, values: Floats) -> Ints:
        """Places of the rows that no other dominates, among those within the bounds where there are any."""
        excess = self._excess(values)
        allowed = np.flatnonzero(excess <= 0)
        if not len(allowed):
            return np.array([int(np.argmin(excess))])
        oriented = values[allowed, : self._optimised] * self._signs
        return allowed[_fast_non_dominated(oriented)]

    def _excess(self, values: Floats) -> Floats:
        """By how much each row breaks its bounds, on the surfaces' scales; 0 or less within all."""
        excess = np.full(len(values), -1.0)
        for place, bound in self._bounds.items():
            limit = self._surfaces[place].scaled(float(bound.value))
            over = values[:, place] - limit if bound.sign == "<=" else limit - values[:, place]
            excess = np.maximum(excess, over)
        return excess

    def _pick(self, front: Ints, values: Floats, rng: np.random.Generator) -> int:
        if self._cost is None:
            return int(rng.choice(front))
        weights = np.exp(-CHEAP * (values[front, self._cost] - values[front, self._cost].min()))
        return int(rng.choice(front, p=weights / weights.sum()))

    def _stretched(self, config: int, values: Floats, open_: npt.NDArray[np.bool_]) -> int:
        """The config, or the largest budget that it is worth to be run with: its checkpoints tell of all smaller ones."""
        if self._cost is None:
            return config
        dearest = values[config, self._cost] + np.log(STRETCH)
        larger = (each for each in reversed(self._covered_by[config]) if open_[each])
        return next((each for each in larger if values[each, self._cost] <= dearest), config)


@dataclass(frozen=True, slots=True)
class _Fit:
    """The model under given scales: its coefficients' mean, a root of their precision, the variance of own deviations."""

    root: Floats
    mean: Floats
    own: float


class _Surface:
    """One objective over the candidates: level + knobs + pairs of knobs + each config's own deviation.

    Shares are modelled in logits, other amounts in logarithms: there knobs add up, and noise is the same everywhere.
    """

    def __init__(self, basis: Floats, group: Ints, objective: Objective, questions: int) -> None:
        self._basis = basis
        self._group = group
        self._objective = objective
        self._is_share = objective.unit == "share"
        self._questions = questions
        self._chances = np.full(len(_SCALES), 1 / len(_SCALES))
        """Of each of _SCALES, how likely it is."""
        self._fits: dict[int, _Fit] = {}
        self._place = np.full(len(basis), -1)
        """Of a candidate, where it stands in what follows; -1 where nothing was observed of it."""
        self._configs: list[int] = []
        self._n: list[int] = []
        self._centre: list[float] = []
        """Of a config: the mean score, or the mean logarithm."""
        self._whole: list[float] = []
        """Of a config: the logarithm of the objective over its answers."""
        self._residuals: list[Floats] = []

    def observe(self, config: int, amounts: Floats) -> None:
        """The amounts of all answered questions of a config."""
        if self._is_share:
            entry = (len(amounts), float(amounts.mean()), 0.0, amounts[:0])
        else:
            logs = np.log(np.maximum(amounts, np.finfo(float).tiny))
            whole = max(float(self._objective.summary(amounts)), np.finfo(float).tiny)
            entry = (len(amounts), float(logs.mean()), float(np.log(whole)), logs - logs.mean())
        columns = (self._n, self._centre, self._whole, self._residuals)
        place = self._place[config]
        if place < 0:
            self._place[config] = len(self._configs)
            self._configs.append(config)
            for column, value in zip(columns, entry, strict=True):
                column.append(value)  # type: ignore[attr-defined]
        else:
            for column, value in zip(columns, entry, strict=True):
                column[place] = value  # type: ignore[index]

    def refresh(self, rng: np.random.Generator | None) -> None:
        """Fit the model to what was observed; its scales too where there is a generator to draw configs with."""
        self._at = np.array(self._configs)
        values, self._noise = self._shares() if self._is_share else self._costs()
        self._spread = max(float(values.var()), 0.05)
        weights = 1.0 / (self._noise + 0.1 * self._spread)
        self._level = float(np.average(values, weights=weights))
        self._values = values - self._level
        if rng is not None:
            self._weigh_scales(rng)
        self._fits = {}

    def _fit(self, scales: int) -> "_Fit":
        """The model under one of _SCALES, kept until more is observed."""
        if scales not in self._fits:
            main, pair, own = _SCALES[scales]
            prior = self._spread * np.array([_LEVEL, main, pair])[self._group]
            rows = self._basis[self._at]
            weights = 1.0 / (own * self._spread + self._noise)
            precision = (rows * weights[:, None]).T @ rows
            precision[np.diag_indices_from(precision)] += 1.0 / prior
            root = np.linalg.cholesky(precision)
            mean = cho_solve((root, True), rows.T @ (weights * self._values))
            self._fits[scales] = _Fit(root, mean, own * self._spread)
        return self._fits[scales]

    def draw(self, rng: np.random.Generator, configs: Ints | None = None) -> Floats:
        """One draw for these candidates, or for all, own deviations included, on the model's scale.

        The scales are drawn too: what was seen first may well show nothing of what knobs do together.
        """
        fit = self._fit(int(rng.choice(len(_SCALES), p=self._chances)))
        noise = rng.standard_normal(len(fit.mean))
        coefficients = fit.mean + solve_triangular(fit.root, noise, lower=True, trans="T")
        basis, place = self._basis, self._place
        if configs is not None:
            basis, place = basis[configs], place[configs]
        drawn = np.asarray(basis @ coefficients)
        own = rng.standard_normal(len(drawn)) * np.sqrt(fit.own)
        seen = np.flatnonzero(place >= 0)
        at = place[seen]
        trust = fit.own / (fit.own + self._noise[at])
        own[seen] = trust * (self._values[at] - drawn[seen]) + own[seen] * np.sqrt(1 - trust)
        return np.asarray(drawn + own + self._level)

    def mean(self) -> Floats:
        """The expectation of every candidate under the likeliest scales, on the model's scale."""
        fit = self._fit(int(self._chances.argmax()))
        expected = np.asarray(self._basis @ fit.mean)
        trust = fit.own / (fit.own + self._noise)
        expected[self._at] += trust * (self._values - expected[self._at])
        return np.asarray(expected + self._level)

    def natural(self, values: Floats) -> Floats:
        """From the model's scale to the objective's unit."""
        return 1.0 / (1.0 + np.exp(-values)) if self._is_share else np.exp(values)

    def scaled(self, value: float) -> float:
        """From the objective's unit to the model's scale."""
        if not self._is_share:
            return float(np.log(max(value, np.finfo(float).tiny)))
        share = min(max(value, 1e-6), 1 - 1e-6)
        return float(np.log(share / (1 - share)))

    def _shares(self) -> tuple[Floats, Floats]:
        """Logits and their variances, each config with one answer more, which is right as often as answers are in all."""
        n, mean = np.array(self._n, dtype=float), np.array(self._centre)
        overall = float(np.clip(np.average(mean, weights=n), 0.02, 0.98))
        share = (n * mean + overall) / (n + 1)
        return np.log(share / (1 - share)), 1.0 / ((n + 1) * share * (1 - share))

    def _costs(self) -> tuple[Floats, Floats]:
        """Logarithms of the objective and their variances.

        Of few answers a quantile or a mean of skewed amounts says little, and a mean logarithm much: so the
        objective is that of all residuals put at the config's centre, until all questions are answered.
        """
        n = np.array(self._n, dtype=float)
        residuals = np.concatenate(self._residuals)
        variance = float((residuals**2).sum() / max(1.0, (n - 1).sum())) + 1e-6
        shift = float(np.log(self._objective.summary(np.exp(residuals))))
        whole = n / self._questions
        values = (1 - whole) * (np.array(self._centre) + shift) + whole * np.array(self._whole)
        return values, variance / n

    def _weigh_scales(self, rng: np.random.Generator) -> None:
        """How likely each of the scales is by what was seen."""
        count = len(self._at)
        some = rng.choice(count, min(count, FITTED_ON), replace=False)
        rows, values, noise = self._basis[self._at[some]], self._values[some], self._noise[some]
        level, main, pair = (
            rows[:, self._group == each] @ rows[:, self._group == each].T for each in range(3)
        )

        def likelihood(scales: tuple[float, float, float]) -> float:
            covariance = self._spread * (_LEVEL * level + scales[0] * main + scales[1] * pair)
            covariance[np.diag_indices_from(covariance)] += self._spread * scales[2] + noise
            root = np.linalg.cholesky(covariance)
            scaled = solve_triangular(root, values, lower=True)
            return float(-0.5 * scaled @ scaled - np.log(np.diag(root)).sum())

        found = np.array([likelihood(scales) for scales in _SCALES])
        chances = np.exp(found - found.max())
        self._chances = chances / chances.sum()


def encode(candidates: Sequence[Flat]) -> tuple[Floats, Ints]:
    """(candidates, features) and the group of each feature: 0 the level, 1 single knobs, 2 pairs of them.

    Numbers are encoded so that near ones are alike, other values one by one. A knob that several workflows have
    counts twice: once with what it does in all of them, once with what it does in this one.
    """
    knobs = _knobs(candidates)
    shared: dict[str, list[str]] = {}
    for name in knobs:
        shared.setdefault(name.rpartition(".")[2], []).append(name)
    single = list(knobs.values())
    for names in shared.values():
        if len(names) > 1:
            single.append(_columns(candidates, names))
    pairs = [
        (one, other)
        for one, other in combinations(knobs.values(), 2)
        if (one.any(axis=1) & other.any(axis=1)).any()
    ]
    level = np.ones((len(candidates), 1))
    parts = [
        level,
        _directions([partial(_rows, each) for each in single], len(candidates)),
        _directions([partial(_product, *pair) for pair in pairs], len(candidates)),
    ]
    group = np.repeat(np.arange(3), [part.shape[1] for part in parts])
    return np.concatenate(parts, axis=1), group


def _knobs(candidates: Sequence[Flat]) -> dict[str, Floats]:
    """Of each knob with several values (candidates, columns), rows of length 1, or 0 where it is not open."""
    names = dict.fromkeys(name for flat in candidates for name in flat)
    return {name: _columns(candidates, [name]) for name in names}


def _columns(candidates: Sequence[Flat], names: Sequence[str]) -> Floats:
    """The value that a candidate has under any of these names, encoded."""
    values = [next((flat[name] for name in names if name in flat), None) for flat in candidates]
    levels = sorted({_key(value) for value in values if value is not None})
    codes = _codes([level[2] for level in levels])
    places = {level: place for place, level in enumerate(levels)}
    columns = np.zeros((len(candidates), codes.shape[1]))
    for row, value in enumerate(values):
        if value is not None:
            columns[row] = codes[places[_key(value)]]
    return columns


def _key(value: Knob) -> tuple[bool, str, Knob]:
    """Sorts and tells apart values of mixed types: 1, true and "1"."""
    is_number = _is_number(value)
    return (
        not is_number,
        "" if is_number else f"{type(value).__name__}{value}",
        value if is_number else str(value),
    )


def _is_number(value: Knob) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _codes(levels: Sequence[Knob]) -> Floats:
    """A row of length 1 for each value: near for near numbers, at right angles for others."""
    if len(levels) < 3 or not all(_is_number(level) for level in levels):
        return np.eye(len(levels))
    numbers = np.array([float(level) for level in levels])
    ratios = np.log1p(numbers - numbers.min())
    # Half by ratio and half by rank: steps of 1 to 2 and of 24 to 96 both matter.
    scale = 0.5 * ratios / ratios.max() + 0.5 * np.arange(len(levels)) / (len(levels) - 1)
    alike = np.exp(-0.5 * ((scale[:, None] - scale) / 0.4) ** 2)
    sizes, directions = np.linalg.eigh(alike)
    kept = sizes > 1e-3 * sizes.max()
    codes = directions[:, kept] * np.sqrt(sizes[kept])
    return np.asarray(codes / np.linalg.norm(codes, axis=1, keepdims=True))


def _rows(columns: Floats, rows: Ints) -> Floats:
    return columns[rows]


def _product(one: Floats, other: Floats, rows: Ints) -> Floats:
    """Every column of one times every column of the other."""
    return (one[rows, :, None] * other[rows, None, :]).reshape(len(rows), -1)


def _directions(parts: Sequence[Callable[[Ints], Floats]], count: int) -> Floats:
    """The strongest directions of many columns, made part by part; rows have a mean square length of 1 in all."""
    if not parts:
        return np.zeros((count, 0))
    every = np.arange(count)
    some = every
    if count > ENCODED_ON:
        some = np.random.default_rng(0).choice(count, ENCODED_ON, replace=False)
    sampled = [part(some) for part in parts]
    joined = np.concatenate(sampled, axis=1)
    _, sizes, directions = np.linalg.svd(joined, full_matrices=False)
    kept = directions[:FEATURES][sizes[:FEATURES] > 1e-6 * sizes[0]]
    ends = np.cumsum([part.shape[1] for part in sampled])
    pieces = np.split(kept, ends[:-1], axis=1)
    found = np.zeros((count, len(kept)))
    for part, piece in zip(parts, pieces, strict=True):
        found += part(every) @ piece.T
    return np.asarray(found / np.sqrt((joined**2).sum(axis=1).mean()))


def _fast_non_dominated(values: Floats) -> Ints:
    """Places of the rows that no other dominates; most rows are dropped by a few good ones first."""
    spread = values.std(axis=0)
    order = np.argsort((values / np.where(spread > 0, spread, 1.0)).sum(axis=1))
    left = np.arange(len(values))
    for good in order[:20]:
        point = values[good]
        beaten = (values[left] >= point).all(axis=1) & (values[left] > point).any(axis=1)
        left = left[~beaten]
    return left[non_dominated(values[left])]
