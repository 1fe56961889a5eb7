"""The learners that see images: a head behind its frozen backbone, and a whole model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from pipeline.data.augment import Policy
from pipeline.data.images import ImageBatches, open_images_of
from pipeline.data.manifest import Manifest, Sample
from pipeline.device import choose_device, place
from pipeline.files import read_json
from pipeline.learning.head_learner import head_group
from pipeline.learning.loop import Computation, Learner, ParameterGroup
from pipeline.model.backbone import build_backbone
from pipeline.model.classifier import Classifier, load_classifier
from pipeline.model.head import Head, load_card
from pipeline.model.layer_groups import split_layer_groups
from pipeline.model.tensors import read_tensors
from pipeline.seeds import permutation
from pipeline.settings import Runtime


@dataclass(frozen=True)
class ImageSources:
    """The images that a learner sees: augmented for training, plain for measuring."""

    train: ImageBatches
    train_plain: ImageBatches
    """As many training images as valid has: enough to see over-fitting by."""
    valid: ImageBatches


def open_images(manifest: Manifest, policy: Policy, runtime: Runtime, *, seed: tuple[int | str, ...]) -> ImageSources:
    """Open train (augmented and plain) and valid."""
    train, valid = manifest.of("train"), manifest.of("valid")
    some = [train[i] for i in permutation(len(train), "train_plain")[: len(valid)]]

    def plain(samples: list[Sample]) -> ImageBatches:
        return open_images_of(manifest, samples, policy.framing, workers=runtime.workers)

    return ImageSources(
        train=open_images_of(manifest, train, policy.framing, workers=runtime.workers, policy=policy, seed=seed),
        train_plain=plain(some),
        valid=plain(valid),
    )


def head_on_backbone(
    precompute: Path, head_folder: Path, images: ImageSources, runtime: Runtime, *, micro_batch_size: int
) -> Learner:
    """A trained head behind its frozen backbone, to be trained on augmented images."""
    model = assemble(precompute, head_folder)
    model.backbone.requires_grad_(False)

    def set_mode() -> None:
        model.eval()  # the backbone as it was when activations were computed: batch norm and dropout at rest
        model.head.train()

    groups = [head_group(model.head)]
    return _on_images(model, groups, images, set_mode, load_card(precompute).precision, runtime, micro_batch_size)


def whole_model(unfreeze: Path, images: ImageSources, runtime: Runtime, *, micro_batch_size: int) -> Learner:
    """The unfrozen model, to be trained on augmented images at the rates of `plan.json`."""
    model, card = load_classifier(unfreeze)
    plan = read_json(unfreeze / "plan.json")
    resting = _batch_norms(model) if plan["batch_norm"] == "frozen" else []
    for module in resting:
        module.requires_grad_(False)

    def set_mode() -> None:
        model.train()
        for module in resting:
            module.eval()

    groups = [
        ParameterGroup(group.name, list(group.parameters.values()), planned["lr_factor"])
        for group, planned in zip(split_layer_groups(model, len(plan["groups"])), plan["groups"], strict=True)
    ]
    return _on_images(model, groups, images, set_mode, card.precision, runtime, micro_batch_size)


def trained_model(folder: Path, runtime: Runtime, *, micro_batch_size: int) -> Computation:
    """The model that `full_train` made."""
    model, card = load_classifier(folder)
    device = choose_device(runtime)
    place(model, device)
    return Computation(model, device, card.precision, micro_batch_size)


def assemble(precompute: Path, head_folder: Path) -> Classifier:
    """The pretrained backbone and a trained head as one model."""
    card = load_card(precompute)
    backbone = build_backbone(card.arch, image_size=card.image_size)
    backbone.load_state_dict(read_tensors(precompute / "backbone.safetensors"))
    head = Head(backbone.num_features, len(card.classes), dropout=card.dropout)
    head.load_state_dict(read_tensors(head_folder / "head.safetensors"))
    return Classifier(backbone, head)


def _on_images(
    model: Classifier,
    groups: list[ParameterGroup],
    images: ImageSources,
    set_mode: Callable[[], None],
    precision: str,
    runtime: Runtime,
    micro_batch_size: int,
) -> Learner:
    device = choose_device(runtime)
    place(model, device)
    return Learner(
        model=model,
        groups=groups,
        train=images.train,
        train_plain=images.train_plain,
        valid=images.valid,
        set_mode=set_mode,
        device=device,
        precision=precision,
        micro_batch_size=micro_batch_size,
    )


def _batch_norms(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
