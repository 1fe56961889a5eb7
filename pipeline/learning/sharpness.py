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
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Sharpness:
    """Both measures of one state of the model."""

    rise: float
    """Mean increase of the loss under random perturbations of RADIUS."""
    hessian_top: float
    """Eigenvalue of the Hessian that is largest in absolute value."""


@dataclass(frozen=True)
class CycleSharpness:
    """Generalisation gap and sharpness at the end of a cycle; cycle 0 is before the first step."""

    cycle: int
    generalisation_gap: float
    """Loss on valid minus loss on training images without augmentation."""
    rise: float
    hessian_top: float


def trace_sharpness(learner: Learner, run: TrainingRun, workspace: Workspace) -> list[CycleSharpness]:
    """Measure the state at each cycle's end, and journal it. The model ends with the weights of the last one."""
    shown, targets = first_images(learner.train_plain, NUM_IMAGES)
    images, rows = (to_device(shown, learner.device), targets.to(learner.device)), []
    for end in run.ends:
        raise_if_requested()
        learner.model.load_state_dict(load_snapshot(workspace.scratch, end.cycle))
        found = measure_sharpness(learner, images, seed=workspace.seed)
        row = CycleSharpness(end.cycle, end.valid_loss - end.train_loss, found.rise, found.hessian_top)
        workspace.journal.points(
            end.step - 1,
            generalisation_gap=row.generalisation_gap,
            perturbed_rise=row.rise,
            hessian_top=row.hessian_top,
        )
        rows.append(row)
    return rows


def measure_sharpness(computation: Computation, images: MicroBatch, *, seed: int) -> Sharpness:
    """Measure the model in single precision; its weights and mode are unchanged afterwards.

    `images` (inputs and targets) are on its device. For any network this takes 2 * NUM_LINES + 2 forward passes, one
    backward pass and NUM_ITERATIONS exact products.
    """
    model, (inputs, targets) = computation.model, images
    parameters = [p for p in model.parameters() if p.requires_grad]
    was_training = [m.training for m in model.modules()]
    model.eval()
    generator = torch.Generator().manual_seed(seed_of(seed, "sharpness"))
    lines = [_noise(parameters, generator) for _ in range(NUM_LINES)]
    few = hessian_images(inputs)
    with sdpa_kernel(SDPBackend.MATH):  # the fast kernels of attention cannot be differentiated twice
        loss_of_few = F.cross_entropy(model(inputs[:few]), targets[:few])
    top = leading_eigenvalue(loss_of_few, parameters, lines[0])
    with torch.no_grad():
        loss = F.cross_entropy(model(inputs), targets)
    rises = [_perturbed_loss(model, inputs, targets, parameters, line) for line in lines]
    for module, mode in zip(model.modules(), was_training, strict=True):
        module.training = mode
    return Sharpness(sum(rises) / len(rises) - loss.item(), top)


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
