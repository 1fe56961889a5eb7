"""When to stop: the recipe trains "until over-fitting".

A cycle over-fits if its validation loss is higher than that of the best state before it while its training loss,
measured without augmentation, is lower: the model improves only on images it has seen. (If both rise, the rate was too
high, or the longer cycle has not settled: that is not over-fitting, but training stops too.)

The state before the first step, "cycle 0", can be kept like any cycle, so a stage that keeps the best never makes the
model worse on validation images. It does not stop training: the first restart at a high rate may cost accuracy that
later cycles win back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.learning.checkpoint import CycleEnd


@dataclass(frozen=True)
class Verdict:
    """Which cycle was the best, and whether and when over-fitting began. Cycles count from 1; 0 is before the first."""

    best_cycle: int
    overfitting_since_cycle: int | None
    """The first cycle after the best one with a higher validation loss and a lower training loss; None if none did."""


def best_cycle(ends: Sequence[CycleEnd]) -> CycleEnd:
    """The end with the lowest validation loss; in a tie, the first."""
    return min(ends, key=lambda e: e.valid_loss)


def has_stopped_improving(ends: Sequence[CycleEnd]) -> bool:
    """Whether the last cycle ended with a higher validation loss than the best cycle before it."""
    cycles = [e for e in ends if e.cycle > 0]
    return len(cycles) > 1 and cycles[-1].valid_loss > best_cycle(cycles[:-1]).valid_loss


def judge(ends: Sequence[CycleEnd]) -> Verdict:
    """Sum up a training stage; `ends` begins with the state before the first step."""
    best = best_cycle(ends)
    since = next((e.cycle for e in ends if e.cycle > best.cycle and _overfits(best, e)), None)
    return Verdict(best.cycle, since)


def _overfits(before: CycleEnd, after: CycleEnd) -> bool:
    return after.valid_loss > before.valid_loss and after.train_loss < before.train_loss
