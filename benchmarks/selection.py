"""Which state should `full_train` keep? Rules that choose on valid, judged on images that none of them has seen.

`python -m benchmarks.selection --raw FOLDER [--splits 10] [--sets digits letters tiles] [--folders NAME=PATH ...]
[--overrides ...]` runs the recipe up to `full_train` once per set and split, and writes the logits of every candidate
on valid and on test into FOLDER. What is there already is not run again. Then it prints, for each set and rule, the
change of log loss on test against the state before `full_train`, with its 95 % interval over splits, and the accuracy.

Candidates are the state before the first step, the end of each cycle, and the mean of the weights of the former and of
each of the latter. Sets: a fifth of the digits, rendered letters, tiles of two photos, and folders of your own.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import t as student
from torch import Tensor

from benchmarks.image_folders import SETTINGS, write_letters, write_photo_tiles
from pipeline.data.augment import read_policy
from pipeline.data.images import open_images_of
from pipeline.data.manifest import read_manifest
from pipeline.files import atomic_file, read_json
from pipeline.harness.compose import compose
from pipeline.harness.dag import run_stages
from pipeline.learning.snapshots import mean_state
from pipeline.learning.sources import in_order
from pipeline.model.card import load_card
from pipeline.model.classifier import Classifier, assemble, load_classifier
from pipeline.model.compute import Computation, predict
from pipeline.model.tensors import read_tensors
from pipeline.settings import Settings, read_settings
from stages import STAGES
from stages.registry import ALL

Logits = dict[str, Tensor]
"""Of `valid` and `test`, [N, num_classes] each."""


@dataclass(frozen=True)
class Run:
    """All candidates of one run, on the images of valid and test."""

    targets: Logits
    """[N] each."""
    head_train: Logits
    before: Logits
    ends: list[Logits]
    """At the end of each cycle."""
    halves: list[Logits]
    """Of the mean of the weights before and at the end of each cycle."""
    kept: list[int]
    """The cycles that the run itself kept, by `snapshots=cautious`; 0 is the state before."""


def main() -> None:
    """Run what has not been run yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--sets", nargs="*", default=["digits", "letters", "tiles"])
    parser.add_argument("--folders", nargs="*", default=[], metavar="NAME=PATH")
    parser.add_argument("--overrides", nargs="*", default=[], help="for the folders")
    arguments = parser.parse_args()
    os.environ["UNFREEZE_TRACKING"] = "false"
    arguments.raw.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        sets = {name: own for name, own in own_sets(Path(scratch)).items() if name in arguments.sets}
        for folder in arguments.folders:
            name, _, path = folder.partition("=")
            sets[name] = ["data=folder", f"data.root={Path(path).resolve()}", *arguments.overrides]
        for name, overrides in sets.items():
            runs = [collect(name, overrides, seed, arguments.raw) for seed in range(arguments.splits)]
            print("\n".join(describe(name, runs)), flush=True)


def own_sets(root: Path) -> dict[str, list[str]]:
    """The sets that need no download."""
    write_letters(root / "letters")
    write_photo_tiles(root / "tiles")
    return {
        "digits": ["data.train_fraction=0.2"],
        "letters": [*SETTINGS, f"data.root={root / 'letters'}"],
        "tiles": [*SETTINGS, f"data.root={root / 'tiles'}", "data.train_fraction=0.2"],
    }


def collect(name: str, overrides: Sequence[str], seed: int, raw: Path) -> Run:
    """The candidates of one run, from a file in `raw` if there is one."""
    file = raw / f"{name}-{seed}.pt"
    if not file.exists():
        with tempfile.TemporaryDirectory() as folder:
            params = compose([*overrides, f"seed={seed}", "full_train.snapshots=cautious"])
            artifacts = run_stages(ALL, params, Path(folder), only=STAGES[: STAGES.index("full_train") + 1])
            run = measure(artifacts, read_settings(params, source=name))
        with atomic_file(file) as out:
            torch.save(vars(run), out)
    return Run(**torch.load(file, weights_only=True))


