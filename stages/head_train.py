"""Step 3: train the head on precomputed activations.

Reads the activations, the untrained head of `precompute`, and the finder's rate. Writes `head.safetensors`,
`cycles.json` and `schedule.csv`. An epoch takes a fraction of a second, because the backbone does not run; augmentation
has no effect here.
"""

from dataclasses import dataclass

from pipeline.harness.stage import Input, Metrics, Stage, StageContext
from pipeline.harness.start import main
from pipeline.learning.activation_learners import first_head_on_activations
from pipeline.learning.balance import balance_classes
from pipeline.learning.training import make_plan, run_training
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
    learner = balance_classes(learner, settings.data.balance)
    plan = make_plan(
        settings.head_train,
        batch_size=settings.data.batch_size,
        num_samples=learner.train.num_samples,
        lr_folder=context.input("lr_find_head"),
    )
    outcome = run_training(learner, plan, context.workspace, snapshots=settings.head_train.snapshots)
    save_tensors(learner.model.state_dict(), context.out / "head.safetensors")
    return outcome.metrics


STAGE = Stage(
    name="head_train",
    run=run,
    reads=Reads,
    inputs=(Input("precompute"), Input("lr_find_head")),
    objective="valid_loss",
)

if __name__ == "__main__":
    main(STAGE)
