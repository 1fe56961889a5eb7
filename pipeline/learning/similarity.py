"""Is the data like what the backbone was pretrained on? The recipe's own test.

If training the unfrozen layers for an epoch or two changes the loss on unseen images by no more than its noise, the
pretrained features fitted already: the data is very similar. What counts as noise depends on the direction:
- a fall is what training is for: it counts where the bootstrap over the paired per-image losses is sure of it, and
  where it is more than the little by which the head still gains in that cycle;
- a rise is the luck of where a cycle ends, of which those pairs know nothing: it counts only beyond the scatter of the
  loss when it is evaluated repeatedly, each time on other images of the same kind. Then the rate was too high to tell.

Where the change happened is told per layer group: how far its weights moved, and how alike its features stayed (linear
CKA: Kornblith et al. 2019, arXiv:1905.00414, equation 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.evaluation.bootstrap import paired_interval
from pipeline.learning.loop import Learner, first_images, load_logits, load_snapshot
from pipeline.model.classifier import Classifier
from pipeline.model.compute import to_device
from pipeline.model.layer_groups import LayerGroup, split_layer_groups

CKA_IMAGES = 64

NEGLIGIBLE = 0.01
"""A change of the mean loss, in nats, that is none, however little it scatters: the right class 1 % more probable."""


@dataclass(frozen=True)
class Similarity:
    """How the mean validation loss moved in the first unfrozen cycle."""

    before: float
    after: float
    change: float
    interval: tuple[float, float]
    """Of the change, paired, at 95 %."""
    noise: tuple[float, float]
    """Of the loss before, about its mean, when it is evaluated on other images, at 95 %."""
    similar: bool
    sentence: str


def compare_losses(before: NDArray[np.float64], after: NDArray[np.float64], *, seed: int) -> Similarity:
    """Compare per-image losses [N] before and after the first cycle."""
    differences = after - before
    low, high = paired_interval(differences, seed=seed)
    change = float(differences.mean())
    start = float(before.mean())
    noise = paired_interval(before - start, seed=seed)
    fell, rose = high < 0 and change <= -NEGLIGIBLE, change > max(noise[1], NEGLIGIBLE)
    similar = not (fell or rose)
    span = f"{change:+.4f} (95 % interval {low:+.4f} to {high:+.4f})"
    if similar:
        sentence = f"The data is very similar to the pretraining data: unfrozen, the loss moved by {span}."
    elif fell:
        sentence = f"The data differs from the pretraining data: adapting all layers moved the loss by {span}."
    else:
        sentence = f"The first unfrozen cycle made the loss worse, by {span}: a lower full_train.lr may do better."
    return Similarity(start, float(after.mean()), change, (low, high), noise, similar, sentence)


@dataclass(frozen=True)
class Movement:
    """How far one layer group moved."""

    name: str
    weights: float
    """Length of the change of all its weights, as a share of their length."""
    features_cka: float
    """Linear CKA of its output before and after: 1 is the same up to rotation and scale."""


@dataclass(frozen=True)
class FirstCycle(Similarity):
    """The verdict, and where in the network the change happened."""

    groups: list[Movement]

    @property
    def movement(self) -> str:
        return "in the first cycle moved " + ", ".join(
            f"{m.name} {m.weights:.2%} (features alike: {m.features_cka:.3f})" for m in self.groups
        )


def compare_first_cycle(learner: Learner, scratch: Path, *, seed: int) -> FirstCycle:
    """Compare the state before the first step with the first cycle's end; the model ends in the latter."""
    assert isinstance(learner.model, Classifier)
    groups = split_layer_groups(learner.model, len(learner.groups))
    shown = to_device(first_images(learner.valid, CKA_IMAGES)[0], learner.device)
    states, losses = [], []
    for cycle in (0, 1):
        learner.model.load_state_dict(load_snapshot(scratch, cycle))
        states.append(record_groups(learner.model, groups, shown))
        logits = load_logits(scratch, cycle)["valid"].double()
        losses.append(F.cross_entropy(logits, learner.valid.targets, reduction="none").numpy())
    return FirstCycle(**vars(compare_losses(*losses, seed=seed)), groups=compare_groups(groups, *states))


@dataclass(frozen=True)
class GroupState:
    """One layer group at one moment."""

    weights: Tensor
    """All its weights [num_parameters]."""
    features: Tensor
    """Its output for some images [N, num_features]."""


@torch.no_grad()
def record_groups(model: nn.Module, groups: Sequence[LayerGroup], images: Tensor) -> list[GroupState]:
    """The weights of each group, and its output for `images` [N, 3, H, W], in evaluation mode."""
    outputs: dict[int, Tensor] = {}
    handles = []
    for i, group in enumerate(groups):
        last = list(group.modules.values())[-1]

        def keep(_: nn.Module, __: object, output: Tensor, i: int = i) -> None:
            outputs[i] = output.flatten(1).float().cpu()

        handles.append(last.register_forward_hook(keep))
    model.eval()(images)
    for handle in handles:
        handle.remove()
    weights = [torch.cat([p.detach().flatten().cpu() for p in g.parameters.values()]) for g in groups]
    return [GroupState(w, outputs[i]) for i, w in enumerate(weights)]


def compare_groups(
    groups: Sequence[LayerGroup], before: Sequence[GroupState], after: Sequence[GroupState]
) -> list[Movement]:
    """How far each group moved between two records of it."""
    return [
        Movement(
            group.name,
            ((b.weights - a.weights).norm() / a.weights.norm()).item(),
            linear_cka(a.features, b.features),
        )
        for group, a, b in zip(groups, before, after, strict=True)
    ]


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear CKA of two sets of features [N, p] and [N, q] of the same N images, by their Gram matrices."""
    x, y = (t.double() - t.double().mean(0) for t in (x, y))
    k, m = x @ x.T, y @ y.T
    scale = k.norm() * m.norm()
    return ((k * m).sum() / scale).item() if scale else 1.0
