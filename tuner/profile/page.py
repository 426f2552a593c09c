"""A profile as one HTML page with plots, which needs nothing from the network; the only importer of plotly and Jinja.

Apart from `files`, whose JSON and CSV need neither: both come with the extra `report`.
"""

import textwrap
from collections.abc import Mapping
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tuner.errors import UserError
from tuner.profile import Profile
from tuner.profile import text
from tuner.profile.beside import Comparison
from tuner.profile.beside import columns
from tuner.profile.beside import lines
from tuner.profile.table import Chart
from tuner.profile.table import Row
from tuner.profile.table import Table
from tuner.serving import VARIANT_SIGN
from tuner.serving import model_name

COLOURS = (
    "#4477aa",
    "#ee6677",
    "#228833",
    "#ccbb44",
    "#66ccee",
    "#aa3377",
    "#ee8866",
    "#888888",
)
"""Paul Tol's bright scheme, told apart by most people whose colour vision is impaired, on white and on black."""

LABEL_CHARS = 34
"""Longer names of configs are broken into lines."""


def require_plots() -> None:
    """Raise UserError, saying what to install, where a page could not be made."""
    lacking = [name for name in ("plotly", "jinja2") if find_spec(name) is None]
    if lacking:
        raise UserError(
            f"--out writes a page with plots, which needs {' and '.join(lacking)}",
            hint="pip install 'tuner[report]'",
        )


def write_page(profile: Profile, path: Path, comparison: Comparison | None = None) -> Path:
    """The page at that path. Raises UserError where plotly or Jinja is missing."""
    require_plots()
    from jinja2 import Environment
    from jinja2 import StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(source).render(
        profile=profile,
        comparison=comparison,
        text=text,
        lines=lines,
        columns=columns,
        charts={
            table.figure: [_plot(profile, table, chart) for chart in table.charts]
            if table.rows
            else []
            for table in profile.tables
        },
        plotly=get_plotlyjs(),
    )
    path.write_text(page, encoding="utf-8")
    return path


def _plot(profile: Profile, table: Table, chart: Chart) -> str:
    """The plot as the JSON that plotly.js draws, safe within a script element."""
    from plotly import graph_objects

    draw = {
        "bars": _bars,
        "stack": _bars,
        "spread": _spread,
        "points": _points,
        "lines": _points,
    }[chart.kind]
    traces, layout = draw(profile, table, chart)
    figure = graph_objects.Figure(traces, layout)
    drawn: str = figure.to_json()
    return drawn.replace("<", "\\u003c")


Plot = tuple[list[Any], dict[str, Any]]


def _bars(profile: Profile, table: Table, chart: Chart) -> Plot:
    """A bar a config, for each column one colour; lying, so that long names can be read."""
    from plotly import graph_objects

    traces = []
    for index, name in enumerate(chart.y):
        column = table.column(name)
        rows = [row for row in table.rows if row.values[name].value is not None]
        traces.append(
            graph_objects.Bar(
                name=column.title,
                orientation="h",
                y=[_label(row) for row in rows],
                x=[_scaled(row, name, column.unit) for row in rows],
                error_x=None if chart.kind == "stack" else _error(table, rows, name),
                marker_color=COLOURS[index % len(COLOURS)],
                hovertext=[_hover(table, row, name) for row in rows],
                hoverinfo="text",
            )
        )
    column = table.column(chart.y[0])
    reach = {"range": [0, 100]} if chart.kind == "stack" and column.unit == "share" else {}
    layout = {
        "barmode": "stack" if chart.kind == "stack" else "group",
        "height": _height(table, 1 if chart.kind == "stack" else len(chart.y)),
        "xaxis": {"title": _axis(table, chart.y), "rangemode": "tozero", **reach},
        "yaxis": {"autorange": "reversed", "automargin": True, "type": "category"},
        "showlegend": len(chart.y) > 1,
    }
    return traces, layout


def _spread(profile: Profile, table: Table, chart: Chart) -> Plot:
    """A box a config from quarter to quarter, whiskers from p5 to p95 where they are known."""
    from plotly import graph_objects

    rows = [row for row in table.rows if row.values["latency_p50_s"].value is not None]

    def known(name: str, instead: str) -> list[float | None]:
        return [
            row.values[instead].value if row.values[name].value is None else row.values[name].value
            for row in rows
        ]

    box = graph_objects.Box(
        y=[_label(row) for row in rows],
        orientation="h",
        lowerfence=known("latency_p5_s", "latency_p25_s"),
        q1=known("latency_p25_s", "latency_p25_s"),
        median=known("latency_p50_s", "latency_p50_s"),
        q3=known("latency_p75_s", "latency_p75_s"),
        upperfence=known("latency_p95_s", "latency_p75_s"),
        marker_color=COLOURS[0],
        showlegend=False,
    )
    layout = {
        "height": _height(table, 1),
        "xaxis": {
            "title": "latency, s: box p25 to p75, whiskers p5 to p95 where known",
            "rangemode": "tozero",
        },
        "yaxis": {"autorange": "reversed", "automargin": True, "type": "category"},
    }
    return [box], layout


