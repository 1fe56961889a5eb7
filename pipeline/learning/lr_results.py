"""What both finder stages do with the finder's answer: write it to files, and return the metrics."""

import dataclasses
from pathlib import Path
from typing import Any

from pipeline.files import write_csv, write_json
from pipeline.learning.loop import Learner
from pipeline.learning.lr_find import find_lr
from pipeline.learning.lr_rules import Curve
from pipeline.model import ranks
from pipeline.settings import LrFind
from pipeline.workspace import Workspace


def find_and_write_lr(
    learner: Learner,
    settings: LrFind,
    workspace: Workspace,
    *,
    batch_size: int,
    momentum: float,
    budget: int | None,
    safe_lr: float,
) -> dict[str, Any]:
    """Find the rate; write `lr.json` (a LrChoice) and `curve.csv` (the sweeps of the last range); return the metrics.

    Several ranks sweep together; the first writes. The smoothed curve of the first sweep is journalled, at the number
    of its step.
    """
    choice, curves = find_lr(
        learner,
        settings,
        workspace,
        batch_size=batch_size,
        momentum=momentum,
        budget=budget,
        safe_lr=safe_lr,
    )
    ranks.leave()
    write_json(workspace.out / "lr.json", dataclasses.asdict(choice))
    _write_curves(workspace.out / "curve.csv", curves)
    for step, (lr, loss) in enumerate(zip(curves[0].lrs, curves[0].smoothed, strict=True)):
        workspace.journal.points(step, swept_lr=float(lr), smoothed_loss=float(loss))
    return {"lr": choice.lr, "spread": choice.spread, "rules": choice.others}


def _write_curves(path: Path, curves: list[Curve]) -> None:
    rows = (
        [repeat, step, *map(float, row)]
        for repeat, curve in enumerate(curves)
        for step, row in enumerate(zip(curve.lrs, curve.losses, curve.smoothed, strict=True))
    )
    write_csv(path, [["repeat", "step", "lr", "loss", "smoothed_loss"], *rows])
