"""Gaussian processes and expected hypervolume improvement (Daulton et al., NeurIPS 2020): slow, for a few tens of trials.

Knobs that not every config has are beyond it and drawn at random, so it suits spaces of one workflow best.
"""

from importlib.util import find_spec

import optuna

from tuner.errors import UserError


def make(seed: int) -> optuna.samplers.BaseSampler:
    """A GP sampler; its first ten trials are drawn at random. Raises UserError where torch is not installed."""
    if find_spec("torch") is None:
        raise UserError("sampler gp needs torch, which is not installed", "pip install 'tuner[gp]'")
    return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
