"""How good the shipped weights are: logistic regression on their features of the digits, beside random weights.

`python -m benchmarks.linear_probe [--seeds 0 1 2 3 4]` prints test accuracy with all training images and with a tenth
of them, per seed and as mean. Each seed has its own split and random weights; features are standardised.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from benchmarks.digits_accuracy import svm_accuracy
from pipeline.data.decode import Framing
from pipeline.data.images import open_images_of
from pipeline.data.manifest import Manifest, read_manifest
from pipeline.data.split import choose_groups
from pipeline.harness.compose import compose
from pipeline.harness.dag import run_stages
from pipeline.model.backbone import Backbone
from pipeline.model.batches import even_batches
from pipeline.model.weights import load_pretrained
from pipeline.settings import Settings, read_settings
from stages.registry import ALL


def main() -> None:
    """Probe both kinds of weights on each split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    rows = []
    for seed in parser.parse_args().seeds:
        with tempfile.TemporaryDirectory() as folder:
            settings, ingest = run_ingest(seed, Path(folder))
            manifest = read_manifest(ingest)
            probes = [probe(settings, manifest, weights) for weights in ("none", "glyphs")]
            rows.append((*probes[0], *probes[1], svm_accuracy(ingest)))
        print(f"seed {seed}: " + describe(rows[-1]), flush=True)
    print("mean:   " + describe([statistics.mean(column) for column in zip(*rows, strict=True)]))


def describe(row: tuple[float, ...] | list[float]) -> str:
    """One line."""
    return (
        f"random weights {row[0]:.4f} (a tenth {row[1]:.4f}), shipped {row[2]:.4f} (a tenth {row[3]:.4f}), "
        f"SVM {row[4]:.4f}"
    )


def run_ingest(seed: int, root: Path) -> tuple[Settings, Path]:
    """Ingest the digits with the split of `seed`."""
    params = compose([f"seed={seed}"])
    artifacts = run_stages(ALL, params, root, only=("ingest",))
    return read_settings(params, source="conf"), artifacts / "ingest"


def probe(settings: Settings, manifest: Manifest, weights: str) -> tuple[float, float]:
    """Test accuracy with all training images, and with a tenth of them."""
    backbone = load_pretrained(
        settings.model.arch, weights, seed=settings.seed, image_size=settings.data.image_size
    ).backbone
    is_kept = choose_groups(((s.label, s.group) for s in manifest.of("train")), 0.1, seed=settings.seed)
    features, targets = activations(backbone, settings, manifest, "train")
    tested, expected = activations(backbone, settings, manifest, "test")
    few = torch.tensor([is_kept(s.group) for s in manifest.of("train")])
    scores = []
    for rows in (torch.ones_like(few), few):
        model = logistic_regression().fit(features[rows].numpy(), targets[rows].numpy())
        scores.append(float(model.score(tested.numpy(), expected.numpy())))
    return scores[0], scores[1]


def logistic_regression() -> Pipeline:
    """The probe: on features that it standardises."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))


@torch.no_grad()
def activations(backbone: Backbone, settings: Settings, manifest: Manifest, split: str) -> tuple[Tensor, Tensor]:
    """Features [N, num_features] and targets [N]."""
    data = settings.data
    images = open_images_of(
        manifest,
        manifest.of(split),
        Framing(data.image_size, data.fit, data.background, data.margin),
        normalisation=backbone.normalisation,
        workers=0,
    )
    order = even_batches(list(range(images.num_samples)), data.micro_batch_size)
    backbone.eval()
    return torch.cat([backbone(batch) for batch, _ in images.batches(order, draw=0)]), images.targets


if __name__ == "__main__":
    main()
