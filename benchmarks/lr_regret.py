"""Are the finders' choices good? Training at their rate, at other rules' rates, and over a grid around it.

`python -m benchmarks.lr_regret [--photos FOLDER] [--overrides ...] [--seeds 5] [--spread-seeds 12]` studies
`lr_find_head` and the training of heads that begin with random weights; with `--full` it studies `lr_find_full` and one
cycle of `full_train`, two epochs long. The latter is costly at a batch of 4, where a step takes as long as at 64: there
a fifth of the digits is used.

Data: the digits; 26 classes of letters, drawn by pretraining's renderer; and, with `--photos`, a folder of your own
(`--only` chooses among them). For each, and for batches of 4, 16 and 64, it prints how training at 1/30 to 30 times the
rate of `recipe` (the median over the spread's seeds) ends on valid, and per rule:
- the rate (median) and its spread, largest over smallest;
- the regret: accuracy lost against the best of the grid, as means over seeds, each rule at the rate that it found with
  that seed; and the same for the validation loss.
It ends with two tables over all of them.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.image_folders import write_letters
from pipeline.harness.compose import compose
from pipeline.harness.dag import run_stages
from pipeline.journal import Journal
from pipeline.learning.activation_learners import random_head_on_activations
from pipeline.learning.image_learners import open_images, whole_model
from pipeline.learning.loop import Learner, fit
from pipeline.learning.lr_find import LrChoice, find_lr
from pipeline.learning.lr_rules import RULES
from pipeline.learning.training import plan_at
from pipeline.model.card import load_card
from pipeline.settings import HeadTraining, LrFind, Runtime, Settings, Training, read_settings, with_environment
from pipeline.workspace import Workspace
from stages import STAGES
from stages.lr_find_full import EPOCHS
from stages.registry import ALL

GRID = (1 / 30, 1 / 10, 1 / 3, 1.0, 3.0, 10.0, 30.0)
GRID_NAMES = ("1/30", "1/10", "1/3", "1", "3", "10", "30")
BATCH_SIZES = (4, 16, 64)


@dataclass(frozen=True)
class Data:
    """A data set, after the stages that come before the finder that is studied."""

    name: str
    artifacts: Path
    settings: Settings
    runtime: Runtime


@dataclass(frozen=True)
class Subject:
    """A finder, and the training that takes its rate."""

    finder: str
    """The stage's name, as `trainer`."""
    trainer: str
    find: Callable[[Settings], LrFind]
    train: Callable[[Settings], Training | HeadTraining]
    learner: Callable[[Data, Settings, str], Learner]
    """Of the settings, which hold the seed, and the stage's name."""
    epochs: float | None
    """What the sweeps may cost, in epochs; None for as much as the settings say."""


@dataclass(frozen=True)
class Row:
    """One data set at one batch size."""

    data: str
    batch_size: int
    centre: float
    grid: list[tuple[float, float]]
    """Accuracy and loss on valid, means over seeds, for each of GRID."""
    rules: dict[str, "Answers"]


@dataclass(frozen=True)
class Answers:
    """The rates that a rule gives, and the regret of training at them."""

    lr: float
    spread: float
    regret: float
    loss_regret: float


