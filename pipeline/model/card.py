"""The card that travels with a model's weights. Loads without torch, so that anything may read it."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.normalisation import Normalisation
from pipeline.files import read_json, write_json

IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""Channel statistics of ImageNet: torchvision's weights, and the shipped ones, were trained with them."""


@dataclass(frozen=True)
class Card:
    """What must be known of a model beside its weights; stored with them as `model.json`."""

    arch: str
    dropout: float
    precision: str
    image_size: int
    """The size in pixels that the backbone was built for; matters only to architectures of a fixed size."""
    classes: tuple[str, ...]
    normalisation: Normalisation
    """What the model's images are normalised with."""
    weights: str | None = None
    """Where the backbone's weights came from, before training; None if they were random, or the card is older."""
    licence: str | None = None
    """That of these weights, where their library states it."""


def save_card(card: Card, folder: Path) -> None:
    """Write `model.json` into `folder`."""
    write_json(folder / "model.json", dataclasses.asdict(card))


def load_card(folder: Path) -> Card:
    """Read the `model.json` of `folder`."""
    values = read_json(folder / "model.json")
    stored = values.get("normalisation")  # cards written before it was stored: all their models used ImageNet's
    normalisation = IMAGENET if stored is None else Normalisation(tuple(stored["mean"]), tuple(stored["std"]))
    return Card(**{**values, "classes": tuple(values["classes"]), "normalisation": normalisation})
