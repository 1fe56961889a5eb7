"""Is the data similar to what the backbone was pretrained on? The recipe's own test.

If training the unfrozen layers for an epoch or two changes the loss on unseen images by no more than its noise, the
pretrained features fitted already: the data is very similar. What counts as noise depends on the direction:
- A fall is what training is for. It counts if the bootstrap interval of the paired per-image losses excludes zero, and
  if it is larger than the small gain that the head alone still makes in that cycle.
- A rise depends on chance: on where the cycle happens to end, which those pairs do not show. It counts only if it
  exceeds the scatter of the loss over repeated evaluations on other images of the same kind. Then the rate was too high
  for an answer.

Where neither counts, the interval must be narrow for "similar": a wide one only says that the images are too few.

For each layer group, two figures say where the change happened: how far its weights moved, and how similar its features
stayed (linear CKA: Kornblith et al. 2019, arXiv:1905.00414, equation 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.evaluation.bootstrap import paired_interval
from pipeline.learning.checkpoint import load_losses, load_snapshot
from pipeline.learning.loop import Learner
from pipeline.learning.sources import first_images
from pipeline.model.classifier import Classifier
from pipeline.model.compute import to_device
from pipeline.model.layer_groups import LayerGroup, split_layer_groups

CKA_IMAGES = 64

Answer = Literal["similar", "different", "worse", "unclear"]

NEGLIGIBLE = 0.01
"""A smaller change of the mean loss, in nats, never counts: it makes the true class less than 1 % more probable."""

WIDE, WIDE_SHARE = 0.1, 0.25
"""An interval of the change wider than this, in nats, and than this share of the loss before, cannot show that nothing
changed."""


@dataclass(frozen=True)
class Similarity:
    """How the mean validation loss moved in the first unfrozen cycle."""

    before: float
    after: float
    change: float
    interval: tuple[float, float]
    """Of the change: a paired 95 % interval."""
    noise: tuple[float, float]
    """95 % interval, about its mean, of the loss before, if it were evaluated on other images."""
    similar: bool
    outcome: Answer
    """`different`: the loss fell; `worse`: it rose, so the rate was too high to tell; `unclear`: the images are too few
    to tell; else `similar`."""


def compare_losses(before: NDArray[np.float64], after: NDArray[np.float64], *, seed: int) -> Similarity:
    """Compare per-image losses [N] before and after the first cycle; `seed` decides the bootstrap's resamples."""
    differences = after - before
    low, high = paired_interval(differences, seed=seed)
    change = float(differences.mean())
    start = float(before.mean())
    noise = paired_interval(before - start, seed=seed)
    fell, rose = high < 0 and change <= -NEGLIGIBLE, change > max(noise[1], NEGLIGIBLE)
    is_wide = high - low > max(WIDE, WIDE_SHARE * start)
    outcome: Answer = "different" if fell else "worse" if rose else "unclear" if is_wide else "similar"
    return Similarity(
        start, float(after.mean()), change, (low, high), noise, similar=outcome == "similar", outcome=outcome
    )


@dataclass(frozen=True)
class Movement:
    """How far one layer group moved."""

    name: str
    weights: float
    """Norm of the change of all its weights, as a share of their norm."""
    features_cka: float
    """Linear CKA of its output before and after: 1 means the same up to rotation and scale."""


@dataclass(frozen=True)
class FirstCycle(Similarity):
    """The verdict, and how far each layer group moved."""

    groups: list[Movement]


def compare_first_cycle(learner: Learner, scratch: Path, *, seed: int) -> FirstCycle:
    """Compare the state before the first step with the end of the first cycle, whose weights the model then has.

    `scratch` is the folder with the snapshots of the cycles.
    """
    assert isinstance(learner.model, Classifier)
    groups = split_layer_groups(learner.model, len(learner.groups))
    shown = to_device(first_images(learner.valid, CKA_IMAGES)[0], learner.device)
    states, losses = [], []
    for cycle in (0, 1):
        learner.model.load_state_dict(load_snapshot(scratch, cycle))
        states.append(record_groups(learner.model, groups, shown))
        losses.append(load_losses(scratch, cycle, learner.valid.targets))
    return FirstCycle(**vars(compare_losses(*losses, seed=seed)), groups=compare_groups(groups, *states))


@dataclass(frozen=True)
class GroupState:
    """The weights and the output of one layer group at one moment."""

    weights: Tensor
    """All its weights [num_parameters]."""
    features: Tensor
    """Its output for some images [N, num_features]."""


@torch.no_grad()
def record_groups(model: nn.Module, groups: Sequence[LayerGroup], images: Tensor) -> list[GroupState]:
    """Record the weights of each group, and its output for `images` [N, 3, H, W] in evaluation mode."""
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
    """How far each group moved between two records."""
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
