"""When to stop: the recipe trains "until over-fitting".

Over-fitting is when the validation loss at the end of a cycle is higher than before while the training loss, measured
without augmentation, still falls: the model gets better at what it has seen only. (When both rise, the rate was too
high, or the longer cycle has not settled: that is no over-fitting, but no reason to go on either.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.learning.checkpoint import CycleEnd


@dataclass(frozen=True)
class Verdict:
    """Which cycle is kept, and whether and when over-fitting began."""

    kept_cycle: int
    overfitting_since_cycle: int | None
    """The first cycle that ended worse on unseen images and better on seen ones."""
    sentence: str


def best_cycle(ends: Sequence[CycleEnd]) -> CycleEnd:
    """The end with the lowest validation loss; the earlier one of equals."""
    return min(ends, key=lambda e: e.valid_loss)


def has_stopped_improving(ends: Sequence[CycleEnd]) -> bool:
    """Whether the last cycle ended with a higher validation loss than the best before it."""
    return len(ends) > 1 and ends[-1].valid_loss > best_cycle(ends[:-1]).valid_loss


def judge(ends: Sequence[CycleEnd], *, num_cycles: int) -> Verdict:
    """Sum up a finished training stage that was allowed `num_cycles` cycles."""
    kept = best_cycle(ends)
    since = next((b.cycle for a, b in pairwise(ends) if _overfits(a, b)), None)
    if since is not None:
        sentence = f"Over-fitting began in cycle {since + 1}; cycle {kept.cycle + 1} is kept."
    elif kept is not ends[-1]:
        sentence = (
            f"Cycle {ends[-1].cycle + 1} ended worse on training and validation images alike: no over-fitting, but "
            f"no gain; cycle {kept.cycle + 1} is kept."
        )
    else:
        sentence = (
            f"No over-fitting after {len(ends)} of {num_cycles} cycles: the last one was the best; "
            "full_train.num_cycles may be raised."
        )
    return Verdict(kept.cycle, since, sentence)


def _overfits(before: CycleEnd, after: CycleEnd) -> bool:
    return after.valid_loss > before.valid_loss and after.train_loss < before.train_loss
