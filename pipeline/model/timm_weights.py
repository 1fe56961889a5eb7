"""The weights of timm's architectures: its own download, or a file; safetensors only, because others can run code."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from pipeline.model.tensors import read_tensors
from pipeline.model.timm_backbone import TimmNetwork, build_timm, timm_config, timm_library
from pipeline.model.weights_file import find_weights_file

FILE = "model.safetensors"
"""The name of a weights file in each of timm's repositories on the Hugging Face hub."""


@dataclass(frozen=True)
class TimmWeights:
    """An architecture with its weights."""

    network: TimmNetwork
    classifier: nn.Linear | None
    """The classification layer of the pretraining; None if it is no such layer, but a projection (CLIP's)."""
    source: str
    licence: str | None
    """As timm states it; None for a file, which may be anybody's."""


def load_timm(arch: str, weights: str, *, image_size: int | None) -> TimmWeights:
    """Build `arch` with the weights that `model.weights` names: `pretrained`, or a file.

    Raises ConnectionError if they cannot be downloaded, and ValueError if there are none or they do not fit.
    """
    config = timm_config(arch)
    if weights != "pretrained":
        file = find_weights_file(arch, weights)
        return _load(arch, file, weights, image_size, source=file.name, licence=None)
    page = f"https://huggingface.co/{config.hf_hub_id}"
    if not config.hf_hub_id:
        raise ValueError(
            f"model.weights=pretrained: timm has no safetensors weights for model.arch={arch}; take an architecture of "
            "`timm.list_pretrained()`, or set model.weights to a .safetensors file"
        )
    file = _download(config.hf_hub_id, arch, page)
    source = f"{page} at revision {file.parent.name}"
    return _load(arch, file, weights, image_size, source=source, licence=config.license or f"not stated, see {page}")


def _load(
    arch: str, file: Path, weights: str, image_size: int | None, *, source: str, licence: str | None
) -> TimmWeights:
    config, tensors = timm_config(arch), read_tensors(file)
    first: RuntimeError | None = None
    for num_classes in _possible_classes(config.classifier, config.num_classes, tensors):
        try:
            network = build_timm(arch, image_size=image_size, tensors=dict(tensors), num_classes=num_classes)
        except RuntimeError as error:
            first = first or error
            continue
        is_answer = num_classes != config.num_classes or _is_imagenet(num_classes)
        return TimmWeights(network, network.classifier if is_answer else None, source, licence)
    raise ValueError(
        f"model.weights={weights} holds the weights of another architecture than model.arch={arch}: {_why(first)}"
    )


def _possible_classes(
    classifier: str | tuple[str, ...] | None, published: int, tensors: dict[str, Tensor]
) -> list[int]:
    """How many classes weights may have: as many as their last layer has rows; where it has another name (timm renames
    those of its sources), as many as timm says; or none, if they were stored without that layer."""
    names = (classifier,) if isinstance(classifier, str) else classifier or ()
    rows = [len(tensors[f"{name}.weight"]) for name in names if f"{name}.weight" in tensors]
    return rows[:1] or [published, 0]


def _is_imagenet(num_classes: int) -> bool:
    """Whether timm knows a set of classes of this size: of ImageNet-1k, or one of those cut from ImageNet-21k."""
    from timm.data import infer_imagenet_subset

    return infer_imagenet_subset({"num_classes": num_classes}) is not None


def _why(error: RuntimeError | None) -> str:
    lines = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
    return lines[0][:200]


def _download(repository: str, arch: str, page: str) -> Path:
    """timm's file, from the hub's cache if it is there: then nothing is asked of a server."""
    timm_library(arch)
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    cached = try_to_load_from_cache(repository, FILE)
    if isinstance(cached, str):
        return Path(cached)
    try:
        return Path(hf_hub_download(repository, FILE))
    except (OSError, HfHubHTTPError) as error:
        raise ConnectionError(
            f"model.weights=pretrained: {page}/resolve/main/{FILE} cannot be downloaded; fetch it on another machine "
            f"and set model.weights to its path ({str(error).splitlines()[0]})"
        ) from error
