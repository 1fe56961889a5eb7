"""Where a network looked for its answer: class-activation maps (Grad-CAM, Selvaraju et al. 2017, arXiv:1610.02391).

For each image, the features of one layer are weighed by how much the logit of a class rises with them, and summed. What
is shown is relative to the place that says the least: zero means nothing, because the head standardises features. The
layer is the last one that has positions at all, that these logits depend on, and that is not too coarse. It is found by
hooks, so that any architecture will do: features may be [N, C, H, W], [N, H, W, C] (Swin), or tokens [N, L, C] (ViT).
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.data.augment import Policy
from pipeline.data.decode import decode_framed
from pipeline.data.images import normalise
from pipeline.data.normalisation import Normalisation
from pipeline.evaluation.tta import ImageFile
from pipeline.model.classifier import Classifier
from pipeline.model.compute import Computation, forward
from pipeline.model.ensemble import Ensemble
from pipeline.vision import v2

MIN_SIDE = 4
"""Positions on a side that a map should have: of small images, the last layers have one position only."""

Maps = NDArray[np.uint8]


def activation_maps(
    computation: Computation,
    files: Sequence[ImageFile],
    classes: Sequence[int],
    policy: Policy,
    *,
    normalisation: Normalisation,
) -> list[Maps]:
    """For each plain image, how much each position speaks for its class: [h, w] from 0 to 255, the most at 255.

    All zeros where no position differs from another, or where the network has none. Of an ensemble, the mean over its
    members. Raises DecodeError for a file that is not a readable image.
    """
    computation.model.eval()
    maps: list[Maps] = []
    for file, wanted in zip(files, classes, strict=True):
        pixels = v2.functional.pil_to_tensor(decode_framed(file.path, policy.framing))
        image = normalise(pixels[None], normalisation)
        found = [_map_of(computation, member, image, wanted) for member in _members(computation.model)]
        maps.append(_as_bytes(torch.stack(found).mean(0)))
    return maps


def _members(model: nn.Module) -> Iterator[Classifier]:
    for member in model.members if isinstance(model, Ensemble) else [model]:
        assert isinstance(member, Classifier), type(member)
        yield member


def _map_of(computation: Computation, model: Classifier, image: Tensor, wanted: int) -> Tensor:
    """The map [h, w] of one image [1, 3, H, W], not negative."""
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            outputs.append(output)

    handles = [module.register_forward_hook(keep) for module in model.backbone.network.modules()]
    try:
        with torch.enable_grad():
            logits = forward(computation, image.requires_grad_(), model)
    finally:
        for handle in handles:
            handle.remove()
    layers = [(output, grid) for output in reversed(outputs) if (grid := _positions(output, model)) is not None]
    fine = [layer for layer in layers if min(layer[1].shape[1:]) >= MIN_SIDE] or layers
    for output, _ in fine:
        (slope,) = torch.autograd.grad(logits[0, wanted], output, retain_graph=True, allow_unused=True)
        features, slopes = _positions(output, model), None if slope is None else _positions(slope, model)
        if features is not None and slopes is not None and slopes.abs().sum() > 0:
            weights = slopes.float().mean((1, 2), keepdim=True)
            evidence = (weights * features.detach().float()).sum(0).cpu()
            return evidence - evidence.min()
    return torch.zeros(1, 1)


def _positions(output: Tensor, model: Classifier) -> Tensor | None:
    """An output as [C, h, w] with more than one position; None if it has none."""
    num_features = model.backbone.num_features
    if output.dim() == 4:
        grid = output[0].permute(2, 0, 1) if _is_channels_last(output, num_features) else output[0]
    elif output.dim() == 3 and (side := math.isqrt(output.shape[1])) > 1:
        tokens = output[0, output.shape[1] - side**2 :]  # a class token, and others like it, come first
        grid = tokens.T.reshape(-1, side, side)
    else:
        return None
    return grid if grid[0].numel() > 1 else None


def _is_channels_last(output: Tensor, num_features: int) -> bool:
    return output.shape[-1] == num_features and output.shape[1] != num_features


def _as_bytes(grid: Tensor) -> Maps:
    highest = grid.max()
    scaled: Maps = (255 * grid / highest if highest > 0 else grid).round().byte().numpy()
    return scaled
