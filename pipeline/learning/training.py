"""What the three training stages share: from settings to a plan, and from a training run to files and metrics."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline.files import read_json, write_csv, write_json
from pipeline.kept import read_kept, write_kept
from pipeline.learning.batch_size import count_batch
from pipeline.learning.checkpoint import load_losses, load_snapshot
from pipeline.learning.loop import Learner, Plan, TrainingRun, fit
from pipeline.learning.overfitting import Verdict, judge
from pipeline.learning.schedule import planned_rates
from pipeline.learning.snapshots import KeptCycles, keep_snapshots
from pipeline.learning.soundness import DivergedError
from pipeline.learning.valid_answers import write_valid_answers
from pipeline.model import ranks
from pipeline.settings import BatchSize, HeadTraining, Snapshots, Training
from pipeline.workspace import Workspace

ATTEMPTS = 3
"""Rates that are tried: the finder's, a tenth and a hundredth of it."""


def make_plan(
    settings: Training | HeadTraining,
    *,
    batch_size: BatchSize,
    num_samples: int,
    lr_folder: Path,
    until_overfit: bool = False,
) -> Plan:
    """Plan a training stage; `lr: auto` takes the rate from the finder's `lr.json` in `lr_folder`."""
    lr = read_json(lr_folder / "lr.json")["lr"] if settings.lr == "auto" else settings.lr
    assert lr is not None, settings
    batch = count_batch(settings.batch_size, batch_size, num_samples)
    plan = plan_at(lr, settings, batch_size=batch, until_overfit=until_overfit)
    return dataclasses.replace(plan, is_lr_found=settings.lr == "auto")


def plan_at(lr: float, settings: Training | HeadTraining, *, batch_size: int, until_overfit: bool = False) -> Plan:
    """Plan a training stage at a given rate. The settings of a head must be those of SGD."""
    assert settings.num_cycles is not None, settings
    assert settings.cycle_len is not None, settings
    assert settings.cycle_mult is not None, settings
    assert settings.schedule is not None, settings
    assert settings.weight_decay != "auto", settings
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
    """What a training stage found."""

    run: TrainingRun
    scratch: Path
    """Where the snapshots of its cycles are."""
    kept: KeptCycles
    verdict: Verdict
    metrics: dict[str, Any]


def run_training(learner: Learner, plan: Plan, workspace: Workspace, *, snapshots: Snapshots) -> Outcome:
    """Train, and load the kept weights into the model; write `schedule.csv`, `cycles.json` and `valid.csv`.

    Several ranks train together. What is chosen and written afterwards is left to the first; see `ranks.leave`.
    Raises DivergedError if the loss becomes NaN or infinite at a rate that was set, or at three that were found.
    """
    cycles = plan.cycles(learner.train.num_samples)
    workspace.say(
        f"cycles of {' + '.join(map(str, cycles.epochs))} epochs ({plan.schedule}), {learner.optimizer}, "
        f"batch {plan.batch_size}, lr {plan.lr:.3g}, {learner.train.num_samples} images",
    )
    run, plan, workspace = _fit_at_usable_rate(learner, plan, workspace)
    ranks.leave()
    _write_schedule(learner, plan, workspace.out / "schedule.csv")
    kept = keep_snapshots(learner, run.ends, workspace.scratch, snapshots)
    verdict = judge(run.ends)
    gain = write_valid_answers(learner, kept, scratch=workspace.scratch, out=workspace.out, seed=workspace.seed)
    write_json(
        workspace.out / "cycles.json",
        {
            "ends": [dataclasses.asdict(e) for e in run.ends],
            "kept": dataclasses.asdict(kept),
            "verdict": dataclasses.asdict(verdict),
            "gain": gain,
            "train_plain": _measure_error(learner, run, workspace.scratch),
            "num_cycles": plan.num_cycles,
            "cycle_epochs": cycles.epochs,
            "steps_per_epoch": cycles.steps_per_epoch,
            "schedule": plan.schedule,
            "optimizer": learner.optimizer,
        },
    )
    metrics = {
        "lr": plan.lr,
        "batch_size": plan.batch_size,
        "kept_cycle": kept.cycles[0] if len(kept.cycles) == 1 else None,
        "epochs": run.ends[-1].epoch,
        "train_loss": kept.train_loss,
        "valid_loss": kept.valid_loss,
        "valid_accuracy": kept.valid_accuracy,
    }
    return Outcome(run, workspace.scratch, kept, verdict, metrics)


def _fit_at_usable_rate(learner: Learner, plan: Plan, workspace: Workspace) -> tuple[TrainingRun, Plan, Workspace]:
    """Train; where the finder's rate makes the loss explode, begin again at a tenth of it.

    Each attempt after the first has a scratch folder of its own. A file says of an attempt that it failed: a killed run
    resumes the last one. Where all fail, they are forgotten: the cause may be gone when the stage runs again.
    Returns also the plan and the workspace of the attempt that went well.
    """
    places = [workspace.scratch / f"attempt-{attempt}" if attempt else workspace.scratch for attempt in range(ATTEMPTS)]
    for attempt, scratch in enumerate(places):
        tried = dataclasses.replace(plan, lr=plan.lr / 10**attempt)
        scratch.mkdir(exist_ok=True)
        place, failed = dataclasses.replace(workspace, scratch=scratch), scratch / "diverged.json"
        if ranks.told(partial(read_kept, failed)) is not None:
            continue
        try:
            return fit(learner, tried, place), tried, place
        except DivergedError as error:
            if not plan.is_lr_found or attempt == ATTEMPTS - 1:
                for file in places:
                    (file / "diverged.json").unlink(missing_ok=True)
                raise
            learner.model.load_state_dict(ranks.told(partial(load_snapshot, scratch, 0)))
            workspace.journal.restart()
            workspace.say(f"{error}; the rate was found, so training begins again at a tenth of it")
            if ranks.is_first():
                write_kept(failed, {"lr": tried.lr})
    raise AssertionError("the last attempt returns or raises")


def _measure_error(learner: Learner, run: TrainingRun, scratch: Path) -> dict[str, float]:
    """How exact the training losses of cycles' ends are, which are means over some of the images.

    `images` is their number, `standard_error` that of the mean loss at the last end.
    """
    losses = torch.from_numpy(load_losses(scratch, run.ends[-1].cycle, learner.train_plain.targets, "train_plain"))
    error = losses.std().item() / len(losses) ** 0.5 if len(losses) > 1 else 0.0
    return {"images": len(losses), "standard_error": error}


def _write_schedule(learner: Learner, plan: Plan, path: Path) -> None:
    """Write the planned rate of each layer group, a row per step."""
    highest = [plan.lr * group.lr_factor for group in learner.groups]
    rates = planned_rates(plan.schedule, plan.cycles(learner.train.num_samples), highest)
    names = [group.name for group in learner.groups]
    write_csv(path, [["step", *names], *([step, *row] for step, row in enumerate(rates.tolist()))])
