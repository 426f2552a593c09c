"""The rules that choose one point among those measured, each with its reason in one sentence.

Apart from `front`, whose arithmetic knows no trials, and from `export`, which writes what was chosen: a rule is an
entry in RULES, and whoever recommends something asks here.

Every rule is monotone (a better figure never costs a point its choice, a worse one never earns it), scale-free
(units do not matter), indifferent to the order of the points, and chooses none that another dominates. What a rule
cannot tell apart is decided by confidence: membership of the front, then narrower intervals, then the lower number.
"""

import math
import re
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

import numpy as np

from tuner import front as pareto
from tuner.condition import Condition
from tuner.errors import UserError
from tuner.objectives import OBJECTIVES
from tuner.results import Front
from tuner.results import Point

Z = 1.959964
"""Standard errors from an estimate to the end of its 95 % interval."""

PRICES = ("energy_wh", "cost_usd", "tokens_total", "latency_")
"""What makes a point cheap: the first of these that an objective of the study begins with."""

DIGITS = 9
"""Losses and shares are compared to so many decimals, widths to so many digits: rounding must not decide."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A point, and why it was chosen."""

    point: Point
    runner_up: Point | None
    """What the rule would have chosen otherwise; None where no other point qualifies."""
    brief: str
    """The same in a few words, for where there is one line."""
    why: str
    """One sentence: what was compared, on which questions, and how far away the runner-up is."""


@dataclass(frozen=True, slots=True)
class _Field:
    """What a rule chooses from."""

    objectives: tuple[str, ...]
    given: tuple[Point, ...]
    points: tuple[Point, ...]
    """Those that no other point given dominates."""
    losses: Mapping[int, Mapping[str, float]]
    """By trial and objective: 0 at the best of all points given, 1 at the worst."""

    @classmethod
    def of(cls, points: Sequence[Point], objectives: Sequence[str]) -> "_Field":
        table = np.array([[point.values[name] for name in objectives] for point in points])
        values = pareto.oriented(table, [OBJECTIVES[name].direction for name in objectives])
        low = values.min(axis=0)
        span = values.max(axis=0) - low
        # Relative to dominated points too: were they left out, a point that improves until it dominates
        # another would change the scale, and might lose its choice by that.
        losses = np.divide(values - low, span, out=np.zeros_like(values), where=span > 0)
        kept = pareto.non_dominated(values)
        return cls(
            objectives=tuple(objectives),
            given=tuple(points),
            points=tuple(point for point, keep in zip(points, kept, strict=True) if keep),
            losses={
                point.trial.number: dict(zip(objectives, map(float, row), strict=True))
                for point, row in zip(points, np.round(losses, DIGITS), strict=True)
            },
        )

    def driven(self, *beginnings: str) -> str:
        """The objective that begins with the first of these that any begins with. Raises UserError where none does."""
        for beginning in beginnings:
            for name in self.objectives:
                if name.startswith(beginning):
                    return name
        raise UserError(
            f"the rule needs an objective {' or '.join(f'{each}…' for each in beginnings)}",
            hint=f"the study has: {', '.join(self.objectives)}; another rule may go by one of those",
        )

    def ranked(self, points: Sequence[Point], *keys: Callable[[Point], float]) -> list[Point]:
        """The points by ascending keys; those equal in all of them by confidence, then by number."""

        def rank(point: Point) -> tuple[float, ...]:
            widths = (float(f"{_width(point, name):.{DIGITS}g}") for name in self.objectives)
            return (*(key(point) for key in keys), -point.membership, *widths, point.trial.number)

        return sorted(points, key=rank)


_Choose = Callable[[_Field], Choice]


@dataclass(frozen=True, slots=True)
class RuleKind:
    """A rule as it may be written."""

    form: str
    """Its name, with an argument as an example where it takes one."""
    read: Callable[[str], _Choose]
    """The rule with this argument; raises ValueError saying what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as it was written, ready to choose."""

    text: str
    _choose: _Choose

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """The rule written as `NAME` or `NAME:ARGUMENT`. Raises UserError that lists the known forms."""
        name, colon, argument = text.partition(":")
        forms = "; ".join(kind.form for kind in RULES.values())
        if name not in RULES:
            raise UserError(f"unknown rule {text!r}", hint=f"known: {forms}")
        kind = RULES[name]
        if bool(colon) != (":" in kind.form):
            wrong = "takes no argument" if colon else "needs an argument"
            raise UserError(f"rule {text!r}: {wrong}", hint=f"known: {forms}")
        try:
            return cls(text, kind.read(argument))
        except ValueError as error:
            raise UserError(f"rule {text!r}: {error}", hint=f"known: {forms}") from None

    def choose(self, points: Sequence[Point], objectives: Sequence[str]) -> Choice:
        """The point that the rule chooses among these, which are all of one split.

        Raises UserError where there are none, where the rule needs what the study does not measure,
        and where none qualifies; the message then names the nearest miss.
        """
        if not points:
            raise UserError(
                "there is no point to choose from: no trial is complete and within the constraints",
                hint="tuner status shows how far the study is",
            )
        return self._choose(_Field.of(points, objectives))


