"""How a fixed architecture takes images of other sizes, and what that does to its accuracy.

`python -m benchmarks.image_sizes [--artifacts artifacts] [--sizes 16 24 32 ...]` prints, for a trained model and the
validation images, the shape of the last feature map, the number of features that adaptive pooling makes of it, and the
scores, when the images are framed for each size.
"""

import argparse
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from pipeline.data.augment import read_policy
from pipeline.data.manifest import read_manifest
from pipeline.evaluation.metrics import accuracy, log_loss
from pipeline.evaluation.scores import targets_of
from pipeline.evaluation.tta import ImageFile, predict_plain
from pipeline.model.backbone import Backbone
from pipeline.model.card import load_card
from pipeline.model.classifier import Classifier, load_computation
from pipeline.settings import read_settings, with_environment


def main() -> None:
    """Frame the same images for each size, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 24, 32, 40, 48, 64, 96])
    arguments = parser.parse_args()
    runtime = with_environment(read_settings(yaml.safe_load(Path("params.yaml").read_text()), source="").runtime)
    trained, manifest = arguments.artifacts / "full_train", read_manifest(arguments.artifacts / "ingest")
    model, targets = load_computation(trained, runtime, micro_batch_size=64), targets_of(manifest, "valid")
    files = [ImageFile(manifest.root / s.path, s.sha256) for s in manifest.of("valid")]
    assert isinstance(model.model, Classifier)
    card = load_card(trained)
    print(f"trained at {card.image_size} pixels\n")
    print("| image | feature map | after pooling | accuracy | log loss |\n|---|---|---|---|---|")
    for size in arguments.sizes:
        policy = read_policy(arguments.artifacts / "augment_config" / "policy.yaml", image_size=size)
        probs = predict_plain(model, files, policy, normalisation=card.normalisation)
        before, after = pooled_shapes(model.model.backbone, size)
        print(
            f"| {size} x {size} | {' x '.join(map(str, before))} | {after} | {accuracy(probs, targets):.4f} "
            f"| {log_loss(probs, targets):.4f} |",
            flush=True,
        )


@torch.no_grad()
def pooled_shapes(backbone: Backbone, size: int) -> tuple[tuple[int, ...], int]:
    """Shape of the last convolution's output for one image, [channels, height, width], and the number of features."""
    seen: list[tuple[int, ...]] = []
    last = [m for m in backbone.modules() if isinstance(m, nn.Conv2d)][-1]
    hook = last.register_forward_hook(lambda *given: seen.append(tuple(given[2].shape[1:])))
    features: Tensor = backbone.eval()(torch.zeros(1, 3, size, size))
    hook.remove()
    return seen[0], features.shape[1]


if __name__ == "__main__":
    main()
