"""Small images first, then larger ones, against large ones only: accuracy at equal time.

`python -m benchmarks.growing_sizes [--sizes 16 24 32] [--epochs 1 2] [--seeds 3] [--overrides ...]` runs the pipeline
up to `lr_find_full`, at the smallest size and at the largest (with `--head-at-largest` there alone), on the digits or
on what the overrides name (`data=folder data.root=photos augment=side_on model=imagenet model.arch=mobilenet_v2`, with
`--sizes 128 160 224`). Then it trains the whole model, at the rate found, for a cycle per size, each of so many epochs:
with sizes that grow from the smallest, and with the largest only. Each row is a mean over seeds of the scores on valid,
always at the largest size. Seconds are those of the stages from `precompute` on, and those of training.

Large only is shown after every cycle; all cycles are alike, so their seconds are shares of the total. The row of about
the same time is marked.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from pipeline.files import read_json
from pipeline.harness.compose import compose
from pipeline.harness.dag import run_stages
from pipeline.journal import Journal
from pipeline.learning.batch_size import count_batch, epoch_sizes
from pipeline.learning.checkpoint import CycleEnd
from pipeline.learning.image_learners import open_images, whole_model
from pipeline.learning.loop import fit
from pipeline.learning.training import plan_at
from pipeline.model.card import load_card
from pipeline.settings import Settings, read_settings, with_environment
from pipeline.workspace import Workspace
from stages import STAGES
from stages.registry import ALL

LATER = ("full_train", "tta_evaluate")
FREE = ("ingest", "augment_config")
"""Stages whose time does not depend on the size."""


@dataclass(frozen=True)
class Prepared:
    """The pipeline up to `lr_find_full`, and the seconds that it took."""

    artifacts: Path
    settings: Settings
    seconds: float


@dataclass(frozen=True)
class Training:
    """One training: its seconds, and the state before the first step and after each cycle."""

    seconds: float
    ends: list[CycleEnd]


def main() -> None:
    """Train each schedule, and print a row for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 24, 32])
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--head-at-largest", action="store_true", help="both heads trained at the largest size")
    parser.add_argument("--overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    os.environ["UNFREEZE_TRACKING"] = "false"
    growing = tuple(arguments.sizes)
    largest = growing[-1:] * len(growing)
    with tempfile.TemporaryDirectory() as folder:
        large = prepare(Path(folder), arguments.overrides, growing[-1])
        small = large if arguments.head_at_largest else prepare(Path(folder), arguments.overrides, growing[0])
        print("| sizes | epochs of each | seconds before | training | accuracy | log loss |\n|---|---|---|---|---|---|")
        for epochs in arguments.epochs:
            grown = [train(small, growing, epochs, seed) for seed in range(arguments.seeds)]
            seconds = fmean(f.seconds for f in grown)
            _say([small.settings.data.image_size], epochs, small, 0.0, grown, 0)
            _say(growing, epochs, small, seconds, grown, len(growing))
            only = [train(large, largest, epochs, seed) for seed in range(arguments.seeds)]
            per_cycle = fmean(f.seconds for f in only) / len(largest)
            alike = round((small.seconds + seconds - large.seconds) / per_cycle)
            for cycle in range(len(largest) + 1):
                like = cycle == min(max(alike, 0), len(largest))
                _say(largest[: max(1, cycle)], epochs, large, cycle * per_cycle, only, cycle, like=like)


def prepare(folder: Path, overrides: Sequence[str], size: int) -> Prepared:
    """Run the stages before `full_train` on images of `size`."""
    params = compose([*overrides, f"data.image_size={size}"])
    run_stages(ALL, params, folder / str(size), only=FREE)
    started = time.perf_counter()
    artifacts = run_stages(ALL, params, folder / str(size), only=set(STAGES) - {*FREE, *LATER})
    return Prepared(artifacts, read_settings(params, source="benchmark"), time.perf_counter() - started)


def train(prepared: Prepared, sizes: tuple[int, ...], epochs: int, seed: int) -> Training:
    """Train the unfrozen model for `epochs` at each of `sizes`."""
    artifacts, settings = prepared.artifacts, replace(prepared.settings, seed=seed)
    runtime = with_environment(settings.runtime)
    wanted = replace(
        settings.full_train, image_size=sizes, num_cycles=len(sizes), cycle_len=epochs, cycle_mult=1, schedule="sgdr"
    )
    images = open_images(
        artifacts / "ingest",
        artifacts / "augment_config",
        runtime,
        image_sizes=epoch_sizes(wanted, sizes[-1]),
        normalisation=load_card(artifacts / "unfreeze").normalisation,
        seed=(settings.seed, "full_train"),
    )
    learner = whole_model(artifacts / "unfreeze", images, runtime, micro_batch_size=settings.data.micro_batch_size)
    batch_size = count_batch(wanted.batch_size, settings.data.batch_size, learner.train.num_samples)
    plan = plan_at(read_json(artifacts / "lr_find_full" / "lr.json")["lr"], wanted, batch_size=batch_size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workspace = Workspace("full_train", settings.seed, folder, folder, Journal(folder / "journal.jsonl"), 1e9)
        started = time.perf_counter()
        ends = fit(learner, plan, workspace).ends
        seconds = time.perf_counter() - started
        workspace.journal.close()
    return Training(seconds, ends)


def _say(
    sizes: Sequence[int],
    epochs: int,
    prepared: Prepared,
    seconds: float,
    fits: Sequence[Training],
    cycle: int,
    *,
    like: bool = False,
) -> None:
    """Print a row: the state after `cycle`; 0 is before any layer but the head was trained."""
    ends = [f.ends[cycle] for f in fits]
    name = ", ".join(map(str, sizes)) + ("" if cycle else ", the head alone") + (" (same time)" if like else "")
    print(
        f"| {name} | {epochs} | {prepared.seconds:.1f} | {seconds:.1f} "
        f"| {fmean(e.valid_accuracy for e in ends):.4f} | {fmean(e.valid_loss for e in ends):.4f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
