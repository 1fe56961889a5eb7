"""Which snapshots of SGDR's cycles become the model, and how they are combined.

- `none`: the weights of the last cycle.
- `best`: the snapshot with the lowest validation loss.
- `cautious`: the same snapshot, if it is better than the state before the first step by more than choosing among the
  cycles gives by chance. If not, some of the gain may still be real: then the mean of its weights and of those before
  is kept, if that is better on valid (the middle of the line in Wortsman et al. 2021, arXiv:2109.01903), else the
  state before.
- `average`: the mean of the weights of several snapshots. They lie around one valley, and their mean is nearer to its
  middle (Izmailov et al. 2018, arXiv:1803.05407). The loss of a head is convex in its weights, so the mean of several
  heads is never worse than they are on average.
- `ensemble`: the mean of the probabilities that several snapshots predict (Huang et al. 2017, arXiv:1704.00109). Each
  of them costs a pass through the network.

Snapshots are added greedily by their loss on valid, starting with the best; one that does not lower the loss of the
mean is left out (Caruana et al. 2004, "Ensemble selection from libraries of models", for predictions; Wortsman et al.
2022, arXiv:2203.05482, recipe 1, for weights). The state before the first step is a candidate too.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.evaluation.bootstrap import chance_of_best
from pipeline.learning.checkpoint import CycleEnd, load_logits, load_losses, load_snapshot
from pipeline.learning.loop import Learner
from pipeline.learning.overfitting import best_cycle
from pipeline.learning.sources import BatchSource, in_order
from pipeline.model.batch_norm import batch_norms
from pipeline.model.compute import evaluate, predict, score
from pipeline.model.ensemble import Ensemble, mean_log_probs
from pipeline.settings import Snapshots

CHANCE = 0.05
"""A change that would look as good more often than this by chance is not taken whole."""


@dataclass(frozen=True)
class KeptCycles:
    """Which cycles the model is made of, and how good it is on the images that they were chosen by."""

    snapshots: Snapshots
    cycles: list[int]
    """Best first; 0 is the state before the first step."""
    train_loss: float
    """On training images without augmentation."""
    valid_loss: float
    valid_accuracy: float
    by_chance: float | None = None
    """For `cautious`: how often the best cycle would look as good by chance, if none were better than before."""


def keep_snapshots(learner: Learner, ends: Sequence[CycleEnd], scratch: Path, how: Snapshots) -> KeptCycles:
    """Choose cycles as `how` says, and load their weights into the learner's model.

    `ends` are the ends of all cycles, and `scratch` is the folder with their snapshots. For an ensemble, the weights of
    its best member are loaded; see `build_kept_model`.
    """
    match how:
        case "none":
            kept = _alone(ends[-1], how)
        case "best":
            kept = _alone(best_cycle(ends), how)
        case "cautious":
            kept = _choose_cautiously(learner, ends, scratch)
        case "average":
            score_mean = _score_mean_of(learner)
            kept = _choose(ends, how, lambda cycles, split: score_mean(learner, cycles, scratch, split))
        case "ensemble":
            kept = _choose(ends, how, lambda cycles, split: _score_ensemble(learner, cycles, scratch, split))
    load_mean(learner, kept.cycles[:1] if how == "ensemble" else kept.cycles, scratch)
    return kept


def build_kept_model(learner: Learner, kept: KeptCycles, scratch: Path) -> nn.Module:
    """The model to publish, after `keep_snapshots`: an ensemble if several members were chosen."""
    if kept.snapshots != "ensemble" or len(kept.cycles) == 1:
        return learner.model
    members = [copy.deepcopy(learner.model) for _ in kept.cycles]
    for member, cycle in zip(members, kept.cycles, strict=True):
        member.load_state_dict(load_snapshot(scratch, cycle))
    return Ensemble(members)


def load_mean(learner: Learner, cycles: Sequence[int], scratch: Path) -> None:
    """Load the mean of the cycles' weights; the statistics of batch norms that are trained are measured again."""
    learner.model.load_state_dict(mean_state([load_snapshot(scratch, cycle) for cycle in cycles]))
    if len(cycles) > 1:
        learner.set_mode()
        trained = [m for m in batch_norms(learner.model) if m.training]
        if trained:
            measure_batch_norms(learner, trained, learner.train_plain)


