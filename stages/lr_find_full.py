"""Step 7: find the learning rate again, now for the whole model.

Reads the unfrozen model and its plan: the rates of all layer groups grow together, in their ratios, and the plan's
optimizer takes the steps. Writes `lr.json` and `curve.csv`. Decides the head's rate in `full_train`, unless
`unfreeze.lrs` gives it; the rates of the earlier groups follow from the plan.
"""

from dataclasses import dataclass

from pipeline.harness.stage import Input, Metrics, Stage, StageContext
from pipeline.harness.start import main
from pipeline.learning.balance import balance_classes
from pipeline.learning.batch_size import count_batch, first_size
from pipeline.learning.image_learners import open_images, whole_model
from pipeline.learning.lr_results import find_and_write_lr
from pipeline.model.card import load_card
from pipeline.settings import BatchSize, ImageBatchSettings, LrFind

EPOCHS = 0.5
"""The sweeps cost at most this much of an epoch, with all that they compute: a tenth of the recipe's seven,
with what the stage costs beside them."""

SAFE_LR = 1e-4
"""Below the rates at which pretrained networks are fine-tuned with SGD (1e-3 to 1e-2): it improves little, and
forgets nothing."""


@dataclass(frozen=True)
class FullTrainReads:
    image_size: int | tuple[int, ...] | None
    batch_size: BatchSize | None
    momentum: float


@dataclass(frozen=True)
class Reads:
    seed: int
    lr_find_full: LrFind
    full_train: FullTrainReads
    data: ImageBatchSettings


def run(context: StageContext[Reads]) -> Metrics:
    """Sweep the rate over augmented images."""
    settings = context.settings
    images = open_images(
        context.input("ingest"),
        context.input("augment_config"),
        context.runtime,
        image_sizes=[first_size(settings.full_train.image_size, settings.data.image_size)],
        normalisation=load_card(context.input("unfreeze")).normalisation,
        seed=(settings.seed, "lr_find_full"),
        hold=False,  # a sweep draws few images, and each of them once
    )
    learner = whole_model(
        context.input("unfreeze"), images, context.runtime, micro_batch_size=settings.data.micro_batch_size
    )
    learner = balance_classes(learner, settings.data.balance)
    batch_size = count_batch(settings.full_train.batch_size, settings.data.batch_size, learner.train.num_samples)
    return find_and_write_lr(
        learner,
        settings.lr_find_full,
        context.workspace,
        batch_size=batch_size,
        momentum=settings.full_train.momentum,
        budget=round(EPOCHS * learner.train.num_samples),
        safe_lr=SAFE_LR,
    )


STAGE = Stage(
    name="lr_find_full",
    run=run,
    reads=Reads,
    is_shared=True,
    inputs=tuple(map(Input, ("ingest", "augment_config", "unfreeze"))),
)

if __name__ == "__main__":
    main(STAGE)
