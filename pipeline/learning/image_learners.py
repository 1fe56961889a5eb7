"""Learners that train on images: a head behind its frozen backbone, and a whole model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.data.augment import Policy, read_policy
from pipeline.data.images import ImageBatches, open_images_of, targets_of
from pipeline.data.manifest import Sample, read_manifest
from pipeline.data.normalisation import Normalisation
from pipeline.files import read_json
from pipeline.learning.activation_learners import head_group
from pipeline.learning.loop import Learner, ParameterGroup
from pipeline.learning.sources import BatchSource, GrowingImages
from pipeline.model.batch_norm import batch_norms
from pipeline.model.card import load_card
from pipeline.model.classifier import Classifier, assemble, check_sizes, load_classifier
from pipeline.model.compute import choose_device, move_model
from pipeline.model.layer_groups import freeze_to, split_layer_groups
from pipeline.seeds import permutation
from pipeline.settings import Runtime

UNREAD = 8
"""On a GPU: it has always some steps to compute while this process prepares the next, and few batches are held."""


@dataclass(frozen=True)
class ImageSources:
    """The images that a learner sees: augmented for training, plain for evaluation."""

    train: BatchSource
    train_plain: BatchSource
    """As many training images as valid has: enough to show over-fitting."""
    valid: BatchSource
    sizes: tuple[int, ...]
    """All sizes that occur, in pixels; the last is the one the model is made for."""


def open_images(
    ingest: Path,
    augment_config: Path,
    runtime: Runtime,
    *,
    image_sizes: Sequence[int],
    normalisation: Normalisation,
    seed: tuple[int | str, ...],
) -> ImageSources:
    """Open train (augmented and plain) and valid.

    Args:
        ingest: the folder of the stage, with the manifest.
        augment_config: the folder of the stage, with the policy.
        runtime: says how many workers read images.
        image_sizes: the size of the training images in each epoch, in pixels. Evaluation always uses the last one,
            which the model is made for, so that the losses of all cycles can be compared.
        normalisation: from the card of the model.
        seed: decides the augmented views.
    """
    manifest, final = read_manifest(ingest), image_sizes[-1]
    train, valid = manifest.of("train"), manifest.of("valid")
    some = [train[i] for i in permutation(len(train), "train_plain")[: len(valid)]]

    def policy_at(size: int) -> Policy:
        return read_policy(augment_config / "policy.yaml", image_size=size)

    def augmented(size: int) -> ImageBatches:
        policy = policy_at(size)
        return open_images_of(
            manifest,
            train,
            policy.framing,
            normalisation=normalisation,
            workers=runtime.workers,
            policy=policy,
            seed=seed,
        )

    def plain(samples: list[Sample]) -> ImageBatches:
        return open_images_of(
            manifest, samples, policy_at(final).framing, normalisation=normalisation, workers=runtime.workers
        )

    return ImageSources(
        train=GrowingImages(
            targets_of(train, manifest.classes), image_sizes, augmented, names=[sample.path for sample in train]
        ),
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
        model.eval()  # batch norm and dropout of the backbone as when activations were computed
        model.head.train()

    groups = [head_group(model.head)]
    made = _on_images(model, groups, images, set_mode, card.precision, runtime, micro_batch_size)
    return replace(made, linear=True)


def whole_model(unfreeze: Path, images: ImageSources, runtime: Runtime, *, micro_batch_size: int) -> Learner:
    """The unfrozen model, to be trained on augmented images by the optimizer and at the rates of `plan.json`."""
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
    return replace(made, begin_cycle=begin_cycle, optimizer=plan["optimizer"])


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
        unread=UNREAD if device.type == "cuda" else 1,
    )
