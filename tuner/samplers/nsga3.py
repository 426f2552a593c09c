"""NSGA-III (Deb and Jain, IEEE TEC 2014): as NSGA-II, spread along reference directions, for three objectives and more."""

import warnings

import optuna

from tuner.samplers.nsga2 import POPULATION


def make(seed: int) -> optuna.samplers.BaseSampler:
    """An NSGA-III sampler."""
    with warnings.catch_warnings():
        # It is marked experimental; what it does is covered by our tests.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.NSGAIIISampler(population_size=POPULATION, seed=seed)
