"""How often racing stops a config that nothing beats, and how many questions it saves, beside other ways of stopping.

Studies of 40 configs are run question by question, on synthetic spaces and on the recorded table, each with another order of the
questions; configs come at random, or near the front as samplers propose them. A false stop is one of a config that,
asked all questions, no config on the front would have dominated; its rate is among the configs of which that is so.
"near stopped" is the rate among those that are dominated but, with other questions, might not have been. On synthetic
spaces the truth beyond the questions is known too: "in truth" is the rate among what is not dominated there, and
"unstopped" the share of the same that a study which stops nothing calls dominated, for want of questions. Goal: a rate of
at most 5 % at 95 % confidence.
"""

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats

from tuner.front import NEAR
from tuner.front import Floats
from tuner.front import membership
from tuner.front import non_dominated
from tuner.objectives import JOULES_PER_WH
from tuner.objectives import OBJECTIVES
from tuner.racing import Race
from tuner.table import Table

HERE = Path(__file__).parent
TABLE = HERE / "tables" / "quickstart.jsonl.gz"
NAMES = ("accuracy", "latency_p50_s", "energy_wh")
CHOSEN = [OBJECTIVES[name] for name in NAMES]
CONFIDENCE = 0.95
BLOCK = 6
TRIALS = 40
FIRST = 8
"""Configs that are drawn at random before any is drawn near the front."""
EXPLORED = 0.2
"""Share of configs that are drawn at random afterwards."""
DRAWS = 50
"""Resamples of the questions that say which configs are near the front."""

Look = Callable[[Floats], bool]
"""Whether to stop a config, of which (questions, objectives) were seen."""
Rule = Callable[[Floats], Look]
"""Opens the looks at a config beside the (configs, questions, objectives) measured in whole."""


def main() -> None:
    """Run the studies under each rule, print and record what was stopped."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="5 studies each; a minute at most")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    arguments = parser.parse_args()
    studies = 5 if arguments.quick else 200
    began_s = time.perf_counter()
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for name, setting in SETTINGS.items():
        found[name] = {rule: measured(setting, RULES[rule], studies) for rule in RULES}
        if not arguments.json:
            show(name, found[name])
    rate = max(rules["race"]["false_stop_rate"] or 0.0 for rules in found.values())
    result = {
        "benchmark": "racing",
        "studies": studies,
        "trials": TRIALS,
        "block": BLOCK,
        "confidence": CONFIDENCE,
        "false_stop_rate": rate,
        "met": rate <= 1 - CONFIDENCE,
        "settings": found,
        "seconds": round(time.perf_counter() - began_s),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }
    text = json.dumps(result, indent=2)
    if not arguments.quick:
        (HERE / "results" / "racing.json").write_text(text + "\n")
    if arguments.json:
        print(text)
        return
    print(f"goal: at most {1 - CONFIDENCE:.0%} false stops: {'met' if result['met'] else 'missed'}")


# Worlds


@dataclass(frozen=True, slots=True)
class World:
    """A space of which every answer is known."""

    knobs: npt.NDArray[np.int64]
    """(configs, knobs) places of their values: how many differ says how near two configs are."""
    amounts: Floats
    """(configs, questions, objectives): scores, seconds, watt-hours."""
    truth: Floats | None
    """(configs, objectives), smaller being better, as over endless questions; None where that is not known."""


def synthetic(seed: int, questions: int, *, skewed: bool = False) -> World:
    """270 configs whose accuracy and cost rise with some knobs, and cost alone with others; questions are alike hard and long for all.

    Deviations of log seconds within a config: 0.5, or where `skewed` 1.3.
    """
    rng = np.random.default_rng(seed)
    knobs = np.array(list(product(range(3), range(5), range(6), range(3))))
    workflow, shots, budget, width = knobs.T
    kind, slope = rng.normal(0, 0.8, 3), rng.uniform(0.1, 0.7, 3)
    level = kind[workflow] + slope[workflow] * budget + 0.9 * np.sqrt(shots) - 2.5
    level += rng.normal(0, 0.3, len(knobs))
    cost = 0.3 * workflow + 0.25 * budget + 0.1 * shots + 0.4 * width
    cost += rng.normal(0, 0.1, len(knobs))
    power = 1.0 + 0.1 * width + rng.normal(0, 0.05, len(knobs))
    hard, long = rng.normal(0, 2.0, questions), rng.normal(0, 0.3, questions)
    size = len(knobs), questions
    scores = level[:, None] - hard + rng.logistic(size=size) > 0
    deviation = (1.3 if skewed else 0.4) * rng.normal(size=size)
    seconds = np.exp(cost[:, None] + long + deviation)
    joules = power[:, None] * seconds * np.exp(0.1 * rng.normal(size=size))
    truth = np.stack([-level, cost, cost + np.log(power)], axis=1)  # monotone in the objectives
    return World(knobs, np.stack([scores, seconds, joules], axis=2), truth)


def recorded(seed: int, questions: int) -> World:
    """The recorded table, of which so many questions are drawn; all of them are all there is to know."""
    knobs, amounts = _table()
    drawn = np.random.default_rng(seed).permutation(amounts.shape[1])[:questions]
    return World(knobs, amounts[:, drawn], None)


@cache
def _table() -> tuple[npt.NDArray[np.int64], Floats]:
    """Of every config that the table tells of, the places of its knobs' values and its amounts."""
    table = Table.read(TABLE)
    amounts = table.fields(table.configs, ("score", "latency_s", "energy_j"))
    amounts[:, :, 2] /= JOULES_PER_WH
    known = ~np.isnan(amounts).any(axis=(1, 2))
    params = [{"workflow": each.workflow, **each.params} for each in table.configs]
    names = dict.fromkeys(name for each in params for name in each)
    columns = [[repr(each.get(name)) for each in params] for name in names]
    knobs = np.stack([np.unique(column, return_inverse=True)[1] for column in columns], axis=1)
    return knobs[known], amounts[known]


