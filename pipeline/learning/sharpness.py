"""How sharp the minimum is that a cycle ended in, to compare with its generalisation gap.

Two measures, on a few training images in evaluation mode:
- How much the loss rises when each weight tensor is moved along a random line by a share of its own norm, averaged over
  both directions. The step is relative, so that scaling a layer changes nothing (Li et al. 2018, arXiv:1712.09913,
  section 4).
- The leading eigenvalue of the loss's Hessian, by power iteration with exact products (Pearlmutter 1994). It starts
  near the gradient, which lies almost entirely in the span of the leading eigenvectors (Gur-Ari et al. 2018,
  arXiv:1812.04754): on the default data two iterations come within 0.1 % of the limit; a random start needs four.

Both depend mostly on the images; the eigenvalue on the few that the model is not sure of yet. So all cycles are
measured on the same images, and the figures of different runs cannot be compared.

Neither is worth much time: SHARE of the training at most. Where that is too little for both measures of all cycles, the
eigenvalue is left out; where it is still too little, only the state before training and the last one are measured.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline.learning.checkpoint import load_snapshot
from pipeline.learning.loop import Learner, TrainingRun
from pipeline.learning.sources import MicroBatch, first_images
from pipeline.model.compute import Computation, to_device
from pipeline.seeds import seed_of
from pipeline.stopping import raise_if_requested
from pipeline.workspace import Workspace

RADIUS = 0.05
"""Norm of a perturbation, as a share of the tensor's."""
NUM_LINES = 2
NUM_IMAGES = 16
HESSIAN_VALUES = NUM_IMAGES * 3 * 128**2
HESSIAN_IMAGES = 4
"""Products with the Hessian are the expensive part, in proportion to the pixels of all images. So they use at most
HESSIAN_VALUES input values, but at least HESSIAN_IMAGES images: 5 of the 16 at 224 pixels a side."""
NUM_ITERATIONS = 2
"""Power iterations: each costs as much as one or two training steps on the same images; three with depthwise
convolutions on a CPU."""

SHARE = 0.02
"""Of the time that training takes."""
RISE_COST, HESSIAN_COST = 50, 150
"""What each measure of one state costs, in images that are trained on. Measured on a CPU, where the weights cost most:
with resnet18 on 32 pixels. On 96 pixels squeezenet1_1 took 31 and 105."""
FEWEST_IMAGES = 4
"""The rise is measured on this many images even where that takes more than its share."""


@dataclass(frozen=True)
class Sharpness:
    """Both measures of one state of the model."""

    rise: float
    """Mean increase of the loss under random perturbations of RADIUS."""
    hessian_top: float | None
    """Eigenvalue of the Hessian that is largest in absolute value; None if it was not measured."""


@dataclass(frozen=True)
class CycleSharpness:
    """Generalisation gap and sharpness at the end of a cycle; cycle 0 is before the first step."""

    cycle: int
    generalisation_gap: float
    """Loss on valid minus loss on training images without augmentation."""
    rise: float | None
    """None, as `hessian_top`, where it was not measured; see `plan_sharpness`."""
    hessian_top: float | None


@dataclass(frozen=True)
class SharpnessPlan:
    """What is measured, so that it takes no more than its share of the training."""

    cycles: list[int]
    num_images: int
    hessian: bool


def plan_sharpness(images_seen: int, num_ends: int) -> SharpnessPlan:
    """Plan after a training that saw `images_seen` images, each as often as it was drawn, and has `num_ends` ends."""
    budget, cycles = SHARE * images_seen, list(range(num_ends))
    if budget >= num_ends * RISE_COST:
        return SharpnessPlan(cycles, NUM_IMAGES, hessian=budget >= num_ends * (RISE_COST + HESSIAN_COST))
    afforded = int(NUM_IMAGES * budget / (2 * RISE_COST))
    return SharpnessPlan([0, num_ends - 1], min(NUM_IMAGES, max(FEWEST_IMAGES, afforded)), hessian=False)


def trace_sharpness(learner: Learner, run: TrainingRun, workspace: Workspace) -> list[CycleSharpness]:
    """Measure the states at the cycles' ends, and journal them. The model ends with the weights of the last one."""
    plan = plan_sharpness(run.ends[-1].epoch * learner.train.num_samples, len(run.ends))
    shown, targets = first_images(learner.train_plain, plan.num_images)
    images, rows = (to_device(shown, learner.device), targets.to(learner.device)), []
    lines = random_lines(learner.model, seed=workspace.seed)
    for end in run.ends:
        raise_if_requested()
        row = CycleSharpness(end.cycle, end.valid_loss - end.train_loss, None, None)
        if end.cycle in plan.cycles:
            learner.model.load_state_dict(load_snapshot(workspace.scratch, end.cycle))
            found = measure_sharpness(learner, images, lines, hessian=plan.hessian)
            row = replace(row, rise=found.rise, hessian_top=found.hessian_top)
        values = {
            "generalisation_gap": row.generalisation_gap,
            "perturbed_rise": row.rise,
            "hessian_top": row.hessian_top,
        }
        workspace.journal.points(end.step - 1, **{name: value for name, value in values.items() if value is not None})
        rows.append(row)
    return rows


