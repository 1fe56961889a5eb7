"""Step 2: find the highest learning rate at which the loss still clearly improves, for the head.

Reads the precomputed activations. Writes `lr.json` (the rate, the rule, its spread over repeats, the answers of other
rules) and `curve.csv`. Decides the rate of both head stages, unless they set their own.
"""

from dataclasses import dataclass

from pipeline.harness.stage import Input, Metrics, Stage, StageContext
from pipeline.harness.start import main
from pipeline.learning.activation_learners import random_head_on_activations
from pipeline.learning.balance import balance_classes
from pipeline.learning.batch_size import count_batch
from pipeline.learning.lr_results import find_and_write_lr
from pipeline.model.compute import threads_for
from pipeline.settings import BatchSettings, BatchSize, LrFind

SAFE_LR = 1e-2
"""Standardised features make a head's rate independent of its backbone; this one did no harm wherever it was tried."""


@dataclass(frozen=True)
class HeadTrainReads:
    batch_size: BatchSize | None
    momentum: float


@dataclass(frozen=True)
class Reads:
    seed: int
    lr_find_head: LrFind
    head_train: HeadTrainReads
    data: BatchSettings


def run(context: StageContext[Reads]) -> Metrics:
    """Sweep the rate on activations: cheap, because the backbone does not run."""
    settings = context.settings
    learner = random_head_on_activations(
        context.input("precompute"),
        context.runtime,
        seed=settings.seed,
        micro_batch_size=settings.data.micro_batch_size,
    )
    learner = balance_classes(learner, settings.data.balance)
    batch_size = count_batch(settings.head_train.batch_size, settings.data.batch_size, learner.train.num_samples)
    with threads_for(context.input("precompute") / "activations-train.safetensors"):
        return find_and_write_lr(
            learner,
            settings.lr_find_head,
            context.workspace,
            batch_size=batch_size,
            momentum=settings.head_train.momentum,
            budget=None,
            safe_lr=SAFE_LR,
        )


STAGE = Stage(name="lr_find_head", run=run, reads=Reads, inputs=(Input("precompute"),))

if __name__ == "__main__":
    main(STAGE)
