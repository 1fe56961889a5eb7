"""Bootstrap of paired differences: losses before and after, predictions without and with TTA."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2000
_PORTION = 100
"""Resamples held in memory at once."""


def paired_interval(differences: NDArray[np.floating[Any]], *, seed: int, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of the mean of paired differences [N]: percentiles over 2,000 resamples.

    B. Efron and R. Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13. For one sample it is a point.
    Not scipy's, which gives the same, but takes a second to load.
    """
    generator, count = np.random.default_rng(seed), len(differences)
    means = [
        differences[generator.integers(0, count, size=(_PORTION, count))].mean(axis=1)
        for _ in range(NUM_RESAMPLES // _PORTION)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def chance_of_best(differences: NDArray[np.floating[Any]], *, seed: int) -> float:
    """Return how often the best of k candidates would look as good by chance, if none were better: a p-value.

    H. White 2000, "A Reality Check for Data Snooping", with each mean divided by its standard error (P. R. Hansen 2005,
    "A Test for Superior Predictive Ability"), which keeps a noisy candidate from hiding a steady one.

    Args:
        differences: loss of each candidate minus that of the state before, [k, N], paired by image.
        seed: decides the resamples.
    """
    generator, count = np.random.default_rng(seed), differences.shape[1]
    means = differences.mean(axis=1)
    errors = np.maximum(differences.std(axis=1) / np.sqrt(count), np.finfo(float).tiny)
    centred = (differences - means[:, None]) / errors[:, None]
    lowest = [centred[:, generator.integers(0, count, size=count)].mean(axis=1).min() for _ in range(NUM_RESAMPLES)]
    return float(np.mean(np.array(lowest) <= (means / errors).min()))
