"""Train a head with the solver: from activations to candidates, files and metrics, as `run_training` does with SGD.

Each weight decay counts as a cycle: its minimum is measured and can be kept like a cycle's end, and the state before
is cycle 0. A pass over the training images counts as a step, and as an epoch.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pipeline.files import write_json
from pipeline.learning.checkpoint import CycleEnd, save_snapshot
from pipeline.learning.head_solver import DECAYS, follow_path, has_ended
from pipeline.learning.loop import Learner
from pipeline.learning.overfitting import judge
from pipeline.learning.snapshots import KeptCycles, keep_snapshots
from pipeline.learning.sources import ViewBatches, in_order
from pipeline.learning.valid_answers import write_valid_answers
from pipeline.model.compute import predict, score
from pipeline.model.head import Head
from pipeline.settings import HeadTraining
from pipeline.workspace import Workspace


def train_to_minimum(
    learner: Learner, settings: HeadTraining, workspace: Workspace, *, class_weights: Tensor | None
) -> dict[str, Any]:
    """Train the learner's head and load the kept weights; write `cycles.json` and `valid.csv`; returns the metrics.

    All views of all images are training data at once. It takes seconds, so a killed run starts again.

    Args:
        learner: a head on activations, which are not balanced.
        settings: the decay, and which candidates are kept.
        workspace: points are journalled there under the number of the last pass done, from 0.
        class_weights: [num_classes], for the training loss; None means 1 for all.
    """
    assert isinstance(learner.train, ViewBatches)
    activations = learner.train.activations
    decays = DECAYS if settings.weight_decay == "auto" else (settings.weight_decay,)
    ends = _measure_path(learner, decays, workspace, class_weights)
    kept, verdict = keep_snapshots(learner, ends, workspace.scratch, settings.snapshots), judge(ends)
    used = list(decays[: len(ends) - 1])
    write_json(
        workspace.out / "cycles.json",
        {
            "ends": [dataclasses.asdict(e) for e in ends],
            "kept": dataclasses.asdict(kept),
            "verdict": dataclasses.asdict(verdict),
            "gain": write_valid_answers(
                learner, kept, scratch=workspace.scratch, out=workspace.out, seed=workspace.seed
            ),
            "num_cycles": len(used),
            "steps_per_epoch": 1,
            "solver": "lbfgs",
            "weight_decays": used,
            "views": len(activations),
        },
    )
    return _metrics(kept, used, ends)


def _measure_path(
    learner: Learner, decays: Sequence[float], workspace: Workspace, class_weights: Tensor | None
) -> list[CycleEnd]:
    """Follow the path; returns the state before it, then an end per decay."""
    assert isinstance(learner.train, ViewBatches)
    assert isinstance(learner.model, Head)
    activations, journal, ends = learner.train.activations, workspace.journal, list[CycleEnd]()
    passes = 0

    def on_pass(loss: float) -> None:
        nonlocal passes
        journal.points(passes, train_loss=loss)
        passes += 1

    def measure() -> None:
        valid, targets = predict(learner, in_order(learner.valid, learner.micro_batch_size))
        valid_loss, accuracy = score(valid, targets)
        train_plain, targets = predict(learner, in_order(learner.train_plain, learner.micro_batch_size))
        train_loss, _ = score(train_plain, targets)
        journal.points(passes - 1, valid_loss=valid_loss, valid_accuracy=accuracy, train_plain_loss=train_loss)
        ends.append(CycleEnd(len(ends), passes, passes, train_loss, valid_loss, accuracy))
        state = {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}
        save_snapshot(workspace.scratch, ends[-1].cycle, state, valid=valid, train_plain=train_plain)

    measure()
    path = follow_path(
        learner.model,
        activations.flatten(0, 1),
        learner.train.targets.repeat(len(activations)),
        class_weights=class_weights,
        decays=decays,
        on_pass=on_pass,
    )
    with workspace.progress(len(decays)) as bar:
        for minimum in path:
            measure()
            bar.advance(note=f"weight decay {minimum.weight_decay:.2g}, valid loss {ends[-1].valid_loss:.4f}")
            if has_ended([end.valid_loss for end in ends[1:]], learner.valid.num_samples):
                break
    return ends


def _metrics(kept: KeptCycles, decays: Sequence[float], ends: Sequence[CycleEnd]) -> dict[str, Any]:
    alone = kept.cycles[0] if len(kept.cycles) == 1 else None
    return {
        "weight_decay": decays[alone - 1] if alone else None,
        "kept_cycle": alone,
        "epochs": ends[-1].epoch,
        "train_loss": kept.train_loss,
        "valid_loss": kept.valid_loss,
        "valid_accuracy": kept.valid_accuracy,
    }
