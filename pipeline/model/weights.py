"""Where pretrained weights come from: ours, torchvision's, timm's, a file, or nowhere.

Weights are tensors in safetensors files, under the library's names; nothing that is loaded can run code. Floating
point tensors may be stored in half precision; they are converted to single precision.
"""

import os
import urllib.error
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.model.backbone import Backbone, build_backbone, timm_backbone
from pipeline.model.finite import check_tensors
from pipeline.model.tensors import read_tensors
from pipeline.model.timm_name import is_timm
from pipeline.model.timm_weights import load_timm
from pipeline.model.weights_file import find_weights_file
from pipeline.vision import models

_OTHERS = "take other weights"


@dataclass(frozen=True)
class Pretrained:
    """A backbone with its weights, and the classification layer of the pretraining, which was removed from it."""

    backbone: Backbone
    classifier: nn.Linear | None
    """None if the weights are random, or do not include that layer."""
    source: str | None = None
    """Where the weights are from; None if they are random."""
    licence: str | None = None
    """That of the weights, where their library states it."""


def load_pretrained(arch: str, weights: str, *, seed: int, image_size: int | None = None) -> Pretrained:
    """Build `arch` with the weights that `model.weights` names: `glyphs`, `imagenet`, `pretrained`, `none` or a file.

    `seed` decides random weights; the global RNG is not used. Raises FileNotFoundError if the weights are missing,
    ValueError if they belong to another architecture, and ConnectionError if they cannot be downloaded.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if is_timm(arch) and weights != "none":
            loaded = load_timm(arch, weights, image_size=image_size)
            found = timm_backbone(arch, loaded.network)
            check_tensors(found.state_dict(), of=f"model.weights={weights}", advice=_OTHERS)
            return Pretrained(found, loaded.classifier, loaded.source, loaded.licence)
        backbone = build_backbone(arch, image_size=image_size, to_load=weights != "none")
    if weights == "none":
        return Pretrained(backbone, None)
    tensors, source = _of_torchvision(arch, weights)
    check_tensors(tensors, of=f"model.weights={weights}", advice=_OTHERS)
    _load_strictly(backbone.network, tensors, described=f"model.weights={weights}", arch=arch)
    return Pretrained(backbone, _classifier(tensors, backbone), source)


def _of_torchvision(arch: str, weights: str) -> tuple[dict[str, Tensor], str]:
    """The tensors that `model.weights` names, and where they are from."""
    if weights in ("imagenet", "pretrained"):
        return _imagenet(arch, weights), models.get_model_weights(arch).DEFAULT.url
    file = find_weights_file(arch, weights)
    return read_tensors(file), "glyphs" if weights == "glyphs" else file.name


def _classifier(source: dict[str, Tensor], backbone: Backbone) -> nn.Linear | None:
    """The last layer of the weights as a linear layer; SqueezeNet's is a 1x1 convolution, which is one per position."""
    (cut,) = backbone.cut
    if f"{cut}.weight" not in source:
        return None
    weight = source[f"{cut}.weight"].flatten(1)
    bias = source.get(f"{cut}.bias", torch.zeros(len(weight)))
    layer = nn.Linear(backbone.num_features, len(weight), device="meta")
    layer.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    return layer


def _imagenet(arch: str, setting: str) -> dict[str, Tensor]:
    weights = models.get_model_weights(arch).DEFAULT
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / weights.url.rpartition("/")[2]
    try:
        state: dict[str, Tensor] = weights.get_state_dict(
            progress=_show_progress(), check_hash=True, map_location="cpu", weights_only=True
        )
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise ConnectionError(
            f"model.weights={setting}: {weights.url} cannot be downloaded ({error}); download it on another "
            f"machine and put it at {file}, or set model.weights to a .safetensors file"
        ) from error
    return state


def _show_progress() -> bool:
    return "CI" not in os.environ


def _load_strictly(network: nn.Module, tensors: dict[str, Tensor], *, described: str, arch: str) -> None:
    """Load all tensors of `network` from `tensors`, which may also hold the last layer."""
    own = network.state_dict()
    missing = [n for n in own if n not in tensors and not n.endswith("num_batches_tracked")]
    other_shape = [
        f"{n} is {tuple(tensors[n].shape)}, not {tuple(t.shape)}"
        for n, t in own.items()
        if n in tensors and tensors[n].shape != t.shape
    ]
    if missing or other_shape:
        found = f"{len(missing)} of {len(own)} tensors are missing" if missing else other_shape[0]
        example = f" (first: {missing[0]})" if missing else ""
        raise ValueError(
            f"{described} holds the weights of another architecture than model.arch={arch}: {found}{example}"
        )
    network.load_state_dict({n: tensors.get(n, t) for n, t in own.items()})
