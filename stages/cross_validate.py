"""Beside the recipe: cross-validate heads on the precomputed activations, and list the labels that look wrong.

Reads the activations of train and valid together, never those of test. Writes `predictions.csv` (every image as a head
predicts it that has not seen it), `folds.csv`, the scores, and `suspects.csv`: the images whose label looks wrong, the
worst first. Decides nothing: a person looks at the suspects, edits a copy of the list, and names it in `data.drop`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipeline.data.manifest import Manifest, Sample, read_manifest
from pipeline.evaluation.bootstrap import paired_interval
from pipeline.evaluation.label_errors import Suspects, find_suspects
from pipeline.evaluation.metrics import Ints, accuracy, log_loss, log_losses, predicted_interval, wilson_interval
from pipeline.files import write_csv
from pipeline.harness.stage import Input, Metrics, Stage, StageContext
from pipeline.harness.start import main
from pipeline.learning.cross_validation import OutOfFold, cross_validate
from pipeline.model.compute import threads_for
from pipeline.model.tensors import read_tensors
from pipeline.settings import CrossValidate, SettingsError

SPLITS = ("train", "valid")


@dataclass(frozen=True)
class Reads:
    seed: int
    cross_validate: CrossValidate


def run(context: StageContext[Reads]) -> Metrics:
    """Predict each image out of fold, score, and find suspects."""
    seed, num_folds = context.settings.seed, context.settings.cross_validate.num_folds
    manifest = read_manifest(context.input("ingest"))
    samples = manifest.of(*SPLITS)
    groups = [sample.group for sample in samples]
    if len(set(groups)) < num_folds:
        raise SettingsError(
            f"cross_validate.num_folds={num_folds} needs as many groups of images (copies count once), and train and "
            f"valid have {len(set(groups))}: set it to {len(set(groups))} or less, or add images"
        )
    stored = [read_tensors(context.input("precompute") / f"activations-{split}.safetensors") for split in SPLITS]
    features = torch.cat([tensors["activations"][0] for tensors in stored])  # of the plain images
    targets = torch.cat([tensors["targets"] for tensors in stored])
    file = context.input("precompute") / "activations-train.safetensors"
    with threads_for(file), context.progress(num_folds) as bar:
        found = cross_validate(
            features, targets, groups, num_folds=num_folds, num_classes=len(manifest.classes), seed=seed, bar=bar
        )
    labels = targets.numpy()
    suspects = find_suspects(found.probs, labels, found.is_known)
    _write_predictions(context, manifest, samples, found)
    _write_folds(context, labels, found)
    _write_suspects(context, manifest, samples, suspects)
    metrics = _score(found, labels, suspects, seed=seed) | {"num_folds": num_folds}
    return metrics | _expect(found, labels, num_test=len(manifest.of("test")))


def _score(found: OutOfFold, labels: Ints, suspects: Suspects, *, seed: int) -> Metrics:
    correct = int((found.probs.argmax(axis=1) == labels).sum())
    low, high = wilson_interval(correct, len(labels))
    loss_low, loss_high = paired_interval(log_losses(found.probs, labels), seed=seed)
    return {
        "accuracy": correct / len(labels),
        "accuracy_low": low,
        "accuracy_high": high,
        "log_loss": log_loss(found.probs, labels),
        "log_loss_low": loss_low,
        "log_loss_high": loss_high,
        "num_images": len(labels),
        "num_suspects": len(suspects.rows),
        "num_unknown": int((~found.is_known).sum()),
    }


def _expect(found: OutOfFold, labels: Ints, *, num_test: int) -> Metrics:
    """Where the accuracy of a head on the test images will lie; they are not looked at."""
    if not num_test:
        return {}
    correct = int((found.probs.argmax(axis=1) == labels).sum())
    low, high = predicted_interval(correct, len(labels), num_test)
    return {"num_test": num_test, "expected_on_test_low": low, "expected_on_test_high": high}


def _write_predictions(
    context: StageContext[Reads], manifest: Manifest, samples: Sequence[Sample], found: OutOfFold
) -> None:
    """Write a row per image: file, label, predicted class, fold and probabilities."""
    classes = manifest.classes

    def rows() -> Iterator[list[Any]]:
        yield ["path", "label", "predicted", "correct", "fold", *(f"p({name})" for name in classes)]
        for sample, probs, fold in zip(samples, found.probs, found.folds.tolist(), strict=True):
            predicted = classes[int(probs.argmax())]
            correct = int(predicted == sample.label)
            yield [sample.path, sample.label, predicted, correct, fold, *(f"{p:.6f}" for p in probs)]

    write_csv(context.out / "predictions.csv", rows())


def _write_folds(context: StageContext[Reads], labels: Ints, found: OutOfFold) -> None:
    """Write a row per fold: its images, the penalty of its head, and its scores."""
    rows: list[list[Any]] = [["fold", "images", "penalty", "accuracy", "log_loss"]]
    for fold, penalty in enumerate(found.penalties):
        mine = np.flatnonzero(found.folds == fold)
        probs, targets = found.probs[mine], labels[mine]
        rows.append([fold, len(mine), penalty, accuracy(probs, targets), log_loss(probs, targets)])
    write_csv(context.out / "folds.csv", rows)


def _write_suspects(
    context: StageContext[Reads], manifest: Manifest, samples: Sequence[Sample], suspects: Suspects
) -> None:
    rows: list[list[Any]] = [["path", "label", "suggested", "self_confidence", "margin"]]
    columns = (suspects.rows, suspects.suggested, suspects.self_confidence, suspects.margin)
    for i, suggested, confidence, margin in zip(*(c.tolist() for c in columns), strict=True):
        name = manifest.classes[suggested]
        rows.append([samples[i].path, samples[i].label, name, f"{confidence:.6f}", f"{margin:.6f}"])
    write_csv(context.out / "suspects.csv", rows)


STAGE = Stage(
    name="cross_validate",
    run=run,
    reads=Reads,
    inputs=(Input("ingest"), Input("precompute")),
    objective="log_loss",
)

if __name__ == "__main__":
    main(STAGE)