def main() -> None:
    """Study each data set at each batch size, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--overrides", nargs="*", default=[], help="for the photos: model.arch=..., model.weights=...")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--spread-seeds", type=int, default=12)
    parser.add_argument("--full", action="store_true", help="the whole model's finder instead of the head's")
    parser.add_argument("--only", nargs="+", choices=("digits", "letters", "photos"))
    arguments = parser.parse_args()
    os.environ["UNFREEZE_TRACKING"] = "false"
    subject = WHOLE if arguments.full else HEAD
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_letters(root / "drawn")
        sources = {
            "digits": ["data=digits", *(["data.train_fraction=0.2"] if arguments.full else [])],
            "letters": ["data=folder", f"data.root={root / 'drawn'}", "data.image_size=32", "data.margin=0"],
        }
        if arguments.photos:
            sources["photos"] = ["data=folder", f"data.root={arguments.photos.resolve()}", *arguments.overrides]
        for name in arguments.only or sources:
            data = prepare(name, sources[name], root / name, full=arguments.full)
            for batch_size in BATCH_SIZES:
                row = study(subject, data, batch_size, seeds=arguments.seeds, spread_seeds=arguments.spread_seeds)
                _say(row)
                rows.append(row)
    print(f"\n{_grid_table(rows)}\n\n{_rule_table(rows)}")


def study(subject: Subject, data: Data, batch_size: int, *, seeds: int, spread_seeds: int) -> Row:
    """Train over the grid, and at every rule's rates."""
    found = [find(subject, data, batch_size, seed) for seed in range(max(seeds, spread_seeds))]
    centre = statistics.median(f.others["recipe"] for f in found)
    grid = [_means([train(subject, data, batch_size, centre * f, seed) for seed in range(seeds)]) for f in GRID]
    best_accuracy, best_loss = max(m[0] for m in grid), min(m[1] for m in grid)
    rules = {}
    for rule in RULES:
        rates = [f.others[rule] for f in found]
        accuracy, loss = _means([train(subject, data, batch_size, rates[seed], seed) for seed in range(seeds)])
        spread = max(rates[:spread_seeds]) / min(rates[:spread_seeds])
        rules[rule] = Answers(statistics.median(rates), spread, best_accuracy - accuracy, loss - best_loss)
    return Row(data.name, batch_size, centre, grid, rules)


def find(subject: Subject, data: Data, batch_size: int, seed: int) -> LrChoice:
    """The finder's choice with this seed."""
    settings = replace(data.settings, seed=seed)
    learner = subject.learner(data, settings, subject.finder)
    with tempfile.TemporaryDirectory() as folder:
        workspace = _open_workspace(subject.finder, seed, Path(folder))
        try:
            momentum = subject.train(settings).momentum
            found, _ = find_lr(
                learner,
                subject.find(settings),
                workspace,
                batch_size=batch_size,
                momentum=momentum,
                safe_lr=1e-3,
                budget=None if subject.epochs is None else round(subject.epochs * learner.train.num_samples),
            )
        finally:
            workspace.journal.close()
    return found


def train(subject: Subject, data: Data, batch_size: int, lr: float, seed: int) -> tuple[float, float]:
    """Accuracy and loss on valid after the last cycle of a training at `lr`; a diverged model knows nothing."""
    settings = replace(data.settings, seed=seed)
    learner = subject.learner(data, settings, subject.trainer)
    plan = plan_at(lr, subject.train(settings), batch_size=batch_size)
    with tempfile.TemporaryDirectory() as folder:
        workspace = _open_workspace(subject.trainer, seed, Path(folder))
        try:
            last = fit(learner, plan, workspace).ends[-1]
        except ValueError:
            return 0.0, float("inf")
        finally:
            workspace.journal.close()
    return last.valid_accuracy, last.valid_loss


def _fresh_head(data: Data, settings: Settings, stage: str) -> Learner:
    del stage
    return random_head_on_activations(
        data.artifacts / "precompute",
        data.runtime,
        seed=settings.seed,
        micro_batch_size=settings.data.micro_batch_size,
    )


def _unfrozen_model(data: Data, settings: Settings, stage: str) -> Learner:
    """The model of `unfreeze`, the same for all seeds; batches and views follow the seed."""
    ingest, augment_config = data.artifacts / "ingest", data.artifacts / "augment_config"
    sizes, micro = [settings.data.image_size], settings.data.micro_batch_size
    unfreeze = data.artifacts / "unfreeze"
    images = open_images(
        ingest,
        augment_config,
        data.runtime,
        image_sizes=sizes,
        normalisation=load_card(unfreeze).normalisation,
        seed=(settings.seed, stage),
    )
    return whole_model(unfreeze, images, data.runtime, micro_batch_size=micro)


