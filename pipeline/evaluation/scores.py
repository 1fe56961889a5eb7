"""The scores of one split, plain and with test-time augmentation, and the tables that pictures are drawn from."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.data import images
from pipeline.data.manifest import Manifest, Sample
from pipeline.evaluation.bootstrap import paired_interval
from pipeline.evaluation.metrics import (
    Bools,
    Floats,
    accuracy,
    calibration_bins,
    confusion,
    expected_calibration_error,
    log_loss,
    log_losses,
    mcnemar_exact,
    per_class,
    wilson_interval,
)
from pipeline.evaluation.tta import Probs
from pipeline.files import write_csv

Targets = NDArray[np.int64]
Mode = Literal["plain", "tta"]


@dataclass(frozen=True)
class SplitPrediction:
    """The predictions for the N images of one split, and the truth."""

    plain: Probs
    """[N, num_classes]"""
    tta: Probs
    """[N, num_classes]"""
    targets: Targets
    """[N]"""
    num_views: NDArray[np.int64]
    """[N], without the plain image."""

    def probs(self, mode: Mode) -> Probs:
        """[N, num_classes], from the plain images or with TTA."""
        return self.plain if mode == "plain" else self.tta


def targets_of(manifest: Manifest, split: str) -> Targets:
    """The class number of each image of `split`, in order: [N]."""
    targets: Targets = images.targets_of(manifest.of(split), manifest.classes).numpy()
    return targets


def score_split(prediction: SplitPrediction, *, seed: int) -> dict[str, Any]:
    """Scores of the plain images and of TTA, and the gain of TTA, with intervals and an exact paired test.

    The gain in log loss is the amount by which the loss falls: as for accuracy, above 0 is better. `seed` decides the
    resamples of the intervals.
    """
    plain, tta, targets = prediction.plain, prediction.tta, prediction.targets
    correct = {"plain": _correct(plain, targets), "tta": _correct(tta, targets)}
    gains = {
        "accuracy": correct["tta"].astype(float) - correct["plain"],
        "log_loss": log_losses(plain, targets) - log_losses(tta, targets),
    }
    return {
        "num_images": len(targets),
        "num_views": float(prediction.num_views.mean()),
        "plain": _scores(plain, targets),
        "tta": _scores(tta, targets),
        "tta_gain": {name: _gain(differences, seed=seed) for name, differences in gains.items()},
        "tta_gain_p_value": mcnemar_exact(correct["tta"], correct["plain"]),
    }


def choose_mode(valid: Mapping[str, Any]) -> Mode:
    """Choose plain images or TTA by their scores on valid: the accuracy and then the log loss; in a tie plain."""
    plain, tta = valid["plain"], valid["tta"]
    better = (tta["accuracy"], -tta["log_loss"]) > (plain["accuracy"], -plain["log_loss"])
    return "tta" if better else "plain"


def write_predictions(
    path: Path, samples: Sequence[Sample], classes: Sequence[str], *, plain: Probs, tta: Probs
) -> None:
    """Write a row per image: file, digest of its pixels, true class, predicted class plain and with TTA, and TTA's
    probabilities.

    `label` and `correct` are empty for an image without a label.
    """

    def rows() -> Iterator[list[Any]]:
        yield ["path", "sha256", "label", "plain", "tta", "correct", *(f"p({name})" for name in classes)]
        for sample, alone, combined in zip(samples, plain, tta, strict=True):
            guess = classes[int(combined.argmax())]
            correct = int(guess == sample.label) if sample.label else ""
            row = [sample.path, sample.sha256, sample.label, classes[int(alone.argmax())], guess, correct]
            yield [*row, *(f"{p:.6f}" for p in combined)]

    write_csv(path, rows())


def write_answers(
    path: Path,
    predictions: Mapping[str, SplitPrediction],
    samples: Mapping[str, Sequence[Sample]],
    classes: Sequence[str],
    mode: Mode,
) -> None:
    """Write a row per labelled image of all splits, in one mode, for runs to be compared image by image.

    `p` is the probability of the predicted class, `loss` the cross entropy of the label in nats.
    """
    rows: list[list[Any]] = [["split", "path", "label", "predicted", "p", "loss"]]
    for split, prediction in predictions.items():
        probs = prediction.probs(mode)
        losses = log_losses(probs, prediction.targets)
        for sample, row, loss in zip(samples[split], probs, losses.tolist(), strict=True):
            answer = [classes[int(row.argmax())], f"{row.max():.6f}", f"{loss:.6f}"]
            rows.append([split, sample.path, sample.label, *answer])
    write_csv(path, rows)


def write_confusion(path: Path, probs: Probs, targets: Targets, classes: Sequence[str]) -> None:
    """Write the confusion matrix: a row of counts per true class, a column per predicted class."""
    counts = confusion(probs, targets, len(classes))
    rows = ([name, *row] for name, row in zip(classes, counts.tolist(), strict=True))
    write_csv(path, [["label", *classes], *rows])


def write_classes(path: Path, probs: Probs, targets: Targets, classes: Sequence[str]) -> None:
    """Write a row per class: its images, and precision, recall (with Wilson's 95 % interval) and F1."""
    found, hits = per_class(probs, targets), confusion(probs, targets, len(classes)).diagonal()
    rows: list[list[Any]] = [["class", "images", "correct", "precision", "recall", "recall_low", "recall_high", "f1"]]
    for i, name in enumerate(classes):
        support, correct = int(found.support[i]), int(hits[i])
        low, high = wilson_interval(correct, support)
        rows.append([name, support, correct, float(found.precision[i]), float(found.recall[i]), low, high])
        rows[-1].append(float(found.f1[i]))
    write_csv(path, rows)


def write_calibration(path: Path, probs: Probs, targets: Targets, *, bins: int = 10) -> None:
    """Write predictions binned by confidence, a row per bin.

    `low` and `high` are the bin's edges, `count` and `correct` numbers of images, `confidence` and `accuracy` means
    (empty if the bin is), `accuracy_low` and `accuracy_high` Wilson's 95 % interval.
    """
    found = calibration_bins(probs.max(axis=1), _correct(probs, targets), bins)
    rows: list[list[Any]] = [
        ["low", "high", "count", "correct", "confidence", "accuracy", "accuracy_low", "accuracy_high"]
    ]
    for i in range(bins):
        count, hits = int(found.count[i]), int(found.correct[i])
        means = [float(found.confidence[i]), float(found.accuracy[i])]
        edges = [float(found.edges[i]), float(found.edges[i + 1])]
        rows.append([*edges, count, hits, *("" if math.isnan(m) else m for m in means), *wilson_interval(hits, count)])
    write_csv(path, rows)


def confident_mistakes(probs: Probs, targets: Targets, count: int) -> list[int]:
    """Which images are predicted wrongly, the most confident first, `count` at most."""
    wrong = np.flatnonzero(~_correct(probs, targets))
    return _take(wrong[np.argsort(-probs[wrong].max(axis=1), kind="stable")], count)


def doubtful_hits(probs: Probs, targets: Targets, count: int) -> list[int]:
    """Which images are predicted correctly, the least confident first, `count` at most."""
    right = np.flatnonzero(_correct(probs, targets))
    return _take(right[np.argsort(probs[right].max(axis=1), kind="stable")], count)


def describe_answers(
    rows: Sequence[int], probs: Probs, samples: Sequence[Sample], classes: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield what is shown of the images with these numbers: file, label, answer and its probability."""
    for i in rows:
        yield {
            "path": samples[i].path,
            "label": samples[i].label,
            "predicted": classes[int(probs[i].argmax())],
            "confidence": float(probs[i].max()),
        }


def _take(rows: NDArray[np.intp], count: int) -> list[int]:
    taken: list[int] = rows[:count].tolist()
    return taken


def _correct(probs: Probs, targets: Targets) -> Bools:
    correct: Bools = probs.argmax(axis=1) == targets
    return correct


def _gain(differences: Floats, *, seed: int) -> dict[str, float]:
    low, high = paired_interval(differences, seed=seed)
    return {"mean": float(differences.mean()), "low": low, "high": high}


def _scores(probs: Probs, targets: Targets) -> dict[str, Any]:
    correct = int(_correct(probs, targets).sum())
    low, high = wilson_interval(correct, len(targets))
    return {
        "accuracy": accuracy(probs, targets),
        "accuracy_low": low,
        "accuracy_high": high,
        "log_loss": log_loss(probs, targets),
        "calibration_error": expected_calibration_error(probs, targets),
        "macro_f1": float(per_class(probs, targets).f1.mean()),
    }
