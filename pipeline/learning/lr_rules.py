"""Rules that read a learning rate off the loss curve of a sweep.

`recipe` is ours: the highest rate at which the loss still clearly improves. The others are those of fastai 2.8
(`valley`, `steep`, `minimum`, `slide`), re-implemented from their definitions, to compare.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CLEAR_SHARE = 0.2
"""The loss still clearly improves while it falls, per decade of the rate, by this share of its whole fall."""

MIN_POINTS = 10
MIN_FALL = 0.005
"""A curve that falls by less than this share of its first value is flat."""


class UnusableCurveError(ValueError):
    """A sweep from which no rate can be read, with advice."""


@dataclass(frozen=True)
class Curve:
    """One sweep: rates, the raw loss at each, and the loss smoothed. All [num_points]."""

    lrs: Floats
    losses: Floats
    smoothed: Floats


def smooth(losses: Iterable[float], beta: float) -> Floats:
    """Average forward, then backward, so that the curve is not shifted: one pass alone lags by 1 / (1 - beta) steps.

    At 15 steps a decade and beta = 0.9 that lag reads rates four times too high.
    """
    return moving_average(moving_average(losses, beta)[::-1], beta)[::-1]


def moving_average(losses: Iterable[float], beta: float) -> Floats:
    """Exponential moving average, corrected for its start at zero (Kingma & Ba 2014, section 3)."""
    average, out = 0.0, []
    for i, loss in enumerate(losses):
        average = beta * average + (1 - beta) * loss
        out.append(average / (1 - beta ** (i + 1)))
    return np.array(out)


def recipe(curve: Curve) -> float:
    """The largest rate, at or left of the smoothed minimum, at which the loss still clearly improves.

    That is where the smoothed loss falls, per decade of the rate, by at least CLEAR_SHARE of the curve's whole fall.
    Raises UnusableCurveError.
    """
    check(curve)
    best = int(np.argmin(curve.smoothed))
    slope = np.gradient(curve.smoothed, np.log10(curve.lrs))
    fall = float(curve.smoothed[: best + 1].max() - curve.smoothed[best])
    steep_enough = np.flatnonzero(slope[: best + 1] <= -CLEAR_SHARE * fall)
    return float(curve.lrs[steep_enough[-1]])


def check(curve: Curve) -> None:
    """Raise UnusableCurveError, with what to do, for a curve that says nothing."""
    if len(curve.lrs) < MIN_POINTS:
        raise UnusableCurveError(
            f"the loss diverged within {len(curve.lrs) + 1} steps: lower start_lr, or check that the labels and the "
            "normalisation are right"
        )
    fall = float(curve.smoothed[0] - curve.smoothed.min())
    if fall < MIN_FALL * abs(float(curve.smoothed[0])):
        raise UnusableCurveError(
            f"the loss never fell (from {curve.smoothed[0]:.4f} to {curve.smoothed.min():.4f} at best): raise end_lr "
            "or num_steps, or set the training stage's lr yourself; if it stays so, the labels may not fit the images"
        )


def valley(curve: Curve) -> float:
    """The middle third's point of the longest decreasing subsequence, as fastai 2.8 has it."""
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
    """Slide a window left from the right end until the slopes at its two edges agree; the rate at its left edge."""
    slopes = np.gradient(curve.smoothed)
    right = len(slopes) - 1
    left = max(0, right - window)
    while left > 0 and abs(slopes[right] - slopes[left]) > tolerance:
        left, right = left - 1, right - 1
    return float(curve.lrs[left])


RULES = {"recipe": recipe, "valley": valley, "steep": steep, "minimum": minimum, "slide": slide}
