"""Metrics against hand formulas, brute-force loops, SciPy and scikit-learn."""

import math

import numpy as np
import pytest
from scipy.stats import betabinom, binomtest
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import precision_recall_fscore_support

from pipeline.evaluation import metrics
from pipeline.evaluation.bootstrap import paired_interval
from pipeline.evaluation.metrics import Floats, Ints


def _predictions(n: int = 200, num_classes: int = 5, dtype: type = np.float64) -> tuple[Floats, Ints]:
    rng = np.random.default_rng(7)
    return rng.dirichlet(np.ones(num_classes), n).astype(dtype), rng.integers(0, num_classes, n)


def test_accuracy_counts_hits() -> None:
    probs, targets = _predictions()
    hits = sum(max(range(5), key=lambda c: row[c]) == t for row, t in zip(probs, targets, strict=True))
    assert metrics.accuracy(probs, targets) == pytest.approx(hits / 200)


def test_a_tie_goes_to_the_first_class() -> None:
    assert metrics.accuracy(np.array([[0.5, 0.5]]), np.array([0])) == 1.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_loss_agrees_with_scikit_learn(dtype: type) -> None:
    probs, targets = _predictions(dtype=dtype)
    rows = probs.astype(np.float64) / probs.sum(axis=1, keepdims=True, dtype=np.float64)
    assert metrics.log_loss(probs, targets) == pytest.approx(sklearn_log_loss(targets, rows, labels=range(5)), rel=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_loss_is_clipped_the_same_for_both_dtypes(dtype: type) -> None:
    loss = metrics.log_loss(np.array([[1.0, 0.0]], dtype=dtype), np.array([1]))
    assert loss == pytest.approx(7 * math.log(10))


def test_log_loss_of_one_class_is_zero() -> None:
    assert metrics.log_loss(np.ones((3, 1)), np.zeros(3, dtype=np.int64)) == 0.0


@pytest.mark.parametrize("num_classes", [1, 5, 300])
def test_confusion_agrees_with_a_loop(num_classes: int) -> None:
    probs, targets = _predictions(num_classes=num_classes)
    want = np.zeros((num_classes, num_classes), dtype=np.int64)
    for row, target in zip(probs, targets, strict=True):
        want[target, int(np.argmax(row))] += 1
    np.testing.assert_array_equal(metrics.confusion(probs, targets, num_classes), want)


def test_confusion_takes_narrow_targets() -> None:
    probs = np.eye(200)
    assert metrics.confusion(probs, np.arange(200, dtype=np.uint8), 200).trace() == 200


def test_confusion_refuses_another_number_of_classes() -> None:
    with pytest.raises(ValueError, match="5 columns for 4 classes"):
        metrics.confusion(*_predictions(), 4)


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (10, 10), (952, 1000), (1, 3)])
def test_wilson_interval_solves_its_equation(correct: int, n: int) -> None:
    z = 1.959963984540054
    for bound in metrics.wilson_interval(correct, n):
        assert (correct / n - bound) ** 2 == pytest.approx(z * z * bound * (1 - bound) / n, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 50, 1797])
