"""Any classifier of torchvision, or of timm, as a backbone: it turns each image into one feature vector."""

import difflib
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from torch import Tensor, nn

from pipeline.data.normalisation import Normalisation
from pipeline.model.card import IMAGENET
from pipeline.model.initialisation import NoRandomWeights
from pipeline.model.timm_backbone import TimmNetwork, build_timm, check_timm_size, timm_config
from pipeline.model.timm_name import PREFIX, is_timm
from pipeline.vision import models

MEAN, STD = IMAGENET.mean, IMAGENET.std
"""The channel statistics, by name, for pretraining."""


class Backbone(nn.Module):
    """A classifier without its last layer: normalised images [N, 3, H, W] to features [N, num_features]."""

    def __init__(
        self,
        network: nn.Module,
        *,
        arch: str,
        num_features: int,
        cut: tuple[str, ...],
        normalisation: Normalisation = IMAGENET,
    ) -> None:
        super().__init__()
        self.network = network
        self.arch = arch
        self.num_features = num_features
        self.cut = cut
        """The library's names of the classification layers, which were removed: one, in all but a few networks."""
        self.normalisation = normalisation
        """What images are normalised with, as the architecture's weights expect it."""

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(images)
        return features.float()


def architectures() -> list[str]:
    """Names of all of torchvision's classification architectures."""
    names: list[str] = models.list_models(module=models)
    return names


def check_architecture(arch: str) -> None:
    """Raise ValueError, with the nearest names, if torchvision or timm has no such classifier."""
    if is_timm(arch):
        timm_config(arch)
        return
    known = architectures()
    if arch not in known:
        near = difflib.get_close_matches(arch, known, n=3) or known
        raise ValueError(
            f"model.arch={arch} is not a torchvision classifier; nearest: {', '.join(near)} (timm's are written "
            f"{PREFIX}{arch})"
        )


def build_backbone(arch: str, *, image_size: int | None = None, to_load: bool = False) -> Backbone:
    """Build the architecture.

    Args:
        arch: the name in torchvision, or `timm/` and the name in timm.
        image_size: in pixels; matters only to architectures with a fixed input size, others take any size.
        to_load: whether all weights are loaded next, so that none is initialised. Otherwise torch's global RNG is used.
    """
    check_architecture(arch)
    with NoRandomWeights() if to_load else nullcontext():
        if is_timm(arch):
            return timm_backbone(arch, build_timm(arch, image_size=image_size))
        network = _builder(arch)(**_build_arguments(arch, image_size))
    name, last = _last_layer(network)
    parent = network.get_submodule(name.rpartition(".")[0])
    if isinstance(last, nn.Conv2d):  # SqueezeNet classifies with a 1x1 convolution before its pooling
        num_features = last.in_channels
        setattr(network, name.partition(".")[0], nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    else:
        num_features = last.in_features
        setattr(parent, name.rpartition(".")[2], nn.Identity())
    return Backbone(network, arch=arch, num_features=num_features, cut=(name,))


def timm_backbone(arch: str, built: TimmNetwork) -> Backbone:
    """The backbone that a network of timm is."""
    return Backbone(
        built.network,
        arch=arch,
        num_features=built.num_features,
        cut=built.cut,
        normalisation=built.normalisation,
    )


def interpolation_of(arch: str) -> str:
    """The filter that images are reduced with for this architecture: `bilinear`, or what timm says of its weights."""
    return str(timm_config(arch).interpolation) if is_timm(arch) else "bilinear"


def trained_size(arch: str) -> int | None:
    """The image size in pixels that timm's weights were trained at; None for torchvision, which does not say."""
    return int(timm_config(arch).input_size[-1]) if is_timm(arch) else None


def check_image_size(arch: str, image_size: int, *, built_for: int | None = None) -> None:
    """Raise ValueError if this architecture cannot take images of `image_size` pixels.

    Transformers with position embeddings or fixed windows take only the size they were `built_for`.
    """
    if is_timm(arch):
        check_timm_size(arch, image_size, built_for=built_for)
        return
    if arch.startswith(("vit", "maxvit")) and built_for not in (None, image_size):
        raise ValueError(
            f"image_size={image_size} does not fit {arch}, which was built for {built_for} and cannot change its size "
            "later: use one size for all stages and cycles, or an architecture with adaptive pooling (resnet18, ...)"
        )
    if arch.startswith("maxvit") and image_size % 224:
        raise ValueError(
            f"image_size={image_size} does not fit {arch}: its window partitioning needs 224; take image_size=224 "
            "or an architecture with adaptive pooling (resnet18, mobilenet_v2, ...)"
        )
    if arch.startswith("vit"):
        patch = int(arch.rpartition("_")[2])
        if image_size % patch:
            raise ValueError(f"image_size={image_size} does not fit {arch}: it must be a multiple of {patch}")
    if arch == "inception_v3" and image_size < 75:
        raise ValueError(f"image_size={image_size} does not fit {arch}: its pooling needs 75 or more")


def _builder(arch: str) -> Callable[..., nn.Module]:
    builder: Callable[..., nn.Module] = models.get_model_builder(arch)
    return builder


def _build_arguments(arch: str, image_size: int | None) -> dict[str, Any]:
    arguments: dict[str, Any] = {"weights": None}
    if arch in ("googlenet", "inception_v3"):  # no auxiliary classifiers: nothing would train them
        arguments |= {"aux_logits": False, "init_weights": True}
    if arch.startswith("vit") and image_size is not None:
        arguments["image_size"] = image_size
    return arguments


def _last_layer(network: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The classification layer: the last Linear, or SqueezeNet's last convolution."""
    if isinstance(network, models.SqueezeNet):
        kinds: tuple[type[nn.Module], ...] = (nn.Conv2d,)
    else:
        kinds = (nn.Linear,)
    name, layer = [(n, m) for n, m in network.named_modules() if isinstance(m, kinds)][-1]
    assert isinstance(layer, nn.Linear | nn.Conv2d), type(network)
    return name, layer
