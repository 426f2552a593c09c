"""Figures that others published and that ship with us: papers, what electricity emits and costs, uses that people know.

Apart from `forecast`, which is arithmetic on any figures: here is the one place that reads the files in tuner/data.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

from tuner.errors import UserError

PAPERS = ("kim2025",)
"""The papers whose figures are here, by the names of their files."""


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class PublishedRow(_Data):
    """What a paper says that one query of one agent on one model took."""

    energy_wh: float
    latency_mean_s: float
    accuracy: float | None
    """0 … 1; None where the task has no right answers."""


class PublishedPower(_Data):
    """A power that a paper projects from one of its rows, as it prints it."""

    row: str
    queries_per_day: float
    power: str


class Figure(_Data):
    """A figure of a paper as rows, one a bar or a point; their keys are quantities with units and what they are of."""

    title: str
    rows: tuple[Mapping[str, str | bool | float], ...] = Field(strict=False)


class Paper(_Data):
    """What a paper published, in this project's words: its tasks, workflows, units and shares of 1."""

    format_version: Literal[1]
    title: str
    source: str
    note: str
    """Where the numbers are from, and how well they are known."""
    table3: Mapping[str, PublishedRow]
    table4: tuple[PublishedPower, ...] = Field(strict=False)
    figures: Mapping[str, Figure]
    """By number: "4", "13a"."""


class Grid(_Data):
    """What a kilowatt-hour emits in a region."""

    name: str
    g_per_kwh: float
    """Grams of CO2 equivalent, over the life cycle of the plants."""
    year: int | None
    """None for a figure that is nobody's statistics: the user's own."""


class Price(_Data):
    """What a kilowatt-hour costs."""

    name: str
    usd_per_kwh: float
    year: int | None
    """None for the user's own."""
    source: str


class Electricity(_Data):
    """What electricity emits, by region, and what it costs."""

    format_version: Literal[1]
    collected: str
    grid_source: str
    grid: Mapping[str, Grid]
    price: Price


class Comparison(_Data):
    """A use of electricity that people know."""

    name: str
    """As it stands behind a number: "households of …"."""
    kwh: float
    """Of one of them in a year."""
    year: int
    source: str


class _Comparisons(_Data):
    format_version: Literal[1]
    collected: str
    comparisons: Mapping[str, Comparison]


@cache
def load_paper(name: str) -> Paper:
    """A paper's figures. Raises UserError, naming the known ones, for another name."""
    if name not in PAPERS:
        raise UserError(f"no figures of {name!r} are known", hint=f"known: {', '.join(PAPERS)}")
    return Paper.model_validate(json.loads(_read(f"{name}.json")))


@cache
def load_electricity() -> Electricity:
    """Carbon intensities by region and a price, with their years and sources."""
    return Electricity.model_validate(yaml.safe_load(_read("electricity.yaml")))


@cache
def load_comparisons() -> Mapping[str, Comparison]:
    """Uses of electricity that people know, with their sources, by name."""
    return _Comparisons.model_validate(yaml.safe_load(_read("comparisons.yaml"))).comparisons


def _read(file: str) -> str:
    return (Path(__file__).parent / "data" / file).read_text(encoding="utf-8")
