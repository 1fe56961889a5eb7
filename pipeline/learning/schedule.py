"""Stochastic gradient descent with warm restarts: Loshchilov & Hutter 2016, arXiv:1608.03983.

Within a cycle the rate falls along half a cosine, batch by batch, and jumps back at the start of the next; cycle k
lasts `cycle_len * cycle_mult**k` epochs. Lengths are whole numbers of steps, so that restarts fall exactly where
epochs do.
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts


@dataclass(frozen=True)
class Cycles:
    """The cycles of one training stage, in epochs and steps."""

    num_cycles: int
    cycle_len: int
    cycle_mult: int
    steps_per_epoch: int

    @property
    def epochs(self) -> list[int]:
        """Length of each cycle in epochs."""
        return [self.cycle_len * self.cycle_mult**k for k in range(self.num_cycles)]

    @property
    def num_epochs(self) -> int:
        return sum(self.epochs)

    @property
    def num_steps(self) -> int:
        return self.num_epochs * self.steps_per_epoch

    @property
    def ends(self) -> list[int]:
        """Number of epochs done when each cycle ends."""
        return list(accumulate(self.epochs))


def build_sgdr(optimizer: Optimizer, cycles: Cycles) -> CosineAnnealingWarmRestarts:
    """torch's scheduler for `cycles`, to be stepped after every batch."""
    return CosineAnnealingWarmRestarts(
        optimizer, T_0=cycles.cycle_len * cycles.steps_per_epoch, T_mult=cycles.cycle_mult
    )


def epoch_batches(order: list[int], batch_size: int) -> list[list[int]]:
    """Cut an order of samples into batches of `batch_size` at most, whose sizes differ by one at most.

    So every sample is used in every epoch, and no batch of one is left over for batch norm to fail on.
    """
    count = num_batches(len(order), batch_size)
    bounds = [i * len(order) // count for i in range(count + 1)]
    return [order[low:high] for low, high in pairwise(bounds)]


def num_batches(num_samples: int, batch_size: int) -> int:
    """Steps per epoch."""
    return -(-num_samples // batch_size)
