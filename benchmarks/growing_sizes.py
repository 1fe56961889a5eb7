"""Small images first, then larger ones, against large ones only: accuracy at equal time.

`python -m benchmarks.growing_sizes [--sizes 16 24 32] [--epochs 1 2] [--seeds 3] [--overrides ...]` runs the pipeline
up to `lr_find_full` at the largest size, on the digits or on what the overrides name (`data=folder data.root=photos
augment=side_on model=imagenet model.arch=mobilenet_v2 --sizes 128 160 224`). Then it trains the whole model, at the
rate found, for a cycle per size, each of so many epochs: with sizes that grow, and with the largest only. Each row is a
mean over seeds of the scores on valid, always seen at the largest size, and of the seconds of training.

Large only is shown after every cycle: all are alike, so the seconds are their share. The row of like time is marked.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from pipeline.bench import Bench
from pipeline.config import compose
from pipeline.files import read_json
from pipeline.journal import Journal
from pipeline.learning.checkpoint import CycleEnd
from pipeline.learning.learners import open_images, whole_model
from pipeline.learning.loop import train
from pipeline.learning.training import count_batch, epoch_sizes, plan_at
from pipeline.settings import Settings, read_settings, with_environment
from pipeline.stage import Places, execute
from stages.config import write_fingerprints
from stages.dag import load_stages

LATER = ("full_train", "tta_evaluate")


@dataclass(frozen=True)
class Fit:
    """One training: its seconds, and the state before the first step and after each cycle."""

    seconds: float
    ends: list[CycleEnd]


def main() -> None:
    """Train each schedule, and print a row for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 24, 32])
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    os.environ["UNFREEZE_TRACKING"] = "false"
    growing, largest = tuple(arguments.sizes), (arguments.sizes[-1],) * len(arguments.sizes)
    params = compose([*arguments.overrides, f"data.image_size={largest[-1]}"])
    settings = read_settings(params, source="benchmark")
    with tempfile.TemporaryDirectory() as folder:
        artifacts = Path(folder) / "artifacts"
        run_until_rates(params, settings, artifacts)
        print("| sizes | epochs of each | seconds | accuracy | log loss |\n|---|---|---|---|---|")
        for epochs in arguments.epochs:
            grown, large = (
                [fit(artifacts, replace(settings, seed=seed), sizes, epochs) for seed in range(arguments.seeds)]
                for sizes in (growing, largest)
            )
            seconds, per_cycle = fmean(f.seconds for f in grown), fmean(f.seconds for f in large) / len(largest)
            print(f"| before | | 0 | {_scores(grown, 0)} |")
            print(f"| {_sizes(growing)} | {epochs} | {seconds:.1f} | {_scores(grown, -1)} |")
            equal = max(1, min(len(largest), round(seconds / per_cycle)))
            for cycle in range(1, len(largest) + 1):
                name = _sizes(largest[:cycle]) + (" (like time)" if cycle == equal else "")
                print(f"| {name} | {epochs} | {cycle * per_cycle:.1f} | {_scores(large, cycle)} |", flush=True)


def run_until_rates(params: dict[str, object], settings: Settings, artifacts: Path) -> None:
    """Run the stages before `full_train`."""
    runtime = with_environment(settings.runtime)
    write_fingerprints(settings, artifacts / "config")
    for stage in [s for s in load_stages() if s.name not in LATER]:
        folders = {n.partition("/")[0]: artifacts / n.partition("/")[0] for n in stage.inputs}
        execute(stage, params, runtime, Places(folders, artifacts / stage.name, artifacts.parent / ".unfreeze"))


def fit(artifacts: Path, settings: Settings, sizes: tuple[int, ...], epochs: int) -> Fit:
    """Train the unfrozen model for `epochs` at each of `sizes`."""
    runtime = with_environment(settings.runtime)
    wanted = replace(
        settings.full_train, image_size=sizes, num_cycles=len(sizes), cycle_len=epochs, cycle_mult=1, schedule="sgdr"
    )
    images = open_images(
        artifacts / "ingest",
        artifacts / "augment_config",
        runtime,
        image_sizes=epoch_sizes(wanted, sizes[-1]),
        seed=(settings.seed, "full_train"),
    )
    learner = whole_model(artifacts / "unfreeze", images, runtime, micro_batch_size=settings.data.micro_batch_size)
    batch_size = count_batch(wanted.batch_size, settings.data.batch_size, learner.train.num_samples)
    plan = plan_at(read_json(artifacts / "lr_find_full" / "lr.json")["lr"], wanted, batch_size=batch_size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = Bench("full_train", settings.seed, folder, folder, Journal(folder / "journal.jsonl"), 1e9)
        started = time.perf_counter()
        ends = train(learner, plan, bench).ends
        seconds = time.perf_counter() - started
        bench.journal.close()
    return Fit(seconds, ends)


def _scores(fits: Sequence[Fit], cycle: int) -> str:
    ends = [f.ends[cycle] for f in fits]
    return f"{fmean(e.valid_accuracy for e in ends):.4f} | {fmean(e.valid_loss for e in ends):.4f}"


def _sizes(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))


if __name__ == "__main__":
    main()
