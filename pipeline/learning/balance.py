"""Classes of unequal size count equally in training, by weights or by repetition. Evaluation is never balanced."""

from dataclasses import replace

import torch
from torch import Tensor

from pipeline.learning.loop import Learner
from pipeline.learning.sources import Oversampled


def balance_classes(learner: Learner, how: str) -> Learner:
    """The learner with its training classes balanced as `data.balance` says: `none`, `weights` or `sampler`."""
    if how == "weights":
        return replace(learner, class_weights=class_weights(learner.train.targets).to(learner.device))
    return replace(learner, train=Oversampled(learner.train)) if how == "sampler" else learner


def class_weights(targets: Tensor) -> Tensor:
    """Weights [num_classes] inverse to frequency, 1 on average over the samples: N / (num_classes * N_class)."""
    counts = torch.bincount(targets)
    return targets.numel() / (len(counts) * counts.clamp(min=1))
