"""How the rate changes from step to step, by name; torch's own schedulers, stepped after every batch.

- `sgdr`: Loshchilov & Hutter 2016, arXiv:1608.03983. Within a cycle the rate falls along half a cosine and jumps back
  at the start of the next; cycle k lasts `cycle_len * cycle_mult**k` epochs.
- `constant`: no annealing.
- `step`: a tenth from each cycle to the next.
- `exponential`: the same tenth per cycle, in equal ratios from batch to batch.
- `one_cycle`: Smith & Topin 2017, arXiv:1708.07120. Up along half a cosine from 1/25 of the rate during 30 % of the
  training, then down to nothing; the whole training is that one cycle.

Lengths are whole numbers of steps, so that restarts fall exactly where epochs do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LRScheduler,
    OneCycleLR,
    StepLR,
)

from pipeline.settings import Schedule

CYCLE_FACTOR = 0.1
"""What `step` and `exponential` leave of the rate per cycle."""


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


def build_schedule(schedule: Schedule, optimizer: Optimizer, cycles: Cycles) -> LRScheduler:
    """The named scheduler; each group's rate in `optimizer` is its highest."""
    steps = cycles.cycle_len * cycles.steps_per_epoch
    match schedule:
        case "sgdr":
            return CosineAnnealingWarmRestarts(optimizer, T_0=steps, T_mult=cycles.cycle_mult)
        case "constant":
            return ConstantLR(optimizer, factor=1.0)
        case "step":
            return StepLR(optimizer, step_size=steps, gamma=CYCLE_FACTOR)
        case "exponential":
            return ExponentialLR(optimizer, gamma=CYCLE_FACTOR ** (1 / steps))
        case "one_cycle":
            highest = [group["lr"] for group in optimizer.param_groups]
            return OneCycleLR(optimizer, highest, total_steps=cycles.num_steps, cycle_momentum=False)


def planned_rates(schedule: Schedule, cycles: Cycles, lrs: Sequence[float]) -> NDArray[np.float64]:
    """The rate at each step of each group, [num_steps, num_groups], whose highest are `lrs`."""
    optimizer = SGD([{"params": [torch.nn.Parameter(torch.zeros(()))], "lr": lr} for lr in lrs])
    scheduler = build_schedule(schedule, optimizer, cycles)
    rates = np.empty((cycles.num_steps, len(lrs)))
    for row in rates:
        row[:] = [group["lr"] for group in optimizer.param_groups]
        optimizer.step()
        scheduler.step()
    return rates


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
