"""Figures of the report as people read them; apart from the page and the plots, which both show them."""

import math

from tuner.figures import number
from tuner.intervals import Interval
from tuner.objectives import OBJECTIVES

TITLES = {
    "accuracy": "accuracy",
    "latency_mean_s": "mean latency",
    "latency_p50_s": "median latency",
    "latency_p95_s": "95th percentile of latency",
    "energy_wh": "energy",
    "cost_usd": "cost",
    "tokens_total": "tokens",
}
"""Objectives as axes have them, where the unit stands beside."""


def figure(objective: str, value: float) -> str:
    """A value without its unit: shares in per cent; `∞` for an end that so few questions do not tell."""
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{100 * value:.0f}" if OBJECTIVES[objective].unit == "share" else number(value)
    return "0" if text == "-0" else text.replace("-", "−")


def unit(objective: str) -> str:
    """Its unit beside such a figure."""
    name = OBJECTIVES[objective].unit
    return "%" if name == "share" else name


def with_interval(objective: str, value: float, interval: Interval) -> str:
    """`67 [47, 82]`, in the unit of the column's head."""
    low, high = (figure(objective, end) for end in interval)
    return f"{figure(objective, value)} [{low}, {high}]"


def spelled(objective: str, value: float, interval: Interval) -> str:
    """`67 % [47, 82]`: by itself."""
    low, high = (figure(objective, end) for end in interval)
    return f"{figure(objective, value)} {unit(objective)} [{low}, {high}]"


def effect(value: float, interval: Interval, scale: str, is_share: bool) -> str:
    """What a knob's value does, `×0.46 [0.42, 0.50]` or `+8 [3, 12]`."""
    if scale == "ratio":
        return f"×{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"
    written = [f"{100 * each:+z.0f}" if is_share else f"{each:+.3g}" for each in (value, *interval)]
    middle, low, high = (each.replace("-", "−") for each in written)
    return f"{middle} [{low}, {high}]"


def share(value: float | None) -> str:
    """A share in per cent, a dash where there is none."""
    return "–" if value is None else f"{100 * value:.0f} %"


def duration(seconds: float) -> str:
    """Seconds as `42 s`, `7 min 5 s` or `3 h 10 min`."""
    if seconds < 100:
        return f"{number(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def amount(value: float | None, unit: str) -> str:
    """An amount with its unit, times as durations; `unknown` where it cannot be told."""
    if value is None:
        return "unknown"
    if unit == "s":
        return duration(value)
    text = number(value) if value != int(value) or abs(value) < 1000 else f"{value:,.0f}"
    return f"${text}" if unit == "$" else f"{text} {unit}".strip()
