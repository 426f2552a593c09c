"""Tree-structured Parzen estimator (Ozaki et al., JAIR 2022), the default: multivariate within groups of knobs that occur together."""

import warnings

import optuna

STARTUP_TRIALS = 8


def make(seed: int) -> optuna.samplers.BaseSampler:
    """A TPE sampler; the first STARTUP_TRIALS trials are drawn at random."""
    with warnings.catch_warnings():
        # `multivariate` and `group` are marked experimental; what they do is covered by our tests.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=STARTUP_TRIALS,
            seed=seed,
        )
