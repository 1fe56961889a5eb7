"""The head, which is trained first, and the card that travels with a model's weights."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pipeline.files import read_json, write_json


class Head(nn.Sequential):
    """Features [N, num_features] to logits [N, num_classes]: normalise each sample's features, drop, one layer.

    LayerNorm makes the rate that the finder chooses independent of the backbone's scale and, unlike batch norm,
    behaves the same for a batch of one.
    """

    def __init__(self, num_features: int, num_classes: int, *, dropout: float) -> None:
        super().__init__(nn.LayerNorm(num_features), nn.Dropout(dropout), nn.Linear(num_features, num_classes))


def build_head(num_features: int, num_classes: int, *, dropout: float, seed: int) -> Head:
    """Build a freshly initialised head, the same for the same seed; the global RNG is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Head(num_features, num_classes, dropout=dropout)


@dataclass(frozen=True)
class Card:
    """What must be known of a model beside its weights; it travels with them as `model.json`."""

    arch: str
    dropout: float
    precision: str
    image_size: int
    """What the backbone was built for, in pixels; only architectures of a fixed size mind."""
    classes: tuple[str, ...]


def save_card(card: Card, folder: Path) -> None:
    write_json(folder / "model.json", dataclasses.asdict(card))


def load_card(folder: Path) -> Card:
    values = read_json(folder / "model.json")
    return Card(**{**values, "classes": tuple(values["classes"])})
