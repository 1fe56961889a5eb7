"""Step 1: precompute activations.

Reads the images of train and valid, the pretrained weights, and, for `precompute.views`, the augmentation. Writes the
backbone (so that no later stage fetches weights again), its output for each image in `activations-<split>.safetensors`
(`targets` [N] and `activations` [views, N, num_features], those of the plain images first), and `head.safetensors`, an
untrained head. Decides how the head is initialised. It can then be trained in seconds, as long as its images do not
change.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.data.augment import Policy
from pipeline.data.decode import Framing
from pipeline.data.images import ImageBatches, open_images_of, targets_of
from pipeline.data.manifest import Manifest, read_manifest
from pipeline.files import link_file, read_json
from pipeline.harness.stage import Input, Metrics, Stage, StageContext
from pipeline.harness.start import main
from pipeline.model import ranks
from pipeline.model.backbone import Backbone, check_image_size, interpolation_of, trained_size
from pipeline.model.batches import even_batches
from pipeline.model.card import Card, save_card
from pipeline.model.compute import Computation, choose_device, environment, forward, move_model
from pipeline.model.finite import check_rows
from pipeline.model.growing import GrowingTensor
from pipeline.model.head import build_head, start_from_classifier
from pipeline.model.precision import choose_precision
from pipeline.model.tensors import read_tensors, save_tensors
from pipeline.model.weights import load_pretrained
from pipeline.settings import Augment, FramingSettings, Model, Precompute
from pipeline.workspace import Bar

SPLITS = ("train", "valid")  # only tta_evaluate uses test images


@dataclass(frozen=True)
class DataReads(FramingSettings):
    micro_batch_size: int


@dataclass(frozen=True)
class HeadTrainReads:
    image_size: int | None


@dataclass(frozen=True)
class Reads:
    seed: int
    precompute: Precompute
    data: DataReads
    head_train: HeadTrainReads
    model: Model


def run(context: StageContext[Reads]) -> Metrics:
    """Send every image, and every view of it, through the frozen backbone once."""
    settings, manifest = context.settings, read_manifest(context.input("ingest"))
    image_size = settings.head_train.image_size or settings.data.image_size
    model, num_views = settings.model, {"train": 1 + settings.precompute.views, "valid": 1}
    check_image_size(model.arch, image_size)
    data = settings.data
    framing = Framing(image_size, data.fit, data.background, data.margin, interpolation_of(model.arch))
    policy = _policy(context, framing) if settings.precompute.views else None
    pretrained = ranks.in_turn(
        lambda: load_pretrained(model.arch, model.weights, seed=settings.seed, image_size=image_size)
    )
    backbone, device = pretrained.backbone, choose_device(context.runtime)
    move_model(backbone, device)
    precision = ranks.told(
        lambda: choose_precision(
            model.precision,
            backbone,
            device,
            image_size=settings.data.image_size,
            kept=context.state / "precision",
            identity={"arch": model.arch, **environment(context.runtime)},
            say=context.say,
        )
    )
    computation = Computation(backbone.eval(), device, precision, data.micro_batch_size)
    counts = {split: len(manifest.of(split)) for split in SPLITS}
    with context.progress(sum(counts[s] * num_views[s] for s in SPLITS)) as bar:
        files = [_activations(context, computation, manifest, s, framing, policy, num_views[s], bar) for s in SPLITS]
    ranks.leave()
    for file in files:
        link_file(file, context.out / file.name)  # what is finished stays in the scratch folder until all is published
    save_tensors(backbone.state_dict(), context.out / "backbone.safetensors")
    card = Card(
        model.arch,
        model.dropout,
        precision,
        image_size,
        manifest.classes,
        backbone.normalisation,
        weights=pretrained.source,
        licence=pretrained.licence,
    )
    save_card(card, context.out)
    if model.weights != "none" and trained_size(model.arch) not in (None, image_size):
        context.say(f"{model.arch} was trained on images of {trained_size(model.arch)} px, and gets {image_size} here")
    begins = _begin_head(context, len(manifest.classes), pretrained.classifier)
    return {
        "precision": precision,
        "num_features": backbone.num_features,
        "images": counts,
        "views": settings.precompute.views,
        "head_begins": begins,
    }


def _begin_head(context: StageContext[Reads], num_classes: int, classifier: nn.Linear | None) -> str:
    """Write an untrained head; returns what it starts from."""
    settings = context.settings
    train, valid = (read_tensors(context.out / f"activations-{split}.safetensors") for split in SPLITS)
    plain = train["activations"][0]
    head = build_head(plain, num_classes, dropout=settings.model.dropout, seed=settings.seed).eval()
    if settings.model.head_init == "auto" and classifier is not None:
        start_from_classifier(head, classifier, plain, train["targets"])
        begins = f"what the weights' own {classifier.out_features} classes say of ours"
    else:
        begins = "random weights"
    save_tensors(head.state_dict(), context.out / "head.safetensors")
    with torch.no_grad():
        correct = head(valid["activations"][0]).argmax(1) == valid["targets"]
    context.journal.points(-1, valid_accuracy=correct.double().mean().item())
    return begins


def _policy(context: StageContext[Reads], framing: Framing) -> Policy:
    """The augmentation, from a file that is empty without views, so that changing it then does not rerun this stage."""
    flat: dict[str, Any] = read_json(context.input("config", "views.json"))
    if not flat:
        views = context.settings.precompute.views
        raise ValueError(
            f"artifacts/config was made without views: set precompute.views={views} with `dvc exp run -S "
            f"precompute.views={views}`, or in conf/, then `dvc repro`"
        )
    policy = Policy(Augment(**{key.removeprefix("augment."): value for key, value in flat.items()}), framing)
    if not policy.steps:
        raise ValueError(
            f"precompute.views={context.settings.precompute.views} has no effect without augmentation: set it to 0, or "
            "choose augment=side_on, top_down or symbols"
        )
    return policy


def _activations(
    context: StageContext[Reads],
    computation: Computation,
    manifest: Manifest,
    split: str,
    framing: Framing,
    policy: Policy | None,
    num_views: int,
    bar: Bar,
) -> Path:
    """Write the activations of one split into the scratch folder, resuming where a killed run stopped.

    Of several ranks, each computes a batch at a time, and the first writes them in their order.
    """
    samples, workers, backbone = manifest.of(split), context.runtime.workers, computation.model
    assert isinstance(backbone, Backbone)
    targets = targets_of(samples, manifest.classes)
    file = context.scratch / f"activations-{split}.safetensors"
    shape = (num_views, len(samples), backbone.num_features)
    order = even_batches(list(range(len(samples))), context.settings.data.micro_batch_size)

    @lru_cache(maxsize=1)  # decoded once for all views; the plain images are dropped before the augmented are loaded
    def opened(policy: Policy | None) -> ImageBatches:
        seed = (context.settings.seed, "precompute")
        return open_images_of(
            manifest,
            samples,
            framing,
            normalisation=backbone.normalisation,
            workers=workers,
            policy=policy,
            seed=seed,
            hold="all" if ranks.count() == 1 else "drawn",
            device=computation.device,
        )

    with ExitStack() as stack:
        rows = None
        if ranks.is_first():
            before, checkpoint_s = {"targets": targets}, context.runtime.checkpoint_s
            rows = stack.enter_context(
                GrowingTensor(file, "activations", shape, before=before, checkpoint_s=checkpoint_s)
            )
        num_written = ranks.told(lambda: rows.num_batches if rows else 0)
        for view in range(num_views):
            done = min(max(0, num_written - view * len(order)), len(order))
            bar.advance(sum(map(len, order[:done])), note=split)
            if done == len(order):
                continue
            images, rest = opened(policy if view else None), order[done:]
            own = _features(computation, images.batches(ranks.dealt(rest), draw=view))
            for batch, features in zip(rest, ranks.merged(own, len(rest)), strict=True):
                check_rows(features, [samples[i].path for i in batch], of="the backbone's answer", advice=_BROKEN)
                if rows is not None:
                    rows.append(features)
                bar.advance(len(features), note=f"{split}, view {view}" if view else split)
    return file


_BROKEN = "check model.weights and, with model.precision=bf16, try fp32; or leave these images out with data.drop"


@torch.no_grad()
def _features(computation: Computation, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
    for images, _ in batches:
        yield forward(computation, images).cpu()


STAGE = Stage(
    name="precompute",
    run=run,
    reads=Reads,
    is_shared=True,
    inputs=(Input("ingest"), Input("config", "weights.json"), Input("config", "views.json")),
)

if __name__ == "__main__":
    main(STAGE)
