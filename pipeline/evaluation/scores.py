"""The scores of one split, plain and with test-time augmentation, and each image's prediction as a table."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data import images
from pipeline.data.manifest import Manifest, Sample
from pipeline.evaluation.bootstrap import paired_interval
from pipeline.evaluation.metrics import (
    Floats,
    accuracy,
    expected_calibration_error,
    log_loss,
    log_losses,
    mcnemar_exact,
    per_class,
    wilson_interval,
)
from pipeline.evaluation.tta import Probs

Targets = NDArray[np.int64]


@dataclass(frozen=True)
class Predicted:
    """What is to be scored of one split."""

    plain: Probs
    """[N, num_classes]"""
    tta: Probs
    """[N, num_classes]"""
    targets: Targets
    """[N]"""
    num_views: NDArray[np.int64]
    """[N], beside the plain image."""


def targets_of(manifest: Manifest, split: str) -> Targets:
    """The class number of each image of `split`, in order."""
    targets: Targets = images.targets_of(manifest.of(split), manifest.classes).numpy()
    return targets


def score_split(predicted: Predicted, *, seed: int) -> dict[str, Any]:
    """Scores of the plain images and of TTA, and what TTA gains, with intervals and an exact paired test.

    The gain in log loss is what the loss falls by: above 0 is better, as for accuracy.
    """
    plain, tta, targets = predicted.plain, predicted.tta, predicted.targets
    right = {"plain": _right(plain, targets), "tta": _right(tta, targets)}
    gains = {
        "accuracy": right["tta"].astype(float) - right["plain"],
        "log_loss": log_losses(plain, targets) - log_losses(tta, targets),
    }
    return {
        "num_images": len(targets),
        "num_views": float(predicted.num_views.mean()),
        "plain": _scores(plain, targets),
        "tta": _scores(tta, targets),
        "tta_gain": {name: _gain(differences, seed=seed) for name, differences in gains.items()},
        "tta_gain_p_value": mcnemar_exact(right["tta"], right["plain"]),
    }


def write_predictions(
    path: Path, samples: Sequence[Sample], classes: Sequence[str], *, plain: Probs, tta: Probs
) -> None:
    """Write a row per image: file, true class, predicted class plain and with TTA, and TTA's probabilities.

    `label` and `correct` are empty for an image without a label.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["path", "label", "plain", "tta", "correct", *(f"p({name})" for name in classes)])
        for sample, alone, viewed in zip(samples, plain, tta, strict=True):
            guess = classes[int(viewed.argmax())]
            correct = int(guess == sample.label) if sample.label else ""
            row = [sample.path, sample.label, classes[int(alone.argmax())], guess, correct]
            table.writerow([*row, *(f"{p:.6f}" for p in viewed)])


def confident_mistakes(predicted: Predicted, count: int) -> list[int]:
    """Indices of the wrong predictions, the surest first."""
    wrong = np.flatnonzero(~_right(predicted.tta, predicted.targets))
    return [int(i) for i in wrong[np.argsort(-predicted.tta[wrong].max(axis=1), kind="stable")][:count]]


def _right(probs: Probs, targets: Targets) -> Any:
    return probs.argmax(axis=1) == targets


def _gain(differences: Floats, *, seed: int) -> dict[str, float]:
    low, high = paired_interval(differences, seed=seed)
    return {"mean": float(differences.mean()), "low": low, "high": high}


def _scores(probs: Probs, targets: Targets) -> dict[str, Any]:
    correct = int(_right(probs, targets).sum())
    low, high = wilson_interval(correct, len(targets))
    return {
        "accuracy": accuracy(probs, targets),
        "accuracy_low": low,
        "accuracy_high": high,
        "log_loss": log_loss(probs, targets),
        "calibration_error": expected_calibration_error(probs, targets),
        "macro_f1": float(per_class(probs, targets).f1.mean()),
    }
