"""How far is a head from what a tuned logistic regression reaches on the same activations?

`python -m benchmarks.head_solver [--splits 10] [--folders FOLDER ...] [--overrides ...]` pools the activations of train
and valid, and splits them at random: a fifth is left out, a fifth is valid, the rest is for training. Heads are trained
by SGD (two epochs, and thirty, at the finder's rate) and by L-BFGS, and compared on what was left out with
scikit-learn's logistic regression, whose C has the best log loss on valid. Without `--folders`, the project's own sets
are used.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from benchmarks.head_init import Study, build_learner, prepare, some_of_each
from benchmarks.image_folders import SETTINGS, write_letters, write_photo_tiles
from pipeline.harness.compose import compose
from pipeline.journal import Journal
from pipeline.learning.head_path import train_to_minimum
from pipeline.learning.loop import Learner
from pipeline.learning.sources import TensorBatches, in_order
from pipeline.learning.training import make_plan, run_training
from pipeline.model.compute import evaluate
from pipeline.settings import HeadTraining, read_settings
from pipeline.workspace import Workspace

GRID = tuple(1e-5 * 3**k for k in range(15))
FEW = 11
"""Of each digit, in the set of few: about a tenth."""

Rows = tuple[Tensor, Tensor, Tensor]
"""For training, valid, and left out."""
Scores = dict[str, tuple[float, float, float]]
"""Log loss, accuracy and seconds of each way to make a head."""


@dataclass(frozen=True)
class Subject:
    """A set of images and what to do with it."""

    name: str
    overrides: tuple[str, ...]
    few: int | None = None
    """Images per class for training; None for all."""


def main() -> None:
    """Compare on each set, and print a row of a table for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--folders", type=Path, nargs="*", default=[])
    parser.add_argument("--overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    os.environ["UNFREEZE_TRACKING"] = "false"
    with tempfile.TemporaryDirectory() as folder:
        subjects = [
            Subject(path.name, ("data=folder", f"data.root={path.resolve()}", *arguments.overrides))
            for path in arguments.folders
        ] or own_sets(Path(folder), arguments.overrides)
        for number, subject in enumerate(subjects):
            study = prepare(list(subject.overrides), Path(folder) / str(number))
            found = [compare(study, seed, few=subject.few) for seed in range(arguments.splits)]
            for line in describe(subject.name, found):
                print(line, flush=True)


def own_sets(root: Path, overrides: Iterable[str]) -> list[Subject]:
    """The digits, a tenth of them, rendered letters, and tiles of two photos."""
    write_letters(root / "letters")
    write_photo_tiles(root / "tiles")
    folders = [Subject(name, (*SETTINGS, f"data.root={root / name}", *overrides)) for name in ("letters", "tiles")]
    return [Subject("digits", tuple(overrides)), Subject("few digits", tuple(overrides), FEW), *folders]


def compare(study: Study, seed: int, *, few: int | None = None) -> Scores:
    """Scores on the images that are left out of one random split."""
    targets = study.targets.numpy()
    rest, left_out = train_test_split(np.arange(len(targets)), test_size=0.2, stratify=targets, random_state=seed)
    train, valid = train_test_split(rest, test_size=0.25, stratify=targets[rest], random_state=seed)
    if few is not None:
        train = some_of_each(train, targets, few)
    rows = (torch.tensor(train), torch.tensor(valid), torch.tensor(left_out))
    sgd = study.settings.head_train
    ways: dict[str, Callable[[], tuple[float, float]]] = {
        "logistic regression": lambda: regress(study, rows),
        "SGD, 2 epochs": lambda: by_sgd(study, rows, seed, sgd),
        "SGD, 30 epochs": lambda: by_sgd(study, rows, seed, replace(sgd, num_cycles=30)),
        "L-BFGS": lambda: by_solver(study, rows, seed),
    }
    scores = {}
    for name, train_head in ways.items():
        began = time.perf_counter()
        loss, accuracy = train_head()
        scores[name] = (loss, accuracy, time.perf_counter() - began)
    return scores


def regress(study: Study, rows: Rows) -> tuple[float, float]:
    """Logistic regression on standardised activations; C is chosen on valid."""
    scale = StandardScaler().fit(study.inputs[rows[0]].double().numpy())
    inputs = [scale.transform(study.inputs[part].double().numpy()) for part in rows]
    targets = [study.targets[part].numpy() for part in rows]
    models = [LogisticRegression(C=c, max_iter=2000, tol=1e-5).fit(inputs[0], targets[0]) for c in GRID]
    best = min(models, key=lambda m: float(log_loss(targets[1], m.predict_proba(inputs[1]), labels=m.classes_)))
    loss = log_loss(targets[2], best.predict_proba(inputs[2]), labels=best.classes_)
    return float(loss), float(best.score(inputs[2], targets[2]))


def by_sgd(study: Study, rows: Rows, seed: int, settings: HeadTraining) -> tuple[float, float]:
    """The recipe's cycles of one epoch, at the finder's rate."""

    def train(learner: Learner, workspace: Workspace) -> None:
        plan = make_plan(
            settings,
            batch_size=study.settings.data.batch_size,
            num_samples=learner.train.num_samples,
            lr_folder=study.lr_folder,
        )
        run_training(learner, plan, workspace, snapshots=settings.snapshots)

    return _score(study, rows, seed, train)


def by_solver(study: Study, rows: Rows, seed: int) -> tuple[float, float]:
    """The default of `head_train`."""
    settings = read_settings(compose([]), source="conf").head_train
    return _score(study, rows, seed, lambda m, w: train_to_minimum(m, settings, w, class_weights=None))


def _score(study: Study, rows: Rows, seed: int, train: Callable[[Learner, Workspace], object]) -> tuple[float, float]:
    learner = build_learner(study, "classifier" if study.classifier else "random", rows[0], rows[1], seed)
    unseen = TensorBatches(study.inputs[rows[2]], study.targets[rows[2]])
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.jsonl")
        train(learner, Workspace("head_train", seed, Path(folder), Path(folder), journal, 1e9))
        journal.close()
    return evaluate(learner, in_order(unseen, learner.micro_batch_size))


def describe(name: str, found: list[Scores]) -> Iterable[str]:
    """For each way: means, and the difference in log loss to logistic regression with a 95 % interval over splits."""
    for way in found[0]:
        loss, accuracy, seconds = (statistics.fmean(s[way][i] for s in found) for i in range(3))
        gaps = [s[way][0] - s["logistic regression"][0] for s in found]
        error = 1.96 * statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else float("nan")
        yield (
            f"{name}, {way}: log loss {loss:.4f} (difference {statistics.fmean(gaps):+.4f} +- {error:.4f}), "
            f"accuracy {accuracy:.4f}, {seconds:.2f} s"
        )


if __name__ == "__main__":
    main()
