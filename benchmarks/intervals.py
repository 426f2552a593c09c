"""How often 95 % intervals hold the truth, and whether membership of the front is the probability that it says it is.

Simulated where the truth is known: intervals of every kind on samples drawn from known distributions, membership on
spaces of configs whose true accuracy, latency and energy are known to four digits. Goals: intervals that hold the truth in
93 to 97 % of samples; memberships that agree with the shares of configs which are truly on the front.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from tuner import front
from tuner.intervals import Interval
from tuner.intervals import difference_interval
from tuner.intervals import mean_interval
from tuner.intervals import quantile_interval
from tuner.intervals import share_interval
from tuner.intervals import widening
from tuner.objectives import OBJECTIVES
from tuner.results import PAIR_DRAWS
from tuner.sample import DRAWS
from tuner.sample import SEED

Floats = npt.NDArray[np.float64]
Rng = np.random.Generator

GOAL = (0.93, 0.97)
SIZES = (12, 24, 60)
BINS = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)
FAMILIES = 12
CONFIGS = (30, 120)
OBJECTIVE_NAMES = ("accuracy", "latency_p50_s", "energy_wh")


def main() -> None:
    """Simulate, print and record the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few samples; a minute at most")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    arguments = parser.parse_args()
    samples, spaces = (300, 2) if arguments.quick else (4000, 40)
    start_s = time.perf_counter()
    result = {
        "benchmark": "intervals",
        "samples": samples,
        "spaces": spaces,
        "goal": GOAL,
        "coverage": [coverage(case, size, samples) for case in CASES for size in case.sizes],
        "means_by_other_methods": other_methods(samples),
        "membership": calibration(spaces),
        "told_apart_though_the_same": {size: told_apart(size, samples // 4) for size in SIZES},
        "seconds": 0.0,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
    }
    result["seconds"] = round(time.perf_counter() - start_s, 1)
    text = json.dumps(result, indent=2)
    if not arguments.quick:
        (Path(__file__).parent / "results" / "intervals.json").write_text(text + "\n")
    print(text) if arguments.json else show(result)


# Intervals


@dataclass(frozen=True)
class Case:
    """A kind of interval, and what it is to hold the truth of."""

    kind: str
    shape: str
    draw: Callable[[Rng, int], tuple[Floats, float]]
    """(questions, answers) of so many questions, and the truth."""
    interval: Callable[[Floats], Interval]
    sizes: tuple[int, ...] = SIZES


def coverage(case: Case, size: int, samples: int) -> dict[str, Any]:
    """The share of samples whose interval holds the truth, and of those that miss it on either side."""
    rng = np.random.default_rng(size)
    below, above, widths = 0, 0, []
    for _ in range(samples):
        answers, truth = case.draw(rng, size)
        low, high = case.interval(answers)
        below += truth < low
        above += truth > high
        widths.append((high - low) / truth)
    share = 1 - (below + above) / samples
    return {
        "kind": case.kind,
        "shape": case.shape,
        "n": size,
        "coverage": round(share, 4),
        "truth_below": round(below / samples, 4),
        "truth_above": round(above / samples, 4),
        "median_width": round(float(np.median(widths)), 3) if np.isfinite(widths).all() else None,
        "met": GOAL[0] <= share <= GOAL[1],
    }


def right_or_wrong(rng: Rng, size: int) -> tuple[Floats, float]:
    """Answers to questions that are all alike, right with a chance from 5 to 95 %."""
    chance = rng.uniform(0.05, 0.95)
    return (rng.random((size, 1)) < chance).astype(float), chance


def repeated(rng: Rng, size: int, *, a: float, b: float, answers: int) -> tuple[Floats, float]:
    """Several answers to questions each of which has a chance of its own, from a beta distribution."""
    chances = rng.beta(a, b, size=(size, 1))
    return (rng.random((size, answers)) < chances).astype(float), a / (a + b)


def graded(rng: Rng, size: int) -> tuple[Floats, float]:
    """Scores as of word overlap: wrong, right, or somewhere in between."""
    kind = rng.choice(3, p=(0.3, 0.3, 0.4), size=(size, 1))
    between = rng.beta(3, 2, size=(size, 1))
    return np.where(kind == 0, 0.0, np.where(kind == 2, 1.0, between)), 0.4 + 0.3 * 0.6


def lognormal(rng: Rng, size: int, *, sigma: float) -> tuple[Floats, float]:
    """Amounts whose logarithm is normal."""
    return rng.lognormal(0.0, sigma, (size, 1)), float(np.exp(sigma**2 / 2))


def steps(rng: Rng, size: int) -> tuple[Floats, float]:
    """An agent's time: so many steps of about a second each."""
    shares = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    taken = rng.choice(5, p=shares, size=(size, 1)) + 1
    truth = float(np.exp(0.1**2 / 2) * (shares @ np.arange(1, 6)))
    return taken * rng.lognormal(0.0, 0.1, (size, 1)), truth


def exponential(rng: Rng, size: int) -> tuple[Floats, float]:
    """Amounts as of waiting times."""
    return rng.exponential(1.0, (size, 1)), 1.0


def two_modes(rng: Rng, size: int, *, rare: float) -> tuple[Floats, float]:
    """Amounts of which a share is six times as large."""
    times = np.where(rng.random((size, 1)) < rare, 6.0, 1.0)
    return times * rng.lognormal(0.0, 0.3, (size, 1)), float(np.exp(0.045) * (1 + 5 * rare))


def repeated_times(rng: Rng, size: int, *, answers: int) -> tuple[Floats, float]:
    """Several times for questions of which some take longer."""
    amounts = rng.lognormal(0.0, 0.4, (size, 1)) * rng.lognormal(0.0, 0.3, (size, answers))
    return amounts, float(np.exp((0.4**2 + 0.3**2) / 2))


def quantile_of(
    draw: Callable[[Rng, int], tuple[Floats, float]], share: float
) -> Callable[[Rng, int], tuple[Floats, float]]:
    """The same amounts, with a quantile for the truth, from a million of them."""
    truth = float(np.quantile(draw(np.random.default_rng(0), 1_000_000)[0][:, 0], share))
    return lambda rng, size: (draw(rng, size)[0], truth)


def two_sizes(rng: Rng, size: int) -> tuple[Floats, float]:
    """Right and wrong answers of one config to search questions, and to twice as many holdout questions."""
    chance = rng.uniform(0.1, 0.9)
    return (rng.random((3 * size, 1)) < chance).astype(float), 1.0  # the true drop, and one


def drop_interval(answers: Floats) -> Interval:
    """Of the drop from the first third to the rest, and one: a truth of 0 has no relative width."""
    parts = np.split(answers, [len(answers) // 3])
    found = [(float(part.mean()), share_interval(part)) for part in parts]
    low, high = difference_interval(*found[0], *found[1])
    return low + 1, high + 1


def quantile_cases() -> Iterator[Case]:
    """Medians and 95th percentiles, the latter of more amounts too: their upper end takes 72."""
    shapes = {
        "lognormal 0.5": partial(lognormal, sigma=0.5),
        "lognormal 1": partial(lognormal, sigma=1.0),
        "steps": steps,
    }
    for share, sizes in ((0.5, SIZES), (0.95, (*SIZES, 120))):
        for shape, draw in shapes.items():
            interval = partial(quantile_interval, share=share)
            yield Case(
                f"p{100 * share:.0f}", shape, quantile_of(draw, share), interval, sizes=sizes
            )
        for answers in (2, 4):
            yield Case(
                f"p{100 * share:.0f}",
                f"{answers} answers each",
                quantile_of(partial(repeated_times, answers=answers), share),
                partial(quantile_interval, share=share),
                sizes=sizes,
            )


MEAN_SHAPES: Mapping[str, Callable[[Rng, int], tuple[Floats, float]]] = {
    "lognormal 0.25": partial(lognormal, sigma=0.25),
    "lognormal 0.5": partial(lognormal, sigma=0.5),
    "lognormal 1": partial(lognormal, sigma=1.0),
    "exponential": exponential,
    "steps": steps,
    "one in 5 six times as large": partial(two_modes, rare=0.2),
    "one in 20 six times as large": partial(two_modes, rare=0.05),
}

CASES: tuple[Case, ...] = (
    Case("share", "right or wrong", right_or_wrong, share_interval),
    Case("share", "graded", graded, share_interval),
    *(
        Case("share", f"{n} answers each, {how}", partial(repeated, a=a, b=b, answers=n), share_interval)
        for n in (2, 4)
        for how, a, b in (("agreeing", 0.4, 0.3), ("varying", 2.0, 1.5))
    ),
    Case("drop of a share", "right or wrong", two_sizes, drop_interval),
    *(Case("mean", shape, draw, mean_interval) for shape, draw in MEAN_SHAPES.items()),
    Case("mean", "3 answers each", partial(repeated_times, answers=3), mean_interval),
    *quantile_cases(),
)  # fmt: skip


def other_methods(samples: int) -> list[dict[str, Any]]:
    """What other intervals of a mean would cover, on the very same shapes."""
    return [
        {"shape": shape, "n": size, **_covered(shape, size, samples)}
        for shape in MEAN_SHAPES
        for size in SIZES
    ]


def _covered(shape: str, size: int, samples: int) -> dict[str, float]:
    rng = np.random.default_rng(size)
    drawn = [MEAN_SHAPES[shape](rng, size) for _ in range(samples)]
    amounts, truth = np.stack([answers[:, 0] for answers, _ in drawn]), drawn[0][1]
    mean, error = amounts.mean(axis=1), amounts.std(axis=1, ddof=1) / np.sqrt(size)
    counts = rng.multinomial(size, np.full(size, 1 / size), size=1000).T.astype(float)
    means = amounts @ counts / size
    errors = np.sqrt(np.maximum(amounts**2 @ counts / size - means**2, 1e-12) / (size - 1))
    t = special.stdtrit(size - 1, 0.975)
    logs = np.log(amounts)
    cox, spread = logs.mean(axis=1) + logs.var(axis=1, ddof=1) / 2, logs.var(axis=1, ddof=1)
    half = t * np.sqrt(spread / size + spread**2 / (2 * (size - 1)))
    pivots = np.quantile((means - mean[:, None]) / errors, [0.975, 0.025], axis=1)
    ends = {
        "student": (mean - t * error, mean + t * error),
        "bootstrap": tuple(np.quantile(means, [0.025, 0.975], axis=1)),
        "bootstrap_bca": _accelerated(amounts, mean, means),
        "bootstrap_t": (mean - pivots[0] * error, mean - pivots[1] * error),
        "cox_on_logs": (np.exp(cox - half), np.exp(cox + half)),
    }
    return {
        name: round(float(((low <= truth) & (truth <= high)).mean()), 4)
        for name, (low, high) in ends.items()
    }


def _accelerated(amounts: Floats, mean: Floats, means: Floats) -> tuple[Floats, Floats]:
    """Bias-corrected and accelerated (Efron 1987)."""
    distances = amounts - mean[:, None]
    cubes, squares = (distances**3).sum(axis=1), (distances**2).sum(axis=1)
    skewed = cubes / (6 * squares**1.5)
    bias = special.ndtri(np.clip((means < mean[:, None]).mean(axis=1), 1e-3, 1 - 1e-3))
    ordered = np.sort(means, axis=1)
    ends = []
    for z in special.ndtri([0.025, 0.975]):
        share = special.ndtr(bias + (bias + z) / (1 - skewed * (bias + z)))
        place = np.round(share * (means.shape[1] - 1)).astype(int)
        ends.append(np.take_along_axis(ordered, place[:, None], axis=1)[:, 0])
    return ends[0], ends[1]


# Membership


@dataclass(frozen=True)
class Space:
    """Configs of some families, each with a budget: what a family gains by it levels off, what it costs does not."""

    family: npt.NDArray[np.int64]
    ability: Floats
    seconds: Floats
    joules: Floats

    @classmethod
    def draw(cls, rng: Rng, configs: int) -> "Space":
        """Families and configs at random."""
        family, budget = rng.integers(0, FAMILIES, configs), rng.integers(1, 9, configs)
        start, gain = rng.normal(-1.2, 0.8, FAMILIES), rng.gamma(2.0, 0.8, FAMILIES)
        soon = rng.uniform(0.7, 3.0, FAMILIES)
        base, each = rng.lognormal(0.0, 0.6, FAMILIES), rng.lognormal(-1.0, 0.5, FAMILIES)
        power = rng.lognormal(0.0, 0.25, FAMILIES)
        gained = gain[family] * (1 - np.exp(-budget / soon[family]))
        seconds = base[family] * (1 + each[family] * budget) * rng.lognormal(0.0, 0.05, configs)
        return cls(
            family,
            start[family] + gained + rng.normal(0.0, 0.15, configs),
            seconds,
            seconds * power[family] * rng.lognormal(0.0, 0.03, configs),
        )

    def ask(self, rng: Rng, questions: int) -> tuple[Floats, Floats, Floats]:
        """Scores, seconds and joules, (configs, questions): what is hard or long for one is so for others, most within a family."""
        configs = len(self.family)
        hard, hard_here = (
            rng.normal(0.0, 1.2, questions),
            rng.normal(0.0, 0.7, (FAMILIES, questions)),
        )
        luck = rng.logistic(0.0, 0.8, (FAMILIES, questions))[self.family]
        own = rng.logistic(0.0, 0.6, (configs, questions))
        margin = self.ability[:, None] - hard - hard_here[self.family] + luck + own
        long = rng.normal(0.0, 0.35, questions)
        long_here = rng.normal(0.0, 0.2, (FAMILIES, questions))
        times = np.exp(long + long_here[self.family] + rng.normal(0.0, 0.15, (configs, questions)))
        power = rng.lognormal(0.0, 0.05, (configs, questions))
        return (
            (margin > 0).astype(float),
            self.seconds[:, None] * times,
            self.joules[:, None] * times * power,
        )


def summaries(answers: tuple[Floats, Floats, Floats], indices: npt.NDArray[np.int64]) -> Floats:
    """(draws, configs, objectives) over the questions of each draw, smaller being better."""
    objectives = [OBJECTIVES[name] for name in OBJECTIVE_NAMES]
    columns = [
        np.stack([objective.summary(row[indices]) for row in amounts], axis=1)
        for objective, amounts in zip(objectives, answers, strict=True)
    ]
    return front.oriented(np.stack(columns, axis=2), [each.direction for each in objectives])


def calibration(spaces: int) -> list[dict[str, Any]]:
    """Membership against who is truly on the front, over all configs of some spaces, by configs and questions."""
    found: dict[tuple[int, int], list[tuple[Floats, Floats, Floats, Floats]]] = {}
    for seed in range(spaces):
        rng = np.random.default_rng(seed)
        for configs in CONFIGS:
            space = Space.draw(rng, configs)
            true = summaries(space.ask(rng, 10_000), np.arange(10_000)[None])[0]
            belongs = front.non_dominated(true).astype(float)
            for size in SIZES:
                answers = space.ask(rng, size)
                values = summaries(answers, np.arange(size)[None])[0]
                shown = front.non_dominated(values).astype(float)
                draws = summaries(answers, front.resample_indices(size, DRAWS, SEED))
                _, twins = np.unique(answers[0], axis=0, return_inverse=True)
                steady = front.steadied(draws, values, 0, twins.tolist())
                each = (front.membership(steady), belongs, shown, front.membership(draws))
                found.setdefault((configs, size), []).append(each)
    return [
        {
            "configs": configs,
            "n": size,
            **_calibration(*map(np.concatenate, zip(*each, strict=True))),
        }
        for (configs, size), each in found.items()
    ]


def _calibration(
    membership: Floats, belongs: Floats, shown: Floats, unsteadied: Floats
) -> dict[str, Any]:
    bins = np.clip(np.digitize(membership, BINS) - 1, 0, len(BINS) - 2)
    on_front = shown == 1

    def brier(said: Floats, where: npt.NDArray[np.bool_]) -> float:
        return round(float(((said - belongs)[where] ** 2).mean()), 4)

    everywhere = np.ones_like(on_front)
    return {
        "share_on_the_true_front": round(float(belongs.mean()), 4),
        "brier": brier(membership, everywhere),
        "brier_unsteadied": brier(unsteadied, everywhere),
        "brier_of_certainty": brier(shown, everywhere),
        "brier_on_shown_front": brier(membership, on_front),
        "brier_of_certainty_on_shown_front": brier(shown, on_front),
        "reliability": [
            {
                "said": round(float(membership[bins == place].mean()), 3),
                "true": round(float(belongs[bins == place].mean()), 3),
                "configs": int((bins == place).sum()),
            }
            for place in range(len(BINS) - 1)
            if (bins == place).any()
        ],
    }


def told_apart(size: int, pairs: int) -> float:
    """How often two configs that are the same are told apart, at 95 % confidence."""
    rng = np.random.default_rng(size)
    indices = front.resample_indices(size, PAIR_DRAWS, SEED)
    apart = 0
    for _ in range(pairs):
        space = Space.draw(rng, 1)
        twins = Space(*(np.repeat(each, 2) for each in vars(space).values()))
        answers = twins.ask(rng, size)
        values = summaries(answers, np.arange(size)[None])
        draws = values + widening(size) * (summaries(answers, indices) - values)
        apart += not front.alike(draws)[0, 1]
    return round(apart / pairs, 4)


# What is printed


def show(result: Mapping[str, Any]) -> None:
    """The result as tables."""
    print(f"95 % intervals that hold the truth, of {result['samples']} samples each\n")
    for each in result["coverage"]:
        missed = "" if each["met"] else "  outside 93 … 97 %"
        label = f"{each['kind']}, {each['shape']}"
        print(f"{label:48} n = {each['n']:3}  {100 * each['coverage']:5.1f} %{missed}")
    print(f"\nMembership, {result['spaces']} spaces each")
    for each in result["membership"]:
        print(
            f"\n{each['configs']} configs, {each['n']} questions: Brier score {each['brier']:.3f}, "
            f"{each['brier_unsteadied']:.3f} by resampling alone, "
            f"{each['brier_of_certainty']:.3f} if the front shown were taken for certain"
        )
        for row in each["reliability"]:
            print(
                f"  said {100 * row['said']:3.0f} %  true {100 * row['true']:3.0f} %  of {row['configs']}"
            )
    print()
    for size, share in result["told_apart_though_the_same"].items():
        print(
            f"told apart though the same, {size} questions: {100 * share:.1f} % (goal: 5 % at most)"
        )
    print(f"\n{result['seconds']:.0f} s on {result['machine']}")


if __name__ == "__main__":
    main()
