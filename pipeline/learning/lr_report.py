"""What both finder stages do with a finder's answer: files, picture, metrics."""

import csv
import dataclasses
from pathlib import Path
from typing import Any

from pipeline.files import write_json
from pipeline.learning.loop import Learner
from pipeline.learning.lr_find import find_lr
from pipeline.learning.lr_rules import Curve
from pipeline.report.plots import plot_lr_find
from pipeline.settings import LrFind
from pipeline.workspace import Workspace


def find_and_report(
    learner: Learner, settings: LrFind, workspace: Workspace, *, batch_size: int, momentum: float, sparing: bool
) -> dict[str, Any]:
    """Find the rate; write `lr.json`, `curve.csv` and `lr_find.png`; return the metrics."""
    found, curves = find_lr(learner, settings, workspace, batch_size=batch_size, momentum=momentum, sparing=sparing)
    write_json(workspace.out / "lr.json", dataclasses.asdict(found))
    _write_curves(workspace.out / "curve.csv", curves)
    for step, (lr, loss) in enumerate(zip(curves[0].lrs, curves[0].smoothed, strict=True)):
        workspace.journal.points(step, swept_lr=float(lr), smoothed_loss=float(loss))
    if found.rule == "recipe" and not found.improved:
        workspace.journal.note(
            "the loss fell clearly at no rate: a third of the highest one that did no harm is chosen"
        )
    for reason in found.unusable:
        workspace.journal.note(f"a repeat gave no rate: {reason}")
    plot_lr_find(
        workspace.out / "lr_find.png",
        curves=[(c.lrs, c.losses, c.smoothed) for c in curves],
        chosen=found.lr,
        others={name: lr for name, lr in found.others.items() if name != found.rule},
        falls=found.improved,
    )
    workspace.say(
        f"lr {found.lr:.3g} by rule {found.rule}, spread x{found.spread:.2f} over {len(found.repeats)} sweeps",
    )
    return {"lr": found.lr, "spread": found.spread, "rules": found.others}


def _write_curves(path: Path, curves: list[Curve]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["repeat", "step", "lr", "loss", "smoothed_loss"])
        for repeat, curve in enumerate(curves):
            for step, row in enumerate(zip(curve.lrs, curve.losses, curve.smoothed, strict=True)):
                table.writerow([repeat, step, *(repr(float(x)) for x in row)])
