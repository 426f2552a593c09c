"""How figures are written for people, in a terminal, a note or a page alike; apart from all three."""

import math

from tuner.intervals import Interval
from tuner.objectives import OBJECTIVES


def number(value: float) -> str:
    """Three significant digits, plain where that is short."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def quantity(name: str, value: float) -> str:
    """An objective's value with its unit's look: shares as percentages."""
    return f"{100 * value:.0f} %" if OBJECTIVES[name].unit == "share" else number(value)


def value_and_interval(name: str, value: float, interval: Interval) -> str:
    """`67 % [47, 82]`; an end that so few questions do not tell is `∞`."""
    low, high = (_end(name, end) for end in interval)
    return f"{quantity(name, value)} [{low}, {high}]"


def _end(name: str, value: float) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return quantity(name, value).removesuffix(" %")
