"""A report's plots as pictures, for papers and slides; the only importer of matplotlib.

Apart from the page, which draws its own and answers to the pointer: these stand still.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from tuner.errors import UserError
from tuner.objectives import OBJECTIVES
from tuner.report import Report
from tuner.report import Shown
from tuner.report import text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tuner.effects import ObjectiveEffects

LOOKS: dict[str, tuple[str, str, str]] = {
    "beaten": ("dominated", "#737b85", "."),
    "stopped": ("stopped early", "#a34f8a", "v"),
    "infeasible": ("beyond a constraint", "#c04a00", "x"),
    "near": ("near the front", "#56b4e9", "o"),
    "front": ("search front", "#0072b2", "o"),
    "holdout": ("holdout", "#007a5a", "s"),
}
"""Of each kind of point, painted in this order: its name, colour (after Okabe and Ito) and marker."""

KNOBS = 8
"""Drawn at most, those that matter most."""

LOGARITHMIC = 25
"""Times the smallest value from which on an axis is logarithmic."""

DPI = 160


def require_matplotlib() -> None:
    """Raise UserError, saying what to install, where there could be no plots."""
    if find_spec("matplotlib") is None:
        raise UserError("--plots needs matplotlib", hint="pip install 'tuner[report]'")


def write_plots(report: Report, folder: Path) -> list[Path]:
    """A PNG and an SVG of each pair of objectives and of each objective's effects; gives their paths.

    Raises UserError where the folder cannot be written to, or matplotlib is missing.
    """
    require_matplotlib()
    from matplotlib import rc_context

    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Text stays text in SVG, and the same study gives the same file.
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": "tuner", "font.size": 10}):
            for y, x in combinations(report.front.objectives, 2):
                written += _save(_pair(report, *_upright(x, y)), folder / f"{y}-{x}")
            for effects in report.effects:
                if effects.knobs:
                    written += _save(_effects(effects), folder / f"effects-{effects.objective}")
    except OSError as error:
        raise UserError(
            f"--plots: {error.filename} cannot be written: {error.strerror}",
            hint="name a place in a folder that exists and may be written to",
        ) from None
    return written


def _upright(x: str, y: str) -> tuple[str, str]:
    """What is to be maximised stands upright."""
    return (y, x) if OBJECTIVES[x].direction == "maximize" else (x, y)


def _save(figure: "Figure", stem: Path) -> list[Path]:
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "svg")]
    for path in paths:
        figure.savefig(path, dpi=DPI, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def _figure(height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _pair(report: Report, x: str, y: str) -> "Figure":
    figure, axes = _figure(5.0)
    for kind, (name, colour, marker) in LOOKS.items():
        shown = [each for each in report.shown if each.kind == kind]
        if shown:
            _scatter(axes, shown, x, y, name=name, colour=colour, marker=marker)
    values = [each.point.values[x] for each in report.shown]
    if min(values) > 0 and max(values) / min(values) > LOGARITHMIC:
        _logarithmic(axes)
    for name, label in ((x, axes.set_xlabel), (y, axes.set_ylabel)):
        good = "higher" if OBJECTIVES[name].direction == "maximize" else "lower"
        label(f"{text.TITLES[name]}, {text.unit(name)} ({good} is better)")
    chosen = report.recommended
    if chosen is not None:
        at = (_scaled(x, chosen.point.values[x]), _scaled(y, chosen.point.values[y]))
        axes.annotate(
            f"{report.advice[0].rule}: trial {chosen.point.trial.number}",
            at,
            xytext=(12, 12),
            textcoords="offset points",
            arrowprops={"arrowstyle": "-"},
        )
    axes.set_title(
        f"{report.study.spec.name}: bars are 95 % intervals, the fuller the surer on the front",
        fontsize=9,
        loc="left",
    )
    axes.legend(loc="best", fontsize=8, framealpha=0.8)
    return figure


def _scatter(
    axes: "Axes",
    shown: Sequence[Shown],
    x: str,
    y: str,
    *,
    name: str,
    colour: str,
    marker: str,
) -> None:
    has_bars = shown[0].kind in ("front", "holdout", "near")
    across, up = (
        np.array([_scaled(axis, each.point.values[axis]) for each in shown]) for axis in (x, y)
    )
    if has_bars:
        axes.errorbar(
            across,
            up,
            xerr=_reach(shown, x),
            yerr=_reach(shown, y),
            fmt="none",
            ecolor=colour,
            elinewidth=0.9,
            capsize=2,
            alpha=0.5,
        )
    if shown[0].kind in ("infeasible", "beaten"):
        axes.scatter(across, up, c=colour, marker=marker, s=28, linewidths=1.2, label=name)
        return
    faces = [(*_rgb(colour), 0.06 + 0.94 * (each.membership or 0.0)) for each in shown]
    axes.scatter(
        across,
        up,
        facecolors=faces,
        edgecolors=colour,
        marker=marker,
        s=46,
        linewidths=1.2,
        label=name,
    )
    derived = [
        place for place, each in enumerate(shown) if each.point.trial.derived_from is not None
    ]
    if derived:
        axes.scatter(
            across[derived],
            up[derived],
            facecolors="none",
            edgecolors=colour,
            marker="D",
            s=90,
            linewidths=0.8,
            label=f"{name}, derived",
        )


def _logarithmic(axes: "Axes") -> None:
    """Ratios as distances, with ticks that read as plain numbers."""
    from matplotlib.ticker import FuncFormatter
    from matplotlib.ticker import LogLocator
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}"))


def _reach(shown: Sequence[Shown], name: str) -> Any:
    """(2, points): from each value to the ends of its interval; no bar towards an end that is not known."""
    ends = np.array(
        [
            [_scaled(name, end) for end in (*each.point.intervals[name], each.point.values[name])]
            for each in shown
        ]
    )
    low, high, value = ends.T
    reach = np.stack([value - low, high - value])
    return np.where(np.isfinite(reach), reach, 0.0).clip(min=0.0)


def _scaled(name: str, value: float) -> float:
    return 100 * value if OBJECTIVES[name].unit == "share" else value


def _rgb(colour: str) -> tuple[float, ...]:
    from matplotlib.colors import to_rgb

    return tuple(to_rgb(colour))


def _effects(effects: "ObjectiveEffects") -> "Figure":
    knobs = effects.knobs[:KNOBS]
    rows = [(knob, value) for knob in knobs for value in knob.values]
    figure, axes = _figure(1.2 + 0.23 * (len(rows) + len(knobs)))
    is_share = OBJECTIVES[effects.objective].unit == "share" and effects.scale == "difference"
    rest, size = (1.0, 1.0) if effects.scale == "ratio" else (0.0, 100.0 if is_share else 1.0)
    is_maximised = OBJECTIVES[effects.objective].direction == "maximize"
    places, labels, y = [], [], 0.0
    for knob in knobs:
        matters = "" if knob.importance is None else f"  (matters {100 * knob.importance:.0f} %)"
        places.append(y)
        labels.append(f"{knob.knob}{matters}")
        y += 1
        for value in knob.values:
            low, high = value.interval
            is_sure = low > rest or high < rest
            is_good = (value.effect > rest) == is_maximised
            colour = "#737b85" if not is_sure else "#007a5a" if is_good else "#c04a00"
            marker = "o" if not is_sure else "s" if is_good else "D"
            axes.plot([size * low, size * high], [y, y], color=colour, linewidth=1.4)
            axes.plot(
                [size * value.effect],
                [y],
                marker=marker,
                color=colour,
                markerfacecolor=colour if is_sure else "white",
            )
            places.append(y)
            labels.append(str(value.value))
            y += 1
        y += 0.4
    axes.set_yticks(places, labels)
    axes.invert_yaxis()
    axes.axvline(rest, color="#444444", linewidth=1)
    against = {
        "ratio": "× the average over the knob's values",
        "difference": f"{'percentage points' if is_share else text.unit(effects.objective)} from the average over the knob's values",
    }
    if effects.scale == "ratio":
        _logarithmic(axes)
    axes.set_xlabel(against[effects.scale])
    axes.set_title(
        f"effects on {text.TITLES[effects.objective]}; ■ better, ◆ worse, ○ perhaps neither",
        fontsize=9,
        loc="left",
    )
    return figure
