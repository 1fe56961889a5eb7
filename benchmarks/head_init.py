"""What is it worth that the head begins with what the pretrained classifier says of the classes?

`python -m benchmarks.head_init [--folds 4] [--seeds 6] [--few 12] [--overrides ...]` pools the activations of train and
valid, cuts them into folds, and trains heads as `head_train` does, at the rate that `lr_find_head` finds, on all but
one: such that begin at random, and such that begin with the classifier's answers. It prints, before and after training,
how they do on the fold that is left out, with all images and with `--few` of each class. The weights that are named
must hold their classification layer.
"""

import argparse
import os
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn

from pipeline.bench import Bench
from pipeline.config import compose
from pipeline.journal import Journal
from pipeline.learning.head_learner import on_activations
from pipeline.learning.loop import Learner, train
from pipeline.learning.training import make_plan
from pipeline.model.head import build_head, start_from_classifier
from pipeline.model.tensors import read_tensors
from pipeline.model.weights import load_pretrained
from pipeline.settings import Settings, read_settings
from stages import STAGES
from stages.dag import run_stages

BEGINNINGS = ("random", "classifier")


@dataclass(frozen=True)
class Study:
    """Activations [N, num_features] of train and valid, targets [N], and what heads are made and trained of."""

    inputs: Tensor
    targets: Tensor
    classifier: nn.Linear
    settings: Settings
    lr_folder: Path


def main() -> None:
    """Train the heads, and print a line for each way to begin."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--few", type=int, default=12)
    parser.add_argument("--overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    os.environ["UNFREEZE_TRACKING"] = "false"
    with tempfile.TemporaryDirectory() as folder:
        study = prepare(arguments.overrides, Path(folder))
        for few in (None, arguments.few):
            for beginning in BEGINNINGS:
                scores = cross_validate(study, beginning, folds=arguments.folds, seeds=arguments.seeds, few=few)
                which = "all images" if few is None else f"{few} of each class"
                for when, (accuracy, loss) in scores.items():
                    print(f"{which}, {beginning}, {when}: {accuracy:.4f} right, log loss {loss:.4f}", flush=True)


def prepare(overrides: list[str], root: Path) -> Study:
    """Run the stages up to `lr_find_head`."""
    params = compose(overrides)
    settings = read_settings(params, source="overrides")
    artifacts = run_stages(params, root, only=STAGES[: STAGES.index("lr_find_head") + 1])
    model, image_size = settings.model, settings.data.image_size
    classifier = load_pretrained(model.arch, model.weights, seed=0, image_size=image_size).classifier
    if classifier is None:
        raise SystemExit(f"model.weights={model.weights} holds no classification layer: take other weights")
    parts = [
        read_tensors(artifacts / "precompute" / f"activations-{split}.safetensors") for split in ("train", "valid")
    ]
    inputs, targets = torch.cat([p["activations"][0] for p in parts]), torch.cat([p["targets"] for p in parts])
    return Study(inputs, targets, classifier, settings, artifacts / "lr_find_head")


def cross_validate(
    study: Study, beginning: str, *, folds: int, seeds: int, few: int | None
) -> dict[str, tuple[float, float]]:
    """Accuracy and log loss on images that were left out, before and after training; means over folds and seeds."""
    ends: dict[str, list[tuple[float, float]]] = {"untrained": [], "trained": []}
    for seed in range(seeds):
        cut = StratifiedKFold(folds, shuffle=True, random_state=seed).split(study.targets, study.targets)
        for taken, left_out in cut:
            rows = torch.tensor(taken if few is None else _some(taken, study.targets.numpy(), few))
            learner = _learner(study, beginning, rows, torch.tensor(left_out), seed)
            plan = make_plan(
                study.settings.head_train,
                batch_size=study.settings.data.batch_size,
                num_samples=len(rows),
                found=study.lr_folder,
            )
            with tempfile.TemporaryDirectory() as scratch:
                journal = Journal(Path(scratch) / "journal.jsonl")
                trained = train(learner, plan, Bench("head_train", seed, Path(scratch), Path(scratch), journal, 1e9))
                journal.close()
            for when, end in (("untrained", trained.ends[0]), ("trained", trained.ends[-1])):
                ends[when].append((end.valid_accuracy, end.valid_loss))
    return {
        when: (statistics.fmean(a for a, _ in all_), statistics.fmean(b for _, b in all_))
        for when, all_ in ends.items()
    }


def _some(rows: np.ndarray, targets: np.ndarray, count: int) -> np.ndarray:
    """The first `count` rows of each class."""
    return np.concatenate([rows[targets[rows] == c][:count] for c in np.unique(targets)])


def _learner(study: Study, beginning: str, rows: Tensor, left_out: Tensor, seed: int) -> Learner:
    inputs, targets, settings = study.inputs[rows], study.targets[rows], study.settings
    head = build_head(inputs, int(study.targets.max()) + 1, dropout=settings.model.dropout, seed=seed)
    if beginning == "classifier":
        start_from_classifier(head, study.classifier, inputs, targets)
    splits = {
        split: {"activations": study.inputs[part][None], "targets": study.targets[part]}
        for split, part in (("train", rows), ("valid", left_out))
    }
    return on_activations(head, splits, settings, settings.runtime)


if __name__ == "__main__":
    main()
