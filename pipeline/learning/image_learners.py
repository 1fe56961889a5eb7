"""Learners that train on images: a head behind its frozen backbone, and a whole model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pipeline.data.augment import read_policy
from pipeline.data.images import ImageBatches, open_images_of, targets_of
from pipeline.data.manifest import Samples, read_manifest
from pipeline.data.normalisation import Normalisation
from pipeline.files import read_json
from pipeline.learning.activation_learners import on_features, plain_activations
from pipeline.learning.loop import Learner, ParameterGroup
from pipeline.learning.sources import BatchSource, FrozenFeatures, LazyImages, in_order
from pipeline.model import ranks
from pipeline.model.batch_norm import batch_norms
from pipeline.model.card import load_card
from pipeline.model.classifier import Classifier, assemble, check_sizes, load_classifier
from pipeline.model.compute import Computation, choose_device, move_model, predict
from pipeline.model.dropout import place_dropout
from pipeline.model.layer_groups import freeze_to, split_layer_groups
from pipeline.seeds import permutation
from pipeline.settings import Runtime, SettingsError

UNREAD = 8
"""On a GPU: it has always some steps to compute while this process prepares the next, and few batches are held."""

PLAIN_IMAGES = 2000
"""The plain loss of training is measured on as many images as valid has, but on no more than this: where the losses of
single images deviate by 0.45 nats, the standard error of their mean is then 0.01, a change that counts as negligible
(`similarity.NEGLIGIBLE`)."""


@dataclass(frozen=True)
class ImageSources:
    """The images that a learner sees, opened when first drawn: augmented for training, plain for evaluation."""

    train: BatchSource
    train_plain: BatchSource
    """A fixed sample of the training images: enough to show over-fitting."""
    valid: BatchSource
    sizes: tuple[int, ...]
    """All sizes that occur, in pixels; the last is the one the model is made for."""
    plain_rows: Sequence[int]
    """Which training images, in the order of the manifest, `train_plain` consists of."""


def open_images(
    ingest: Path,
    augment_config: Path,
    runtime: Runtime,
    *,
    image_sizes: Sequence[int],
    normalisation: Normalisation,
    seed: tuple[int | str, ...],
    hold: bool = True,
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
        hold: whether decoded images are kept in memory, if they fit: for those that are drawn several times.
    """
    manifest, final, device = read_manifest(ingest), image_sizes[-1], choose_device(runtime)
    train, valid = manifest.of("train"), manifest.of("valid")
    rows = permutation(len(train), "train_plain")[: min(len(valid), PLAIN_IMAGES)]

    def open_(samples: Samples, size: int, *, augmented: bool) -> ImageBatches:
        policy = read_policy(augment_config / "policy.yaml", image_size=size)
        return open_images_of(
            manifest,
            samples,
            policy.framing,
            normalisation=normalisation,
            workers=runtime.workers,
            policy=policy if augmented else None,
            seed=seed if augmented else (),
            hold=("all" if ranks.count() == 1 else "drawn") if hold else "none",
            device=device,
        )

    def lazily(samples: Samples, sizes: Sequence[int], *, augmented: bool = False) -> LazyImages:
        def open_at(size: int) -> ImageBatches:
            return open_(samples, size, augmented=augmented)

        return LazyImages(targets_of(samples, manifest.classes), sizes, open_at, names=samples.paths)

    return ImageSources(
        train=lazily(train, image_sizes, augmented=True),
        train_plain=lazily(train.take(rows), [final]),
        valid=lazily(valid, [final]),
        sizes=tuple(dict.fromkeys(image_sizes)),
        plain_rows=rows,
    )


def head_behind_backbone(
    precompute: Path, head_folder: Path, images: ImageSources, runtime: Runtime, *, micro_batch_size: int
) -> Learner:
    """A trained head, to be trained on what the frozen backbone makes of augmented images.

    The learner's model is the head alone. It is measured on the stored activations if they are of the size that the
    model is made for; if not, plain images go through the backbone too.
    """
    card = load_card(precompute)
    check_sizes(card, images.sizes)
    model, device = assemble(precompute, head_folder), choose_device(runtime)
    move_model(model, device)
    backbone, head = Computation(model.backbone, device, card.precision, micro_batch_size), model.head
    stored = stored_features(precompute, images)
    train_plain, valid = stored or (FrozenFeatures(each, backbone) for each in (images.train_plain, images.valid))

    train = FrozenFeatures(images.train, backbone)
    made = on_features(head, train, train_plain, valid, device=device, micro_batch_size=micro_batch_size)
    return replace(made, unread=_unread(device))


def stored_features(precompute: Path, images: ImageSources) -> tuple[BatchSource, BatchSource] | None:
    """What the pretrained backbone makes of `images.train_plain` and `images.valid`, from its stored activations.

    None if those are of images of another size. Framing and precision are the same: the harness refuses folders that
    were made with other settings.
    """
    if load_card(precompute).image_size != images.sizes[-1]:
        return None
    train = plain_activations(precompute, "train", images.train_plain, images.plain_rows)
    return train, plain_activations(precompute, "valid", images.valid, range(images.valid.num_samples))


def with_known_start(learner: Learner, precompute: Path, images: ImageSources) -> Learner:
    """The learner of a whole model, with its answers before the first step, where the stored activations tell them.

    The weights of its backbone must still be those that `precompute` wrote. Then one pass of the head is enough.
    """
    assert isinstance(learner.model, Classifier)
    if (stored := stored_features(precompute, images)) is None:
        return learner
    head = replace(learner, model=learner.model.head)
    logits = [predict(head, in_order(each, learner.micro_batch_size))[0] for each in stored]
    return replace(learner, start=dict(zip(("train", "valid"), logits, strict=True)))


def whole_model(unfreeze: Path, images: ImageSources, runtime: Runtime, *, micro_batch_size: int) -> Learner:
    """The unfrozen model, to be trained on augmented images by the optimizer and at the rates of `plan.json`.

    Raises SettingsError where several ranks would each train batch norms on the statistics of its own parts.
    """
    check_sizes(load_card(unfreeze), images.sizes)
    model, card = load_classifier(unfreeze)
    plan = read_json(unfreeze / "plan.json")
    layers = split_layer_groups(model, len(plan["groups"]))
    batch_norm = plan["batch_norm"] == "train"
    if batch_norm and ranks.count() > 1:
        raise SettingsError(
            f"unfreeze.batch_norm=train with {ranks.count()} processes: each would use the statistics of its own part "
            "of a batch. Set runtime.processes=1 or unfreeze.batch_norm=frozen"
        )
    place_dropout(model)

    def begin_cycle(cycle: int) -> None:
        freeze_to(layers, sum(group["first_cycle"] > cycle for group in plan["groups"]), batch_norm=batch_norm)

    def set_mode() -> None:
        model.train()
        for module in batch_norms(model):
            module.train(all(p.requires_grad for p in module.parameters()))

    freeze_to(layers, 0, batch_norm=batch_norm)
    device = choose_device(runtime)
    move_model(model, device)
    return Learner(
        model=model,
        groups=[
            ParameterGroup(group.name, list(group.parameters.values()), planned["lr_factor"])
            for group, planned in zip(layers, plan["groups"], strict=True)
        ],
        train=images.train,
        train_plain=images.train_plain,
        valid=images.valid,
        set_mode=set_mode,
        begin_cycle=begin_cycle,
        device=device,
        precision=card.precision,
        micro_batch_size=micro_batch_size,
        unread=_unread(device),
        optimizer=plan["optimizer"],
    )


def _unread(device: torch.device) -> int:
    return UNREAD if device.type == "cuda" else 1
