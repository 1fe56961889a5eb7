"""The classifier: a backbone with its head, in memory and on disk."""

from pathlib import Path

from torch import Tensor, nn

from pipeline.model.backbone import Backbone, build_backbone
from pipeline.model.ensemble import Ensemble
from pipeline.model.head import Card, Head, load_card, save_card
from pipeline.model.tensors import read_tensors, save_tensors


class Classifier(nn.Module):
    """Images [N, 3, H, W] (normalised) to logits [N, num_classes]."""

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(images))
        return logits


def save_model(model: nn.Module, card: Card, folder: Path) -> None:
    """Write a classifier, or an ensemble of them, as `model.safetensors` and `model.json` into `folder`."""
    save_tensors(model.state_dict(), folder / "model.safetensors")
    save_card(card, folder)


def load_model(folder: Path) -> tuple[Classifier | Ensemble, Card]:
    """Read what `save_model` wrote; the names of the weights say how many members there are."""
    card, tensors = load_card(folder), read_tensors(folder / "model.safetensors")
    members = {name.split(".")[1] for name in tensors if name.startswith("members.")}
    model = Ensemble([_build(card) for _ in members]) if members else _build(card)
    model.load_state_dict(tensors)
    return model, card


def load_classifier(folder: Path) -> tuple[Classifier, Card]:
    """Read a model that is no ensemble."""
    model, card = load_model(folder)
    assert isinstance(model, Classifier), folder
    return model, card


def _build(card: Card) -> Classifier:
    backbone = build_backbone(card.arch, image_size=card.image_size)
    return Classifier(backbone, Head(backbone.num_features, len(card.classes), dropout=card.dropout))
