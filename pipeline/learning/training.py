"""What the three training stages share: from settings to a plan, from an outcome to files and figures."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.files import read_json, write_json
from pipeline.journal import read_points
from pipeline.learning.loop import Learner, Plan, Trained, train
from pipeline.learning.overfitting import Verdict, judge
from pipeline.learning.schedule import planned_rates
from pipeline.learning.snapshots import Kept, keep_snapshots
from pipeline.report.plots import plot_learning_curves, plot_schedule
from pipeline.settings import BatchSize, ImageTraining, Snapshots, Training
from pipeline.workspace import Workspace


def count_batch(wanted: BatchSize | None, default: BatchSize, num_samples: int) -> int:
    """Images per optimizer step; `full` is all of them."""
    chosen = default if wanted is None else wanted
    return num_samples if chosen == "full" else min(chosen, num_samples)


def first_size(wanted: int | tuple[int, ...] | None, default: int) -> int:
    """The size of the first cycle's images, in pixels."""
    return wanted[0] if isinstance(wanted, tuple) else wanted or default


def epoch_sizes(settings: ImageTraining, default: int) -> list[int]:
    """The size of images in each epoch, in pixels; `default` where the stage sets none."""
    wanted = settings.image_size or default
    sizes = wanted if isinstance(wanted, tuple) else (wanted,) * settings.num_cycles
    epochs = [settings.cycle_len * settings.cycle_mult**k for k in range(settings.num_cycles)]
    return [size for size, count in zip(sizes, epochs, strict=True) for _ in range(count)]


def make_plan(
    settings: Training, *, batch_size: BatchSize, num_samples: int, found: Path, until_overfit: bool = False
) -> Plan:
    """Plan a training stage; `lr: auto` takes the rate from the `lr.json` in the folder `found`."""
    lr = read_json(found / "lr.json")["lr"] if settings.lr == "auto" else settings.lr
    batch = count_batch(settings.batch_size, batch_size, num_samples)
    return plan_at(lr, settings, batch_size=batch, until_overfit=until_overfit)


def plan_at(lr: float, settings: Training, *, batch_size: int, until_overfit: bool = False) -> Plan:
    """Plan a training stage at a given rate."""
    return Plan(
        num_cycles=settings.num_cycles,
        cycle_len=settings.cycle_len,
        cycle_mult=settings.cycle_mult,
        lr=lr,
        batch_size=batch_size,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        until_overfit=until_overfit,
        schedule=settings.schedule,
    )


@dataclass(frozen=True)
class Outcome:
    """What a training stage has to tell."""

    trained: Trained
    kept: Kept
    verdict: Verdict
    metrics: dict[str, Any]


def run_training(learner: Learner, plan: Plan, workspace: Workspace, *, snapshots: Snapshots) -> Outcome:
    """Train, and load what is kept into the model; write `cycles.json`, and draw the schedule and the curves."""
    epochs = " + ".join(map(str, plan.cycles(learner.train.num_samples).epochs))
    workspace.say(
        f"cycles of {epochs} epochs ({plan.schedule}), batch {plan.batch_size}, lr {plan.lr:.3g}, "
        f"{learner.train.num_samples} images",
    )
    _draw_schedule(learner, plan, workspace.out / "schedule.png")
    trained = train(learner, plan, workspace)
    kept = keep_snapshots(learner, trained.ends, workspace.scratch, snapshots)
    workspace.say(
        f"valid loss {kept.valid_loss:.4f}, accuracy {kept.valid_accuracy:.4f} "
        f"(cycle {' + '.join(map(str, kept.cycles))} of {trained.ends[-1].cycle})",
    )
    verdict = judge(trained.ends, kept=kept.what, num_cycles=plan.num_cycles, stage=workspace.name)
    write_json(
        workspace.out / "cycles.json",
        {
            "ends": [dataclasses.asdict(e) for e in trained.ends],
            "kept": dataclasses.asdict(kept) | {"what": kept.what},
            "verdict": dataclasses.asdict(verdict),
        },
    )
    _draw_curves(trained, kept, verdict, workspace)
    metrics = {
        "lr": plan.lr,
        "batch_size": plan.batch_size,
        "kept_cycle": kept.cycles[0] if len(kept.cycles) == 1 else None,
        "epochs": trained.ends[-1].epoch,
        "train_loss": kept.train_loss,
        "valid_loss": kept.valid_loss,
        "valid_accuracy": kept.valid_accuracy,
    }
    return Outcome(trained, kept, verdict, metrics)


def _draw_schedule(learner: Learner, plan: Plan, path: Path) -> None:
    cycles = plan.cycles(learner.train.num_samples)
    plot_schedule(
        path,
        lrs=planned_rates(plan.schedule, cycles, [plan.lr * g.lr_factor for g in learner.groups]),
        group_names=[g.name for g in learner.groups],
        cycle_starts=[cycles.steps_per_epoch * epochs for epochs in (0, *cycles.ends[:-1])],
        steps_per_epoch=cycles.steps_per_epoch,
    )


def _draw_curves(trained: Trained, kept: Kept, verdict: Verdict, workspace: Workspace) -> None:
    points, ends, since = read_points(workspace.journal.path), trained.ends, verdict.overfitting_since_cycle

    def column(name: str, *, after: int = 0) -> tuple[list[int], list[float]]:
        found = {step + after: row[name] for step, row in points.items() if name in row}
        return list(found), list(found.values())

    plot_learning_curves(
        workspace.out / "learning_curves.png",
        train=column("train_loss"),  # of a batch before the step that it leads to; the others after it
        train_plain=column("train_plain_loss", after=1),
        valid=column("valid_loss", after=1),
        valid_accuracy=column("valid_accuracy", after=1),
        cycle_ends=[e.step for e in ends[1:]],
        kept_steps=[ends[cycle].step for cycle in kept.cycles],
        kept_scores=(kept.valid_loss, kept.valid_accuracy),
        overfit_step=None if since is None else ends[since - 1].step,
        steps_per_epoch=trained.cycles.steps_per_epoch,
    )
