"""What calibration gives on these images, measured without the test images.

`python -m benchmarks.calibrated_answers [--splits 20] [--other FOLDER] [--overrides ...]` pools the images of train and
valid, and cuts them at random, again and again: 60 % train a logistic regression on the frozen backbone's features,
20 % calibrate it, and 20 % test that. It prints the log loss and the calibration error before and after, also with no
prior for the temperature, and how often sets of classes hold the true one. With `--other`, a folder of images of
another kind, it also prints how well these are told apart from the tested ones by the distance to the training images:
the area under the ROC curve (0.5 is chance), beside that of the Mahalanobis distance. Intervals are over splits, 95 %;
splits share images, so they are somewhat too narrow.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score

from benchmarks.linear_probe import activations, logistic_regression
from pipeline.data.augment import Policy
from pipeline.data.decode import Framing
from pipeline.data.manifest import read_manifest
from pipeline.evaluation.calibration import COVERAGES, at_temperature, fit_calibration, fit_temperature
from pipeline.evaluation.metrics import Floats, Ints, expected_calibration_error, log_loss
from pipeline.evaluation.novelty import features_of, fit_novelty, nearest
from pipeline.harness.compose import compose
from pipeline.harness.dag import run_stages
from pipeline.model.classifier import Classifier
from pipeline.model.compute import Computation
from pipeline.model.head import Head
from pipeline.model.weights import load_pretrained
from pipeline.settings import read_settings
from stages.registry import ALL


@dataclass
class Table:
    """Measurements by name, one of each per split."""

    columns: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Add a measurement of one split."""
        self.columns.setdefault(name, []).append(value)

    def print(self) -> None:
        """Print a row per measurement: its mean, and the interval of the mean."""
        print("| | mean | 95 % interval | lowest to highest |")
        print("|---|---|---|---|")
        for name, values in self.columns.items():
            half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
            mean = np.mean(values)
            spread = f"{min(values):.4f} to {max(values):.4f}"
            print(f"| {name} | {mean:.4f} | {mean - half:.4f} to {mean + half:.4f} | {spread} |")


def main() -> None:
    """Compute the features once, cut them many times, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--other", type=Path)
    parser.add_argument("--overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        features, targets, other = prepare(arguments.overrides, arguments.other, Path(folder))
    table = Table()
    for split in range(arguments.splits):
        order = np.random.default_rng(split).permutation(len(targets))
        parts = np.split(order, [int(0.6 * len(order)), int(0.8 * len(order))])
        measure(table, features, targets, parts)
        if other is not None:
            tell_apart(table, features, targets, parts, other)
    print(f"{len(targets)} images: {', '.join(str(len(part)) for part in parts)} to train, calibrate and test")
    table.print()


def prepare(overrides: list[str], other: Path | None, root: Path) -> tuple[Floats, Ints, Floats | None]:
    """Features [N, num_features] and targets [N] of the images, and features of those in the folder `other`."""
    params = compose(overrides)
    settings = read_settings(params, source="overrides")
    data, model = settings.data, settings.model
    manifest = read_manifest(run_stages(ALL, params, root, only=("ingest",)) / "ingest")
    backbone = load_pretrained(model.arch, model.weights, seed=0, image_size=data.image_size).backbone
    found = [activations(backbone, settings, manifest, split) for split in ("train", "valid")]
    features, targets = (torch.cat(part).numpy() for part in zip(*found, strict=True))
    if other is None:
        return features, targets, None
    files = sorted(file for file in other.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    head = Head(backbone.num_features, len(manifest.classes), dropout=0.0)
    computation = Computation(Classifier(backbone, head), torch.device("cpu"), "fp32", data.micro_batch_size)
    policy = Policy(settings.augment, Framing(data.image_size, data.fit, data.background, data.margin))
    return features, targets, features_of(computation, files, policy, normalisation=backbone.normalisation).numpy()


def measure(table: Table, features: Floats, targets: Ints, parts: Sequence[Ints]) -> None:
    """Calibrate on one split."""
    train, valid, test = parts
    head = logistic_regression().fit(features[train], targets[train])
    fitting, probs = (np.asarray(head.predict_proba(features[part])) for part in (valid, test))
    truth, fitted = targets[test], fit_calibration(fitting, targets[valid])
    after = fitted.probs(probs)
    without = at_temperature(probs, fit_temperature(fitting, targets[valid], prior=0.0))
    table.add("accuracy", float((probs.argmax(axis=1) == truth).mean()))
    table.add("temperature", fitted.temperature)
    table.add("log loss before", log_loss(probs, truth))
    table.add("log loss after", log_loss(after, truth))
    table.add("change of log loss", log_loss(after, truth) - log_loss(probs, truth))
    table.add("change of log loss, no prior", log_loss(without, truth) - log_loss(probs, truth))
    table.add("calibration error before", expected_calibration_error(probs, truth))
    table.add("calibration error after", expected_calibration_error(after, truth))
    for coverage in COVERAGES:
        sets = fitted.sets(after, coverage)
        table.add(f"coverage of sets asked for {coverage:.0%}", float(sets[np.arange(len(truth)), truth].mean()))
        table.add(f"classes in sets asked for {coverage:.0%}", float(sets.sum(axis=1).mean()))


def tell_apart(table: Table, features: Floats, targets: Ints, parts: Sequence[Ints], other: Floats) -> None:
    """Tell images of another kind from those of the test part, by their distance to those of the train part."""
    train, valid, test = parts
    novelty = fit_novelty(torch.tensor(features[train]), torch.tensor(features[valid]))
    looked_at = np.concatenate([features[test], other])
    is_other = np.arange(len(looked_at)) >= len(test)
    distances = nearest(torch.tensor(looked_at), novelty.references).numpy()
    table.add("AUROC, nearest image", float(roc_auc_score(is_other, distances)))
    far = mahalanobis(features[train], targets[train], looked_at)
    table.add("AUROC, Mahalanobis distance", float(roc_auc_score(is_other, far)))


def mahalanobis(train: Floats, targets: Ints, new: Floats) -> Floats:
    """The squared distance of each row of `new` to the nearest class mean, with one shrunk covariance for all."""
    means = np.stack([train[targets == label].mean(axis=0) for label in np.unique(targets)])
    covariance, _ = ledoit_wolf(train - means[np.unique(targets, return_inverse=True)[1]], assume_centered=True)
    inverse = np.linalg.inv(covariance)
    apart = new[:, None] - means
    distances: Floats = np.einsum("ncf,fg,ncg->nc", apart, inverse, apart, optimize=True).min(axis=1)
    return distances


if __name__ == "__main__":
    main()
