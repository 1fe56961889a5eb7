"""Which mode of test-time augmentation suits these images? Measured without the test images.

`python -m benchmarks.tta_cross_validation [--folds 4] [--seeds 3] [--overrides ...]` pools the images of train and
valid and cuts them into folds. Two heads are fitted to the plain images of all folds but one: the recipe's, untrained,
and logistic regression on standardised features (C = 0.1). Each then predicts the fold that was left out in every mode
of `benchmarks.tta_modes`. It prints how many are correct and the log loss, over all folds and seeds. Weights without a
classification layer have the second head only.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn

from benchmarks.linear_probe import activations, logistic_regression
from benchmarks.tta_modes import modes_for
from pipeline.console import progress_bar
from pipeline.data.augment import read_policy
from pipeline.data.images import normalise
from pipeline.data.manifest import read_manifest
from pipeline.evaluation.metrics import log_loss
from pipeline.evaluation.views import views_of
from pipeline.harness.compose import compose
from pipeline.harness.dag import run_stages
from pipeline.model.backbone import Backbone
from pipeline.model.head import build_head, start_from_classifier
from pipeline.model.weights import load_pretrained
from pipeline.settings import read_settings
from pipeline.vision import v2
from stages.registry import ALL

Probabilities = Callable[[Tensor], NDArray[np.float64]]
"""From features [N, num_features] to probabilities [N, num_classes]."""


@dataclass(frozen=True)
class Study:
    """The features of the images of train and valid."""

    plain: Tensor
    """[N, num_features]"""
    views: dict[str, list[Tensor]]
    """By mode, the features [num_views, num_features] of each image's views, without the plain one."""
    targets: Tensor
    classifier: nn.Linear | None
    dropout: float


Fit = Callable[[Study, NDArray[np.int64]], Probabilities]
"""Fits a head to the plain images in some rows."""


def main() -> None:
    """Compute the features of all views once, cross-validate the heads, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    os.environ["UNFREEZE_TRACKING"] = "false"
    with tempfile.TemporaryDirectory() as folder:
        study = prepare(arguments.overrides, Path(folder))
    heads: dict[str, Fit] = {"untrained": untrained} if study.classifier else {}
    heads["logistic regression"] = probe
    print("| head | mode | correct | log loss | views |")
    print("|---|---|---|---|---|")
    for name, fit in heads.items():
        found, targets = cross_validate(study, fit, folds=arguments.folds, seeds=arguments.seeds)
        for mode, probs in found.items():
            correct = int((probs.argmax(1) == targets).sum())
            views = np.mean([len(v) for v in study.views[mode]])
            print(f"| {name} | {mode} | {correct} of {len(targets)} | {log_loss(probs, targets):.4f} | {views:.3g} |")


@torch.no_grad()
def prepare(overrides: list[str], root: Path) -> Study:
    """Ingest the images, and send every view of them through the backbone."""
    params = compose(overrides)
    settings = read_settings(params, source="overrides")
    artifacts = run_stages(ALL, params, root, only=("ingest", "augment_config"))
    model, size = settings.model, settings.data.image_size
    pretrained = load_pretrained(model.arch, model.weights, seed=0, image_size=size)
    policy = read_policy(artifacts / "augment_config" / "policy.yaml", image_size=size)
    manifest = read_manifest(artifacts / "ingest")
    splits = ("train", "valid")
    plain, targets = zip(*(activations(pretrained.backbone, settings, manifest, s) for s in splits), strict=True)
    samples = [sample for split in splits for sample in manifest.of(split)]
    views: dict[str, list[Tensor]] = {"plain": [torch.empty(0)] * len(samples)}
    modes = modes_for(policy)
    with progress_bar("views", len(modes) * len(samples)) as bar:
        for name, tta in modes.items():
            views[name] = []
            for sample in samples:
                images = views_of(manifest.root / sample.path, tta, policy, seed=(0, "tta", sample.sha256))
                views[name].append(_activations(pretrained.backbone, images))
                bar.advance(1)
    return Study(torch.cat(plain), views, torch.cat(targets), pretrained.classifier, model.dropout)


def cross_validate(
    study: Study, fit: Fit, *, folds: int, seeds: int
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64]]:
    """By mode, probabilities [seeds * N, num_classes] of images that the head was not fitted to; their targets."""
    found: dict[str, list[NDArray[np.float64]]] = {mode: [] for mode in study.views}
    rows: list[int] = []
    for seed in range(seeds):
        cut = StratifiedKFold(folds, shuffle=True, random_state=seed)
        for taken, left_out in cut.split(study.targets, study.targets):
            predict = fit(study, taken)
            rows += left_out.tolist()
            for mode, views in study.views.items():
                found[mode] += [predict(_with_plain(study.plain[i], views[i])).mean(0) for i in left_out]
    return {mode: np.stack(probs) for mode, probs in found.items()}, study.targets.numpy()[rows]


def untrained(study: Study, rows: NDArray[np.int64]) -> Probabilities:
    """The recipe's head before its first step."""
    assert study.classifier is not None
    inputs, targets = study.plain[rows], study.targets[rows]
    head = build_head(inputs, int(study.targets.max()) + 1, dropout=study.dropout, seed=0).eval()
    start_from_classifier(head, study.classifier, inputs, targets)
    return lambda features: head(features).detach().double().softmax(1).numpy()


def probe(study: Study, rows: NDArray[np.int64]) -> Probabilities:
    """Logistic regression on standardised features."""
    model = logistic_regression().fit(study.plain[rows].numpy(), study.targets[rows].numpy())
    return lambda features: np.asarray(model.predict_proba(features.numpy()))


def _with_plain(plain: Tensor, views: Tensor) -> Tensor:
    return torch.cat([plain[None], views]) if len(views) else plain[None]


def _activations(backbone: Backbone, images: list[Image.Image]) -> Tensor:
    """Features [num_views, num_features]; views of one mode may differ in size. Empty if there are none."""
    each = [backbone(normalise(v2.functional.pil_to_tensor(image)[None], backbone.normalisation)) for image in images]
    return torch.cat(each) if each else torch.empty(0)


if __name__ == "__main__":
    main()