HEAD = Subject(
    "lr_find_head",
    "head_train",
    lambda s: s.lr_find_head,
    lambda s: s.head_train,
    _fresh_head,
    epochs=None,
)
WHOLE = Subject(
    "lr_find_full",
    "full_train",
    lambda s: s.lr_find_full,
    lambda s: replace(s.full_train, num_cycles=1, cycle_len=2),
    _unfrozen_model,
    epochs=EPOCHS,
)


def prepare(name: str, overrides: Sequence[str], root: Path, *, full: bool) -> Data:
    """Run the stages up to `precompute`, or up to `unfreeze`."""
    params = compose(["head_train=sgd", *overrides, "runtime.threads=1"])
    settings = read_settings(params, source=name)
    runtime = with_environment(settings.runtime)
    last = "unfreeze" if full else "precompute"
    artifacts = run_stages(ALL, params, root, only=STAGES[: STAGES.index(last) + 1])
    return Data(name, artifacts, settings, runtime)


def _say(row: Row) -> None:
    best = max(m[0] for m in row.grid), min(m[1] for m in row.grid)
    print(f"\n{row.data}, batch {row.batch_size}: best of the grid {best[0]:.4f}, loss {best[1]:.4f}")
    points = zip(GRID_NAMES, row.grid, strict=True)
    print(f"  grid around {row.centre:.3g}: " + "  ".join(f"x{n}: {m[0]:.4f} ({m[1]:.3f})" for n, m in points))
    for rule, a in row.rules.items():
        found = f"rate {a.lr:.3g}, spread x{a.spread:.1f}"
        print(f"  {rule:<8} {found}; regret {a.regret:+.4f}, in loss {a.loss_regret:+.4f}", flush=True)


def _grid_table(rows: Sequence[Row]) -> str:
    """Accuracy on valid at each multiple of the chosen rate, the best of each row marked."""
    lines = [
        "| data, batch | chosen rate | " + " | ".join(f"x {n}" for n in GRID_NAMES) + " |",
        "|---" * (len(GRID) + 2) + "|",
    ]
    for row in rows:
        best = max(m[0] for m in row.grid)
        cells = [f"**{m[0]:.3f}**" if m[0] == best else f"{m[0]:.3f}" for m in row.grid]
        lines.append(f"| {row.data}, {row.batch_size} | {row.centre:.2g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _rule_table(rows: Sequence[Row]) -> str:
    """Each rule's regrets over all rows, and its largest spread at each batch size."""
    lines = [
        "| rule | mean regret | worst | mean regret in loss | worst | "
        + " | ".join(f"spread, batch {size}" for size in BATCH_SIZES)
        + " |",
        "|---" * (len(BATCH_SIZES) + 5) + "|",
    ]
    for rule in RULES:
        regrets, losses = ([getattr(r.rules[rule], n) for r in rows] for n in ("regret", "loss_regret"))
        spreads = [max(r.rules[rule].spread for r in rows if r.batch_size == size) for size in BATCH_SIZES]
        lines.append(
            f"| `{rule}` | {statistics.fmean(regrets):.4f} | {max(regrets):.4f} | {statistics.fmean(losses):.3f} "
            f"| {max(losses):.3f} | {' | '.join(f'x {s:.2g}' if s < 100 else f'x {s:.0f}' for s in spreads)} |"
        )
    return "\n".join(lines)


def _means(rows: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return statistics.fmean(r[0] for r in rows), statistics.fmean(r[1] for r in rows)


def _open_workspace(name: str, seed: int, folder: Path) -> Workspace:
    return Workspace(name, seed, folder, folder, Journal(folder / "journal.jsonl"), 1e9)


if __name__ == "__main__":
    main()
