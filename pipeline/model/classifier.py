"""The classifier: a backbone and the head that is trained first."""

import torch
from torch import Tensor, nn

from pipeline.model.backbone import Backbone


class Head(nn.Sequential):
    """Features [N, num_features] to logits [N, num_classes]: normalise each sample's features, drop, one layer.

    LayerNorm makes the rate that the finder chooses independent of the backbone's scale and, unlike batch norm,
    behaves the same for a batch of one.
    """

    def __init__(self, num_features: int, num_classes: int, *, dropout: float) -> None:
        super().__init__(nn.LayerNorm(num_features), nn.Dropout(dropout), nn.Linear(num_features, num_classes))


class Classifier(nn.Module):
    """Images [N, 3, H, W] (normalised) to logits [N, num_classes]."""

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(images))
        return logits


def build_head(num_features: int, num_classes: int, *, dropout: float, seed: int) -> Head:
    """Build a freshly initialised head, the same for the same seed; the global RNG is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Head(num_features, num_classes, dropout=dropout)