def random_lines(model: nn.Module, *, seed: int) -> list[list[Tensor]]:
    """NUM_LINES random directions, each shaped like the trained parameters."""
    generator = torch.Generator().manual_seed(seed_of(seed, "sharpness"))
    return [_noise(trained_parameters(model), generator) for _ in range(NUM_LINES)]


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that have gradients."""
    return [p for p in model.parameters() if p.requires_grad]


def measure_sharpness(
    computation: Computation, images: MicroBatch, lines: Sequence[Sequence[Tensor]], *, hessian: bool = True
) -> Sharpness:
    """Measure the model in single precision; its weights and mode are unchanged afterwards.

    `images` (inputs and targets) are on its device, and `lines` are from `random_lines`. For any network this takes
    2 * NUM_LINES + 1 forward passes, and for the Hessian another, one backward pass and NUM_ITERATIONS exact products.
    """
    model, (inputs, targets) = computation.model, images
    parameters = trained_parameters(model)
    was_training = [m.training for m in model.modules()]
    model.eval()
    top = _hessian_top(model, images, parameters, lines[0]) if hessian else None
    with torch.no_grad():
        loss = F.cross_entropy(model(inputs), targets)
    rises = [_perturbed_loss(model, inputs, targets, parameters, line) for line in lines]
    for module, mode in zip(model.modules(), was_training, strict=True):
        module.training = mode
    return Sharpness(sum(rises) / len(rises) - loss.item(), top)


def _hessian_top(
    model: nn.Module, images: MicroBatch, parameters: Sequence[nn.Parameter], noise: Sequence[Tensor]
) -> float:
    inputs, targets = images
    few = hessian_images(inputs)
    with sdpa_kernel(SDPBackend.MATH):  # the fast kernels of attention cannot be differentiated twice
        loss = F.cross_entropy(model(inputs[:few]), targets[:few])
    return leading_eigenvalue(loss, parameters, noise)


def hessian_images(inputs: Tensor) -> int:
    """How many of `inputs` [N, ...] the eigenvalue is measured with."""
    return min(len(inputs), max(HESSIAN_IMAGES, HESSIAN_VALUES // inputs[0].numel()))


def leading_eigenvalue(
    loss: Tensor, parameters: Sequence[nn.Parameter], noise: Sequence[Tensor], *, iterations: int = NUM_ITERATIONS
) -> float:
    """The eigenvalue of the Hessian of `loss` with the largest absolute value, as a Rayleigh quotient.

    `noise`, shaped like the parameters, is added to the gradient as the start, which could otherwise be zero or another
    eigenvector.
    """
    gradients = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    starts = _normalised([g.detach() for g in gradients]), _normalised(noise)
    vector, quotient = _normalised([g + n for g, n in zip(*starts, strict=True)]), 0.0
    for _ in range(iterations):
        slope = torch.stack([(g * v).sum() for g, v in zip(gradients, vector, strict=True)]).sum()
        product = torch.autograd.grad(slope, parameters, retain_graph=True, materialize_grads=True)
        quotient = math.fsum((p * v).sum().item() for p, v in zip(product, vector, strict=True))
        vector = _normalised(product)
    return quotient


@torch.no_grad()
def _perturbed_loss(
    model: nn.Module, inputs: Tensor, targets: Tensor, parameters: Sequence[nn.Parameter], line: Sequence[Tensor]
) -> float:
    """Mean loss at both ends of `line`, which runs through the present weights."""
    kept = [p.clone() for p in parameters]
    moves = [n * (RADIUS * p.norm() / n.norm()) for p, n in zip(parameters, line, strict=True)]
    losses = []
    for sign in (1, -1):
        for parameter, before, move in zip(parameters, kept, moves, strict=True):
            torch.add(before, move, alpha=sign, out=parameter)
        losses.append(F.cross_entropy(model(inputs), targets).item())
    for parameter, before in zip(parameters, kept, strict=True):
        parameter.copy_(before)
    return math.fsum(losses) / len(losses)


def _noise(parameters: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    return [torch.randn(p.shape, generator=generator).to(p.device) for p in parameters]


def _normalised(vector: Sequence[Tensor]) -> list[Tensor]:
    length = torch.stack([v.norm() for v in vector]).norm().clamp_min(1e-30)  # zero stays zero
    return [v / length for v in vector]
