"""Cross-validation of heads on activations: every image is predicted by a head that has not seen it.

A fold holds whole groups (copies of an image, pictures of a patient) and, as far as groups allow, the same share of
each class. How strongly a head is regularised is chosen inside the folds that it is fitted to, so the fold that it
predicts decides nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import nll_loss

from pipeline.learning.logistic import PENALTIES, Logistic, fit_logistic
from pipeline.seeds import seed_of
from pipeline.workspace import Bar

INNER_FOLDS = 5
"""A fifth of the images that a head is fitted to judges the penalties."""


@dataclass(frozen=True)
class OutOfFold:
    """What heads say of the N images that they have not seen."""

    probs: NDArray[np.float64]
    """[N, num_classes]"""
    folds: NDArray[np.int64]
    """[N], the fold that each image is in."""
    is_known: NDArray[np.bool_]
    """[N], whether the image's class occurred among the images that its head was fitted to."""
    penalties: tuple[float, ...]
    """The L2 penalty of the head of each fold."""


def assign_folds(
    groups: Sequence[str], targets: Sequence[int], num_folds: int, *, seed: int, name: str = "fold"
) -> list[int]:
    """Return the fold of each image, so that groups stay whole and classes are spread evenly.

    Groups are taken by size, equal ones in a random order that depends on `seed` and `name`. Each goes into the fold
    that has the fewest images of its classes so far; in a tie, the fewest images. Without groups the folds' counts of a
    class differ by one at most.
    """
    members: dict[str, Counter[int]] = defaultdict(Counter)
    for group, target in zip(groups, targets, strict=True):
        members[group][target] += 1
    order = sorted(members, key=lambda g: (-members[g].total(), seed_of(seed, name, g)))
    counts: list[Counter[int]] = [Counter() for _ in range(num_folds)]
    sizes = [0] * num_folds
    fold_of = {}
    for group in order:
        of_class = members[group]
        shared = [sum(n * held[c] for c, n in of_class.items()) for held in counts]
        chosen = min(range(num_folds), key=lambda f: (shared[f], sizes[f], f))
        counts[chosen].update(of_class)
        sizes[chosen] += of_class.total()
        fold_of[group] = chosen
    return [fold_of[group] for group in groups]


def cross_validate(
    features: Tensor, targets: Tensor, groups: Sequence[str], *, num_folds: int, num_classes: int, seed: int, bar: Bar
) -> OutOfFold:
    """Predict every image with a head that was fitted to the other folds.

    Args:
        features: [N, num_features]
        targets: [N] in 0..num_classes-1
        groups: of each image; there must be at least `num_folds` different ones.
        num_folds: 2 or more.
        num_classes: columns of the result.
        seed: decides the folds.
        bar: moves by one per fold.
    """
    folds = torch.tensor(assign_folds(groups, targets.tolist(), num_folds, seed=seed))
    probs = torch.zeros(len(targets), num_classes, dtype=torch.float64)
    is_known = torch.zeros(len(targets), dtype=torch.bool)
    penalties = []
    for fold in range(num_folds):
        rest, out = (folds != fold).nonzero()[:, 0], (folds == fold).nonzero()[:, 0]
        mine = [groups[i] for i in rest.tolist()]
        penalty = choose_penalty(features[rest], targets[rest], mine, num_classes=num_classes, seed=seed)
        [head] = fit_logistic(features[rest], targets[rest], [penalty], num_classes=num_classes)
        probs[out] = head.predict(features[out])
        is_known[out] = torch.isin(targets[out], head.present)
        penalties.append(penalty)
        bar.advance(1, note=f"fold {fold + 1}")
    return OutOfFold(probs.numpy(), folds.numpy(), is_known.numpy(), tuple(penalties))


def choose_penalty(features: Tensor, targets: Tensor, groups: Sequence[str], *, num_classes: int, seed: int) -> float:
    """Return the penalty with the lowest log loss on a fifth of the images; stops where weaker ones make it worse."""
    folds = torch.tensor(assign_folds(groups, targets.tolist(), INNER_FOLDS, seed=seed, name="inner"))
    fitted = folds != 0
    judged = ~fitted & torch.isin(targets, targets[fitted])
    if not judged.any():  # so few groups that nothing can be held out
        return PENALTIES[0]
    best, best_loss = PENALTIES[0], float("inf")
    heads = fit_logistic(features[fitted], targets[fitted], PENALTIES, num_classes=num_classes)
    for penalty, head in zip(PENALTIES, heads, strict=True):
        loss = _log_loss(head, features[judged], targets[judged])
        if loss > best_loss:
            break
        best, best_loss = penalty, loss
    return best


def _log_loss(head: Logistic, features: Tensor, targets: Tensor) -> float:
    return float(nll_loss(head.predict(features).clamp_min(1e-12).log(), targets))
