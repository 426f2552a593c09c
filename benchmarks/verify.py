"""How often `tuner verify` calls an unchanged system worse, and finds one that is: simulated, where the truth is known.

A system answers 75 % of the questions rightly and takes times that differ from question to question (lognormal, σ = 0.7).
Measured again, some answers are drawn anew (0 %: greedy decoding on one slot; 30 %: sampling at a temperature), times
differ by 20 % from answer to answer, and all of them by 5 % from one day to the next. "all" is what the verb's exit status goes
by: accuracy, median and mean time together. "fails" and "holds" are shares of the verifications; the rest is undecided.
Goals: at most 5 % of unchanged systems fail; a loss of 20 points is found in most cases with 100 questions.
"""

import argparse
import json
import platform
import time
from collections import Counter
from pathlib import Path

import numpy as np

from tuner.claims import judge
from tuner.objectives import OBJECTIVES

QUESTIONS = (20, 48, 100, 200)
REDRAWN = (0.0, 0.1, 0.3)
CHANGES = {
    "unchanged": (0.0, 1.0),
    "10 points lost": (0.1, 1.0),
    "20 points lost": (0.2, 1.0),
    "twice as slow": (0.0, 2.0),
}
"""Share of all questions that are answered wrongly now, and how many times as long all take."""

RIGHT, SPREAD, NOISE, DAY = 0.75, 0.7, 0.2, 0.05
FIGURES = {"accuracy": "score", "latency_p50_s": "time", "latency_mean_s": "time"}


def main() -> None:
    """Verify simulated systems, print and record the shares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="40 of each; a minute at most")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    given = parser.parse_args()
    times, rng, began_s = 40 if given.quick else 1000, np.random.default_rng(5), time.monotonic()
    found: dict[str, dict[str, dict[str, dict[str, dict[str, float]]]]] = {}
    for change, (lost, slower) in CHANGES.items():
        found[change] = {}
        for redrawn in REDRAWN:
            rows = {
                str(questions): shares(rng, questions, redrawn, lost, slower, times)
                for questions in QUESTIONS
            }
            found[change][f"{redrawn:g}"] = rows
            if not given.json:
                show(f"{change}, {redrawn:.0%} of the answers drawn anew", rows)
    result = {
        "times": times,
        "python": platform.python_version(),
        "seconds": round(time.monotonic() - began_s, 1),
        "shares": found,
    }
    text = json.dumps(result, indent=1)
    if given.json:
        print(text)
    if not given.quick:
        (Path(__file__).parent / "results" / "verify.json").write_text(text + "\n")


def shares(
    rng: np.random.Generator, questions: int, redrawn: float, lost: float, slower: float, times: int
) -> dict[str, dict[str, float]]:
    """Of so many verifications, by figure and for all of them, the share of each outcome."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in (*FIGURES, "all")}
    for _ in range(times):
        outcomes = verify(rng, questions, redrawn, lost, slower)
        outcomes["all"] = next(
            each for each in ("fails", "undecided", "holds") if each in outcomes.values()
        )
        for name, outcome in outcomes.items():
            counts[name][outcome] += 1
    return {
        name: {outcome: count[outcome] / times for outcome in ("holds", "undecided", "fails")}
        for name, count in counts.items()
    }


def verify(
    rng: np.random.Generator, questions: int, redrawn: float, lost: float, slower: float
) -> dict[str, str]:
    """One system measured twice: what is said of each figure."""
    before = (rng.random(questions) < RIGHT).astype(float)
    now = np.where(rng.random(questions) < redrawn, rng.random(questions) < RIGHT, before)
    now = np.where(rng.random(questions) < lost / RIGHT, 0.0, now)
    usual = rng.lognormal(0.0, SPREAD, questions)

    def took() -> np.ndarray:
        return usual * rng.lognormal(0.0, NOISE, questions) * rng.lognormal(0.0, DAY)

    amounts = {"score": (before, now), "time": (took(), slower * took())}
    return {
        name: judge(OBJECTIVES[name], *(each[:, np.newaxis] for each in amounts[kind])).outcome
        for name, kind in FIGURES.items()
    }


def show(title: str, rows: dict[str, dict[str, dict[str, float]]]) -> None:
    """A table of one setting: fails / holds."""
    names = list(next(iter(rows.values())))
    print(f"\n{title}\n{'questions':12}" + "".join(f"{name:>20}" for name in names))
    for questions, row in rows.items():
        cells = (f"{row[name]['fails']:.1%} / {row[name]['holds']:.1%}" for name in names)
        print(f"{questions:12}" + "".join(f"{cell:>20}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