def summarised(amounts: Floats) -> Floats:
    """(…, objectives) of (…, questions, objectives), smaller being better."""
    columns = [each.summary(amounts[..., k]) for k, each in enumerate(CHOSEN)]
    return np.stack([-columns[0], *columns[1:]], axis=-1)


def dominated(values: Floats, others: Floats) -> bool:
    """Whether any of the others is at least as good everywhere and better somewhere."""
    return bool(((others <= values).all(axis=1) & (others < values).any(axis=1)).any())


# Rules


def race(whole: Floats) -> Look:
    """Ours."""
    under_way = Race(CHOSEN, dict(enumerate(whole)), confidence=CONFIDENCE)
    return lambda seen: under_way.beaten_by(seen) is not None


def paired_tests(whole: Floats) -> Look:
    """Exact McNemar tests of right answers and Student's of log ratios of costs, corrected for looks and for rivals."""
    rivals = whole[non_dominated(summarised(whole))]
    looks = (whole.shape[1] - 1) // BLOCK
    error = (1 - CONFIDENCE) / looks / len(rivals)

    def look(seen: Floats) -> bool:
        others = rivals[:, : len(seen)]
        more_right = (seen[:, 0] > others[:, :, 0]).sum(axis=1)
        differ = (seen[:, 0] != others[:, :, 0]).sum(axis=1)
        ratios = np.log(seen[:, 1:] / others[:, :, 1:])
        scale = ratios.std(axis=1, ddof=1) / math.sqrt(len(seen))
        scale[scale == 0.0] = np.inf
        chances = [
            stats.binom.cdf(more_right, differ, 0.5),
            *stats.t.sf(ratios.mean(axis=1) / scale, len(seen) - 1).T,
        ]
        return bool((np.max(chances, axis=0) <= error).any())

    return look


def z_tests(whole: Floats, *, z: float) -> Look:
    """Means of the questions seen against the values on the front, so many standard errors away; at every look anew."""
    values = summarised(whole)
    front = values[non_dominated(values)]

    def look(seen: Floats) -> bool:
        reach = z * seen.std(axis=0, ddof=1) / math.sqrt(len(seen))
        return dominated(summarised(seen) - reach, front)

    return look


def syftr(whole: Floats) -> Look:
    """The optimistic corner of Wald intervals is dominated, after 30 questions or more."""
    look = z_tests(whole, z=1.96)
    return lambda seen: len(seen) >= 30 and look(seen)


RULES: dict[str, Rule] = {
    "race": race,
    "paired tests": paired_tests,
    "z > 1.64": partial(z_tests, z=1.64),
    "z > 2.58": partial(z_tests, z=2.58),
    "syftr": syftr,
}

Settings = tuple[Callable[[int, int], World], int, bool]
"""The space of a seed, the questions, and whether configs are drawn near the front."""

SETTINGS: dict[str, Settings] = {
    "synthetic, at random": (synthetic, 60, False),
    "synthetic": (synthetic, 60, True),
    "synthetic, 24 questions": (synthetic, 24, True),
    "synthetic, skewed": (partial(synthetic, skewed=True), 60, True),
    "recorded": (recorded, 60, True),
    "recorded, 24 questions": (recorded, 24, True),
}


# Studies


