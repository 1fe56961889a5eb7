"""Rules that read a learning rate off the loss curve of a sweep.

`recipe` is the project's own: the highest rate at which the loss still clearly improves. The others (`valley`, `steep`,
`minimum`, `slide`) are those of fastai 2.8, re-implemented from their definitions, for comparison.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

Floats = NDArray[np.float64]

CLEAR_SHARE = 0.1
"""The loss clearly improves while it falls, per decade of the rate, by at least this share of its whole fall.

Chosen with `benchmarks/lr_regret.py`, together with the width of the smoothing: between 0.07 and 0.13, and between 0.6
and 0.8 decades, the regret hardly changes; with 0.2, or 0.35 decades, it is about twice as large.
"""

MIN_POINTS = 10
MIN_FALL = 0.02
"""A curve that falls by less than this share of its first value is flat: the fall is the batch noise that is left."""
HARM = 0.1
"""A loss has clearly risen if it has grown by this share of its first value."""
HARMLESS_DECADES = 0.5
"""A loss that rises before the rate has grown by this much has risen from the first step on."""
SAFE_SHARE = 1 / 3
"""This share of the highest harmless rate is chosen: training lasts longer than a sweep, and harm may show later. A
third or a quarter of the highest rate is Smith's rule of thumb (arXiv:1506.01186, section 3.3)."""
NEAR_CHANCE = 0.9
"""A model whose loss is at least this share of a blind guess's, log(num_classes), knows next to nothing."""


Remedy = Literal["lower", "higher", "longer"]
"""What a further sweep must do to give a rate: begin at lower rates, go up to higher ones, or take more steps."""


class UnusableCurveError(ValueError):
    """A sweep that gives no rate; the message says why, and what to do."""

    def __init__(self, message: str, remedy: Remedy) -> None:
        super().__init__(message)
        self.remedy: Remedy = remedy


@dataclass(frozen=True)
class Curve:
    """One sweep: rates, the raw loss at each, and the loss smoothed. All [num_points]."""

    lrs: Floats
    losses: Floats
    smoothed: Floats


def smooth(losses: Floats, lrs: Floats, width: float) -> Floats:
    """Mean of the losses [N] around each rate, weighted by a Gaussian of `width` decades; `lrs` grow evenly in log.

    Unlike a moving average of past losses, it does not shift the curve towards higher rates. Nothing is padded at the
    ends: only the points that exist have weight, so that the noise of an end point does not count twice.
    """
    if len(lrs) < 2:
        return losses.copy()
    sigma = width / float(np.log10(lrs[1] / lrs[0]))
    sums, weights = (gaussian_filter1d(x, sigma, mode="constant") for x in (losses, np.ones(len(losses))))
    smoothed: Floats = sums / weights
    return smoothed


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean of sweeps over the same rates, up to the end of the shortest."""
    count = min(len(c.lrs) for c in curves)
    losses = np.mean([c.losses[:count] for c in curves], axis=0)
    return Curve(curves[0].lrs[:count], losses, np.mean([c.smoothed[:count] for c in curves], axis=0))


def recipe(curve: Curve) -> float:
    """The highest rate, at or below the minimum of the smoothed loss, at which the loss still clearly improves.

    There the smoothed loss falls, per decade of the rate, by at least CLEAR_SHARE of the curve's whole fall. If the
    model has nothing left to learn in so few steps, the loss does not fall, but rises in the end: then the rule answers
    SAFE_SHARE of the highest harmless rate, the last one before the loss has clearly risen. Raises UnusableCurveError
    if the loss neither falls nor rises.
    """
    if not falls(curve):
        return SAFE_SHARE * _highest_harmless(curve)
    best = int(np.argmin(curve.smoothed))
    slope = np.gradient(curve.smoothed, np.log10(curve.lrs))
    fall = float(curve.smoothed[: best + 1].max() - curve.smoothed[best])
    steep_enough = np.flatnonzero(slope[: best + 1] <= -CLEAR_SHARE * fall)
    return float(curve.lrs[steep_enough[-1] if len(steep_enough) else np.argmin(slope[: best + 1])])


def falls(curve: Curve) -> bool:
    """Whether the loss falls clearly at any rate."""
    return float(curve.smoothed[0] - curve.smoothed.min()) >= MIN_FALL * abs(float(curve.smoothed[0]))


def check_length(curve: Curve) -> None:
    """Raise UnusableCurveError, with advice, if the curve ends after a few steps."""
    if len(curve.lrs) < MIN_POINTS:
        raise UnusableCurveError(
            f"the loss diverged within {len(curve.lrs) + 1} steps: lower start_lr, or check that the labels and the "
            "normalisation are correct",
            "lower",
        )


def check_learning(curve: Curve, num_classes: int) -> None:
    """Raise UnusableCurveError, with advice, if the loss never falls and is not low from the start either."""
    chance = float(np.log(num_classes))
    if not falls(curve) and curve.smoothed[0] >= NEAR_CHANCE * chance:
        raise UnusableCurveError(
            f"the loss never fell from {curve.smoothed[0]:.4f}, and a blind guess among {num_classes} classes has "
            f"{chance:.4f}: nothing was learned at any rate; raise end_lr or num_steps, use other weights "
            "(model.weights), or check that the labels fit the images",
            "longer",
        )


def _highest_harmless(curve: Curve) -> float:
    start = float(curve.smoothed[0])
    harmed = np.flatnonzero(curve.smoothed > (1 + HARM) * start)
    finding = f"the loss never fell (from {start:.4f} to {curve.smoothed.min():.4f} at best)"
    if not len(harmed):
        raise UnusableCurveError(
            f"{finding}, nor did it rise: raise end_lr or num_steps, or set the training stage's lr yourself; if that "
            "does not help, check that the labels fit the images",
            "higher",
        )
    if curve.lrs[harmed[0]] < curve.lrs[0] * 10**HARMLESS_DECADES:
        raise UnusableCurveError(
            f"{finding}, and rose at the lowest rates already: lower start_lr, or set the training stage's lr yourself",
            "lower",
        )
    return float(curve.lrs[harmed[0] - 1])


def valley(curve: Curve) -> float:
    """The middle of the longest decreasing subsequence, as in fastai 2.8."""
    losses, n = curve.smoothed, len(curve.smoothed)
    length = np.ones(n, dtype=int)
    for i in range(1, n):
        shorter = length[:i][losses[:i] > losses[i]]
        length[i] = max(1, shorter.max(initial=0) + 1)
    end = int(np.argmax(length))
    start = end - int(length[end])
    index = start + int(length[end] / 3) + int(length[end] / 6)
    return float(curve.lrs[max(0, index)])


def steep(curve: Curve) -> float:
    """Where the loss falls fastest per decade."""
    return float(curve.lrs[int(np.argmin(np.gradient(curve.smoothed, np.log10(curve.lrs))))])


def minimum(curve: Curve) -> float:
    """A tenth of the rate with the lowest loss."""
    return float(curve.lrs[int(np.argmin(curve.smoothed))]) / 10


def slide(curve: Curve, *, window: int = 15, tolerance: float = 0.005) -> float:
    """Slide a window left from the right end until the slopes at its edges agree; the answer is its left edge."""
    slopes = np.gradient(curve.smoothed)
    right = len(slopes) - 1
    left = max(0, right - window)
    while left > 0 and abs(slopes[right] - slopes[left]) > tolerance:
        left, right = left - 1, right - 1
    return float(curve.lrs[left])


RULES = {"recipe": recipe, "valley": valley, "steep": steep, "minimum": minimum, "slide": slide}