def recommend(front: Front, rule: Rule) -> Choice:
    """What a rule chooses among the points confirmed on the holdout questions; where there are none, on the search front.

    A point that breaks a constraint there does not qualify. Raises UserError as `Rule.choose` does; where no point is
    within the constraints, the message names the nearest miss.
    """
    within = [point for point in front.confirmed if point.feasible]
    broke = [point for point in front.confirmed if not point.feasible]
    if broke and not within:
        raise _none_within(broke)
    if not front.search and front.infeasible:
        raise _none_within(front.infeasible)
    if not within:
        choice = rule.choose(front.search, front.objectives)
        return replace(choice, why=f"{choice.why}; no holdout questions have confirmed it")
    choice = rule.choose(within, front.objectives)
    if not broke:
        return choice
    left_out = " and ".join(f"trial {point.trial.number} ({_excess(point)})" for point in broke)
    return replace(choice, why=f"{choice.why}; beyond the constraints there: {left_out}")


# The rules


def _best_in(*beginnings: str) -> Callable[[str], _Choose]:
    def choose(field: _Field) -> Choice:
        name = field.driven(*beginnings)
        order = field.ranked(field.points, _loss(name))
        first = order[0]
        claim = f"has {_best_of(name, order)} on {_asked(first)}, {_shown(first, name)}"
        return _choice(
            order, claim, lambda other: _behind(first, other, name), brief=_best_of(name, order)
        )

    return lambda argument: choose


def _within(argument: str) -> _Choose:
    share = _number(argument)
    if not 0 <= share < 1:
        raise ValueError(f"{argument} is no difference between two shares, as 0.02 is")

    def choose(field: _Field) -> Choice:
        accuracy, price = field.driven("accuracy"), field.driven(*PRICES)
        best = field.ranked(field.points, _loss(accuracy))[0]
        floor = round(best.values[accuracy] - share, DIGITS)
        near = [point for point in field.points if round(point.values[accuracy], DIGITS) >= floor]
        order = field.ranked(near, _loss(price))
        first = order[0]
        claim = (
            f"has {_best_of(price, order)} within {100 * share:g} percentage points of the best accuracy on "
            f"{_asked(first)}, {_shown(first, price)}, with an accuracy of {_shown(first, accuracy)}"
        )
        if first is not best:
            claim += f" to trial {best.trial.number}'s {_behind(first, best, accuracy)}"
        brief = f"{_best_of(price, order)} within {100 * share:g} points of the best accuracy"
        return _choice(order, claim, lambda other: _behind(first, other, price), brief=brief)

    return choose


def _slo(argument: str) -> _Choose:
    bounds = [_bound(text) for text in argument.split(",")]

    def choose(field: _Field) -> Choice:
        accuracy = field.driven("accuracy")
        _require_measured(field, [name for name, _ in bounds])
        meeting = [
            point
            for point in field.given
            if all(bound.holds(point.values[name]) for name, bound in bounds)
        ]
        if not meeting:
            raise _nearest_miss(field.given, bounds)

        def doubts(point: Point) -> list[str]:
            return [name for name, bound in bounds if not bound.holds(_worse_end(point, name))]

        # Again without the dominated: what dominates a point need not meet a bound on what is no objective.
        order = field.ranked(
            _Field.of(meeting, field.objectives).points,
            lambda point: len(doubts(point)),
            _loss(accuracy),
        )
        first = order[0]
        peers = [point for point in order if len(doubts(point)) == len(doubts(first))]
        figures = "".join(
            f", {name} {_shown(first, name)}" for name, _ in bounds if name != accuracy
        )
        how = (
            f"by estimate, while the interval of {' and '.join(doubts(first))} reaches beyond"
            if doubts(first)
            else "with the whole interval"
        )
        claim = (
            f"has {_best_of(accuracy, peers)} to meet {_written(bounds)} {how}, "
            f"{_shown(first, accuracy)} on {_asked(first)}{figures}"
        )

        def behind(other: Point) -> str:
            text = _behind(first, other, accuracy)
            return text if other in peers else f"{text}, and less surely within the bounds"

        brief = f"{_best_of(accuracy, peers)} to meet {_written(bounds)}"
        return _choice(order, claim, behind, brief=brief)

    return choose


