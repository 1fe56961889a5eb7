"""Schedules of the learning rate, by name: torch's own schedulers, stepped after every batch.

- `sgdr`: Loshchilov & Hutter 2016, arXiv:1608.03983. Within a cycle the rate falls along half a cosine and jumps back
  at the start of the next; cycle k lasts `cycle_len * cycle_mult**k` epochs.
- `constant`: no annealing.
- `step`: each cycle has a tenth of the rate of the one before.
- `exponential`: a tenth per cycle too, but with the same ratio from each batch to the next.
- `one_cycle`: Smith & Topin 2017, arXiv:1708.07120. The whole training is one cycle: the rate rises along half a cosine
  from 1/25 of its maximum during the first 30 % of the steps, then falls to almost nothing.

Lengths are whole numbers of steps, so that restarts coincide exactly with epochs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

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
"""What `step` and `exponential` multiply the rate by per cycle."""


@dataclass(frozen=True)
class Cycles:
    """The cycles of one training stage, in epochs and steps."""

    num_cycles: int
    cycle_len: int
    cycle_mult: int
    steps_per_epoch: int

    @property
    def epochs(self) -> list[int]:
        """Length of each cycle, in epochs."""
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
    """Build the named scheduler; the rate of each group in `optimizer` is its maximum."""
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
    """The rate of each group at each step, [num_steps, num_groups]; `lrs` are the groups' maximum rates."""
    optimizer = SGD([{"params": [torch.nn.Parameter(torch.zeros(()))], "lr": lr} for lr in lrs])
    scheduler = build_schedule(schedule, optimizer, cycles)
    rates = np.empty((cycles.num_steps, len(lrs)))
    for row in rates:
        row[:] = [group["lr"] for group in optimizer.param_groups]
        optimizer.step()
        scheduler.step()
    return rates
