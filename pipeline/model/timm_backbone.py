"""The architectures of timm, by name. timm is an extra, so it is imported only where such a name is used.

Names come from timm's closed lists, so that no name can reach a file or a server.
"""

import difflib
import os
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import pipeline.vision  # noqa: F401  (timm imports torchvision, which this makes loadable everywhere)
from pipeline.data.normalisation import Normalisation
from pipeline.model.timm_name import PREFIX, timm_version


@dataclass(frozen=True)
class TimmNetwork:
    """A classifier of timm without its last layer."""

    network: nn.Module
    num_features: int
    cut: tuple[str, ...]
    """timm's names of the classification layers, which were removed."""
    classifier: nn.Linear | None
    """The removed layer, if it is one, and not one of several whose answers are averaged."""
    normalisation: Normalisation


def timm_library(arch: str) -> Any:
    """timm itself. Raises ValueError, for `arch`, if it is not installed."""
    timm_version(arch)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when timm imports the hub's client
    import timm

    return timm


@cache
def timm_config(arch: str) -> Any:
    """timm's configuration of `arch` and its weights. Raises ValueError, with the nearest names, if there is none."""
    timm, name = timm_library(arch), arch.removeprefix(PREFIX)
    known = {*timm.list_models(), *timm.list_pretrained()}
    if name not in known:
        near = [PREFIX + n for n in difflib.get_close_matches(name, sorted(known), n=3)]
        raise ValueError(
            f"model.arch={arch} is not a classifier of timm {timm.__version__}; "
            + (f"nearest: {', '.join(near)}" if near else "`timm.list_models()` in Python lists them")
        )
    return timm.get_pretrained_cfg(name)


def timm_family(arch: str) -> str:
    """timm's name of the module that defines the architecture: `vision_transformer`, `convnext`, ..."""
    timm_config(arch)
    entrypoint = timm_library(arch).model_entrypoint(arch.removeprefix(PREFIX).partition(".")[0])
    return str(entrypoint.__module__.rpartition(".")[2])


def build_timm(
    arch: str,
    *,
    image_size: int | None = None,
    tensors: dict[str, Tensor] | None = None,
    num_classes: int | None = None,
) -> TimmNetwork:
    """Build the architecture, with freshly initialised weights (from torch's global RNG) or with `tensors`.

    Args:
        arch: `timm/<architecture>` or `timm/<architecture>.<tag>`.
        image_size: in pixels; matters only to architectures of a fixed size.
        tensors: weights under timm's names, or under those of its source, including those of the last layer.
        num_classes: rows of that layer; None: as many as timm's weights have.

    Raises RuntimeError if `tensors` do not fit, and ValueError if the architecture cannot be cut.
    """
    config = timm_config(arch)
    changes: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if tensors is not None:
        changes["state_dict"] = tensors
    network = timm_library(arch).create_model(
        arch.removeprefix(PREFIX),
        pretrained=tensors is not None,
        pretrained_cfg_overlay=changes,
        img_size=image_size if config.fixed_input_size else None,
    )
    network.pretrained_cfg.pop("state_dict", None)  # or the tensors would stay in memory
    return _cut(network, config, arch)


def check_timm_size(arch: str, image_size: int, *, built_for: int | None = None) -> None:
    """Raise ValueError if this architecture cannot take images of `image_size` pixels.

    It is tried on tensors without memory, because timm's architectures differ in what they need.
    """
    config = timm_config(arch)
    if config.fixed_input_size and built_for not in (None, image_size):
        raise ValueError(
            f"image_size={image_size} does not fit {arch}, which was built for {built_for} and cannot change its size "
            "later: use one size for all stages and cycles, or an architecture with adaptive pooling (resnet18, ...)"
        )
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.no_grad():
            network = build_timm(arch, image_size=image_size).network.eval()
            network(torch.empty(1, 3, image_size, image_size))
    except (RuntimeError, AssertionError) as error:
        why = str(error).partition("\n")[0] or "one of its layers needs another"
        raise ValueError(
            f"image_size={image_size} does not fit {arch} ({why}); its weights were made for {config.input_size[-1]}"
        ) from None


def _cut(network: nn.Module, config: Any, arch: str) -> TimmNetwork:
    """Put nothing in place of each classification layer: what is left gives the features that the layer was given."""
    names = (config.classifier,) if isinstance(config.classifier, str) else tuple(config.classifier or ())
    removed = [layer for name in names if not isinstance(layer := network.get_submodule(name), nn.Identity)]
    linears = [_as_linear(layer, arch) for layer in removed]
    widths = sorted({layer.in_features for layer in linears})
    if len(widths) > 1:
        raise ValueError(
            f"model.arch={arch} has classification layers of different widths ({widths}), which cannot be replaced by "
            "one head; take another architecture"
        )
    for name in names if removed else ():
        setattr(network.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], nn.Identity())
    return TimmNetwork(
        network,
        num_features=widths[0] if widths else int(network.head_hidden_size),  # type: ignore[arg-type]
        cut=names,
        classifier=linears[0] if len(linears) == 1 else None,
        normalisation=Normalisation(tuple(config.mean), tuple(config.std)),
    )


def _as_linear(layer: nn.Module, arch: str) -> nn.Linear:
    """A linear layer with the weights of `layer`, which is one, or a 1x1 convolution; without a bias it gets zeros."""
    is_convolution = isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1
    if not isinstance(layer, nn.Linear) and not is_convolution:
        kind = type(layer).__name__
        raise ValueError(f"model.arch={arch} ends in {kind}, which cannot be replaced by a head; take another")
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    weight = layer.weight.detach().flatten(1)
    bias = torch.zeros_like(weight[:, 0]) if layer.bias is None else layer.bias.detach()
    linear = nn.Linear(weight.shape[1], len(weight), device="meta")
    linear.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    return linear