def _weights(argument: str) -> _Choose:
    pairs = [part.partition("=") for part in argument.split(",")]
    weights = {_known(name.strip()): _number(text) for name, _, text in pairs}
    if len(weights) < len(pairs) or min(weights.values()) <= 0:
        raise ValueError(f"{argument} does not give each objective one weight above 0")
    written = " and ".join(f"{name} weighing {weight:g}" for name, weight in weights.items())

    def choose(field: _Field) -> Choice:
        for name in weights:
            if name not in field.objectives:
                raise UserError(
                    f"{name} is no objective of the study",
                    hint=f"give weights to: {', '.join(field.objectives)}",
                )
        return _balanced(field, weights, f" by weight, {written},")

    return choose


def _knee(argument: str) -> _Choose:
    return lambda field: _balanced(field, dict.fromkeys(field.objectives, 1.0), "")


def _balanced(field: _Field, weights: Mapping[str, float], written: str) -> Choice:
    """The point whose largest weighted loss is the smallest, and among several the one with the smallest sum.

    The weighted Tchebycheff metric in its lexicographic form (Steuer and Choo, Mathematical Programming 26,
    1983): by some weights it reaches every point that none dominates, also where the front is not convex.
    With equal weights, a point that is the worst in something loses to any that is the worst in nothing.
    """

    def lost(point: Point) -> dict[str, float]:
        losses = field.losses[point.trial.number]
        return {name: weight * losses[name] for name, weight in weights.items()}

    def most(point: Point) -> tuple[str, str]:
        name = max(weights, key=lost(point).__getitem__)
        return name, f"{100 * field.losses[point.trial.number][name]:.0f} %"

    order = field.ranked(
        field.points,
        lambda point: max(lost(point).values()),
        lambda point: sum(lost(point).values()),
    )
    first = order[0]
    figures = ", ".join(f"{name} {_shown(first, name)}" for name in field.objectives)
    name, share = most(first)
    claim = (
        f"is the best balanced of {_count(order)}{written} on {_asked(first)} ({figures}), and gives up most in "
        f"{name}, {share} of the way from the best to the worst"
    )
    brief = f"best balanced of {_count(order)}; gives up most in {name}, {share} of its range"
    return _choice(order, claim, lambda other: "{1} in {0}".format(*most(other)), brief=brief)


RULES: Mapping[str, RuleKind] = {
    "knee": RuleKind("knee", _knee),
    "max-accuracy": RuleKind("max-accuracy", _best_in("accuracy")),
    "min-energy": RuleKind("min-energy", _best_in("energy_")),
    "min-latency": RuleKind("min-latency", _best_in("latency_")),
    "cheapest-within": RuleKind("cheapest-within:0.02", _within),
    "slo": RuleKind("slo:latency_p95_s<=5,accuracy>=0.6", _slo),
    "weights": RuleKind("weights:accuracy=2,energy_wh=1", _weights),
}
"""Rule to how it is written, and what makes it of its argument; a new one is an entry here."""


# What rules compare


def _loss(name: str) -> Callable[[Point], float]:
    """A point's value, turned so that smaller is better."""
    sign = -1.0 if OBJECTIVES[name].direction == "maximize" else 1.0
    return lambda point: sign * point.values[name]


def _width(point: Point, name: str) -> float:
    low, high = point.intervals[name]
    return high - low


def _worse_end(point: Point, name: str) -> float:
    low, high = point.intervals[name]
    return low if OBJECTIVES[name].direction == "maximize" else high


def _require_measured(field: _Field, names: Sequence[str]) -> None:
    known = field.given[0].values
    for name in names:
        if name not in known:
            raise UserError(
                f"the study does not measure {name}; it has: {', '.join(known)}",
                hint="name it under objectives or constraints, in a study of another name",
            )


def _none_within(points: Sequence[Point]) -> UserError:
    """That none of the points is within the constraints, and which one misses them by the smallest part of its values."""

    def part(point: Point) -> float:
        parts = (over / (abs(point.values[name]) or 1.0) for name, over in point.excess.items())
        return max(parts, default=0.0)

    nearest = min(points, key=part)
    return UserError(
        f"no point is within the constraints on {_asked(nearest)}; the nearest is trial "
        f"{nearest.trial.number}: {_excess(nearest)}",
        hint="allow more, in a study of another name, or let this one search on",
    )


