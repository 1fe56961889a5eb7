"""Test-time augmentation: the mean of what the model says of an image and of random views of it.

Probabilities are averaged, each view with the same weight (as fastai 0.7 does with its plain and augmented passes).
"""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.console import Bar
from pipeline.learning.loop import BatchSource, Computation, predict

Probs = NDArray[np.float64]


@dataclass(frozen=True)
class Viewed:
    """Predictions for one split."""

    plain: Probs
    """[N, num_classes] from the plain image."""
    tta: Probs
    """[N, num_classes], the mean over the plain image and its views."""
    targets: NDArray[np.int64]
    """[N]"""
    seconds: tuple[float, float]
    """Of the plain pass, and of all passes."""


def predict_views(learner: Computation, plain: BatchSource, augmented: BatchSource, *, views: int, bar: Bar) -> Viewed:
    """Predict the plain images and `views` random views of each."""
    began = time.monotonic()
    logits, targets = predict(learner, plain)
    bar.advance()
    total = plain_probs = logits.double().softmax(1).numpy()
    plain_s = time.monotonic() - began
    for view in range(views):
        total = total + predict(learner, augmented, draw=view)[0].double().softmax(1).numpy()
        bar.advance()
    return Viewed(plain_probs, total / (views + 1), targets.numpy(), (plain_s, time.monotonic() - began))
