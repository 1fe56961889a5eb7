"""Bootstrap intervals of paired differences: losses before and after, predictions without and with TTA."""

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
