"""Step 4: train the head with augmentation, through the frozen backbone.

Reads the head of step 3 and the policy. Writes `head.safetensors`, the learning curves and the schedule. The backbone
stays in evaluation mode, so that it shows the head the same features as when activations were precomputed.
"""

from pipeline.data.augment import read_policy
from pipeline.data.manifest import read_manifest
from pipeline.learning.learners import head_on_backbone, open_images
from pipeline.learning.training import make_plan, run_training
from pipeline.model.classifier import Classifier
from pipeline.model.tensors import save_tensors
from pipeline.stage import Metrics, Stage, StageContext, main


def run(context: StageContext) -> Metrics:
    """Go on with the head on augmented images."""
    settings, train = context.settings, context.settings.head_train_augmented
    policy = read_policy(
        context.input("augment_config") / "policy.yaml", image_size=train.image_size or settings.data.image_size
    )
    manifest = read_manifest(context.input("ingest"))
    learner = head_on_backbone(
        context.input("precompute"),
        context.input("head_train"),
        open_images(manifest, policy, context.runtime, seed=(settings.seed, "head_train_augmented")),
        context.runtime,
        micro_batch_size=settings.data.micro_batch_size,
    )
    plan = make_plan(
        train,
        batch_size=settings.data.batch_size,
        num_samples=learner.train.num_samples,
        found=context.input("lr_find_head"),
    )
    _, metrics = run_training(context, learner, plan)
    assert isinstance(learner.model, Classifier)
    save_tensors(learner.model.head.state_dict(), context.out / "head.safetensors")
    return metrics


STAGE = Stage(
    name="head_train_augmented",
    run=run,
    settings=("seed", "head_train_augmented", "data.image_size", "data.batch_size", "data.micro_batch_size"),
    inputs=("ingest", "augment_config", "precompute", "lr_find_head", "head_train"),
    objective="valid_loss",
)

if __name__ == "__main__":
    main(STAGE)
