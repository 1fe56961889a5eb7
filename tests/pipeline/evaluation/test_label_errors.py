"""Confident learning, beside a second version of it that follows the paper's definitions one image at a time."""

import numpy as np
import pytest

from pipeline.evaluation.label_errors import class_thresholds, estimate_errors, find_suspects
from pipeline.evaluation.metrics import Bools, Floats, Ints

THREE = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9], [0.3, 0.7]])
LABELS = np.array([0, 0, 0, 1, 1])


def by_hand(probs: Floats, labels: Ints, is_known: Bools) -> tuple[int, list[tuple[int, int, float, float]]]:
    """The number of errors by the paper's equations 1 to 3, and (image, suggested, self-confidence, margin), ranked."""
    images, classes = [x for x in range(len(labels)) if is_known[x]], range(probs.shape[1])
    joint = {(i, j): 0.0 for i in classes for j in classes}
    for x in images:
        confident = []
        for j in classes:
            of_class = [probs[k, j] for k in images if labels[k] == j]
            if of_class and probs[x, j] >= sum(of_class) / len(of_class) - 1e-15:
                confident.append(j)
        if confident:
            joint[int(labels[x]), max(confident, key=lambda k: probs[x, k])] += 1
    wrong = 0.0
    for i in classes:
        total = sum(joint[i, j] for j in classes)
        for j in classes:
            if j != i and total:
                wrong += joint[i, j] / total * sum(labels[x] == i for x in images)
    found = []
    for x in images:
        i = int(labels[x])
        j = max((k for k in classes if k != i), key=lambda k: probs[x, k])
        if probs[x, i] < probs[x, j]:
            found.append((x, j, float(probs[x, i]), float(probs[x, i] - probs[x, j])))
    return round(wrong), sorted(found, key=lambda row: (row[3], row[2], row[0]))[: round(wrong)]


def test_thresholds_are_mean_self_confidences() -> None:
    np.testing.assert_allclose(class_thresholds(THREE, LABELS), [0.6, 0.8])
    assert class_thresholds(np.ones((1, 2)) / 2, np.array([0])).tolist() == [0.5, np.inf]


def test_one_wrong_label() -> None:
    found = find_suspects(THREE, LABELS, np.ones(5, dtype=bool))
    assert (found.rows.tolist(), found.suggested.tolist()) == ([2], [1])
    np.testing.assert_allclose([found.self_confidence[0], found.margin[0]], [0.2, -0.6])


def test_labels_that_are_likeliest_are_never_suspect() -> None:
    unsure = np.array([[0.5, 0.45, 0.05], [0.98, 0.01, 0.01], [0.3, 0.4, 0.3], [0.3, 0.42, 0.28]])
    assert estimate_errors(unsure, np.array([0, 0, 1, 1])) == 1
    assert find_suspects(unsure, np.array([0, 0, 1, 1]), np.ones(4, dtype=bool)).rows.tolist() == []


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
    number, wanted = by_hand(probs, labels, known)
    assert wanted
    assert estimate_errors(probs[known], labels[known]) == number
    columns = (found.rows, found.suggested, found.self_confidence, found.margin)
    for column, expected in zip(columns, zip(*wanted, strict=True), strict=True):
        np.testing.assert_allclose(column, expected)
