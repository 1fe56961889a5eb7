"""Step 8: train everything, in cycles that grow, until over-fitting.

Reads the unfrozen model, its plan and the finder's rate. Writes `model.safetensors` and `model.json` (the best cycle),
`snapshots/cycle-<k>.safetensors`, `verdict.json`, the learning curves and the schedule. Decides which cycle is kept,
and says whether the data is like what the backbone was pretrained on.
"""

import dataclasses

from pipeline.data.augment import read_policy
from pipeline.data.manifest import read_manifest
from pipeline.evaluation.similarity import compare_losses
from pipeline.files import read_json, write_json
from pipeline.learning.learners import open_images, whole_model
from pipeline.learning.loop import load_snapshot, sample_losses
from pipeline.learning.training import make_plan, run_training
from pipeline.model.classifier import Classifier, save_classifier
from pipeline.model.head import load_card
from pipeline.model.tensors import save_tensors
from pipeline.stage import Metrics, Stage, StageContext, main


def run(context: StageContext) -> Metrics:
    """Train, keep the best cycle, and give the verdict."""
    settings, train = context.settings, context.settings.full_train
    policy = read_policy(
        context.input("augment_config") / "policy.yaml", image_size=train.image_size or settings.data.image_size
    )
    manifest = read_manifest(context.input("ingest"))
    images = open_images(manifest, policy, context.runtime, seed=(settings.seed, "full_train"))
    learner = whole_model(
        context.input("unfreeze"), images, context.runtime, micro_batch_size=settings.data.micro_batch_size
    )
    plan = make_plan(
        train,
        batch_size=settings.data.batch_size,
        num_samples=learner.train.num_samples,
        found=context.input("lr_find_full"),
        until_overfit=train.until_overfit,
    )
    before = sample_losses(learner, learner.valid)
    trained, metrics = run_training(context, learner, plan)

    assert isinstance(learner.model, Classifier)
    card = load_card(context.input("unfreeze"))
    save_classifier(learner.model, dataclasses.replace(card, image_size=policy.framing.image_size), context.out)
    snapshots = context.out / "snapshots"
    snapshots.mkdir()
    for end in trained.ends:
        save_tensors(load_snapshot(context.scratch, end.cycle), snapshots / f"cycle-{end.cycle + 1}.safetensors")

    learner.model.load_state_dict(load_snapshot(context.scratch, 0))
    similarity = compare_losses(before, sample_losses(learner, learner.valid), seed=settings.seed)
    overfitting = read_json(context.out / "cycles.json")["verdict"]
    write_json(context.out / "verdict.json", {"overfitting": overfitting, "similarity": dataclasses.asdict(similarity)})
    context.say(overfitting["sentence"])
    context.say(similarity.sentence)
    return metrics | {"loss_change_in_first_cycle": similarity.change}


STAGE = Stage(
    name="full_train",
    run=run,
    settings=("seed", "full_train", "data.image_size", "data.batch_size", "data.micro_batch_size"),
    inputs=("ingest", "augment_config", "unfreeze", "lr_find_full"),
    objective="valid_loss",
)

if __name__ == "__main__":
    main(STAGE)