def _points(profile: Profile, table: Table, chart: Chart) -> Plot:
    """A point a row, a colour a workflow, hollow where derived; joined along what their figure varies."""
    from plotly import graph_objects

    assert chart.x is not None
    name = chart.y[0]
    workflows = list(dict.fromkeys(row.of.workflow for row in table.rows))
    traces = []
    for group, rows in _groups(table, chart).items():
        drawn = [
            row
            for row in rows
            if row.values[name].value is not None and _x(row, chart.x, table) is not None
        ]
        if not drawn:
            continue
        colour = COLOURS[workflows.index(drawn[0].of.workflow) % len(COLOURS)]
        is_column = chart.x in {column.name for column in table.columns}
        traces.append(
            graph_objects.Scatter(
                name=group,
                mode="markers" if chart.kind == "points" else "lines+markers",
                x=[_x(row, chart.x, table) for row in drawn],
                y=[_scaled(row, name, table.column(name).unit) for row in drawn],
                error_y=_error(table, drawn, name, colour),
                error_x=_error(table, drawn, chart.x, colour)
                if is_column and chart.kind == "points"
                else None,
                marker={
                    "color": colour,
                    "size": 9,
                    "symbol": ["circle-open" if row.of.derived else "circle" for row in drawn],
                },
                line={"dash": _dash(profile, drawn[0])},
                hovertext=[_hover(table, row, name) for row in drawn],
                hoverinfo="text",
            )
        )
    layout = {
        "height": 380,
        "xaxis": {
            "title": _axis(table, (chart.x,)),
            "type": "log" if chart.log_x else "linear",
        },
        "yaxis": {"title": _axis(table, (name,)), "rangemode": "tozero"},
        "showlegend": True,
    }
    return traces, layout


def _groups(table: Table, chart: Chart) -> dict[str, list[Row]]:
    """Rows that belong together: of one workflow, where lines join them also of one model and one knob."""
    groups: dict[str, list[Row]] = {}
    for row in table.rows:
        name = row.of.workflow
        if chart.kind == "lines":
            parts = [_model(table, row), str(row.keys.get("knob", ""))]
            name = " ".join([name, *(part for part in parts if part)])
        groups.setdefault(name, []).append(row)
    return groups


def _model(table: Table, row: Row) -> str:
    """What tells the models of a table apart: where they are one, only how it is served; "" where that is one way."""
    models = {each.of.model for each in table.rows}
    if len(models) == 1:
        return ""
    if len({model_name(model) for model in models}) == 1:
        return row.of.model.removeprefix(model_name(row.of.model)).removeprefix(VARIANT_SIGN)
    return row.of.model


def _dash(profile: Profile, row: Row) -> str:
    """Solid on the first model, dashed or dotted on others."""
    models = list(dict.fromkeys(each.model for each in profile.measured))
    styles = ("solid", "dash", "dot", "dashdot")
    return styles[models.index(row.of.model) % len(styles)]


def _x(row: Row, name: str, table: Table) -> float | str | None:
    if name in row.keys:
        value = row.keys[name]
        return value if isinstance(value, str) else float(value)
    return _scaled(row, name, table.column(name).unit)


def _scaled(row: Row, name: str, unit: str) -> float | None:
    value = row.values[name].value
    return 100 * value if value is not None and unit == "share" else value


def _error(
    table: Table, rows: Sequence[Row], name: str, colour: str = "#888888"
) -> Mapping[str, Any] | None:
    """Bars from one end of each interval to the other."""
    factor = 100 if table.column(name).unit == "share" else 1
    up, down = [], []
    for row in rows:
        value = row.values[name]
        if value.value is None or value.interval is None:
            up.append(0.0)
            down.append(0.0)
        else:
            down.append(factor * (value.value - value.interval[0]))
            up.append(factor * (value.interval[1] - value.value))
    if not any(up + down):
        return None
    return {
        "array": up,
        "arrayminus": down,
        "symmetric": False,
        "thickness": 1,
        "width": 3,
        "color": colour,
    }


def _axis(table: Table, names: Sequence[str]) -> str:
    """Title and unit of an axis."""
    known = {column.name: column for column in table.columns}
    if names[0] not in known:
        return {"rate_qps": "requests a second, 1/s"}.get(names[0], names[0])
    column = known[names[0]]
    title = column.title if len(names) == 1 else ""
    unit = {"share": "%", "×": "", "": ""}.get(column.unit, column.unit)
    return ", ".join(part for part in (title, unit) if part)


def _hover(table: Table, row: Row, name: str) -> str:
    column = table.column(name)
    keys = [f"{key} {text.key(value)}" for key, value in row.keys.items()]
    return "<br>".join(
        [
            text.config(row),
            *keys,
            f"{text.header(column)}: {text.estimate(row.values[name], column.unit)}",
            f"n = {row.n} {table.counts}",
        ]
    )


def _label(row: Row) -> str:
    return "<br>".join(textwrap.wrap(text.config(row), LABEL_CHARS))


def _height(table: Table, bars: int) -> int:
    text_lines = sum(1 + _label(row).count("<br>") for row in table.rows)
    return 120 + max(18 * text_lines + 8 * len(table.rows), len(table.rows) * (10 + 12 * bars))