def test_intervals_and_the_exact_test_agree_with_scipy(n: int) -> None:
    for correct in {0, 1, n // 3, n // 2, n - 1, n}:
        test = binomtest(correct, n)
        wilson = test.proportion_ci(0.9, method="wilson")
        assert metrics.wilson_interval(correct, n, 0.9) == pytest.approx((wilson.low, wilson.high), abs=1e-14)
        expected = betabinom(355, correct + 0.5, n - correct + 0.5).ppf([0.025, 0.975]) / 355
        assert metrics.predicted_interval(correct, n, 355) == tuple(expected)
        only_a = np.arange(n) < correct
        assert metrics.mcnemar_exact(only_a, ~only_a) == pytest.approx(test.pvalue, rel=1e-11)


@pytest.mark.parametrize("num_classes", [1, 2, 7])
def test_scores_of_classes_agree_with_scikit_learn(num_classes: int) -> None:
    probs, targets = _predictions(n=20, num_classes=num_classes)  # so few that a class may miss
    want = precision_recall_fscore_support(targets, probs.argmax(axis=1), labels=range(num_classes), zero_division=0.0)
    scores = metrics.per_class(probs, targets)
    for ours, theirs in zip((scores.precision, scores.recall, scores.f1, scores.support), want, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_wilson_interval_of_nothing_is_everything() -> None:
    assert metrics.wilson_interval(0, 0) == (0.0, 1.0)


def test_wilson_interval_widens_with_the_level() -> None:
    narrow, wide = metrics.wilson_interval(7, 10, 0.5), metrics.wilson_interval(7, 10, 0.99)
    assert wide[0] < narrow[0] < 0.7 < narrow[1] < wide[1]


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_expected_calibration_error_agrees_with_a_loop(bins: int) -> None:
    probs, targets = _predictions()
    want = 0.0
    for b in range(bins):
        members = [i for i in range(200) if min(int(probs[i].max() * bins), bins - 1) == b]
        if members:
            confidence = sum(float(probs[i].max()) for i in members) / len(members)
            right = sum(int(np.argmax(probs[i]) == targets[i]) for i in members) / len(members)
            want += len(members) / 200 * abs(confidence - right)
    assert metrics.expected_calibration_error(probs, targets, bins) == pytest.approx(want)


def test_calibration_bins_hold_both_ends() -> None:
    binned = metrics.calibration_bins(np.array([0.0, 0.1, 1.0]), np.array([False, True, True]))
    assert binned.count.tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert binned.correct.tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert np.isnan(binned.accuracy[2])


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_calibration_refuses_what_is_no_confidence(bad: float) -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        metrics.calibration_bins(np.array([bad]), np.array([True]))


def test_per_class_agrees_with_hand_counts() -> None:
    probs = np.eye(3)[[0, 0, 1, 1, 0]]  # class 2 is never predicted
    scores = metrics.per_class(probs, np.array([0, 1, 1, 2, 0]))
    assert scores.precision.tolist() == pytest.approx([2 / 3, 1 / 2, 0])
    assert scores.recall.tolist() == pytest.approx([1, 1 / 2, 0])
    assert scores.f1.tolist() == pytest.approx([0.8, 0.5, 0])
    assert scores.support.tolist() == [2, 2, 1]


def test_per_class_of_one_class() -> None:
    scores = metrics.per_class(np.ones((3, 1)), np.zeros(3, dtype=np.int64))
    assert (scores.recall.tolist(), scores.support.tolist()) == ([1.0], [3])


def test_mcnemar_agrees_with_the_binomial_sum() -> None:
    correct_a = np.array([True] * 12 + [False] * 3 + [True] * 50)
    correct_b = np.array([False] * 12 + [True] * 3 + [True] * 50)
    want = 2 * sum(math.comb(15, k) for k in range(4)) / 2**15
    assert metrics.mcnemar_exact(correct_a, correct_b) == pytest.approx(want)
    assert metrics.mcnemar_exact(correct_b, correct_a) == pytest.approx(want)


def test_mcnemar_of_equal_models_is_one() -> None:
    assert metrics.mcnemar_exact(np.array([True, False]), np.array([True, False])) == 1.0


def test_mcnemar_refuses_other_samples() -> None:
    with pytest.raises(ValueError, match="same samples"):
        metrics.mcnemar_exact(np.array([True]), np.array([True, False]))


@pytest.mark.parametrize(
    ("probs", "targets", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, dtype=np.int64), "not empty"),
        (np.ones((2, 1)), np.zeros(3, dtype=np.int64), r"\[N\]"),
        (np.full((1, 2), np.nan), np.zeros(1, dtype=np.int64), "NaN"),
        (np.ones((1, 2)) / 2, np.array([2]), r"0\.\.1"),
        (np.ones((1, 2)) / 2, np.array([-1]), r"0\.\.1"),
    ],
)
def test_bad_input_is_refused(probs: Floats, targets: Ints, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.accuracy(probs, targets)


def test_the_paired_interval_agrees_with_resampling_by_hand_and_with_the_normal_one() -> None:
    rng = np.random.default_rng(0)
    differences = rng.normal(0.3, 1.0, 400)
    low, high = paired_interval(differences, seed=1)
    means = [rng.choice(differences, 400).mean() for _ in range(4000)]
    assert (low, high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.01)
    half = 1.96 * differences.std() / 20
    assert (low, high) == pytest.approx((differences.mean() - half, differences.mean() + half), abs=0.02)
    assert paired_interval(differences, seed=1) == (low, high)


@pytest.mark.parametrize("count", [1, 5])
def test_the_paired_interval_of_equal_differences_is_a_point(count: int) -> None:
    assert paired_interval(np.full(count, 0.25), seed=0) == (0.25, 0.25)


@pytest.mark.parametrize(("true", "num_seen", "num_new"), [(0.9, 300, 70), (0.99, 500, 350), (0.3, 400, 100)])
def test_the_predicted_interval_holds_new_samples_as_often_as_it_says(true: float, num_seen: int, num_new: int) -> None:
    generator, held, narrow = np.random.default_rng(0), 0, 0
    for _ in range(400):
        correct = int(generator.binomial(num_seen, true))
        new = generator.binomial(num_new, true) / num_new
        low, high = metrics.predicted_interval(correct, num_seen, num_new)
        held += low <= new <= high
        low, high = metrics.wilson_interval(correct, num_seen)
        narrow += low <= new <= high
    assert 0.93 <= held / 400 <= 1
    assert narrow < held
