"""Classes of unequal size: heard equally in training, by weight or by repetition. What is measured stays as it is."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.learning.loop import BatchSource, Learner, Part


def balance_classes(learner: Learner, how: str) -> Learner:
    """The learner with its training classes balanced as `data.balance` says: `none`, `weights` or `sampler`."""
    if how == "weights":
        return replace(learner, class_weights=class_weights(learner.train.targets).to(learner.device))
    return replace(learner, train=Oversampled(learner.train)) if how == "sampler" else learner


def class_weights(targets: Tensor) -> Tensor:
    """Weights [num_classes] inverse to frequency, 1 on average over the samples: N / (num_classes * N_class)."""
    counts = torch.bincount(targets)
    return targets.numel() / (len(counts) * counts.clamp(min=1))


class Oversampled:
    """A source in which every class has as many samples as the largest: the others' are drawn more than once.

    Within an epoch no sample is drawn more than once oftener than another of its class; which are, moves from epoch
    to epoch. A sample that is drawn twice in an epoch shows the same view.
    """

    def __init__(self, source: BatchSource) -> None:
        self._source = source
        members = [(source.targets == c).nonzero()[:, 0].tolist() for c in range(int(source.targets.max()) + 1)]
        self._members: list[list[int]] = [m for m in members if m]
        self._per_class = max(len(m) for m in self._members)
        self.num_samples = len(self._members) * self._per_class
        self.targets = torch.cat([source.targets[m[:1]].repeat(self._per_class) for m in self._members])

    def batches(self, order: Sequence[Sequence[int]], *, draw: int) -> Iterator[Part]:
        """See BatchSource."""
        return self._source.batches([[self._sample(i, draw) for i in batch] for batch in order], draw=draw)

    def _sample(self, slot: int, draw: int) -> int:
        which, turn = divmod(slot, self._per_class)
        members = self._members[which]
        return members[(turn + draw * self._per_class) % len(members)]  # goes on where the last epoch ended
