"""What a config will use at a given traffic: power, energy, carbon, money, GPUs, and what it saves against another.

Pure arithmetic on what was measured, apart from `published`, which has the grids and prices, and from `costs`, which
finds what was measured. Average power is Wh per query × queries a day ÷ 24 × PUE (Kim et al., arXiv 2506.04301,
Table IV, whose PUE is 1); a year has 365 days. Every figure is a mean: peaks of the traffic need more.

Intervals are 95 %, and only from the measurement's own error; that of a sum or a difference of independent estimates
has the square root of the summed squares of their distances (MOVER: Zou and Donner, Statistics in Medicine 2008).
"""

import math
from dataclasses import dataclass

from tuner.errors import UserError

DAYS = 365.0
HOURS = 24.0 * DAYS
DAY_S = 86_400.0

NORMAL_95 = 1.959964
"""Standard errors on either side of an estimate that make a 95 % interval."""


@dataclass(frozen=True, slots=True)
class Amount:
    """An estimate and its 95 % interval; None where its error is not known."""

    value: float
    interval: tuple[float, float] | None = None

    def times(self, factor: float) -> "Amount":
        """The amount in another unit, or of so many; the factor is exact and not negative."""
        if self.interval is None:
            return Amount(self.value * factor)
        low, high = self.interval
        return Amount(self.value * factor, (low * factor, high * factor))

    def less(self, other: "Amount") -> "Amount":
        """The difference of two independent estimates."""
        value = self.value - other.value
        if self.interval is None or other.interval is None:
            return Amount(value)
        down = math.hypot(self.value - self.interval[0], other.interval[1] - other.value)
        up = math.hypot(self.interval[1] - self.value, other.value - other.interval[0])
        return Amount(value, (value - down, value + up))

    def blurred(self, stderr: float) -> "Amount":
        """The same estimate with an independent error beside its own: a meter's, beside that of the questions drawn."""
        if self.interval is None:
            return self
        low, high = self.interval
        error = NORMAL_95 * stderr
        down, up = math.hypot(self.value - low, error), math.hypot(high - self.value, error)
        return Amount(self.value, (max(0.0, self.value - down), self.value + up))


@dataclass(frozen=True, slots=True)
class Measured:
    """What one query of a config took, how that is known, and under which load; None is what nobody measured."""

    name: str
    energy_wh: Amount | None
    """Gross energy of what was metered."""
    source: str
    """Of the energy: nvml-counter, cpu-estimate, a paper, none."""
    scope: str
    load: str
    """How the queries came when this was measured, which energy depends on: "1 at a time", "not stated"."""
    basis: str
    """What it was measured on: "20 holdout questions"."""
    latency_mean_s: float | None = None
    throughput_qps: float | None = None
    """Queries a second, of one deployment at that load."""
    gpus: int | None = None
    """Of one deployment."""
    cost_usd: float | None = None
    """What the model's provider charged."""
    problem: str | None = None
    """Why there is no energy."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """How much is asked, and what electricity does where it is answered. Raises UserError for what cannot be."""

    queries_per_day: float
    pue: float
    """Power usage effectiveness: what the building draws for each watt of its machines."""
    grid_g_per_kwh: float
    price_usd_per_kwh: float

    def __post_init__(self) -> None:
        for name, value, least in (
            ("queries_per_day", self.queries_per_day, 0.0),
            ("pue", self.pue, 1.0),
            ("grid_g_per_kwh", self.grid_g_per_kwh, 0.0),
            ("price_usd_per_kwh", self.price_usd_per_kwh, 0.0),
        ):
            if not (math.isfinite(value) and value >= least):
                raise UserError(
                    f"{name}: {value!r} is not a number of {least:g} or more",
                    hint=f"give {least:g} or more",
                )


@dataclass(frozen=True, slots=True)
class Forecast:
    """A config at a traffic: a mean power, and what a year takes. None is what cannot be said."""

    power_w: Amount
    energy_kwh: Amount
    carbon_kg: Amount
    """CO2 equivalent."""
    electricity_usd: Amount
    tokens_usd: float | None
    """What providers charge for tokens. Not to be added to electricity: they charge for that within it."""
    waiting_h: float | None
    """Latency × queries: how long users wait, all together."""
    deployments: int | None
    """Servers like the one measured, at the load it was measured at, that carry the mean traffic."""
    gpus: int | None
    """In all of them."""
    unknown: str | None
    """Why deployments or GPUs cannot be said."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What a year of a config saves against a baseline; less than 0 where it takes more."""

    energy_kwh: Amount
    carbon_kg: Amount
    electricity_usd: Amount
    tokens_usd: float | None
    waiting_h: float | None
    caveats: tuple[str, ...]
    """What makes the two hard to compare."""


def project(measured: Measured, traffic: Traffic) -> Forecast:
    """The forecast for what was measured. Raises UserError where it has no energy, or one without a source."""
    energy = measured.energy_wh
    if energy is None or measured.source in ("", "none"):
        why = f": {measured.problem}" if measured.problem else ""
        raise UserError(
            f"{measured.name}: its energy was not measured (source: {measured.source or 'none'}){why}",
            hint="give the study's models a meter and run it again; nothing is projected from a guess",
        )
    queries = traffic.queries_per_day
    power_w = energy.times(queries / 24 * traffic.pue)
    energy_kwh = power_w.times(HOURS / 1000)
    deployments, gpus, unknown = _needed(measured, queries)
    return Forecast(
        power_w=power_w,
        energy_kwh=energy_kwh,
        carbon_kg=energy_kwh.times(traffic.grid_g_per_kwh / 1000),
        electricity_usd=energy_kwh.times(traffic.price_usd_per_kwh),
        tokens_usd=_times(measured.cost_usd, queries * DAYS),
        waiting_h=_times(measured.latency_mean_s, queries * DAYS / 3600),
        deployments=deployments,
        gpus=gpus,
        unknown=unknown,
    )


def saved(config: tuple[Measured, Forecast], baseline: tuple[Measured, Forecast]) -> Saved:
    """What a config saves against a baseline at the same traffic."""
    (ours, mine), (other, base) = config, baseline
    return Saved(
        energy_kwh=base.energy_kwh.less(mine.energy_kwh),
        carbon_kg=base.carbon_kg.less(mine.carbon_kg),
        electricity_usd=base.electricity_usd.less(mine.electricity_usd),
        tokens_usd=_less(base.tokens_usd, mine.tokens_usd),
        waiting_h=_less(base.waiting_h, mine.waiting_h),
        caveats=tuple(
            f"the {what} of the two differs: {one} and {two}"
            for what, one, two in (
                ("energy's source", ours.source, other.source),
                ("load", ours.load, other.load),
            )
            if one != two
        ),
    )


def _needed(
    measured: Measured, queries_per_day: float
) -> tuple[int | None, int | None, str | None]:
    """Deployments that carry the mean traffic, the GPUs in them, and why one of these cannot be said."""
    if not measured.throughput_qps:
        return None, None, "its throughput was not measured"
    needed = queries_per_day / DAY_S / measured.throughput_qps
    deployments = math.ceil(round(needed, 9))  # rounding must not cost a deployment
    if not measured.gpus:
        return deployments, None, "its meter names no GPUs"
    return deployments, deployments * measured.gpus, None


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other
