"""The tables of scores, against brute force over the predictions."""

import csv
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.manifest import Sample
from pipeline.evaluation.metrics import wilson_interval
from pipeline.evaluation.scores import (
    Mode,
    SplitPrediction,
    choose_mode,
    confident_mistakes,
    describe_answers,
    doubtful_hits,
    write_answers,
    write_calibration,
    write_classes,
    write_confusion,
)

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
    write_confusion(tmp_path / "confusion.csv", prediction.tta, prediction.targets, CLASSES)
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
    write_calibration(tmp_path / "calibration.csv", prediction.tta, prediction.targets)
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


def _samples(prediction: SplitPrediction) -> list[Sample]:
    return [
        Sample(f"{i}.png", CLASSES[target], "test", "", file_sha256="", sha256="", width=8, height=8)
        for i, target in enumerate(prediction.targets)
    ]


def test_mistakes_are_the_most_confident_first_and_hits_the_least(prediction: SplitPrediction) -> None:
    probs, targets = prediction.tta, prediction.targets
    is_correct = [probs[i].argmax() == targets[i] for i in range(60)]
    worst = sorted((i for i in range(60) if not is_correct[i]), key=lambda i: -probs[i].max())[:5]
    assert confident_mistakes(probs, targets, 5) == worst
    doubtful = sorted((i for i in range(60) if is_correct[i]), key=lambda i: probs[i].max())[:5]
    assert doubtful_hits(probs, targets, 5) == doubtful
    for i, shown in zip(worst, describe_answers(worst, probs, _samples(prediction), CLASSES), strict=True):
        assert (shown["path"], shown["label"]) == (f"{i}.png", CLASSES[targets[i]])
        assert (shown["predicted"], shown["confidence"]) == (CLASSES[int(probs[i].argmax())], probs[i].max())


def test_the_table_of_classes(prediction: SplitPrediction, tmp_path: Path) -> None:
    write_classes(tmp_path / "classes.csv", prediction.tta, prediction.targets, CLASSES)
    header, *rows = read(tmp_path / "classes.csv")
    guesses = prediction.tta.argmax(axis=1)
    for c, row in enumerate(dict(zip(header, r, strict=True)) for r in rows):
        hits = ((guesses == c) & (prediction.targets == c)).sum()
        support = (prediction.targets == c).sum()
        assert (row["class"], int(row["images"]), int(row["correct"])) == (CLASSES[c], support, hits)
        assert float(row["recall"]) == pytest.approx(hits / support)
        assert float(row["precision"]) == pytest.approx(hits / (guesses == c).sum())
        bounds = (float(row["recall_low"]), float(row["recall_high"]))
        assert bounds == pytest.approx(wilson_interval(int(hits), int(support)))


@pytest.mark.parametrize("mode", ["plain", "tta"])
def test_answers_are_of_the_chosen_mode(mode: Mode, prediction: SplitPrediction, tmp_path: Path) -> None:
    samples = _samples(prediction)
    write_answers(tmp_path / "a.csv", {"test": prediction}, {"test": samples}, CLASSES, mode)
    header, *rows = read(tmp_path / "a.csv")
    assert header == ["split", "path", "label", "predicted", "p", "loss"]
    probs = prediction.probs(mode)
    for i, row in enumerate(rows):
        assert row[:4] == ["test", f"{i}.png", CLASSES[prediction.targets[i]], CLASSES[int(probs[i].argmax())]]
        assert float(row[4]) == pytest.approx(probs[i].max(), abs=1e-6)
        assert float(row[5]) == pytest.approx(-np.log(max(probs[i, prediction.targets[i]], 1e-7)), abs=1e-6)


@pytest.mark.parametrize(
    ("tta", "chosen"),
    [
        ((0.93, 0.2), "tta"),
        ((0.91, 0.1), "plain"),
        ((0.92, 0.2), "tta"),
        ((0.92, 0.3), "plain"),
        ((0.92, 0.4), "plain"),
    ],
)
def test_the_mode_with_the_better_accuracy_on_valid_is_chosen(tta: tuple[float, float], chosen: str) -> None:
    valid = {"plain": {"accuracy": 0.92, "log_loss": 0.3}, "tta": {"accuracy": tta[0], "log_loss": tta[1]}}
    assert choose_mode(valid) == chosen
