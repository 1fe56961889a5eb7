"""The mean of the weights of several cycle ends, where it is better than the best of them.

Cycles of SGDR end in different places of one valley, and the mean of their weights lies nearer to its middle (Izmailov
et al. 2018, arXiv:1803.05407). Which ends are averaged is chosen greedily on valid, from the best one on (Wortsman et
al. 2022, arXiv:2203.05482, recipe 1): one that does not lower the loss of the mean is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.learning.checkpoint import CycleEnd
from pipeline.learning.loop import BatchSource, Learner, evaluate, load_snapshot, predict
from pipeline.model.layer_groups import batch_norms


@dataclass(frozen=True)
class Averaged:
    """What came of averaging; the model holds the kept weights."""

    cycles: list[int]
    """Whose ends the kept weights are the mean of, best first; a single one is that cycle's own weights."""
    train_loss: float
    valid_loss: float
    valid_accuracy: float
    best_valid_loss: float
    """Of the best cycle alone."""

    @property
    def sentence(self) -> str:
        losses = f"valid loss {self.valid_loss:.4f}, of cycle {self.cycles[0]} alone {self.best_valid_loss:.4f}"
        if len(self.cycles) == 1:
            return f"No mean of cycle ends was better than cycle {self.cycles[0]} alone, which is kept ({losses})."
        return f"The mean of the weights of cycles {', '.join(map(str, self.cycles))} is kept ({losses})."


def average_cycles(learner: Learner, ends: Sequence[CycleEnd], scratch: Path) -> Averaged:
    """Average the snapshots of `ends` in `scratch` as far as it lowers the validation loss, and load the outcome."""
    best, *others = sorted(ends, key=lambda e: e.valid_loss)  # stable: the earlier one of equals, as everywhere
    cycles, loss = [best.cycle], best.valid_loss
    for end in others:
        load_mean(learner, [*cycles, end.cycle], scratch)
        found, _ = evaluate(learner, learner.valid)
        if found < loss:
            cycles, loss = [*cycles, end.cycle], found
    load_mean(learner, cycles, scratch)
    valid_loss, accuracy = evaluate(learner, learner.valid)
    train_loss, _ = evaluate(learner, learner.train_plain)
    return Averaged(cycles, train_loss, valid_loss, accuracy, best.valid_loss)


def load_mean(learner: Learner, cycles: Sequence[int], scratch: Path) -> None:
    """Load the mean of the cycles' weights; where batch norm is trained, its statistics are measured anew."""
    learner.model.load_state_dict(mean_state([load_snapshot(scratch, cycle) for cycle in cycles]))
    if len(cycles) > 1:
        learner.set_mode()
        trained = [m for m in batch_norms(learner.model) if m.training]
        if trained:
            measure_batch_norms(learner, trained, learner.train_plain)


def mean_state(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor, in its own precision; of counters, those of the first state."""
    return {
        name: torch.stack([s[name].double() for s in states]).mean(0).to(first.dtype)
        if first.is_floating_point()
        else first
        for name, first in states[0].items()
    }


def measure_batch_norms(learner: Learner, norms: Sequence[nn.Module], source: BatchSource) -> None:
    """Set the statistics of `norms` to the mean over the batches of `source`; all else is in evaluation mode.

    Like `torch.optim.swa_utils.update_bn`, which would also draw dropout and move frozen statistics.
    """

    def train_alone(module: nn.Module, _: object) -> None:
        module.train()

    handles = []
    momenta = [n.momentum for n in norms]
    for norm in norms:
        norm.reset_running_stats()  # type: ignore[operator]
        norm.momentum = None  # type: ignore[assignment]  # torch's name for the plain mean over batches
        handles.append(norm.register_forward_pre_hook(train_alone))
    predict(learner, source)
    for norm, momentum, handle in zip(norms, momenta, handles, strict=True):
        norm.momentum = momentum
        handle.remove()
