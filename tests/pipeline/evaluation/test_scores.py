"""The tables of scores, against brute force over the predictions."""

import csv
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.manifest import Sample
from pipeline.evaluation.metrics import wilson_interval
from pipeline.evaluation.scores import SplitPrediction, write_calibration, write_confusion, write_mistakes
from pipeline.files import read_json

CLASSES = ("a", "b, c", "d")


@pytest.fixture
def prediction() -> SplitPrediction:
    generator = np.random.default_rng(0)
    probs = generator.dirichlet(np.full(3, 0.4), 60)
    return SplitPrediction(probs[::-1], probs, generator.integers(0, 3, 60), np.full(60, 4))


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_the_confusion_table_counts_true_against_predicted_classes(prediction: SplitPrediction, tmp_path: Path) -> None:
    write_confusion(tmp_path / "confusion.csv", prediction, CLASSES)
    header, *rows = read(tmp_path / "confusion.csv")
    assert header == ["label", *CLASSES]
    assert [row[0] for row in rows] == list(CLASSES)
    guesses = prediction.tta.argmax(axis=1)
    for true, row in enumerate(rows):
        want = [int(((prediction.targets == true) & (guesses == guess)).sum()) for guess in range(3)]
        assert [int(count) for count in row[1:]] == want


def test_the_calibration_table_has_a_row_per_bin_and_empty_cells_for_empty_bins(
    prediction: SplitPrediction, tmp_path: Path
) -> None:
    write_calibration(tmp_path / "calibration.csv", prediction)
    header, *rows = read(tmp_path / "calibration.csv")
    assert header == ["low", "high", "count", "correct", "confidence", "accuracy", "accuracy_low", "accuracy_high"]
    confidence, correct = prediction.tta.max(axis=1), prediction.tta.argmax(axis=1) == prediction.targets
    assert sum(int(row[2]) for row in rows) == 60
    assert rows[0][2:6] == ["0", "0", "", ""]  # of three classes, the most probable has a third at least
    for i, row in enumerate(rows):
        inside = (confidence >= i / 10) & ((confidence < (i + 1) / 10) | (i == 9))
        assert (float(row[0]), float(row[1])) == pytest.approx((i / 10, (i + 1) / 10))
        assert (int(row[2]), int(row[3])) == (inside.sum(), (inside & correct).sum())
        assert [float(x) for x in row[6:]] == pytest.approx(wilson_interval(int(row[3]), int(row[2])))
        if inside.any():
            want = (confidence[inside].mean(), correct[inside].mean())
            assert (float(row[4]), float(row[5])) == pytest.approx(want)


def test_mistakes_are_the_most_confident_first(prediction: SplitPrediction, tmp_path: Path) -> None:
    samples = [
        Sample(f"{i}.png", CLASSES[target], "test", "", file_sha256="", sha256="", width=8, height=8)
        for i, target in enumerate(prediction.targets)
    ]
    write_mistakes(tmp_path / "mistakes.json", prediction, samples, CLASSES, count=5)
    mistakes = read_json(tmp_path / "mistakes.json")
    wrong = [i for i in range(60) if prediction.tta[i].argmax() != prediction.targets[i]]
    worst = sorted(wrong, key=lambda i: -prediction.tta[i].max())[:5]
    assert [m["path"] for m in mistakes] == [f"{i}.png" for i in worst]
    for i, mistake in zip(worst, mistakes, strict=True):
        assert mistake["label"] == CLASSES[prediction.targets[i]]
        assert mistake["predicted"] == CLASSES[int(prediction.tta[i].argmax())]
        assert mistake["confidence"] == prediction.tta[i].max()
