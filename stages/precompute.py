"""Step 1: precompute activations.

Reads the images of train and valid, and the pretrained weights. Writes the backbone (so that no later stage fetches
weights again) and what it makes of each image: `activations-<split>.safetensors` with `activations`
[N, num_features] and `targets` [N]. The head can then be trained in seconds, as long as its images do not change.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.console import progress_bar
from pipeline.data.decode import Framing
from pipeline.data.images import ImageBatches, open_images_of
from pipeline.data.manifest import read_manifest
from pipeline.device import choose_device, computing_in, to_device
from pipeline.learning.schedule import epoch_batches
from pipeline.model.backbone import Backbone, check_image_size
from pipeline.model.head import Card, save_card
from pipeline.model.tensors import save_tensors
from pipeline.model.weights import load_backbone
from pipeline.stage import Metrics, Stage, StageContext, main


def run(context: StageContext) -> Metrics:
    """Send every image through the frozen backbone once."""
    settings, manifest = context.settings, read_manifest(context.input("ingest"))
    image_size = settings.head_train.image_size or settings.data.image_size
    model = settings.model
    check_image_size(model.arch, image_size)
    backbone = load_backbone(model.arch, model.weights, seed=settings.seed, image_size=image_size)
    save_tensors(backbone.state_dict(), context.out / "backbone.safetensors")
    save_card(Card(model.arch, model.dropout, model.precision, image_size, manifest.classes), context.out)

    framing = Framing(image_size, settings.data.fit, settings.data.background, settings.data.margin)
    device = choose_device(context.runtime)
    backbone.to(device)
    metrics: Metrics = {"num_features": backbone.num_features, "images": {}}
    for split in ("train", "valid"):  # test images are for tta_evaluate alone
        images = open_images_of(manifest, manifest.of(split), framing, workers=context.runtime.workers)
        order = epoch_batches(list(range(images.num_samples)), settings.data.micro_batch_size)
        with progress_bar("precompute", len(order)) as bar, computing_in(model.precision, device):
            parts = []
            for part in _activations(backbone, images, order, device):
                parts.append(part)
                bar.advance(note=split)
        tensors = {"activations": torch.cat(parts), "targets": images.targets}
        save_tensors(tensors, context.out / f"activations-{split}.safetensors")
        metrics["images"][split] = images.num_samples
    context.say(
        f"{model.arch} ({model.weights}): {backbone.num_features} features for each of {metrics['images']} images"
    )
    return metrics


@torch.no_grad()
def _activations(
    backbone: Backbone, images: ImageBatches, order: list[list[int]], device: torch.device
) -> Iterator[Tensor]:
    backbone.eval()
    for batch, _ in images.batches(order, draw=0):
        yield backbone(to_device(batch, device)).cpu()


STAGE = Stage(
    name="precompute",
    run=run,
    settings=(
        "seed",
        "data.image_size",
        "data.fit",
        "data.margin",
        "data.background",
        "data.micro_batch_size",
        "head_train.image_size",
        "model",
    ),
    inputs=("ingest", "config/weights.json"),
)

if __name__ == "__main__":
    main(STAGE)
