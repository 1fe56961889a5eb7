"""Batch norm by any of its names; apart from the backbones, because it needs no torchvision to load."""

from torch import nn


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """All batch norms in `module`, itself included."""
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
