"""What the three training stages share: from settings to a plan, from an outcome to files and figures."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.files import read_json, write_json
from pipeline.journal import read_points
from pipeline.learning.loop import Learner, Plan, Trained, train
from pipeline.learning.overfitting import judge
from pipeline.report.plots import plot_learning_curves, plot_schedule
from pipeline.settings import BatchSize, Train
from pipeline.stage import StageContext


def count_batch(wanted: BatchSize | None, default: BatchSize, num_samples: int) -> int:
    """Images per optimizer step; `full` is all of them."""
    chosen = default if wanted is None else wanted
    return num_samples if chosen == "full" else min(chosen, num_samples)


def make_plan(
    settings: Train, *, batch_size: BatchSize, num_samples: int, found: Path, until_overfit: bool = False
) -> Plan:
    """Plan a training stage; `lr: auto` takes the rate from the `lr.json` in the folder `found`."""
    lr = read_json(found / "lr.json")["lr"] if settings.lr == "auto" else settings.lr
    return Plan(
        num_cycles=settings.num_cycles,
        cycle_len=settings.cycle_len,
        cycle_mult=settings.cycle_mult,
        lr=lr,
        batch_size=count_batch(settings.batch_size, batch_size, num_samples),
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        until_overfit=until_overfit,
    )


def run_training(context: StageContext, learner: Learner, plan: Plan) -> tuple[Trained, dict[str, Any]]:
    """Train, draw the pictures, and return the outcome with its metrics."""
    stage = context.stage.name
    context.say(
        f"{plan.num_cycles} cycles of {plan.cycle_len} x {plan.cycle_mult}^k epochs, batch {plan.batch_size}, "
        f"lr {plan.lr:.3g}, {learner.train.num_samples} images"
    )
    trained = train(
        learner,
        plan,
        stage=stage,
        seed=context.settings.seed,
        journal=context.journal,
        scratch=context.scratch,
        checkpoint_s=context.runtime.checkpoint_s,
    )
    best = trained.best
    context.say(
        f"valid loss {best.valid_loss:.4f}, accuracy {best.valid_accuracy:.4f} "
        f"(cycle {best.cycle + 1} of {len(trained.ends)})"
    )
    verdict = judge(trained.ends, num_cycles=plan.num_cycles)
    write_json(
        context.out / "cycles.json",
        {"ends": [dataclasses.asdict(e) for e in trained.ends], "verdict": dataclasses.asdict(verdict)},
    )
    _draw(context, learner, trained, verdict.overfitting_since_cycle)
    return trained, {
        "lr": plan.lr,
        "batch_size": plan.batch_size,
        "kept_cycle": best.cycle + 1,
        "epochs": trained.ends[-1].epoch,
        "train_loss": best.train_loss,
        "valid_loss": best.valid_loss,
        "valid_accuracy": best.valid_accuracy,
    }


def _draw(context: StageContext, learner: Learner, trained: Trained, since: int | None) -> None:
    points = read_points(context.journal.path)
    ends, per_epoch = trained.ends, trained.cycles.steps_per_epoch

    def column(name: str) -> tuple[list[int], list[float]]:
        found = {step: row[name] for step, row in points.items() if name in row}
        return list(found), list(found.values())

    plot_learning_curves(
        context.out / "learning_curves.png",
        train=column("train_loss"),
        train_plain=column("train_plain_loss"),
        valid=column("valid_loss"),
        valid_accuracy=column("valid_accuracy"),
        cycle_ends=[e.step for e in ends],
        kept_step=trained.best.step,
        overfit_step=None if since is None else ends[since].step,
        steps_per_epoch=per_epoch,
    )
    factors = np.array([g.lr_factor for g in learner.groups])
    plot_schedule(
        context.out / "schedule.png",
        lrs=np.array(column("lr")[1])[:, None] * factors[None, :],
        group_names=[g.name for g in learner.groups],
        cycle_starts=[0, *(e.step + 1 for e in ends[:-1])],
        steps_per_epoch=per_epoch,
    )
