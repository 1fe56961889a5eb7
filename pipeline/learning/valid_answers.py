"""What the kept model answers for each validation image, beside the state before training: a file of every stage.

Runs are compared by it image by image, which tells far more than two scores do. It costs no forward pass, except for a
mean of the weights of several whole models.
"""

from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from pipeline.evaluation.bootstrap import paired_interval
from pipeline.files import write_csv
from pipeline.learning.checkpoint import load_logits
from pipeline.learning.loop import Learner
from pipeline.learning.snapshots import KeptCycles, load_all_logits, mean_logits
from pipeline.learning.sources import in_order
from pipeline.model.compute import predict
from pipeline.model.ensemble import mean_log_probs

VALID_ANSWERS = "valid.csv"


def write_valid_answers(
    learner: Learner, kept: KeptCycles, *, scratch: Path, out: Path, seed: int
) -> dict[str, dict[str, float]]:
    """Write `valid.csv`, a row per validation image in the order of the manifest; returns the gain by training.

    The learner's model has the kept weights, and `scratch` the logits of all cycles. `target`, `predicted` and
    `predicted_before` are class numbers, the losses in nats. The gain is the mean by which the loss fell and the
    accuracy rose, with paired 95 % intervals; `seed` decides the resamples.
    """
    targets = learner.valid.targets
    columns: list[Tensor] = [targets]
    for logits in (kept_logits(learner, kept, scratch), load_logits(scratch, 0)["valid"].double()):
        columns += [logits.argmax(1), F.cross_entropy(logits, targets, reduction="none")]
    header = ["target", "predicted", "loss", "predicted_before", "loss_before"]
    write_csv(out / VALID_ANSWERS, [header, *zip(*(column.tolist() for column in columns), strict=True)])
    _, after, loss, before, loss_before = columns
    is_correct, was_correct = after.eq(targets).double(), before.eq(targets).double()
    return {
        name: _interval(change, seed=seed)
        for name, change in (("loss", loss_before - loss), ("accuracy", is_correct - was_correct))
    }


def kept_logits(learner: Learner, kept: KeptCycles, scratch: Path) -> Tensor:
    """Logits [N, num_classes] of the kept model for all validation images, in double precision."""
    if len(kept.cycles) == 1 or kept.snapshots == "ensemble":
        return mean_log_probs(load_all_logits(kept.cycles, scratch, "valid"))
    if learner.linear:
        return mean_logits(kept.cycles, scratch, "valid")
    return predict(learner, in_order(learner.valid, learner.micro_batch_size))[0].double()


def _interval(change: Tensor, *, seed: int) -> dict[str, Any]:
    low, high = paired_interval(change.numpy(), seed=seed)
    return {"mean": change.mean().item(), "low": low, "high": high}
