"""Which mode of test-time augmentation suits these images? Measured without the test images.

`python -m benchmarks.tta_cross_validation [--folds 4] [--seeds 3] [--overrides ...]` pools the images of train and
valid and cuts them into folds. Two heads learn from the plain images of all folds but one: the recipe's as it begins,
and logistic regression on standardised features (C = 0.1). Each then looks at the fold that was left out in every mode
of `benchmarks.tta_modes`. It prints how many are right and the log loss, of all folds and seeds together. Weights
without a classification layer have the second head only.
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
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from benchmarks.tta_modes import modes_for
from pipeline.config import compose
from pipeline.console import progress_bar
from pipeline.data.augment import Policy, read_policy
from pipeline.data.decode import decode_framed
from pipeline.data.images import normalise
from pipeline.data.manifest import Manifest, Sample, read_manifest
from pipeline.evaluation.scores import targets_of
from pipeline.evaluation.views import views_of
from pipeline.model.head import build_head, start_from_classifier
from pipeline.model.weights import load_pretrained
from pipeline.settings import TtaEvaluate, read_settings
from pipeline.vision import v2
from stages.dag import run_stages

Features = list[Tensor]
"""Of each image, [num_views, num_features]; the plain one first."""
Probabilities = Callable[[Tensor], NDArray[np.float64]]
"""From features [N, num_features] to probabilities [N, num_classes]."""


@dataclass(frozen=True)
class Study:
    """What every mode shows of the images of train and valid."""

    seen: dict[str, Features]
    targets: NDArray[np.int64]
    classifier: nn.Linear | None
    dropout: float


def main() -> None:
    """Look at all images in every mode once, cross-validate the heads, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    os.environ["UNFREEZE_TRACKING"] = "false"
    with tempfile.TemporaryDirectory() as folder:
        study = prepare(arguments.overrides, Path(folder))
    heads = (
        {"as it begins": begun, "logistic regression": probe} if study.classifier else {"logistic regression": probe}
    )
    print("| head | mode | right | log loss | views |")
    print("|---|---|---|---|---|")
    for name, fit in heads.items():
        for mode, features in study.seen.items():
            probs, targets = cross_validate(study, fit, features, folds=arguments.folds, seeds=arguments.seeds)
            right = int((probs.argmax(1) == targets).sum())
            loss = -np.log(probs[np.arange(len(targets)), targets]).mean()
            views = np.mean([len(f) for f in features]) - 1
            print(f"| {name} | {mode} | {right} of {len(targets)} | {loss:.4f} | {views:.3g} |", flush=True)


@torch.no_grad()
def prepare(overrides: list[str], root: Path) -> Study:
    """Ingest the images, and send every view of them through the backbone."""
    params = compose(overrides)
    settings = read_settings(params, source="overrides")
    artifacts = run_stages(params, root, only=("ingest", "augment_config"))
    model, size = settings.model, settings.data.image_size
    pretrained = load_pretrained(model.arch, model.weights, seed=0, image_size=size)
    policy = read_policy(artifacts / "augment_config" / "policy.yaml", image_size=size)
    manifest = read_manifest(artifacts / "ingest")
    samples = [*manifest.of("train"), *manifest.of("valid")]
    targets = np.concatenate([targets_of(manifest, split) for split in ("train", "valid")])
    backbone = pretrained.backbone.eval()
    modes = {"plain": None, **modes_for(policy)}
    with progress_bar("views", len(modes) * len(samples)) as bar:
        seen: dict[str, Features] = {}
        for name, tta in modes.items():
            seen[name] = []
            for sample in samples:
                seen[name].append(_activations(backbone, _look(manifest, sample, tta, policy)))
                bar.advance(1)
    return Study(seen, targets, pretrained.classifier, model.dropout)


def cross_validate(
    study: Study,
    fit: Callable[[Study, NDArray[np.int64]], Probabilities],
    features: Features,
    *,
    folds: int,
    seeds: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities [seeds * N, num_classes] of images that the head did not learn from, and their targets."""
    found, rows = [], []
    for seed in range(seeds):
        cut = StratifiedKFold(folds, shuffle=True, random_state=seed)
        for taken, left_out in cut.split(study.targets, study.targets):
            predict = fit(study, taken)
            found += [predict(features[i]).mean(0) for i in left_out]
            rows += left_out.tolist()
    return np.stack(found), study.targets[rows]


def begun(study: Study, rows: NDArray[np.int64]) -> Probabilities:
    """The recipe's head before its first step, made from the plain images in `rows`."""
    assert study.classifier is not None
    inputs, targets = _plain(study, rows), torch.tensor(study.targets[rows])
    head = build_head(inputs, int(study.targets.max()) + 1, dropout=study.dropout, seed=0).eval()
    start_from_classifier(head, study.classifier, inputs, targets)
    return lambda features: head(features).detach().double().softmax(1).numpy()


def probe(study: Study, rows: NDArray[np.int64]) -> Probabilities:
    """Logistic regression on the standardised features of the plain images in `rows`."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    model.fit(_plain(study, rows).numpy(), study.targets[rows])
    return lambda features: np.asarray(model.predict_proba(features.numpy()))


def _plain(study: Study, rows: NDArray[np.int64]) -> Tensor:
    return torch.cat([study.seen["plain"][i] for i in rows])


def _look(manifest: Manifest, sample: Sample, tta: TtaEvaluate | None, policy: Policy) -> list[Image.Image]:
    """The plain image and, of a mode, its views."""
    file = manifest.root / sample.path
    views = [] if tta is None else views_of(file, tta, policy, seed=(0, "tta", sample.sha256))
    return [decode_framed(file, policy.framing), *views]


def _activations(backbone: nn.Module, images: list[Image.Image]) -> Tensor:
    """Features [num_views, num_features]; views of one mode may differ in size."""
    return torch.cat([backbone(normalise(v2.functional.pil_to_tensor(image)[None])) for image in images])


if __name__ == "__main__":
    main()
