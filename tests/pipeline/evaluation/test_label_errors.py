"""Confident learning, beside a second version of it that follows the paper's definitions one image at a time."""

import numpy as np
import pytest

from pipeline.evaluation.label_errors import class_thresholds, find_suspects
from pipeline.evaluation.metrics import Bools, Floats, Ints

THREE = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9], [0.3, 0.7]])
LABELS = np.array([0, 0, 0, 1, 1])


def by_hand(probs: Floats, labels: Ints, is_known: Bools) -> list[tuple[int, int, float, float]]:
    """(image, suggested, self-confidence, margin), as the paper defines them: X^_{i,j} for i != j, ranked."""
    found = []
    for x in range(len(labels)):
        if not is_known[x]:
            continue
        confident = []
        for j in range(probs.shape[1]):
            of_class = [probs[k, j] for k in range(len(labels)) if labels[k] == j and is_known[k]]
            if of_class and probs[x, j] >= sum(of_class) / len(of_class) - 1e-15:
                confident.append(j)
        if not confident:
            continue
        i, j = int(labels[x]), max(confident, key=lambda k: probs[x, k])
        margin = probs[x, i] - max(probs[x, k] for k in range(probs.shape[1]) if k != i)
        if i != j and margin < 0:
            found.append((x, j, float(probs[x, i]), float(margin)))
    return sorted(found, key=lambda row: (row[3], row[2], row[0]))


def test_thresholds_are_mean_self_confidences() -> None:
    np.testing.assert_allclose(class_thresholds(THREE, LABELS), [0.6, 0.8])
    assert class_thresholds(np.ones((1, 2)) / 2, np.array([0])).tolist() == [0.5, np.inf]


def test_one_wrong_label() -> None:
    found = find_suspects(THREE, LABELS, np.ones(5, dtype=bool))
    assert (found.rows.tolist(), found.suggested.tolist()) == ([2], [1])
    np.testing.assert_allclose([found.self_confidence[0], found.margin[0]], [0.2, -0.6])


def test_a_label_that_cannot_be_judged_is_not_suspect() -> None:
    known = np.array([True, True, False, True, True])
    assert find_suspects(THREE, LABELS, known).rows.tolist() == []
    assert find_suspects(THREE, LABELS, np.zeros(5, dtype=bool)).rows.tolist() == []


@pytest.mark.parametrize("seed", range(20))
def test_it_finds_and_ranks_what_the_definition_says(seed: int) -> None:
    generator = np.random.default_rng(seed)
    classes = int(generator.integers(2, 6))
    probs = generator.dirichlet(np.ones(classes) * generator.uniform(0.2, 2), size=60)
    labels = np.where(generator.random(60) < 0.7, probs.argmax(1), generator.integers(0, classes, 60))
    known = generator.random(60) < 0.9
    found = find_suspects(probs, labels, known)
    wanted = by_hand(probs, labels, known)
    assert wanted
    columns = (found.rows, found.suggested, found.self_confidence, found.margin)
    for column, expected in zip(columns, zip(*wanted, strict=True), strict=True):
        np.testing.assert_allclose(column, expected)
