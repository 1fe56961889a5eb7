"""Scores of predictions, with intervals and tests that say how far to trust them.

Throughout, `probs` is [N, C] with rows that sum to 1, `targets` is [N] with values in 0..C-1, and N is at
least 1. Empty input, wrong shapes and NaN raise ValueError.

They are written out, because SciPy's and scikit-learn's take 1.5 seconds to import, which a prediction and every stage
would pay. Tests compare with both.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

# Aliases for signatures; shapes are in the docstrings.
Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PerClass:
    """Scores of each class, all arrays [C]; a ratio with denominator 0 is 0."""

    precision: Floats
    recall: Floats
    f1: Floats
    support: Ints
    """Number of samples of the class."""


@dataclass(frozen=True)
class CalibrationBins:
    """Predictions binned by confidence, all arrays [bins]; the means of an empty bin are NaN."""

    edges: Floats
    """[bins + 1], from 0 to 1."""
    count: Ints
    correct: Ints
    confidence: Floats
    """Mean confidence in the bin."""
    accuracy: Floats
    """Share of the bin's predictions that are correct."""

    @property
    def error(self) -> float:
        """Gap between confidence and accuracy, averaged over samples (expected calibration error)."""
        filled = self.count > 0
        gaps = np.abs(self.confidence[filled] - self.accuracy[filled])
        return float(np.average(gaps, weights=self.count[filled]))


def accuracy(probs: Floats, targets: Ints) -> float:
    """Return the share of samples whose most probable class (in a tie, the first) is the target."""
    _check(probs, targets)
    return float((probs.argmax(axis=1) == targets).mean())


def log_loss(probs: Floats, targets: Ints, *, clip: float = 1e-7) -> float:
    """Return the mean cross entropy in nats; a probability below `clip` counts as `clip`.

    Not scikit-learn's, which refuses a single class, warns at float32 rows, and clips by dtype, so that one
    confident mistake weighs 16 in float32 and 36 in float64.
    """
    return float(log_losses(probs, targets, clip=clip).mean())


def log_losses(probs: Floats, targets: Ints, *, clip: float = 1e-7) -> Floats:
    """Return each sample's cross entropy [N]; see `log_loss`."""
    _check(probs, targets)
    picked = probs[np.arange(len(targets)), targets].astype(np.float64)
    losses: Floats = -np.log(np.clip(picked, clip, 1.0))
    return losses


