"""Answers that mean what they say, fitted on valid: probabilities at a temperature, and sets of classes.

- One temperature T for all images, softmax(log p / T) (Guo et al. 2017, arXiv:1706.04599). It keeps the order of the
  classes of every image, so accuracy does not change.
- Sets of classes that hold the true one with a stated probability: split conformal prediction by the probability of
  the true class (Sadinle et al. 2019, arXiv:1609.00451; Angelopoulos and Bates 2021, arXiv:2107.07511). What is
  promised is a mean over images, and only for images like those of valid.

`probs` is [N, C] with rows that sum to 1, `targets` is [N] with values in 0..C-1, as in `metrics`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.evaluation.bootstrap import paired_interval
from pipeline.evaluation.metrics import (
    Bools,
    Floats,
    Ints,
    expected_calibration_error,
    log_loss,
    log_losses,
    wilson_interval,
)

PRIOR = 8.0
"""How firmly T = 1 is believed before valid is seen, in nats of summed loss.

Without it a model with no mistake on valid gets T = 0, and its first mistake elsewhere an unbounded loss. Some hundred
images with mistakes among them outweigh it (measured: docs/recipe.md).
"""

LIMIT = 100.0
"""Temperatures are sought from 1 / LIMIT to LIMIT."""

COVERAGES = (0.9, 0.95)
"""The coverages that are checked on test images."""


@dataclass(frozen=True)
class Calibration:
    """What valid says of a model's probabilities. The default changes nothing, and promises no coverage."""

    temperature: float = 1.0
    scores: Sequence[float] = field(default=())
    """For each image of valid, 1 - the calibrated probability of its true class, in ascending order."""

    def probs(self, probs: Floats) -> Floats:
        """Calibrated probabilities [N, C]."""
        return at_temperature(probs, self.temperature)

    def sets(self, calibrated: Floats, coverage: float) -> Bools:
        """Which classes are in each image's set, [N, C], from calibrated probabilities; see `class_sets`."""
        return class_sets(calibrated, threshold(self.scores, coverage))


def fit_calibration(probs: Floats, targets: Ints) -> Calibration:
    """Fit the temperature, and then gather the scores of the same images, for any coverage to be asked later."""
    temperature = fit_temperature(probs, targets)
    calibrated = at_temperature(probs, temperature)
    scores = np.sort(1 - calibrated[np.arange(len(targets)), targets])
    return Calibration(temperature, scores.tolist())


def fit_temperature(probs: Floats, targets: Ints, *, prior: float = PRIOR) -> float:
    """The temperature T with the lowest log loss of softmax(log p / T), summed, plus a weak preference for T = 1.

    With b = 1 / T the sum is convex, and so is the preference, prior * (b - 1 - log b): there is one minimum.
    """
    from scipy.optimize import brentq  # takes 0.3 s to import, which a prediction does not need

    logits = _log(probs)
    true = logits[np.arange(len(targets)), targets]

    def slope(log_b: float) -> float:
        b = math.exp(log_b)
        expected = (_softmax(b * logits) * logits).sum(axis=1)
        return float((expected - true).sum()) + prior * (1 - 1 / b)

    end = math.log(LIMIT)
    if slope(-end) >= 0:
        return LIMIT
    if slope(end) <= 0:
        return 1 / LIMIT
    return math.exp(-float(brentq(slope, -end, end, xtol=1e-10)))


def at_temperature(probs: Floats, temperature: float) -> Floats:
    """softmax(log p / temperature), [N, C]; `probs` itself at 1."""
    return probs if temperature == 1 else _softmax(_log(probs) / temperature)


def threshold(scores: Sequence[float], coverage: float) -> float:
    """The score that a class may have at most to be in a set, so that sets hold the true class with this probability.

    It is the ceil((n + 1) * coverage)-th smallest of n scores, which must be in ascending order. Raises ValueError if n
    images are too few to promise it.
    """
    n = len(scores)
    if not 0 < coverage < 1:
        raise ValueError(f"coverage={coverage:g} must lie between 0 and 1, such as 0.9")
    if n == 0:
        raise ValueError(
            f"coverage={coverage:g} cannot be promised: this model was stored without the scores of its validation "
            "images; make it again with `dvc repro tta_evaluate`"
        )
    rank = math.ceil((n + 1) * coverage - 1e-9)  # (n + 1) * coverage may be just above the whole number that it is
    if rank > n:
        raise ValueError(
            f"coverage={coverage:g} cannot be promised with {n} validation images: at most {n}/{n + 1} = "
            f"{n / (n + 1):.4g}; ask for less, or train with at least {_images_needed(coverage)} validation images"
        )
    return scores[rank - 1]


def class_sets(calibrated: Floats, highest_score: float) -> Bools:
    """Which classes are in each image's set, [N, C]: those of at least 1 - `highest_score`, and the most probable.

    Without the latter a set could be empty. It can only raise the coverage.
    """
    sets: Bools = 1 - calibrated <= highest_score
    sets[np.arange(len(sets)), calibrated.argmax(axis=1)] = True
    return sets


def score_calibration(calibration: Calibration, probs: Floats, targets: Ints, *, seed: int) -> dict[str, Any]:
    """Scores on images that the calibration has not seen, before and after; `seed` decides resamples.

    A coverage that valid cannot promise is left out.
    """
    calibrated = calibration.probs(probs)
    change = log_losses(calibrated, targets) - log_losses(probs, targets)
    low, high = paired_interval(change, seed=seed)
    scores: dict[str, Any] = {
        "num_images": len(targets),
        "log_loss_before": log_loss(probs, targets),
        "log_loss_after": log_loss(calibrated, targets),
        "log_loss_change": {"mean": float(change.mean()), "low": low, "high": high},
        "calibration_error_before": expected_calibration_error(probs, targets),
        "calibration_error_after": expected_calibration_error(calibrated, targets),
    }
    for coverage in COVERAGES:
        if _images_needed(coverage) <= len(calibration.scores):
            sets = calibration.sets(calibrated, coverage)
            scores[f"sets_{100 * coverage:.0f}"] = _score_sets(sets, targets)
    return scores


def _score_sets(sets: Bools, targets: Ints) -> dict[str, float]:
    covered = int(sets[np.arange(len(targets)), targets].sum())
    low, high = wilson_interval(covered, len(targets))
    return {
        "coverage": covered / len(targets),
        "coverage_low": low,
        "coverage_high": high,
        "mean_size": float(sets.sum(axis=1).mean()),
    }


def _images_needed(coverage: float) -> int:
    """The smallest n with n / (n + 1) >= coverage."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def _log(probs: Floats) -> Floats:
    logs: Floats = np.log(np.maximum(probs, np.finfo(np.float64).tiny, dtype=np.float64))
    return logs


def _softmax(logits: Floats) -> Floats:
    powers: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers
