"""Samplers by name: what decides which config is tried next; Optuna's own, set up as they do best here.

A sampler is made afresh for every trial, seeded by the study's seed and the trial's number: a study that was
interrupted proposes what it would have proposed anyway, and so does every worker.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import optuna

POOLED = "pooled"
"""The one that gives questions and not trials."""

SAMPLERS: Mapping[str, str] = {
    POOLED: "tuner.samplers.pooled",
    "tpe": "tuner.samplers.tpe",
    "nsga2": "tuner.samplers.nsga2",
    "nsga3": "tuner.samplers.nsga3",
    "gp": "tuner.samplers.gp",
    "random": "tuner.samplers.random",
    "grid": "tuner.samplers.grid",
}

LARGEST_GRID = 100_000
"""Configs that a grid may have: more would never be tried, and a sampler that learns has found the front long before."""


def make_sampler(name: str, *, seed: int, trial: int) -> "optuna.samplers.BaseSampler":
    """The sampler that proposes the trial of that number; `name` is a key of SAMPLERS. Raises UserError where it needs more than is installed."""
    drawn = np.random.SeedSequence([seed, trial]).generate_state(1)
    sampler: optuna.samplers.BaseSampler = import_module(SAMPLERS[name]).make(int(drawn[0]))
    return sampler
