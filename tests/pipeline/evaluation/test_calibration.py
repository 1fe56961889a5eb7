"""Temperature and sets of classes, against scipy's search, brute force and the binomial distribution."""

from dataclasses import asdict

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import binom

from pipeline.evaluation.calibration import (
    PRIOR,
    Calibration,
    at_temperature,
    class_sets,
    fit_calibration,
    fit_temperature,
    score_calibration,
    threshold,
)
from pipeline.evaluation.metrics import Floats, Ints, accuracy, expected_calibration_error, log_loss, wilson_interval


def draw(count: int, temperature: float, *, seed: int, num_classes: int = 4) -> tuple[Floats, Ints]:
    """Probabilities that are right at `temperature`, and targets drawn from what they then are."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 3, (count, num_classes))
    true = softmax(logits / temperature, axis=1)
    targets = (generator.random((count, 1)) > true.cumsum(axis=1)).sum(axis=1).clip(max=num_classes - 1)
    return softmax(logits, axis=1), targets


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("count", [30, 3000])
def test_the_temperature_is_the_minimum_that_scipy_finds(temperature: float, count: int) -> None:
    probs, targets = draw(count, temperature, seed=count)

    def objective(log_b: float) -> float:
        logits = np.exp(log_b) * np.log(probs)
        losses = -log_softmax(logits, axis=1)[np.arange(count), targets]
        return float(losses.sum() + PRIOR * (np.exp(log_b) - 1 - log_b))

    found = minimize_scalar(objective, bounds=(-5, 5), method="bounded", options={"xatol": 1e-9})
    fitted = fit_temperature(probs, targets)
    assert fitted == pytest.approx(np.exp(-found.x), rel=1e-4)
    if count == 3000:
        assert fitted == pytest.approx(temperature, rel=0.15)


def test_without_a_mistake_the_temperature_stays_near_1() -> None:
    probs = np.tile([0.97, 0.02, 0.01], (50, 1))
    assert 0.5 < fit_temperature(probs, np.zeros(50, dtype=np.int64)) < 1


def test_certain_answers_that_are_wrong_give_a_finite_temperature() -> None:
    probs, targets = np.tile([1.0, 0.0], (40, 1)), np.arange(40) % 2
    fitted = fit_temperature(probs, targets)
    assert 20 < fitted <= 100
    assert log_loss(at_temperature(probs, fitted), targets) < log_loss(probs, targets) / 2


def test_calibrating_keeps_the_order_of_classes_and_rows_sum_to_1() -> None:
    probs, _ = draw(200, 1, seed=0)
    for temperature in (0.3, 1.0, 4.0):
        calibrated = at_temperature(probs, temperature)
        np.testing.assert_array_equal(calibrated.argsort(axis=1), probs.argsort(axis=1))
        np.testing.assert_allclose(calibrated, softmax(np.log(probs) / temperature, axis=1), rtol=1e-12)
    assert at_temperature(probs, 1.0) is probs


def test_the_threshold_is_the_smallest_score_with_enough_scores_below() -> None:
    generator = np.random.default_rng(0)
    for n in (9, 19, 50, 99, 100):
        scores = np.sort(generator.random(n))
        for coverage in (0.5, 0.8, 0.9):
            enough = [s for s in scores if (scores <= s).sum() >= (n + 1) * coverage - 1e-9]
            assert threshold(scores.tolist(), coverage) == enough[0]


def test_a_coverage_that_valid_cannot_promise_is_refused() -> None:
    scores = np.linspace(0, 1, 18).tolist()
    assert threshold(scores, 18 / 19) == 1
    with pytest.raises(ValueError, match=r"coverage=0\.95 cannot be promised with 18 .* 18/19 = 0\.9474.*at least 19"):
        threshold(scores, 0.95)
    for coverage in (0.0, 1.0, 90.0, float("nan")):
        with pytest.raises(ValueError, match="must lie between 0 and 1"):
            threshold(scores, coverage)
    with pytest.raises(ValueError, match=r"stored without the scores.*dvc repro tta_evaluate"):
        threshold((), 0.9)


def test_sets_are_those_of_brute_force_and_never_empty() -> None:
    probs, _ = draw(100, 1, seed=1)
    sets = class_sets(probs, 0.3)
    for row, inside in zip(probs, sets, strict=True):
        assert set(np.flatnonzero(inside)) == {i for i, p in enumerate(row) if 1 - p <= 0.3 or p == row.max()}
    assert (sets.sum(axis=1) >= 1).all()


@pytest.mark.parametrize("n", [19, 100])
@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_over_many_draws_sets_hold_the_true_class_as_often_as_promised(n: int, coverage: float) -> None:
    draws, covered = 2000, 0
    for seed in range(draws):
        probs, targets = draw(n + 1, 2.0, seed=seed)
        scores = np.sort(1 - probs[np.arange(n), targets[:n]]).tolist()
        covered += bool(class_sets(probs[n:], threshold(scores, coverage))[0, targets[n]])
    assert covered >= binom.ppf(0.001, draws, coverage)
    # with the most probable class always in the set they may hold it more often, though not by much here
    assert covered <= binom.ppf(0.999, draws, min(1, coverage + 1 / (n + 1)))


def test_scores_before_and_after() -> None:
    fitted = fit_calibration(*draw(400, 2.5, seed=2))
    probs, targets = draw(500, 2.5, seed=3)
    scores = score_calibration(fitted, probs, targets, seed=0)
    calibrated = fitted.probs(probs)
    assert scores["log_loss_before"] == log_loss(probs, targets)
    assert scores["log_loss_after"] == log_loss(calibrated, targets) < scores["log_loss_before"]
    change = scores["log_loss_change"]
    assert change["mean"] == pytest.approx(scores["log_loss_after"] - scores["log_loss_before"])
    assert change["low"] < change["mean"] < change["high"] < 0
    assert scores["calibration_error_after"] == expected_calibration_error(calibrated, targets)
    assert scores["calibration_error_after"] < scores["calibration_error_before"] / 2
    assert accuracy(calibrated, targets) == accuracy(probs, targets)
    sets = fitted.sets(calibrated, 0.9)
    covered = sum(bool(row[target]) for row, target in zip(sets, targets, strict=True))
    low, high = wilson_interval(covered, 500)
    assert scores["sets_90"] == {
        "coverage": covered / 500,
        "coverage_low": low,
        "coverage_high": high,
        "mean_size": sets.sum() / 500,
    }
    assert low <= 0.9 <= high


def test_few_validation_images_promise_no_high_coverage() -> None:
    probs, targets = draw(12, 1, seed=0)
    scores = score_calibration(fit_calibration(probs, targets), probs, targets, seed=0)
    assert "sets_90" in scores
    assert "sets_95" not in scores


def test_a_stored_calibration_is_read_back_and_the_default_changes_nothing() -> None:
    probs, targets = draw(20, 2, seed=0)
    fitted = fit_calibration(probs, targets)
    assert Calibration(**asdict(fitted)) == fitted
    assert list(fitted.scores) == sorted(fitted.scores)
    assert Calibration().probs(probs) is probs
