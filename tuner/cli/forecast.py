"""`tuner forecast`: what a config will use at your traffic, and what it saves against another."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Annotated
from typing import Any

import typer

from tuner.cli.arguments import AsJson

if TYPE_CHECKING:
    from tuner.forecast import Amount
    from tuner.forecast import Forecast
    from tuner.forecast import Measured
    from tuner.forecast import Saved
    from tuner.forecast import Traffic
    from tuner.published import Grid
    from tuner.published import Price

Units = tuple[tuple[float, str], ...]

POWER: Units = ((1, "W"), (1e3, "kW"), (1e6, "MW"), (1e9, "GW"))
ENERGY: Units = ((1e-3, "Wh"), (1, "kWh"), (1e3, "MWh"), (1e6, "GWh"), (1e9, "TWh"))
CARBON: Units = ((1e-3, "g CO2e"), (1, "kg CO2e"), (1e3, "t CO2e"), (1e6, "kt CO2e"), (1e9, "Mt CO2e"))  # fmt: skip
MONEY: Units = ((1, "$"), (1e6, "million $"), (1e9, "billion $"))
TIME: Units = ((1, "h"), (1e6, "million h"), (1e9, "billion h"))


def forecast(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="Exported configuration; a study, with --trial; or a published row, kim2025:llama-3.1-70b/lats.",
        ),
    ],
    queries_per_day: Annotated[float, typer.Option(help="How much will be asked.")],
    trial: Annotated[
        int | None, typer.Option(metavar="TRIAL", help="Number of the study's trial.")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="What to compare with: as FILE, or another trial."),
    ] = None,
    pue: Annotated[
        float, typer.Option(help="What the building draws for each watt of the metered devices.")
    ] = 1.0,
    grid: Annotated[
        str, typer.Option(metavar="REGION", help="A region, or grams of CO2e a kWh.")
    ] = "world",
    price: Annotated[
        float | None, typer.Option(metavar="USD", help="Dollars a kWh, in place of a US mean.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Forecast power, energy, carbon, money and GPUs at a traffic, and what is saved against a baseline."""
    from tuner import forecast as forecasting
    from tuner.cli.output import print_json
    from tuner.published import Price
    from tuner.published import load_electricity

    measured = _find(file, trial)
    other = None if baseline is None else _find(*_same_study(baseline, file, trial))
    region, cost = _grid(grid), load_electricity().price
    usd_per_kwh = cost.usd_per_kwh if price is None else price
    traffic = forecasting.Traffic(queries_per_day, pue, region.g_per_kwh, usd_per_kwh)
    if price is not None:
        cost = Price(name="given", usd_per_kwh=price, year=None, source="--price")
    columns = [
        (each, forecasting.project(each, traffic)) for each in (measured, other) if each is not None
    ]
    saved = None if other is None else forecasting.saved(columns[0], columns[1])
    if as_json:
        print_json(_content(traffic, region, cost, columns, saved))
    else:
        _print(traffic, region, cost, columns, saved)


def _find(file: str, trial: int | None) -> "Measured":
    from tuner import costs

    if trial is None:
        if costs.names_a_row(file):
            return costs.measured_row(file)
        _refuse_study(Path(file))
        return costs.measured_file(Path(file))
    from contextlib import closing

    from tuner.cli.show import find_trial
    from tuner.results import open_results
    from tuner.spec import load_study

    study = load_study(Path(file))
    with closing(open_results(study)) as store:
        return costs.measured_trial(study, store, find_trial(store, trial))


def _same_study(baseline: str, file: str, trial: int | None) -> tuple[str, int | None]:
    """Where the baseline is: a number is another trial of the same study."""
    return (file, int(baseline)) if trial is not None and baseline.isdecimal() else (baseline, None)


def _refuse_study(path: Path) -> None:
    import yaml

    from tuner.errors import UserError
    from workflows.yaml_data import read_text
    from workflows.yaml_data import read_yaml

    try:
        content = read_yaml(read_text(path))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return  # whoever reads it as an exported file says what is wrong
    if isinstance(content, dict) and "search_space" in content:
        raise UserError(
            f"{path} is a study: which of its trials?",
            hint=f"tuner forecast {path} --trial TRIAL; tuner front {path} lists the best",
        )


def _grid(text: str) -> "Grid":
    """A region of the table, or grams a kWh as a number. Raises UserError listing the regions."""
    from tuner.errors import UserError
    from tuner.published import Grid
    from tuner.published import load_electricity

    regions = load_electricity().grid
    if text in regions:
        return regions[text]
    try:
        return Grid.model_construct(name="given", g_per_kwh=float(text), year=None)
    except ValueError:
        raise UserError(
            f"--grid: no region {text!r}; known: {', '.join(regions)}",
            hint="or give grams of CO2e a kWh: --grid 100",
        ) from None


