"""NSGA-II (Deb et al., IEEE TEC 2002), with a population small enough for studies of tens of trials."""

import optuna

POPULATION = 20


def make(seed: int) -> optuna.samplers.BaseSampler:
    """An NSGA-II sampler."""
    return optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)