def measure(artifacts: Path, settings: Settings) -> Run:
    """The logits of every candidate of a finished run."""
    full_train, manifest = artifacts / "full_train", read_manifest(artifacts / "ingest")
    card, micro = load_card(full_train), settings.data.micro_batch_size
    framing = read_policy(artifacts / "augment_config" / "policy.yaml", image_size=card.image_size).framing
    sources = {
        split: open_images_of(
            manifest, manifest.of(split), framing, normalisation=card.normalisation, workers=settings.runtime.workers
        )
        for split in ("valid", "test")
    }

    def logits(model: Classifier) -> Logits:
        made = Computation(model, torch.device("cpu"), card.precision, micro)
        return {split: predict(made, in_order(source, micro))[0] for split, source in sources.items()}

    model, _ = load_classifier(artifacts / "unfreeze")
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = logits(assemble(artifacts / "precompute", artifacts / "head_train"))
    ends, halves = list[Logits](), list[Logits]()
    for file in sorted((full_train / "snapshots").glob("*.safetensors")):
        end = read_tensors(file)
        for states, found in (([end], ends), ([end, start], halves)):
            model.load_state_dict(mean_state(states))
            found.append(logits(model))
    model.load_state_dict(start)
    targets = {split: source.targets for split, source in sources.items()}
    kept = read_json(full_train / "cycles.json")["kept"]["cycles"]
    return Run(targets, first, logits(model), ends, halves, kept)


def losses(run: Run, logits: Logits, split: str) -> NDArray[np.float64]:
    """Of each image."""
    found: NDArray[np.float64] = F.cross_entropy(logits[split].double(), run.targets[split], reduction="none").numpy()
    return found


def best(run: Run) -> int | None:
    """The index of the cycle that ends best on valid; None for the state before."""
    found = [losses(run, end, "valid").mean() for end in run.ends]
    return int(np.argmin(found)) if min(found) < losses(run, run.before, "valid").mean() else None


def take_best(run: Run) -> Logits:
    """What `snapshots=best` keeps."""
    cycle = best(run)
    return run.before if cycle is None else run.ends[cycle]


def take_half(run: Run) -> Logits:
    """The mean of the best and the state before, always."""
    cycle = best(run)
    return run.before if cycle is None else run.halves[cycle]


def take_cautiously(run: Run) -> Logits:
    """What `snapshots=cautious` kept."""
    cycle, *others = run.kept
    if cycle == 0:
        return run.before
    return run.halves[cycle - 1] if others else run.ends[cycle - 1]


RULES: dict[str, Callable[[Run], Logits]] = {
    "last": lambda run: run.ends[-1],
    "best": take_best,
    "half": take_half,
    "cautious": take_cautiously,
}


def describe(name: str, runs: Sequence[Run]) -> list[str]:
    """A line per rule: the change of log loss on test over the splits, with its interval, and the accuracy."""
    before = np.array([losses(run, run.before, "test").mean() for run in runs])
    head = np.array([losses(run, run.head_train, "test").mean() for run in runs])
    lines = [f"{name}: log loss on test {head.mean():.4f} after head_train, {before.mean():.4f} before full_train"]
    for rule, take in RULES.items():
        kept = [take(run) for run in runs]
        changes = np.array([losses(run, k, "test").mean() for run, k in zip(runs, kept, strict=True)]) - before
        width = student.ppf(0.975, max(1, len(runs) - 1)) * changes.std(ddof=1) / np.sqrt(len(runs))
        hits = [(k["test"].argmax(1) == run.targets["test"]).double().mean() for run, k in zip(runs, kept, strict=True)]
        low, high = changes.mean() - width, changes.mean() + width
        lines.append(f"  {rule:<9} {changes.mean():+.4f} ({low:+.4f} to {high:+.4f}), accuracy {np.mean(hits):.4f}")
    return lines


if __name__ == "__main__":
    main()
