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


def find_suspects(probs: Floats, targets: Ints, is_known: Bools) -> Suspects:
    """Find the images that the confident joint has off its diagonal.

    An image counts as a member of the likeliest class among those whose probability reaches the class's threshold. It
    is suspect if this is not its label, and if the label is not the likeliest of all classes either (a label that wins
    outright is believed, however unsure). Ranked by the margin, the lowest first.

    Args:
        probs: [N, C], each row from a model that has not seen the image.
        targets: [N], the labels.
        is_known: [N], whether the model had seen the label's class at all; if not, the label cannot be judged.
    """
    thresholds = class_thresholds(probs[is_known], targets[is_known])
    confident = np.where(probs >= thresholds, probs, -1.0)
    member, is_member = confident.argmax(axis=1), confident.max(axis=1) >= 0
    rows = np.arange(len(targets))
    self_confidence = probs[rows, targets]
    others = probs.copy()
    others[rows, targets] = -1.0
    margin = self_confidence - others.max(axis=1)
    found = np.flatnonzero(is_known & is_member & (member != targets) & (margin < 0))
    ranked = found[np.lexsort((found, self_confidence[found], margin[found]))]
    return Suspects(ranked, member[ranked], self_confidence[ranked], margin[ranked])
