"""How good is a head that is initialised from the pretrained classifier, and which snapshots should be kept?

`python -m benchmarks.head_init [--folds 4] [--seeds 6] [--few 12] [--overrides ...]` pools the activations of train and
valid and cuts them into folds. One fold is left out, a quarter of the others serves as valid, and heads are trained as
`head_train` does, at the rate that `lr_find_head` finds, on the rest: some start from random weights, some from the
pretrained classifier. It prints their scores on the fold that is left out, untrained and for each setting of
`snapshots`, with all images and with `--few` of each class. Weights without a classification layer have random heads
only.
"""

import argparse
import os
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold, train_test_split
from torch import Tensor, nn

from pipeline.harness.compose import compose
from pipeline.harness.dag import run_stages
from pipeline.journal import Journal
from pipeline.learning.activation_learners import on_activations
from pipeline.learning.checkpoint import load_snapshot
from pipeline.learning.loop import Learner, fit
from pipeline.learning.snapshots import keep_snapshots
from pipeline.learning.sources import TensorBatches, in_order
from pipeline.learning.training import make_plan
from pipeline.model.compute import evaluate
from pipeline.model.head import build_head, start_from_classifier
from pipeline.model.tensors import read_tensors
from pipeline.model.weights import load_pretrained
from pipeline.settings import HeadSnapshots, Settings, read_settings
from pipeline.workspace import Workspace
from stages import STAGES
from stages.registry import ALL

KEPT: tuple[HeadSnapshots, ...] = ("none", "best", "average")

Scores = dict[str, tuple[float, float]]
"""Accuracy and log loss of the untrained head, and of each way to keep snapshots."""


@dataclass(frozen=True)
class Study:
    """Activations [N, num_features] of train and valid, targets [N], and what heads are made and trained of."""

    inputs: Tensor
    targets: Tensor
    classifier: nn.Linear | None
    settings: Settings
    lr_folder: Path


def main() -> None:
    """Train the heads, and print a line for each way to initialise them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--few", type=int, default=12)
    parser.add_argument("--overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    os.environ["UNFREEZE_TRACKING"] = "false"
    with tempfile.TemporaryDirectory() as folder:
        study = prepare(arguments.overrides, Path(folder))
        beginnings = ("random", "classifier") if study.classifier else ("random",)
        for few in (None, arguments.few):
            for beginning in beginnings:
                scores = cross_validate(study, beginning, folds=arguments.folds, seeds=arguments.seeds, few=few)
                which = "all images" if few is None else f"{few} of each class"
                for when, (accuracy, loss) in scores.items():
                    print(f"{which}, {beginning}, {when}: accuracy {accuracy:.4f}, log loss {loss:.4f}", flush=True)


def prepare(overrides: list[str], root: Path) -> Study:
    """Run the stages up to `lr_find_head`."""
    params = compose(["head_train=sgd", *overrides])
    settings = read_settings(params, source="overrides")
    artifacts = run_stages(ALL, params, root, only=STAGES[: STAGES.index("lr_find_head") + 1])
    model, image_size = settings.model, settings.data.image_size
    classifier = load_pretrained(model.arch, model.weights, seed=0, image_size=image_size).classifier
    parts = [
        read_tensors(artifacts / "precompute" / f"activations-{split}.safetensors") for split in ("train", "valid")
    ]
    inputs, targets = torch.cat([p["activations"][0] for p in parts]), torch.cat([p["targets"] for p in parts])
    return Study(inputs, targets, classifier, settings, artifacts / "lr_find_head")


def cross_validate(study: Study, beginning: str, *, folds: int, seeds: int, few: int | None) -> Scores:
    """Accuracy and log loss on images that were left out; means over folds and seeds."""
    found: list[Scores] = []
    for seed in range(seeds):
        for taken, left_out in StratifiedKFold(folds, shuffle=True, random_state=seed).split(
            study.targets, study.targets
        ):
            train_rows, valid_rows = train_test_split(
                taken, test_size=0.25, stratify=study.targets[taken], random_state=seed
            )
            if few is not None:
                train_rows = some_of_each(train_rows, study.targets.numpy(), few)
            rows = [torch.tensor(r) for r in (train_rows, valid_rows, left_out)]
            found.append(_train_and_keep(study, beginning, *rows, seed=seed))
    return {
        when: (statistics.fmean(f[when][0] for f in found), statistics.fmean(f[when][1] for f in found))
        for when in found[0]
    }


def _train_and_keep(
    study: Study, beginning: str, train_rows: Tensor, valid_rows: Tensor, left_out: Tensor, *, seed: int
) -> Scores:
    learner = build_learner(study, beginning, train_rows, valid_rows, seed)
    plan = make_plan(
        study.settings.head_train,
        batch_size=study.settings.data.batch_size,
        num_samples=len(train_rows),
        lr_folder=study.lr_folder,
    )
    unseen = TensorBatches(study.inputs[left_out], study.targets[left_out])

    def score() -> tuple[float, float]:
        loss, accuracy = evaluate(learner, in_order(unseen, learner.micro_batch_size))
        return accuracy, loss

    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        journal = Journal(scratch / "journal.jsonl")
        finished = fit(learner, plan, Workspace("head_train", seed, scratch, scratch, journal, 1e9))
        journal.close()
        learner.model.load_state_dict(load_snapshot(scratch, 0))
        scores = {"untrained": score()}
        for how in KEPT:
            keep_snapshots(learner, finished.ends, scratch, how)
            scores[f"snapshots={how}"] = score()
    return scores


def some_of_each(rows: np.ndarray, targets: np.ndarray, count: int) -> np.ndarray:
    """The first `count` rows of each class."""
    return np.concatenate([rows[targets[rows] == c][:count] for c in np.unique(targets)])


def build_learner(study: Study, beginning: str, rows: Tensor, valid_rows: Tensor, seed: int) -> Learner:
    """A head on the activations of `rows`, measured on `valid_rows`."""
    inputs, targets, settings = study.inputs[rows], study.targets[rows], study.settings
    head = build_head(inputs, int(study.targets.max()) + 1, dropout=settings.model.dropout, seed=seed)
    if beginning == "classifier":
        assert study.classifier is not None
        start_from_classifier(head, study.classifier, inputs, targets)
    splits = {
        split: {"activations": study.inputs[part][None], "targets": study.targets[part]}
        for split, part in (("train", rows), ("valid", valid_rows))
    }
    return on_activations(head, splits, settings.runtime, micro_batch_size=settings.data.micro_batch_size)


if __name__ == "__main__":
    main()
