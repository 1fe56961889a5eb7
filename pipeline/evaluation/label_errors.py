"""Labels that look wrong: confident learning.

C. Northcutt, L. Jiang, I. Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70 (2021),
arXiv:1911.00068. It needs predictions by models that have not seen the image, see `learning/cross_validation.py`.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.metrics import Bools, Floats, Ints


@dataclass(frozen=True)
class Suspects:
    """The images whose label looks wrong, the worst first."""

    rows: Ints
    """[num_suspects], which images they are."""
    suggested: Ints
    """[num_suspects], the class that each looks like."""
    self_confidence: Floats
    """[num_suspects], the probability of the label itself."""
    margin: Floats
    """[num_suspects], the probability of the label minus the highest of another class; below 0."""


def class_thresholds(probs: Floats, targets: Ints) -> Floats:
    """Return the mean probability of each class over the images that bear it [C]; infinity for a class without any."""
    thresholds = np.full(probs.shape[1], np.inf)
    for c in np.unique(targets):
        thresholds[c] = probs[targets == c, c].mean()
    return thresholds


def estimate_errors(probs: Floats, targets: Ints) -> int:
    """Estimate how many of the N labels are wrong, from the calibrated confident joint.

    An image counts as a member of the likeliest class among those whose probability reaches the class's threshold, if
    there are any. The members of each class among the images that bear a label are scaled to the number of these
    images; what then lies off the diagonal is wrong.
    """
    counts = np.bincount(targets, minlength=probs.shape[1])
    confident = np.where(probs >= class_thresholds(probs, targets), probs, -1.0)
    member, is_member = confident.argmax(axis=1), confident.max(axis=1) >= 0
    members = np.bincount(targets[is_member], minlength=len(counts))
    astray = np.bincount(targets[is_member & (member != targets)], minlength=len(counts))
    wrong = counts * np.divide(astray, members, out=np.zeros(len(counts)), where=members > 0)
    return round(float(wrong.sum()))


def find_suspects(probs: Floats, targets: Ints, is_known: Bools) -> Suspects:
    """Find as many images as there are wrong labels by `estimate_errors`, those with the lowest margins.

    An image whose label is its likeliest class is never suspect. The confident joint decides how many, and not which:
    off its diagonal alone a fifth of the wrong labels is missing, because few images reach the threshold of a class
    that is mostly predicted with near certainty (`benchmarks/label_errors.py`).

    Args:
        probs: [N, C], each row from a model that has not seen the image.
        targets: [N], the labels.
        is_known: [N], whether the model had seen the label's class at all; if not, the label cannot be judged.
    """
    rows = np.arange(len(targets))
    self_confidence = probs[rows, targets]
    others = probs.copy()
    others[rows, targets] = -1.0
    margin = self_confidence - others.max(axis=1)
    doubtful = np.flatnonzero(is_known & (margin < 0))
    ranked = doubtful[np.lexsort((doubtful, self_confidence[doubtful], margin[doubtful]))]
    found = ranked[: estimate_errors(probs[is_known], targets[is_known])]
    return Suspects(found, others[found].argmax(axis=1), self_confidence[found], margin[found])
