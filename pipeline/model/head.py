"""The head, which is trained first, and the card that travels with a model's weights."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.files import read_json, write_json


class Standardise(nn.Module):
    """Features [N, num_features] less their mean over the training images, over their spread there.

    Fixed, unlike batch norm: the same for a batch of one, and the same in training as in evaluation. It makes the rate
    that suits the head independent of the backbone's scale. A tenth of the mean spread is added to each, so that a
    feature that hardly varies is not blown up.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))

    def fit(self, activations: Tensor) -> None:
        """Take mean and spread from `activations` [N, num_features]."""
        spread = activations.std(dim=0, correction=0)
        self.mean.copy_(activations.mean(dim=0))
        self.scale.copy_((spread + 0.1 * spread.mean()).clamp_min(1e-6))

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.scale


class Head(nn.Sequential):
    """Features [N, num_features] to logits [N, num_classes]: standardise, drop, one layer."""

    def __init__(self, num_features: int, num_classes: int, *, dropout: float) -> None:
        super().__init__(Standardise(num_features), nn.Dropout(dropout), nn.Linear(num_features, num_classes))


def build_head(activations: Tensor, num_classes: int, *, dropout: float, seed: int) -> Head:
    """Build a fresh head for features like `activations` [N, num_features], the same for the same seed.

    The global RNG is left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = Head(activations.shape[1], num_classes, dropout=dropout)
    for module in head.modules():
        if isinstance(module, Standardise):
            module.fit(activations)
    return head


@torch.no_grad()
def start_from_classifier(head: Head, classifier: nn.Linear, activations: Tensor, targets: Tensor) -> None:
    """Let the head begin with what the layer that was pretrained above the same features says of our classes.

    `activations` [N, num_features] and `targets` [N] are those of the training images, some of each class. With p_c the
    mean of what `classifier` predicts for the images of class c, its distribution over the classes of the pretraining
    (as in LEEP, Nguyen et al. 2020, arXiv:2002.12462), and q what it predicts for an image, the logit of c is minus the
    Kullback-Leibler divergence KL(p_c || q): linear in the classifier's logits, but for a term that is the same for all
    c. So an image goes to the class whose images the old classifier takes for the same things, and a class whose images
    it takes for many things is at no disadvantage (decision 0010).
    """
    standardise, _, layer = head
    assert isinstance(standardise, Standardise)
    assert isinstance(layer, nn.Linear)
    of_class = (activations[targets == c] for c in range(layer.out_features))
    seen_as = torch.stack([classifier(features).double().softmax(1).mean(0) for features in of_class])
    entropies = torch.special.entr(seen_as).sum(1)
    seen_as -= seen_as.mean(0)
    weight, bias = seen_as @ classifier.weight.double(), seen_as @ classifier.bias.double() + entropies
    layer.weight.copy_(weight * standardise.scale)
    layer.bias.copy_(bias + weight @ standardise.mean.double())


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