def _excess(point: Point) -> str:
    return ", ".join(
        f"{name} is {_shown(point, name)} and misses its bound by {_figure(name, over)} {_unit(name)}"
        for name, over in point.excess.items()
    )


_Bounds = Sequence[tuple[str, Condition]]


def _nearest_miss(points: Sequence[Point], bounds: _Bounds) -> UserError:
    """That no point meets the bounds, and which one misses them by the smallest part of a bound."""

    def misses(point: Point) -> dict[str, float]:
        return {
            f"{name} {bound}": abs(point.values[name] - float(bound.value))
            / (abs(float(bound.value)) or 1.0)
            for name, bound in bounds
            if not bound.holds(point.values[name])
        }

    def rank(point: Point) -> tuple[float, float, int]:
        missed = misses(point).values()
        return max(missed), sum(missed), point.trial.number

    nearest = min(points, key=rank)
    figures = [
        f"{name} is {_shown(nearest, name)} and misses {bound.value:g} by {100 * misses(nearest)[key]:.0f} %"
        for name, bound in bounds
        if (key := f"{name} {bound}") in misses(nearest)
    ]
    return UserError(
        f"none of {len(points)} points meets {_written(bounds)} on {_asked(nearest)}; the nearest is trial "
        f"{nearest.trial.number}: {', '.join(figures)}",
        hint="ask for less, or let the study search on",
    )


# What rules are made of


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is no finite number")
    return number


def _known(name: str) -> str:
    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective {name!r}; known: {', '.join(OBJECTIVES)}")
    return name


def _bound(text: str) -> tuple[str, Condition]:
    found = re.fullmatch(r"\s*(\w+)\s*([<>]=)(.+)", text)
    if found is None:
        raise ValueError(f"{text!r} is no bound, as latency_p95_s<=5 is")
    name, sign, number = found.groups()
    good = ">=" if OBJECTIVES[_known(name)].direction == "maximize" else "<="
    if sign != good:
        raise ValueError(f"{text!r} bounds {name} on its good side; write {name}{good}{number}")
    return name, Condition(sign, _number(number))


# What is said of a choice


def _choice(
    order: Sequence[Point], claim: str, beside: Callable[[Point], str], *, brief: str
) -> Choice:
    """The first of the points in the order of a rule, with what is claimed of it beside the second."""
    first, *others = order
    following = (
        f"the next is trial {others[0].trial.number} with {beside(others[0])}"
        if others
        else "there is no other"
    )
    return Choice(
        first,
        others[0] if others else None,
        brief,
        f"trial {first.trial.number} {claim}; {following}",
    )


def _asked(point: Point) -> str:
    return f"{point.n} {point.split} questions"


def _best_of(name: str, points: Sequence[Point]) -> str:
    superlative = "highest" if OBJECTIVES[name].direction == "maximize" else "lowest"
    return f"the {superlative} {name} of {_count(points)}"


def _count(points: Sequence[Point]) -> str:
    return f"{len(points)} points" if len(points) > 1 else "1 point"


def _written(bounds: _Bounds) -> str:
    return " and ".join(f"{name} {bound.sign} {bound.value:g}" for name, bound in bounds)


def _shown(point: Point, name: str) -> str:
    """`67 % [47, 82]`, `0.013 Wh/query [0.012, 0.014]`."""
    value, low, high = (
        _figure(name, each) for each in (point.values[name], *point.intervals[name])
    )
    return f"{value} {_unit(name)} [{low}, {high}]"


def _figure(name: str, value: float) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{100 * value:.0f}" if OBJECTIVES[name].unit == "share" else f"{value:.3g}"


def _unit(name: str) -> str:
    return "%" if OBJECTIVES[name].unit == "share" else OBJECTIVES[name].unit


def _behind(first: Point, other: Point, name: str) -> str:
    """The other's value, and how many standard errors of the difference lie between, as if both were independent.

    They answered the same questions, which makes the true distance larger where what is hard for one is hard
    for the other.
    """
    apart = abs(first.values[name] - other.values[name])
    if apart == 0:
        return (
            f"the same, and on the front in {100 * other.membership:.0f} % of resamples where it is in "
            f"{100 * first.membership:.0f} %"
        )
    error = math.hypot(_width(first, name), _width(other, name)) / (2 * Z)
    distance = f", {apart / error:.1f} standard errors away" if 0 < error < math.inf else ""
    return f"{_shown(other, name)}{distance}"