def mean_state(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor, in its own precision; counters are those of the first state."""
    return {
        name: torch.stack([s[name].double() for s in states]).mean(0).to(first.dtype)
        if first.is_floating_point()
        else first
        for name, first in states[0].items()
    }


def measure_batch_norms(learner: Learner, norms: Sequence[nn.Module], source: BatchSource) -> None:
    """Set the statistics of `norms` to the mean over the batches of `source`, with the rest in evaluation mode.

    Like `torch.optim.swa_utils.update_bn`, which would also apply dropout and change frozen statistics.
    """

    def train_alone(module: nn.Module, _: object) -> None:
        module.train()

    handles = []
    momenta = [n.momentum for n in norms]
    for norm in norms:
        norm.reset_running_stats()  # type: ignore[operator]
        norm.momentum = None  # type: ignore[assignment]  # to torch, None is the plain mean over batches
        handles.append(norm.register_forward_pre_hook(train_alone))
    predict(learner, in_order(source, learner.micro_batch_size))
    for norm, momentum, handle in zip(norms, momenta, handles, strict=True):
        norm.momentum = momentum
        handle.remove()


Measure = Callable[[list[int], str], tuple[float, float]]
"""From the cycles to combine, and a split (`valid`, `train_plain`), to loss and accuracy."""


def _choose(ends: Sequence[CycleEnd], how: Snapshots, measure: Measure) -> KeptCycles:
    best, *others = sorted(ends, key=lambda e: e.valid_loss)  # stable: in a tie the first, as everywhere
    cycles, loss, accuracy = [best.cycle], best.valid_loss, best.valid_accuracy
    for end in others:
        new_loss, new_accuracy = measure([*cycles, end.cycle], "valid")
        if new_loss < loss:
            cycles, loss, accuracy = [*cycles, end.cycle], new_loss, new_accuracy
    if len(cycles) == 1:
        return _alone(best, how)
    return KeptCycles(how, cycles, measure(cycles, "train_plain")[0], loss, accuracy)


def _choose_cautiously(learner: Learner, ends: Sequence[CycleEnd], scratch: Path) -> KeptCycles:
    before, best = ends[0], best_cycle(ends)
    if best.cycle == before.cycle:
        return _alone(before, "cautious")
    losses = np.stack([load_losses(scratch, end.cycle, learner.valid.targets) for end in ends])
    by_chance = chance_of_best(losses[1:] - losses[0], seed=0)
    kept = _alone(best, "cautious") if by_chance < CHANCE else _choose_mean(learner, before, best, scratch)
    return replace(kept, by_chance=by_chance)


def _choose_mean(learner: Learner, before: CycleEnd, best: CycleEnd, scratch: Path) -> KeptCycles:
    """The mean of two states, if it is better on valid than the state before."""
    score_mean, cycles = _score_mean_of(learner), [best.cycle, before.cycle]
    loss, accuracy = score_mean(learner, cycles, scratch, "valid")
    if loss >= before.valid_loss:
        return _alone(before, "cautious")
    return KeptCycles("cautious", cycles, score_mean(learner, cycles, scratch, "train_plain")[0], loss, accuracy)


def _alone(end: CycleEnd, how: Snapshots) -> KeptCycles:
    return KeptCycles(how, [end.cycle], end.train_loss, end.valid_loss, end.valid_accuracy)


def _score_mean_of(learner: Learner) -> Callable[[Learner, list[int], Path, str], tuple[float, float]]:
    return _score_mean_logits if learner.linear else _score_average


def _score_average(learner: Learner, cycles: list[int], scratch: Path, split: str) -> tuple[float, float]:
    load_mean(learner, cycles, scratch)
    return evaluate(learner, in_order(getattr(learner, split), learner.micro_batch_size))


def _score_mean_logits(learner: Learner, cycles: list[int], scratch: Path, split: str) -> tuple[float, float]:
    """The same as `_score_average` for logits that are linear in the weights, without another forward pass."""
    return score(mean_logits(cycles, scratch, split), getattr(learner, split).targets)


def _score_ensemble(learner: Learner, cycles: list[int], scratch: Path, split: str) -> tuple[float, float]:
    mean = mean_log_probs(load_all_logits(cycles, scratch, split))
    return score(mean, getattr(learner, split).targets)


def mean_logits(cycles: Sequence[int], scratch: Path, split: str) -> Tensor:
    """Logits [N, num_classes] of the mean of the weights, where they are linear in the weights."""
    return torch.stack(load_all_logits(cycles, scratch, split)).mean(0)


def load_all_logits(cycles: Sequence[int], scratch: Path, split: str) -> list[Tensor]:
    """Logits [N, num_classes] of a split at the end of each cycle, in double precision."""
    return [load_logits(scratch, cycle)[split].double() for cycle in cycles]