def _print(
    traffic: "Traffic",
    grid: "Grid",
    price: "Price",
    columns: "Sequence[tuple[Measured, Forecast]]",
    saved: "Saved | None",
) -> None:
    from tuner.cli.output import print_table
    from tuner.published import load_electricity

    rows = [
        [title, *(cell(measured, forecast) for measured, forecast in columns)]
        for title, cell in _ROWS
    ]
    names = ["", *(measured.name for measured, _ in columns)]
    if saved is not None:
        cells = _saved_cells(saved)
        rows = [[*row, cells.get(row[0], "")] for row in rows]
        names.append("saved")
    print_table(f"{_digits(traffic.queries_per_day)} queries a day", names, rows, wrap=True)
    _, ours = columns[0]
    _print_comparisons("That is as much as", ours.energy_kwh.value)
    if saved is not None and saved.energy_kwh.value > 0:
        _print_comparisons("Saved is as much as", saved.energy_kwh.value)
    for measured, forecast in columns:
        if "estimate" in measured.source:
            print(f"{measured.name}: an estimate, whose interval leaves out what was assumed.")
        if forecast.unknown is not None:
            print(f"{measured.name}: {forecast.unknown}.")
    for caveat in () if saved is None else saved.caveats:
        print(f"Compare with care: {caveat}.")
    electricity = load_electricity()
    print(
        f"Assumed: PUE {traffic.pue:g}{', the metered devices alone' if traffic.pue == 1 else ''}\n"
        f"  {grid.g_per_kwh:g} g CO2e/kWh{_of(grid, electricity.grid_source)}\n"
        f"  {price.usd_per_kwh:g} $/kWh{_of(price, price.source)}"
    )
    print(
        "All are means at the load of the measurement, and peaks need more. Intervals are 95 %, from the measurement's "
        "own error; where that is not known there are none."
    )


def _of(assumed: "Grid | Price", source: str) -> str:
    return "" if assumed.year is None else f", {assumed.name}, {assumed.year} ({source})"


def _amount(amount: "Amount | float | None", units: Units, unknown: str = "unknown") -> str:
    """`3.56 kW [2.95, 4.25]`, in the unit that keeps the number short."""
    from tuner.forecast import Amount

    if amount is None:
        return unknown
    if not isinstance(amount, Amount):
        amount = Amount(amount)
    factor, unit = units[0]
    for factor_, unit_ in units:
        if abs(amount.value) >= factor_:
            factor, unit = factor_, unit_
    text = f"{_digits(amount.value / factor)} {unit}"
    if amount.interval is None:
        return text
    low, high = amount.interval
    return f"{text} [{_digits(low / factor)}, {_digits(high / factor)}]"


def _digits(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _wh(measured: "Measured", _: "Forecast") -> str:
    return _amount(measured.energy_wh, ((1, "Wh"),))


def _count(number: int | None) -> str:
    return "unknown" if number is None else f"{number:,}"


_ROWS = (
    ("energy a query, gross", _wh),
    ("  its source", lambda measured, _: measured.source),
    ("  measured on", lambda measured, _: measured.basis),
    ("  load then", lambda measured, _: measured.load),
    ("average power", lambda _, forecast: _amount(forecast.power_w, POWER)),
    ("energy a year", lambda _, forecast: _amount(forecast.energy_kwh, ENERGY)),
    ("carbon a year", lambda _, forecast: _amount(forecast.carbon_kg, CARBON)),
    ("electricity a year", lambda _, forecast: _amount(forecast.electricity_usd, MONEY)),
    ("tokens a year", lambda _, forecast: _amount(forecast.tokens_usd, MONEY, "no price known")),
    ("users wait, a year", lambda _, forecast: _amount(forecast.waiting_h, TIME)),
    ("servers like it", lambda _, forecast: _count(forecast.deployments)),
    ("GPUs in them", lambda _, forecast: _count(forecast.gpus)),
)


def _saved_cells(saved: "Saved") -> Mapping[str, str]:
    return {
        "energy a year": _amount(saved.energy_kwh, ENERGY),
        "carbon a year": _amount(saved.carbon_kg, CARBON),
        "electricity a year": _amount(saved.electricity_usd, MONEY),
        "tokens a year": _amount(saved.tokens_usd, MONEY, ""),
        "users wait, a year": _amount(saved.waiting_h, TIME),
    }


def _print_comparisons(title: str, energy_kwh: float) -> None:
    """The energy in the largest known uses that it comes near to, with their sources."""
    from tuner.published import load_comparisons

    known = sorted(load_comparisons().values(), key=lambda each: each.kwh)
    near = [each for each in known if energy_kwh >= each.kwh / 2] or known[:1]
    print(f"{title}:")
    for each in near[-3:]:
        print(f"  {_digits(energy_kwh / each.kwh)} {each.name} ({each.source}; {each.year})")


def _content(
    traffic: "Traffic",
    grid: "Grid",
    price: "Price",
    columns: "Sequence[tuple[Measured, Forecast]]",
    saved: "Saved | None",
) -> dict[str, Any]:
    from tuner.published import load_comparisons
    from tuner.published import load_electricity

    content: list[dict[str, Any]] = [
        {"measured": asdict(measured), "forecast": asdict(forecast)}
        for measured, forecast in columns
    ]
    energy_kwh = columns[0][1].energy_kwh.value
    return {
        "queries_per_day": traffic.queries_per_day,
        "pue": traffic.pue,
        "grid": {**grid.model_dump(), "source": "--grid" if grid.year is None else load_electricity().grid_source},
        "price": price.model_dump(),
        **content[0],
        "comparisons": [
            {"number": energy_kwh / each.kwh, **each.model_dump()}
            for each in load_comparisons().values()
        ],
        "baseline": content[1] if len(content) > 1 else None,
        "saved": None if saved is None else asdict(saved),
    }  # fmt: skip
