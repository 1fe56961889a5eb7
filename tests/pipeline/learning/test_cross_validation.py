"""Folds keep groups whole, heads are scikit-learn's optimum, and no image is seen by the head that judges it."""

from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from pipeline.learning import cross_validation
from pipeline.learning.cross_validation import assign_folds, choose_penalty, cross_validate
from pipeline.learning.logistic import PENALTIES, fit_logistic
from pipeline.workspace import Bar

CLASSES = 3


def clusters(count: int, *, spread: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor, list[str]]:
    """Features [count, 6] around a point per class, their classes, and a group for each."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % CLASSES
    centres = torch.eye(6)[:CLASSES] * 2
    features = centres[targets] + spread * torch.randn(count, 6, generator=generator)
    return features, targets, [f"g{i}" for i in range(count)]


def unpredictable() -> tuple[Tensor, Tensor, list[str]]:
    """More features than images, so that a head remembers each image, and labels that have nothing to do with them."""
    generator = torch.Generator().manual_seed(3)
    targets = torch.randint(0, CLASSES, (120,), generator=generator)
    return torch.randn(120, 150, generator=generator), targets, [f"g{i}" for i in range(120)]


def test_without_groups_each_fold_has_its_share_of_each_class() -> None:
    targets = [0] * 50 + [1] * 23 + [2] * 7
    folds = assign_folds([str(i) for i in range(80)], targets, 5, seed=0)
    for c in range(3):
        counts = Counter(f for f, t in zip(folds, targets, strict=True) if t == c)
        assert max(counts.values()) - min(counts[f] for f in range(5)) <= 1
    assert max(Counter(folds).values()) - min(Counter(folds).values()) <= 2


def test_groups_stay_whole_and_folds_are_about_equal() -> None:
    generator = np.random.default_rng(0)
    groups = [f"patient {g}" for g in generator.integers(0, 60, 600)]
    targets = [int(t) for t in generator.integers(0, 3, 600)]
    folds = assign_folds(groups, targets, 4, seed=1)
    assert len({*zip(groups, folds, strict=True)}) == len(set(groups))
    for c in range(3):
        counts = Counter(f for f, t in zip(folds, targets, strict=True) if t == c)
        assert max(counts.values()) - min(counts.values()) <= 10


def test_folds_depend_on_the_seed_and_on_nothing_else() -> None:
    groups, targets = [str(i) for i in range(40)], [i % 2 for i in range(40)]
    first = assign_folds(groups, targets, 4, seed=0)
    turned = assign_folds(groups[::-1], targets[::-1], 4, seed=0)[::-1]
    assert first == turned
    assert first != assign_folds(groups, targets, 4, seed=1)


@pytest.mark.parametrize("penalty", [0.3, 0.01])
def test_a_head_is_the_optimum_that_scikit_learn_finds(penalty: float) -> None:
    features, targets, _ = clusters(90)
    [head] = fit_logistic(features, targets, [penalty], num_classes=CLASSES)
    inputs = head.standardise(features.double()).numpy()
    theirs = LogisticRegression(C=1 / (penalty * 90), tol=1e-8, max_iter=1000).fit(inputs, targets.numpy())
    np.testing.assert_allclose(head.predict(features).numpy(), theirs.predict_proba(inputs), atol=1e-4)
    np.testing.assert_allclose(head.weight.numpy(), theirs.coef_, atol=1e-3)


def test_a_search_that_goes_on_ends_where_a_new_one_does() -> None:
    features, targets, _ = clusters(90)
    *_, last = fit_logistic(features, targets, [0.3, 0.1, 0.03], num_classes=CLASSES)
    [alone] = fit_logistic(features, targets, [0.03], num_classes=CLASSES)
    torch.testing.assert_close(last.predict(features), alone.predict(features), atol=1e-4, rtol=0)


def test_a_class_that_was_not_seen_has_no_probability() -> None:
    features, targets, _ = clusters(90)
    seen = targets != 1
    [head] = fit_logistic(features[seen], targets[seen], [0.1], num_classes=CLASSES)
    probs = head.predict(features)
    assert probs[:, 1].eq(0).all()
    torch.testing.assert_close(probs.sum(1), torch.ones(90, dtype=torch.float64))


def test_no_image_is_seen_by_the_head_that_judges_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_validation, "PENALTIES", (0.03,))
    features, noise, groups = unpredictable()
    copies = torch.cat([features, features]), torch.cat([noise, noise]), groups + groups
    for inputs, targets, names in ((features, noise, groups), copies):
        found = cross_validate(inputs, targets, names, num_folds=4, num_classes=CLASSES, seed=0, bar=Bar())
        np.testing.assert_allclose(found.probs.sum(1), 1)
        right = (found.probs.argmax(1) == targets.numpy()).mean()
        assert right < 0.5, "labels that are noise were predicted"
    for fold in range(4):  # the predictions are those of a head fitted to the other folds
        rest, out = found.folds != fold, found.folds == fold
        [head] = fit_logistic(copies[0][rest], copies[1][rest], [0.03], num_classes=CLASSES)
        np.testing.assert_allclose(found.probs[out], head.predict(copies[0][out]).numpy(), atol=1e-12)


def test_copies_in_other_groups_would_be_recognised() -> None:
    """Shows that the test above is able to fail."""
    wide, noise, groups = unpredictable()
    found = cross_validate(
        torch.cat([wide, wide]),
        torch.cat([noise, noise]),
        [*groups, *(f"copy of {g}" for g in groups)],
        num_folds=4,
        num_classes=CLASSES,
        seed=0,
        bar=Bar(),
    )
    assert (found.probs.argmax(1) == torch.cat([noise, noise]).numpy()).mean() > 0.6


def test_it_is_the_same_each_time_and_another_with_another_seed() -> None:
    features, targets, groups = clusters(60, spread=2)

    def probs(seed: int) -> bytes:
        return cross_validate(
            features, targets, groups, num_folds=3, num_classes=CLASSES, seed=seed, bar=Bar()
        ).probs.tobytes()

    assert probs(0) == probs(0) != probs(1)


def test_noise_is_held_down_by_a_stronger_penalty() -> None:
    features, targets, groups = clusters(120, spread=0.5)
    noise = torch.randint(0, CLASSES, (120,), generator=torch.Generator().manual_seed(3))
    clear = choose_penalty(features, targets, groups, num_classes=CLASSES, seed=0)
    assert clear == PENALTIES[-1]
    assert choose_penalty(features, noise, groups, num_classes=CLASSES, seed=0) == PENALTIES[0]


def test_a_class_in_one_group_is_unknown_to_its_head() -> None:
    features, targets, groups = clusters(60)
    groups = ["one" if t == 2 else g for t, g in zip(targets.tolist(), groups, strict=True)]
    found = cross_validate(features, targets, groups, num_folds=3, num_classes=CLASSES, seed=0, bar=Bar())
    assert found.is_known.tolist() == (targets != 2).tolist()
    assert found.probs[~found.is_known, 2].max() == 0


def test_two_images_of_two_classes_are_enough() -> None:
    found = cross_validate(
        torch.eye(2), torch.tensor([0, 1]), ["a", "b"], num_folds=2, num_classes=2, seed=0, bar=Bar()
    )
    assert found.probs.tolist() == [[0, 1], [1, 0]]
    assert not found.is_known.any()