def confusion(probs: Floats, targets: Ints, num_classes: int) -> Ints:
    """Return counts [num_classes, num_classes]: row is the target, column is the prediction.

    Not scikit-learn's, which warns about a single class even if it is expected.
    """
    _check(probs, targets)
    if probs.shape[1] != num_classes:
        raise ValueError(f"probs has {probs.shape[1]} columns for {num_classes} classes")
    pairs = targets.astype(np.int64) * num_classes + probs.argmax(axis=1)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def wilson_interval(correct: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion; (0, 1) for no samples.

    E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927).
    Unlike the normal interval it stays inside [0, 1] and does not shrink to a point at 0 and n correct.
    """
    if n == 0 and correct == 0:
        return 0.0, 1.0
    if not 0 <= correct <= n:
        raise ValueError(f"{correct} of {n} is no proportion")
    share, z = int(correct) / int(n), NormalDist().inv_cdf((1 + level) / 2)
    scale = 1 + z**2 / n
    middle = (share + z**2 / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / scale
    return (0.0 if correct == 0 else middle - half), (1.0 if correct == n else middle + half)


def predicted_interval(correct: int, n: int, num_new: int, level: float = 0.95) -> tuple[float, float]:
    """Return where the proportion among `num_new` further samples will lie, after `correct` of `n`.

    Wider than the interval of the proportion itself: the new samples are a matter of chance too. Quantiles of the
    beta-binomial distribution with Jeffreys' prior (L. D. Brown, T. T. Cai, A. DasGupta, "Interval Estimation for a
    Binomial Proportion", Statistical Science 16, 2001).
    """
    a, b = correct + 0.5, n - correct + 0.5
    logs = [_log_choose(num_new, k) + _log_beta(k + a, num_new - k + b) - _log_beta(a, b) for k in range(num_new + 1)]
    at_most = np.cumsum(np.exp(logs))
    low, high = np.searchsorted(at_most, [(1 - level) / 2, (1 + level) / 2])
    return float(low) / num_new, float(high) / num_new


def calibration_bins(confidence: Floats, correct: Bools, bins: int = 10) -> CalibrationBins:
    """Sort predictions, `confidence` [N] in 0..1 and `correct` [N], into `bins` of equal width.

    A bin includes its lower edge but not its upper one; the last includes 1.
    """
    if len(confidence) == 0 or confidence.shape != correct.shape:
        raise ValueError(f"confidence {confidence.shape} and correct {correct.shape} must be equal and not empty")
    if not ((confidence >= 0) & (confidence <= 1 + 1e-6)).all():
        raise ValueError("confidence must lie in 0..1")
    index = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    count = np.bincount(index, minlength=bins)
    hits = np.bincount(index[correct], minlength=bins)
    total = np.bincount(index, weights=confidence, minlength=bins)
    return CalibrationBins(
        edges=np.linspace(0, 1, bins + 1),
        count=count,
        correct=hits,
        confidence=_mean(total, count),
        accuracy=_mean(hits, count),
    )


def expected_calibration_error(probs: Floats, targets: Ints, bins: int = 10) -> float:
    """Return the gap between the top probability and accuracy, over equal bins, averaged over samples."""
    _check(probs, targets)
    return calibration_bins(probs.max(axis=1), probs.argmax(axis=1) == targets, bins).error


def per_class(probs: Floats, targets: Ints) -> PerClass:
    """Return precision, recall, F1 and support of each class, including classes that never occur."""
    _check(probs, targets)
    counts = confusion(probs, targets, probs.shape[1])
    hits, predicted, support = counts.diagonal(), counts.sum(axis=0), counts.sum(axis=1)
    return PerClass(_share(hits, predicted), _share(hits, support), _share(2 * hits, predicted + support), support)


def mcnemar_exact(correct_a: Bools, correct_b: Bools) -> float:
    """Return McNemar's exact two-sided p-value for two models on the same samples [N].

    Only samples that just one of them classifies correctly count: if both are equally good, each model is that one with
    probability 1/2.
    """
    if correct_a.shape != correct_b.shape:
        raise ValueError(f"not the same samples: {correct_a.shape} and {correct_b.shape}")
    only_a = int((correct_a & ~correct_b).sum())
    only_b = int((~correct_a & correct_b).sum())
    return _sign_test(min(only_a, only_b), only_a + only_b)


def _sign_test(fewer: int, n: int) -> float:
    """Two-sided p-value of `fewer` heads, at most half of them, in `n` throws of a fair coin, exactly rounded."""
    ways = term = 1
    for k in range(fewer):
        term = term * (n - k) // (k + 1)  # n choose k + 1
        ways += term
    return min(1.0, 2 * ways / (1 << n))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _share(part: Ints, of: Ints) -> Floats:
    """`part` / `of`, 0 where that is 0 / 0."""
    share: Floats = np.divide(part, of, out=np.zeros(len(of)), where=of > 0)
    return share


def _mean(total: Floats | Ints, count: Ints) -> Floats:
    mean: Floats = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    return mean


def _check(probs: Floats, targets: Ints) -> None:
    if probs.ndim != 2 or targets.shape != probs.shape[:1] or probs.size == 0:
        raise ValueError(f"probs {probs.shape} and targets {targets.shape} must be [N, C] and [N], not empty")
    if not np.isfinite(probs).all():
        raise ValueError("probs holds NaN or infinity")
    if targets.min() < 0 or targets.max() >= probs.shape[1]:
        raise ValueError(f"targets must lie in 0..{probs.shape[1] - 1}")
