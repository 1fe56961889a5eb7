"""The scores of one split, plain and with test-time augmentation, and each image's prediction as a table."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.manifest import Sample
from pipeline.evaluation.metrics import (
    accuracy,
    expected_calibration_error,
    log_loss,
    mcnemar_exact,
    per_class,
    wilson_interval,
)
from pipeline.evaluation.tta import Probs, Viewed


def score_split(viewed: Viewed) -> dict[str, Any]:
    """Scores of the plain images and of TTA, and an exact paired test of their difference."""
    right = {"plain": _right(viewed.plain, viewed), "tta": _right(viewed.tta, viewed)}
    return {
        "num_images": len(viewed.targets),
        "plain": _scores(viewed.plain, viewed),
        "tta": _scores(viewed.tta, viewed),
        "tta_gain": float(right["tta"].mean() - right["plain"].mean()),
        "tta_gain_p_value": mcnemar_exact(right["tta"], right["plain"]),
    }


def write_predictions(path: Path, samples: Sequence[Sample], classes: Sequence[str], viewed: Viewed) -> None:
    """Write a row per image: file, true class, predicted class plain and with TTA, and TTA's probabilities."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["path", "label", "plain", "tta", "correct", *(f"p({name})" for name in classes)])
        for sample, plain, tta in zip(samples, viewed.plain, viewed.tta, strict=True):
            guess = classes[int(tta.argmax())]
            row = [sample.path, sample.label, classes[int(plain.argmax())], guess, int(guess == sample.label)]
            table.writerow([*row, *(f"{p:.6f}" for p in tta)])


def confident_mistakes(viewed: Viewed, count: int) -> list[int]:
    """Indices of the wrong predictions, the surest first."""
    wrong = np.flatnonzero(~_right(viewed.tta, viewed))
    return [int(i) for i in wrong[np.argsort(-viewed.tta[wrong].max(axis=1), kind="stable")][:count]]


def _right(probs: Probs, viewed: Viewed) -> Any:
    return probs.argmax(axis=1) == viewed.targets


def _scores(probs: Probs, viewed: Viewed) -> dict[str, Any]:
    correct = int(_right(probs, viewed).sum())
    low, high = wilson_interval(correct, len(viewed.targets))
    return {
        "accuracy": accuracy(probs, viewed.targets),
        "accuracy_low": low,
        "accuracy_high": high,
        "log_loss": log_loss(probs, viewed.targets),
        "calibration_error": expected_calibration_error(probs, viewed.targets),
        "macro_f1": float(per_class(probs, viewed.targets).f1.mean()),
    }