@dataclass(slots=True)
class Tally:
    """What became of the configs of studies that had something to be compared with."""

    questions: int = 0
    given: int = 0
    seconds: float = 0.0
    spent_s: float = 0.0
    stops: int = 0
    undominated: int = 0
    false_stops: int = 0
    undominated_in_truth: int = 0
    false_in_truth: int = 0
    unstopped_in_truth: int = 0
    """Dominated as measured on all questions, though not in truth."""
    near: int = 0
    """Configs off that front whose membership is NEAR or more."""
    near_stops: int = 0
    on_front: int = 0
    """Configs on the front of a study that had stopped nothing."""
    lost: int = 0
    """Of those, the ones that were stopped."""


def run_study(
    world: World, rule: Rule, rng: np.random.Generator, *, propose_near: bool, tally: Tally
) -> bool:
    """One study; whether it had a false stop."""
    configs, questions, _ = world.amounts.shape
    amounts = world.amounts[:, rng.permutation(questions)]
    values = summarised(amounts)
    tried: list[int] = []
    whole: list[int] = []
    false_before = tally.false_stops
    for _ in range(min(TRIALS, configs)):
        config = _drawn(world.knobs, values, tried, whole, rng, near=propose_near)
        given = questions
        if whole:
            look = rule(amounts[whole])
            looks = range(BLOCK, questions, BLOCK)
            given = next((n for n in looks if look(amounts[config, :n])), questions)
            is_dominated = dominated(values[config], values[whole])
            tally.undominated += not is_dominated
            tally.false_stops += given < questions and not is_dominated
            if world.truth is not None and not dominated(world.truth[config], world.truth[whole]):
                tally.undominated_in_truth += 1
                tally.false_in_truth += given < questions
                tally.unstopped_in_truth += is_dominated
        tally.questions += questions
        tally.given += given
        tally.seconds += float(amounts[config, :, 1].sum())
        tally.spent_s += float(amounts[config, :given, 1].sum())
        tally.stops += given < questions
        tried.append(config)
        if given == questions:
            whole.append(config)
    is_stopped = ~np.isin(tried, whole)
    on_front = non_dominated(values[tried])
    draws = rng.integers(0, questions, (DRAWS, questions))
    near = ~on_front & (membership(summarised(amounts[tried][:, draws].swapaxes(0, 1))) >= NEAR)
    tally.on_front += int(on_front.sum())
    tally.lost += int((on_front & is_stopped).sum())
    tally.near += int(near.sum())
    tally.near_stops += int((near & is_stopped).sum())
    return tally.false_stops > false_before


def _drawn(
    knobs: npt.NDArray[np.int64],
    values: Floats,
    tried: Sequence[int],
    whole: Sequence[int],
    rng: np.random.Generator,
    *,
    near: bool,
) -> int:
    """A config that was not tried: any, or one that differs in few knobs from one on the front."""
    left = np.setdiff1d(np.arange(len(knobs)), tried)
    if not near or len(tried) < FIRST or rng.random() < EXPLORED:
        return int(rng.choice(left))
    on_front = np.flatnonzero(non_dominated(values[whole]))
    differ = (knobs[left] != knobs[whole[rng.choice(on_front)]]).sum(axis=1)
    return int(rng.choice(left[differ == differ.min()]))


def measured(setting: Settings, rule: Rule, studies: int) -> dict[str, float | None]:
    """Rates over studies with seeds 0, 1, …"""
    make, questions, near = setting
    tally, with_one = Tally(), 0
    for seed in range(studies):
        rng = np.random.default_rng([seed, 1])
        with_one += run_study(make(seed, questions), rule, rng, propose_near=near, tally=tally)
    configs = tally.questions // questions
    return {
        "false_stop_rate": _share(tally.false_stops, tally.undominated),
        "false_of_stops": _share(tally.false_stops, tally.stops),
        "studies_with_one": _share(with_one, studies),
        "near_stopped": _share(tally.near_stops, tally.near),
        "front_lost": _share(tally.lost, tally.on_front),
        "stopped": _share(tally.stops, configs),
        "questions_saved": 1 - tally.given / tally.questions,
        "agent_seconds_saved": 1 - tally.spent_s / tally.seconds,
        "in_truth": _share(tally.false_in_truth, tally.undominated_in_truth),
        "unstopped": _share(tally.unstopped_in_truth, tally.undominated_in_truth),
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def show(name: str, rules: dict[str, dict[str, float | None]]) -> None:
    """A table of one setting."""
    print(f"\n{name:24}" + "".join(f"{rule:>14}" for rule in rules))
    for measure in next(iter(rules.values())):
        figures = (found[measure] for found in rules.values())
        cells = ("–" if figure is None else f"{figure:.1%}" for figure in figures)
        print(f"{measure:24}" + "".join(f"{cell:>14}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
