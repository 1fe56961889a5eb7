"""What is made of the snapshots that the cycles of SGDR left: which of them are kept, and how they are joined.

- `none`: nothing; the weights stay as the last cycle left them.
- `best`: the one with the least validation loss.
- `average`: the mean of the weights of several. They lie around one valley, and the mean nearer to its middle
  (Izmailov et al. 2018, arXiv:1803.05407). A head's loss is convex in its weights: there the mean of several is never
  worse than they are on average.
- `ensemble`: the mean of the probabilities that several predict (Huang et al. 2017, arXiv:1704.00109), at the cost of
  as many passes through the network.

Which ones are joined is chosen greedily on valid, from the best one on: one that does not lower the loss of the mean is
left out (Caruana et al. 2004, "Ensemble selection from libraries of models", for predictions; Wortsman et al. 2022,
arXiv:2203.05482, recipe 1, for weights). The state before the first step is a candidate like any other.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.learning.checkpoint import CycleEnd
from pipeline.learning.loop import BatchSource, Learner, evaluate, load_logits, load_snapshot, predict, score
from pipeline.learning.overfitting import best_cycle
from pipeline.model.batch_norm import batch_norms
from pipeline.model.ensemble import Ensemble, mean_log_probs
from pipeline.settings import Snapshots


@dataclass(frozen=True)
class Kept:
    """Which cycles the model is made of, and how good it is."""

    snapshots: Snapshots
    cycles: list[int]
    """The best first; 0 is the state before the first step."""
    train_loss: float
    """Of training images without augmentation."""
    valid_loss: float
    valid_accuracy: float

    @property
    def what(self) -> str:
        """The model, in words."""
        if self.cycles == [0]:
            return "the model as it was before this stage"
        if len(self.cycles) == 1:
            return f"cycle {self.cycles[0]}"
        joined = "weights" if self.snapshots == "average" else "predictions"
        first = ", ".join(map(str, self.cycles[:-1]))
        before = " (0: before this stage)" if 0 in self.cycles else ""
        return f"the mean of the {joined} of cycles {first} and {self.cycles[-1]}{before}"


def keep_snapshots(learner: Learner, ends: Sequence[CycleEnd], scratch: Path, how: Snapshots) -> Kept:
    """Choose, and load the kept weights into the learner's model; of an ensemble, those of its best member."""
    match how:
        case "none":
            kept = _alone(ends[-1], how)
        case "best":
            kept = _alone(best_cycle(ends), how)
        case "average":
            score_mean = _score_mean_logits if learner.linear else _score_average
            kept = _choose(ends, how, lambda cycles, split: score_mean(learner, cycles, scratch, split))
        case "ensemble":
            kept = _choose(ends, how, lambda cycles, split: _score_ensemble(learner, cycles, scratch, split))
    load_mean(learner, kept.cycles if how == "average" else kept.cycles[:1], scratch)
    return kept


def kept_model(learner: Learner, kept: Kept, scratch: Path) -> nn.Module:
    """The model to be published, after `keep_snapshots`: an ensemble where several members were chosen."""
    if kept.snapshots != "ensemble" or len(kept.cycles) == 1:
        return learner.model
    members = [copy.deepcopy(learner.model) for _ in kept.cycles]
    for member, cycle in zip(members, kept.cycles, strict=True):
        member.load_state_dict(load_snapshot(scratch, cycle))
    return Ensemble(members)


def describe_choice(kept: Kept, ends: Sequence[CycleEnd]) -> str | None:
    """What is kept, beside the best cycle alone; None where that is all that was asked for."""
    if kept.snapshots == "best":
        return None
    best = best_cycle(ends)
    losses = f"valid loss {kept.valid_loss:.4f}, of cycle {best.cycle} alone {best.valid_loss:.4f}"
    if kept.snapshots in ("average", "ensemble") and len(kept.cycles) == 1:
        return f"No mean of cycle ends was better on valid than {kept.what} alone, which is kept ({losses})."
    return f"{kept.what[0].upper()}{kept.what[1:]} is kept ({losses})."


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


Measure = Callable[[list[int], str], tuple[float, float]]
"""From cycles that are joined and a split (`valid`, `train_plain`) to loss and accuracy."""


def _choose(ends: Sequence[CycleEnd], how: Snapshots, measure: Measure) -> Kept:
    best, *others = sorted(ends, key=lambda e: e.valid_loss)  # stable: the earlier one of equals, as everywhere
    cycles, loss, accuracy = [best.cycle], best.valid_loss, best.valid_accuracy
    for end in others:
        found, right = measure([*cycles, end.cycle], "valid")
        if found < loss:
            cycles, loss, accuracy = [*cycles, end.cycle], found, right
    if len(cycles) == 1:
        return _alone(best, how)
    return Kept(how, cycles, measure(cycles, "train_plain")[0], loss, accuracy)


def _alone(end: CycleEnd, how: Snapshots) -> Kept:
    return Kept(how, [end.cycle], end.train_loss, end.valid_loss, end.valid_accuracy)


def _score_average(learner: Learner, cycles: list[int], scratch: Path, split: str) -> tuple[float, float]:
    load_mean(learner, cycles, scratch)
    return evaluate(learner, getattr(learner, split))


def _score_mean_logits(learner: Learner, cycles: list[int], scratch: Path, split: str) -> tuple[float, float]:
    """What `_score_average` finds where the logits are linear in the weights, without another pass."""
    mean = torch.stack(_load_all_logits(cycles, scratch, split)).mean(0)
    return score(mean, getattr(learner, split).targets)


def _score_ensemble(learner: Learner, cycles: list[int], scratch: Path, split: str) -> tuple[float, float]:
    mean = mean_log_probs(_load_all_logits(cycles, scratch, split))
    return score(mean, getattr(learner, split).targets)


def _load_all_logits(cycles: list[int], scratch: Path, split: str) -> list[Tensor]:
    return [load_logits(scratch, cycle)[split].double() for cycle in cycles]
