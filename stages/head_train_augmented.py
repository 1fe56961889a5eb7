"""Step 4: train the head with augmentation, through the frozen backbone.

Reads the head of step 3, the policy and, where images keep the size that they had there, the activations of step 1:
plain images are measured by these. Writes `head.safetensors`, `cycles.json` and `schedule.csv`. The backbone stays in
evaluation mode, so that the head sees the same features as in the precomputed activations.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.files import read_json
from pipeline.harness.stage import Input, Metrics, Stage, StageContext
from pipeline.harness.start import main
from pipeline.learning.balance import balance_classes
from pipeline.learning.batch_size import epoch_sizes
from pipeline.learning.image_learners import head_behind_backbone, open_images
from pipeline.learning.training import make_plan, run_training
from pipeline.model.card import load_card
from pipeline.model.tensors import save_tensors
from pipeline.settings import HeadTrainAugmented, ImageBatchSettings

SOLVED_SHARE = 0.1
"""Of the finder's rate, after `head_train=lbfgs`. The finder sweeps a head with random weights; at its rate, a head at
the minimum would leave it at once, and lose what was gained."""


@dataclass(frozen=True)
class Reads:
    seed: int
    head_train_augmented: HeadTrainAugmented
    data: ImageBatchSettings


def run(context: StageContext[Reads]) -> Metrics:
    """Train the head further, on augmented images."""
    settings, train = context.settings, context.settings.head_train_augmented
    images = open_images(
        context.input("ingest"),
        context.input("augment_config"),
        context.runtime,
        image_sizes=epoch_sizes(train, settings.data.image_size),
        normalisation=load_card(context.input("precompute")).normalisation,
        seed=(settings.seed, "head_train_augmented"),
    )
    learner = head_behind_backbone(
        context.input("precompute"),
        context.input("head_train"),
        images,
        context.runtime,
        micro_batch_size=settings.data.micro_batch_size,
    )
    learner = balance_classes(learner, settings.data.balance)
    plan = make_plan(
        train,
        batch_size=settings.data.batch_size,
        num_samples=learner.train.num_samples,
        lr_folder=context.input("lr_find_head"),
    )
    if train.lr == "auto" and is_solved(context.input("head_train")):
        plan = replace(plan, lr=SOLVED_SHARE * plan.lr)
        context.say(f"the head is at the minimum of its loss: it goes on at {SOLVED_SHARE:g} of the rate found")
    outcome = run_training(learner, plan, context.workspace, snapshots=train.snapshots)
    save_tensors(learner.model.state_dict(), context.out / "head.safetensors")
    return outcome.metrics


def is_solved(head_train: Path) -> bool:
    """Whether `head_train` went to the minimum of the loss."""
    return bool(read_json(head_train / "cycles.json").get("solver") == "lbfgs")


STAGE = Stage(
    name="head_train_augmented",
    run=run,
    reads=Reads,
    is_shared=True,
    inputs=tuple(map(Input, ("ingest", "augment_config", "precompute", "lr_find_head", "head_train"))),
    objective="valid_loss",
)

if __name__ == "__main__":
    main(STAGE)
