"""Independent uniform draws: the baseline of every comparison of samplers."""

import optuna


def make(seed: int) -> optuna.samplers.BaseSampler:
    """A random sampler."""
    return optuna.samplers.RandomSampler(seed=seed)
