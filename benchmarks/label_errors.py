"""How many wrong labels does `cross_validate` find? Labels are made wrong on purpose, so the answer is known.

`python -m benchmarks.label_errors [--shares 0.02 0.05 0.1] [--seeds 10] [--folds 5] [--overrides ...]` computes the
activations once. For each share and seed, that share of the images of train and valid gets the label of another class,
chosen at random. The table says how much of the list of suspects is wrong indeed (precision), how many of the wrong
labels are listed (recall), and how many are found by a person who goes down the list and stops at its last place where
at least half of what was shown is wrong (recall at 50 %), once as ranked by the margin and once by self-confidence.
Means over the seeds with 95 % intervals (Student's t).
"""

import argparse
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student
from torch import Tensor

from pipeline.data.manifest import read_manifest
from pipeline.evaluation.label_errors import find_suspects
from pipeline.harness.compose import compose
from pipeline.harness.dag import run_stages
from pipeline.learning.cross_validation import cross_validate
from pipeline.model.tensors import read_tensors
from pipeline.workspace import Bar
from stages.registry import ALL


@dataclass(frozen=True)
class Data:
    """The images of train and valid."""

    features: Tensor
    targets: NDArray[np.int64]
    groups: list[str]
    num_classes: int


def main() -> None:
    """Compute the activations, and print a row per share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.02, 0.05, 0.1])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    os.environ["UNFREEZE_TRACKING"] = "false"
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(arguments.overrides, Path(folder))
    print(f"{len(data.targets)} images, {data.num_classes} classes")
    print("| made wrong | listed | precision | recall | recall at 50 %, by margin | by self-confidence | accuracy |")
    print("|---|---|---|---|---|---|---|")
    for share in (0.0, *arguments.shares):
        seeds = range(arguments.seeds if share else 1)
        rows = np.array([study(data, share, folds=arguments.folds, seed=seed) for seed in seeds])
        print(f"| {share:.0%} | " + " | ".join(describe(column) for column in rows.T) + " |", flush=True)


def prepare(overrides: list[str], root: Path) -> Data:
    """Ingest the images, and compute their activations."""
    artifacts = run_stages(ALL, compose(overrides), root, only=("ingest", "precompute"))
    manifest = read_manifest(artifacts / "ingest")
    splits = ("train", "valid")
    stored = [read_tensors(artifacts / "precompute" / f"activations-{split}.safetensors") for split in splits]
    return Data(
        torch.cat([tensors["activations"][0] for tensors in stored]),
        torch.cat([tensors["targets"] for tensors in stored]).numpy(),
        [sample.group for split in splits for sample in manifest.of(split)],
        len(manifest.classes),
    )


def study(data: Data, share: float, *, folds: int, seed: int) -> list[float]:
    """Number listed, precision, recall, recall at 50 % precision in both orders, accuracy by the labels as given."""
    labels, is_wrong = make_wrong(data, share, seed=seed)
    found = cross_validate(
        data.features,
        torch.from_numpy(labels),
        data.groups,
        num_folds=folds,
        num_classes=data.num_classes,
        seed=seed,
        bar=Bar(),
    )
    suspects = find_suspects(found.probs, labels, found.is_known)
    by_confidence = suspects.rows[np.argsort(suspects.self_confidence, kind="stable")]
    total = max(1, int(is_wrong.sum()))
    hits = int(is_wrong[suspects.rows].sum())
    return [
        len(suspects.rows),
        hits / max(1, len(suspects.rows)),
        hits / total,
        hits_at_half(is_wrong[suspects.rows]) / total,
        hits_at_half(is_wrong[by_confidence]) / total,
        float((found.probs.argmax(axis=1) == data.targets).mean()),
    ]


def make_wrong(data: Data, share: float, *, seed: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Give `share` of the images another class each; returns the labels and which of them are wrong."""
    generator = np.random.default_rng([seed, round(1000 * share)])
    is_wrong = np.zeros(len(data.targets), dtype=bool)
    is_wrong[generator.choice(len(is_wrong), round(share * len(is_wrong)), replace=False)] = True
    other = (data.targets + generator.integers(1, data.num_classes, len(is_wrong))) % data.num_classes
    return np.where(is_wrong, other, data.targets), is_wrong


def hits_at_half(is_wrong: NDArray[np.bool_]) -> int:
    """How many are wrong among the first of a ranked list, down to the last place where at least half are."""
    hits = np.cumsum(is_wrong)
    good = np.flatnonzero(hits >= 0.5 * np.arange(1, len(hits) + 1))
    return int(hits[good[-1]]) if len(good) else 0


def describe(values: NDArray[np.float64]) -> str:
    """Mean and interval."""
    mean, count = values.mean(), len(values)
    if count == 1 or not values.std():
        return f"{mean:.3f}"
    half = student.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count)
    return f"{mean:.3f} ({mean - half:.3f} to {mean + half:.3f})"


if __name__ == "__main__":
    main()
