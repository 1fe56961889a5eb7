"""Step 3: train the head on precomputed activations.

Reads the activations, the untrained head of `precompute`, and for SGD the finder's rate. Writes `head.safetensors` and
`cycles.json`, with SGD also `schedule.csv`. Decides the weight decay. It takes a second or two, because the backbone
does not run; augmentation has no effect here, except through `precompute.views`.
"""

from dataclasses import dataclass

from pipeline.harness.stage import Input, Metrics, Stage, StageContext
from pipeline.harness.start import main
from pipeline.learning.activation_learners import first_head_on_activations
from pipeline.learning.balance import balance_classes, class_weights
from pipeline.learning.head_path import train_to_minimum
from pipeline.learning.loop import Learner
from pipeline.learning.training import make_plan, run_training
from pipeline.model.compute import threads_for
from pipeline.model.tensors import save_tensors
from pipeline.settings import BatchSettings, HeadTraining


@dataclass(frozen=True)
class Reads:
    seed: int
    head_train: HeadTraining
    data: BatchSettings


def run(context: StageContext[Reads]) -> Metrics:
    """Train the head for the first time."""
    settings = context.settings
    learner = first_head_on_activations(
        context.input("precompute"), context.runtime, micro_batch_size=settings.data.micro_batch_size
    )
    train = _train_by_sgd if settings.head_train.solver == "sgd" else _train_to_minimum
    with threads_for(context.input("precompute") / "activations-train.safetensors"):
        metrics = train(context, learner)
    save_tensors(learner.model.state_dict(), context.out / "head.safetensors")
    return metrics


def _train_to_minimum(context: StageContext[Reads], learner: Learner) -> Metrics:
    """Both ways to balance classes give each the same weight in the loss: here they are one."""
    settings, targets = context.settings, learner.train.targets
    weights = None if settings.data.balance == "none" else class_weights(targets)
    context.say(f"L-BFGS on {len(targets)} images, weight decay {settings.head_train.weight_decay}")
    return train_to_minimum(learner, settings.head_train, context.workspace, class_weights=weights)


def _train_by_sgd(context: StageContext[Reads], learner: Learner) -> Metrics:
    settings = context.settings
    learner = balance_classes(learner, settings.data.balance)
    plan = make_plan(
        settings.head_train,
        batch_size=settings.data.batch_size,
        num_samples=learner.train.num_samples,
        lr_folder=context.input("lr_find_head"),
    )
    return run_training(learner, plan, context.workspace, snapshots=settings.head_train.snapshots).metrics


STAGE = Stage(
    name="head_train",
    run=run,
    reads=Reads,
    inputs=(Input("precompute"), Input("lr_find_head")),
    objective="valid_loss",
)

if __name__ == "__main__":
    main(STAGE)
