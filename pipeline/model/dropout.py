"""Dropout that follows from a sample's place in its batch.

The parts that a batch is cut into go through the network one after the other, or in several processes. Each draws the
noise of the whole batch, from the same seed, and takes its own rows. So a sample gets the same noise however the batch
is cut.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class _Place:
    """Which rows of its batch the inputs are: as many as there are, from `first`, of `size`; None: they are all."""

    first: int = 0
    size: int | None = None


_place = _Place()


@contextmanager
def placed(first: int, size: int) -> Iterator[None]:
    """In the block, inputs are the samples from number `first` of a batch of `size`."""
    _place.first, _place.size = first, size
    try:
        yield
    finally:
        _place.first, _place.size = 0, None


class Dropout(nn.Dropout):
    """`torch.nn.Dropout`, with noise by place."""

    def forward(self, input: Tensor) -> Tensor:
        """Inputs [N, ...] with a share `p` of the values set to zero, in training mode."""
        if not self.training or self.p == 0:
            return super().forward(input)
        return input * _kept(input, 1 - self.p, tuple(input.shape[1:]))


class StochasticRows(nn.Module):
    """`torchvision.ops.StochasticDepth` of whole samples, with noise by place."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, input: Tensor) -> Tensor:
        """Inputs [N, ...] with a share `p` of the samples set to zero, in training mode."""
        if not self.training or self.p == 0:
            return input
        return input * _kept(input, 1 - self.p, (1,) * (input.dim() - 1))


def place_dropout(model: nn.Module) -> None:
    """Replace the dropout of torch and torchvision within `model`, in place, by that which follows from the place."""
    from pipeline.vision import StochasticDepth  # here, because a head alone is trained without torchvision

    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p))
            elif isinstance(child, StochasticDepth) and child.mode == "row":
                setattr(module, name, StochasticRows(child.p))


def _kept(inputs: Tensor, share: float, shape: tuple[int, ...]) -> Tensor:
    """For each row of `inputs` what it is multiplied with, [N, *shape]: 0, or 1 / `share` for a `share` of the values.

    The draws are those of torch: https://github.com/pytorch/pytorch/blob/main/aten/src/ATen/native/Dropout.cpp
    """
    size = len(inputs) if _place.size is None else _place.size
    noise = torch.empty(size, *shape, dtype=inputs.dtype, device=inputs.device).bernoulli_(share)
    return noise[_place.first : _place.first + len(inputs)].div_(max(share, torch.finfo(inputs.dtype).tiny))
