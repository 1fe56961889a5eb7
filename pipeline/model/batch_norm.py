"""Finds batch norms of any kind. A module of its own, because it loads without torchvision."""

from torch import nn


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """All batch norms in `module`, including itself."""
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
