"""Is the finder's choice good? Heads trained at its rate, at other rules' rates, and over a grid around it.

`python -m benchmarks.lr_regret [--photos FOLDER] [--overrides ...] [--seeds 5] [--spread-seeds 12]`

Data: the digits; letters drawn by pretraining's renderer, 26 classes; and, with `--photos`, a folder of one's own. For
each, and for batches of 4, 16 and 64, the table shows per rule:
- the rate: the median over the spread's seeds, and its spread, largest over smallest;
- the regret: accuracy on valid lost against the best of the grid (1/30 to 30 times the rate of `recipe`), as means
  over seeds, each rule at the rate that it found with that seed; and the same for the validation loss.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.image_folders import write_letters
from pipeline.bench import Bench
from pipeline.config import compose
from pipeline.journal import Journal
from pipeline.learning.head_learner import head_on_activations
from pipeline.learning.loop import train
from pipeline.learning.lr_find import LrFound, find_lr
from pipeline.learning.lr_rules import RULES
from pipeline.learning.training import plan_at
from pipeline.settings import Runtime, Settings, read_settings, with_environment
from pipeline.stage import Places, execute
from stages.config import write_fingerprints
from stages.dag import load_stages

GRID = (1 / 30, 1 / 10, 1 / 3, 1.0, 3.0, 10.0, 30.0)
BATCH_SIZES = (4, 16, 64)


@dataclass(frozen=True)
class Activations:
    """A data set after `precompute`."""

    name: str
    precompute: Path
    settings: Settings
    runtime: Runtime


def main() -> None:
    """Print a table per data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--overrides", nargs="*", default=[], help="for the photos: model.arch=..., model.weights=...")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--spread-seeds", type=int, default=12)
    arguments = parser.parse_args()
    os.environ["UNFREEZE_TRACKING"] = "false"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_letters(root / "drawn")
        sources = {
            "digits": ["data=digits"],
            "letters": ["data=folder", f"data.root={root / 'drawn'}", "data.image_size=32"],
        }
        if arguments.photos:
            sources["photos"] = ["data=folder", f"data.root={arguments.photos.resolve()}", *arguments.overrides]
        for name, overrides in sources.items():
            data = precompute(name, overrides, root / name)
            for batch_size in BATCH_SIZES:
                study(data, batch_size, seeds=arguments.seeds, spread_seeds=arguments.spread_seeds)


def study(data: Activations, batch_size: int, *, seeds: int, spread_seeds: int) -> None:
    """Print one table."""
    found = [find(data, batch_size, seed) for seed in range(max(seeds, spread_seeds))]
    centre = statistics.median(f.others["recipe"] for f in found)
    grid = [[fit(data, batch_size, centre * factor, seed) for seed in range(seeds)] for factor in GRID]
    means = [_means(row) for row in grid]
    best_accuracy, best_loss = max(m[0] for m in means), min(m[1] for m in means)
    print(f"\n{data.name}, batch {batch_size}: best of the grid {best_accuracy:.4f}, loss {best_loss:.4f}")
    print("  grid    " + "  ".join(f"x{f:.2g}: {m[0]:.4f} ({m[1]:.3f})" for f, m in zip(GRID, means, strict=True)))
    for rule in RULES:
        rates = [f.others[rule] for f in found]
        accuracy, loss = _means([fit(data, batch_size, rates[seed], seed) for seed in range(seeds)])
        spread = max(rates[:spread_seeds]) / min(rates[:spread_seeds])
        print(
            f"  {rule:<8} rate {statistics.median(rates):.3g}, spread x{spread:.1f}; "
            f"regret {best_accuracy - accuracy:+.4f}, in loss {loss - best_loss:+.4f}",
            flush=True,
        )


def find(data: Activations, batch_size: int, seed: int) -> LrFound:
    """What the finder says with this seed."""
    settings = replace(data.settings, seed=seed)
    learner = head_on_activations(data.precompute, settings, data.runtime)
    with tempfile.TemporaryDirectory() as folder:
        bench = _bench("lr_find_head", seed, Path(folder))
        try:
            momentum = settings.head_train.momentum
            found, _ = find_lr(
                learner, settings.lr_find_head, bench, batch_size=batch_size, momentum=momentum, sparing=False
            )
        finally:
            bench.journal.close()
    return found


def fit(data: Activations, batch_size: int, lr: float, seed: int) -> tuple[float, float]:
    """Accuracy and loss on valid of the last cycle of a head trained at `lr`; a diverged one knows nothing."""
    settings = replace(data.settings, seed=seed)
    learner = head_on_activations(data.precompute, settings, data.runtime)
    plan = plan_at(lr, settings.head_train, batch_size=batch_size)
    with tempfile.TemporaryDirectory() as folder:
        bench = _bench("head_train", seed, Path(folder))
        try:
            last = train(learner, plan, bench).ends[-1]
        except ValueError:
            return 0.0, float("inf")
        finally:
            bench.journal.close()
    return last.valid_accuracy, last.valid_loss


def precompute(name: str, overrides: Sequence[str], root: Path) -> Activations:
    """Run the stages up to `precompute`."""
    params = compose([*overrides, "runtime.threads=1"])
    settings, artifacts = read_settings(params, source=name), root / "artifacts"
    runtime = with_environment(settings.runtime)
    write_fingerprints(settings, artifacts / "config")
    for stage in [s for s in load_stages() if s.name in ("ingest", "augment_config", "precompute")]:
        folders = {n.partition("/")[0]: artifacts / n.partition("/")[0] for n in stage.inputs}
        execute(stage, params, runtime, Places(folders, artifacts / stage.name, root / ".unfreeze"))
    return Activations(name, artifacts / "precompute", settings, runtime)


def _means(rows: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return statistics.fmean(r[0] for r in rows), statistics.fmean(r[1] for r in rows)


def _bench(name: str, seed: int, folder: Path) -> Bench:
    return Bench(name, seed, folder, folder, Journal(folder / "journal.jsonl"), 1e9)


if __name__ == "__main__":
    main()
