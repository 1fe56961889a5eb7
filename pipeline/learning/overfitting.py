"""When to stop: the recipe trains "until over-fitting".

Over-fitting is when the validation loss at the end of a cycle is higher than at the best state before while the
training loss, measured without augmentation, is lower: the model gets better at what it has seen only. (When both rise,
the rate was too high, or the longer cycle has not settled: that is no over-fitting, but no reason to go on either.)

The state before the first step, "cycle 0", is a candidate to be kept like any cycle: a stage that keeps the best makes
no model worse on validation images. It does not stop training, for the first restart at a high rate may cost what later
cycles win back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.learning.checkpoint import CycleEnd


@dataclass(frozen=True)
class Verdict:
    """Which cycle was the best, and whether and when over-fitting began. Cycles count from 1; 0 is before the first."""

    best_cycle: int
    overfitting_since_cycle: int | None
    """The first cycle after the best one that ended worse on unseen images and better on seen ones."""
    sentence: str


def best_cycle(ends: Sequence[CycleEnd]) -> CycleEnd:
    """The end with the lowest validation loss; the earlier one of equals."""
    return min(ends, key=lambda e: e.valid_loss)


def has_stopped_improving(ends: Sequence[CycleEnd]) -> bool:
    """Whether the last cycle ended with a higher validation loss than the best cycle before it."""
    cycles = [e for e in ends if e.cycle > 0]
    return len(cycles) > 1 and cycles[-1].valid_loss > best_cycle(cycles[:-1]).valid_loss


def judge(ends: Sequence[CycleEnd], *, kept: str, num_cycles: int, stage: str) -> Verdict:
    """Sum up `stage`, which was allowed `num_cycles` cycles; `ends` begins with the state before the first step.

    `kept` names what the stage's model is, for the sentence.
    """
    best, last = best_cycle(ends), ends[-1]
    since = next((e.cycle for e in ends if e.cycle > best.cycle and _overfits(best, e)), None)
    if since is not None:
        sentence = f"Over-fitting began in cycle {since}; {kept} is kept."
    elif best is not last:
        sentence = f"Cycle {last.cycle} ended no better on validation images, without over-fitting; {kept} is kept."
    else:
        sentence = (
            f"No over-fitting after {last.cycle} of {num_cycles} cycles: the last one was the best; "
            f"{stage}.num_cycles may be raised."
        )
    return Verdict(best.cycle, since, sentence)


def _overfits(before: CycleEnd, after: CycleEnd) -> bool:
    return after.valid_loss > before.valid_loss and after.train_loss < before.train_loss
