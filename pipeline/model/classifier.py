"""The classifier: a backbone with its head, in memory and on disk."""

from pathlib import Path

from torch import Tensor, nn

from pipeline.model.backbone import Backbone, build_backbone
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


def save_classifier(model: Classifier, card: Card, folder: Path) -> None:
    """Write `model.safetensors` and `model.json` into `folder`."""
    save_tensors(model.state_dict(), folder / "model.safetensors")
    save_card(card, folder)


def load_classifier(folder: Path) -> tuple[Classifier, Card]:
    """Read what `save_classifier` wrote."""
    card = load_card(folder)
    backbone = build_backbone(card.arch, image_size=card.image_size)
    model = Classifier(backbone, Head(backbone.num_features, len(card.classes), dropout=card.dropout))
    model.load_state_dict(read_tensors(folder / "model.safetensors"))
    return model, card
