"""The learners that see images: a head behind its frozen backbone, and a whole model."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from pipeline.data.augment import Policy, read_policy
from pipeline.data.images import ImageBatches, open_images_of, targets_of
from pipeline.data.manifest import Sample, read_manifest
from pipeline.files import read_json
from pipeline.learning.activation_learners import head_group
from pipeline.learning.loop import BatchSource, Computation, Learner, ParameterGroup
from pipeline.model.backbone import build_backbone, check_image_size
from pipeline.model.batch_norm import batch_norms
from pipeline.model.classifier import Classifier, load_classifier, load_model
from pipeline.model.compute import choose_device, move_model
from pipeline.model.head import Card, Head, load_card
from pipeline.model.layer_groups import freeze_to, split_layer_groups
from pipeline.model.tensors import read_tensors
from pipeline.seeds import permutation
from pipeline.settings import Runtime


class GrowingImages:
    """Augmented training images whose size, in pixels, depends on the epoch; see `BatchSource`."""

    def __init__(self, targets: Tensor, sizes: Sequence[int], open_at: Callable[[int], BatchSource]) -> None:
        self.targets, self.num_samples = targets, len(targets)
        self._sizes = sizes
        self._open_at = lru_cache(maxsize=1)(open_at)  # images of one size at a time are held in memory

    def batches(self, order: Sequence[Sequence[int]], *, draw: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of epoch `draw`; beyond the last epoch its size stays."""
        size = self._sizes[min(draw, len(self._sizes) - 1)]
        return self._open_at(size).batches(order, draw=draw)


@dataclass(frozen=True)
class ImageSources:
    """The images that a learner sees: augmented for training, plain for measuring."""

    train: BatchSource
    train_plain: BatchSource
    """As many training images as valid has: enough to see over-fitting by."""
    valid: BatchSource
    sizes: tuple[int, ...]
    """All sizes that occur, in pixels; the last is what the model is made for."""


def open_images(
    ingest: Path, augment_config: Path, runtime: Runtime, *, image_sizes: Sequence[int], seed: tuple[int | str, ...]
) -> ImageSources:
    """Open train (augmented and plain) and valid; views are drawn by `seed`.

    `image_sizes` holds the size of each epoch's training images. What is measured is measured at the last size, that
    the model is made for: so the losses of all cycles can be compared.
    """
    manifest, final = read_manifest(ingest), image_sizes[-1]
    train, valid = manifest.of("train"), manifest.of("valid")
    some = [train[i] for i in permutation(len(train), "train_plain")[: len(valid)]]

    def policy_at(size: int) -> Policy:
        return read_policy(augment_config / "policy.yaml", image_size=size)

    def augmented(size: int) -> ImageBatches:
        policy = policy_at(size)
        return open_images_of(manifest, train, policy.framing, workers=runtime.workers, policy=policy, seed=seed)

    def plain(samples: list[Sample]) -> ImageBatches:
        return open_images_of(manifest, samples, policy_at(final).framing, workers=runtime.workers)

    return ImageSources(
        train=GrowingImages(targets_of(train, manifest.classes), image_sizes, augmented),
        train_plain=plain(some),
        valid=plain(valid),
        sizes=tuple(dict.fromkeys(image_sizes)),
    )


def head_on_backbone(
    precompute: Path, head_folder: Path, images: ImageSources, runtime: Runtime, *, micro_batch_size: int
) -> Learner:
    """A trained head behind its frozen backbone, to be trained on augmented images."""
    card = load_card(precompute)
    check_sizes(card, images.sizes)
    model = assemble(precompute, head_folder)
    model.backbone.requires_grad_(False)

    def set_mode() -> None:
        model.eval()  # the backbone as it was when activations were computed: batch norm and dropout at rest
        model.head.train()

    groups = [head_group(model.head)]
    made = _on_images(model, groups, images, set_mode, card.precision, runtime, micro_batch_size)
    return replace(made, linear=card.precision == "fp32")  # bf16 rounds each head's logits


def whole_model(unfreeze: Path, images: ImageSources, runtime: Runtime, *, micro_batch_size: int) -> Learner:
    """The unfrozen model, to be trained on augmented images at the rates of `plan.json`."""
    check_sizes(load_card(unfreeze), images.sizes)
    model, card = load_classifier(unfreeze)
    plan = read_json(unfreeze / "plan.json")
    layers = split_layer_groups(model, len(plan["groups"]))
    batch_norm = plan["batch_norm"] == "train"

    def begin_cycle(cycle: int) -> None:
        freeze_to(layers, sum(group["first_cycle"] > cycle for group in plan["groups"]), batch_norm=batch_norm)

    def set_mode() -> None:
        model.train()
        for module in batch_norms(model):
            module.train(all(p.requires_grad for p in module.parameters()))

    freeze_to(layers, 0, batch_norm=batch_norm)
    groups = [
        ParameterGroup(group.name, list(group.parameters.values()), planned["lr_factor"])
        for group, planned in zip(layers, plan["groups"], strict=True)
    ]
    made = _on_images(model, groups, images, set_mode, card.precision, runtime, micro_batch_size)
    return replace(made, begin_cycle=begin_cycle)


def trained_model(folder: Path, runtime: Runtime, *, micro_batch_size: int) -> Computation:
    """The model that `full_train` made."""
    model, card = load_model(folder)
    device = choose_device(runtime)
    move_model(model, device)
    return Computation(model, device, card.precision, micro_batch_size)


def check_sizes(card: Card, sizes: Sequence[int]) -> None:
    """Raise ValueError where the model cannot take images of these sizes."""
    for size in sizes:
        check_image_size(card.arch, size, built_for=card.image_size)


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
    move_model(model, device)
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
