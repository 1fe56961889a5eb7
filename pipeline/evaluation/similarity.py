"""Is the data like what the backbone was pretrained on? The recipe's own test.

If training the unfrozen layers for an epoch or two changes the loss on unseen images by no more than its noise, the
pretrained features fitted already: the data is very similar. The noise is that of the sample of images, by the
bootstrap over the paired per-image losses (Efron & Tibshirani 1993, chapter 13).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Similarity:
    """How the mean validation loss moved in the first unfrozen cycle."""

    before: float
    after: float
    change: float
    interval: tuple[float, float]
    """Of the change, at 95 %."""
    similar: bool
    sentence: str


def compare_losses(before: NDArray[np.float64], after: NDArray[np.float64], *, seed: int) -> Similarity:
    """Compare per-image losses [N] before and after the first cycle."""
    differences = after - before
    generator = np.random.default_rng(seed)
    picks = generator.integers(0, len(differences), size=(NUM_RESAMPLES, len(differences)))
    low, high = np.quantile(differences[picks].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    change = float(differences.mean())
    similar = bool(low <= 0 <= high)
    span = f"{change:+.4f} (95 % interval {low:+.4f} to {high:+.4f})"
    if similar:
        sentence = f"The data is very similar to the pretraining data: unfrozen, the loss moved by {span}."
    elif change < 0:
        sentence = f"The data differs from the pretraining data: adapting all layers moved the loss by {span}."
    else:
        sentence = f"The first unfrozen cycle made the loss worse, by {span}: a lower full_train.lr may do better."
    return Similarity(float(before.mean()), float(after.mean()), change, (float(low), float(high)), similar, sentence)
