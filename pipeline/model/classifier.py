"""The classifier: a backbone with its head, in memory and on disk."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from pipeline.model.backbone import Backbone, build_backbone, check_image_size
from pipeline.model.card import Card, load_card, save_card
from pipeline.model.compute import Computation, choose_device, move_model
from pipeline.model.ensemble import Ensemble
from pipeline.model.head import Head
from pipeline.model.tensors import read_tensors, save_tensors
from pipeline.settings import Runtime


class Classifier(nn.Module):
    """Normalised images [N, 3, H, W] to logits [N, num_classes]."""

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
    """Read a model that is not an ensemble."""
    model, card = load_model(folder)
    assert isinstance(model, Classifier), folder
    return model, card


def load_computation(folder: Path, runtime: Runtime, *, micro_batch_size: int) -> Computation:
    """Read a model that `save_model` wrote, ready to predict on the device that `runtime` names."""
    model, card = load_model(folder)
    device = choose_device(runtime)
    move_model(model, device)
    return Computation(model, device, card.precision, micro_batch_size)


def assemble(precompute: Path, head_folder: Path) -> Classifier:
    """Join the pretrained backbone, from the folder of `precompute`, and the head in `head_folder`."""
    card = load_card(precompute)
    backbone = build_backbone(card.arch, image_size=card.image_size, to_load=True)
    backbone.load_state_dict(read_tensors(precompute / "backbone.safetensors"))
    head = Head(backbone.num_features, len(card.classes), dropout=card.dropout)
    head.load_state_dict(read_tensors(head_folder / "head.safetensors"))
    return Classifier(backbone, head)


def check_sizes(card: Card, sizes: Sequence[int]) -> None:
    """Raise ValueError if the model cannot take images of these sizes, in pixels."""
    for size in sizes:
        check_image_size(card.arch, size, built_for=card.image_size)


def _build(card: Card) -> Classifier:
    backbone = build_backbone(card.arch, image_size=card.image_size, to_load=True)
    return Classifier(backbone, Head(backbone.num_features, len(card.classes), dropout=card.dropout))
