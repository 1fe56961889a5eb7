"""Step 8: train everything, in cycles that grow, until over-fitting.

Reads the unfrozen model, its plan and the finder's rate. Writes `model.safetensors` and `model.json` (the best cycle,
or the mean of several where `snapshots: average` found that better),
`snapshots/cycle-<k>.safetensors`, `verdict.json`, the learning curves, the schedule and the sharpness. Decides
which cycle is kept, and says whether the data is like what the backbone was pretrained on, layer group by layer group.
"""

import dataclasses

from pipeline.device import to_device
from pipeline.evaluation.similarity import compare_groups, compare_losses, record_groups
from pipeline.files import write_json
from pipeline.learning.averaging import average_cycles
from pipeline.learning.balance import balance_classes
from pipeline.learning.learners import open_images, whole_model
from pipeline.learning.loop import first_images, load_snapshot, sample_losses
from pipeline.learning.sharpness import trace_sharpness
from pipeline.learning.training import epoch_sizes, make_plan, run_training
from pipeline.model.classifier import Classifier, save_classifier
from pipeline.model.head import load_card
from pipeline.model.layer_groups import split_layer_groups
from pipeline.model.tensors import save_tensors
from pipeline.stage import Metrics, Stage, StageContext, main

CKA_IMAGES = 64


def run(context: StageContext) -> Metrics:
    """Train, keep the best cycle, and give the verdict."""
    settings, train = context.settings, context.settings.full_train
    image_sizes = epoch_sizes(train, settings.data.image_size)
    images = open_images(
        context.input("ingest"),
        context.input("augment_config"),
        context.runtime,
        image_sizes=image_sizes,
        seed=(settings.seed, "full_train"),
    )
    learner = whole_model(
        context.input("unfreeze"), images, context.runtime, micro_batch_size=settings.data.micro_batch_size
    )
    learner = balance_classes(learner, settings.data.balance)
    plan = make_plan(
        train,
        batch_size=settings.data.batch_size,
        num_samples=learner.train.num_samples,
        found=context.input("lr_find_full"),
        until_overfit=train.until_overfit,
    )
    before = sample_losses(learner, learner.valid)
    outcome = run_training(learner, plan, context.bench)
    metrics, averaging = outcome.metrics, None
    if train.snapshots == "average":
        averaged = average_cycles(learner, outcome.trained.ends, context.scratch)
        context.say(averaged.sentence)
        averaging = dataclasses.asdict(averaged) | {"sentence": averaged.sentence}
        metrics = metrics | {n: averaging[n] for n in ("train_loss", "valid_loss", "valid_accuracy")}

    assert isinstance(learner.model, Classifier)
    card = load_card(context.input("unfreeze"))
    save_classifier(learner.model, dataclasses.replace(card, image_size=image_sizes[-1]), context.out)
    snapshots = context.out / "snapshots"
    snapshots.mkdir()
    for end in outcome.trained.ends[1:]:
        save_tensors(load_snapshot(context.scratch, end.cycle), snapshots / f"cycle-{end.cycle}.safetensors")

    groups = split_layer_groups(learner.model, len(learner.groups))
    shown = to_device(first_images(learner.valid, CKA_IMAGES)[0], learner.device)
    sharpness = trace_sharpness(learner, outcome.trained, context.bench)
    learner.model.load_state_dict(load_snapshot(context.scratch, 0))
    at_start = record_groups(learner.model, groups, shown)
    learner.model.load_state_dict(load_snapshot(context.scratch, 1))
    after_first = record_groups(learner.model, groups, shown)
    similarity = compare_losses(before, sample_losses(learner, learner.valid), seed=settings.seed)
    movements = compare_groups(groups, at_start, after_first)
    write_json(
        context.out / "verdict.json",
        {
            "overfitting": dataclasses.asdict(outcome.verdict),
            "averaging": averaging,
            "similarity": dataclasses.asdict(similarity) | {"groups": [dataclasses.asdict(m) for m in movements]},
            "sharpness": [dataclasses.asdict(s) for s in sharpness],
        },
    )
    context.say(outcome.verdict.sentence)
    context.say(similarity.sentence)
    context.say(
        "in the first cycle moved "
        + ", ".join(f"{m.name} {m.weights:.2%} (features alike: {m.features_cka:.3f})" for m in movements)
    )
    return metrics | {"loss_change_in_first_cycle": similarity.change}


STAGE = Stage(
    name="full_train",
    run=run,
    settings=("seed", "full_train", "data.image_size", "data.balance", "data.batch_size", "data.micro_batch_size"),
    inputs=("ingest", "augment_config", "unfreeze", "lr_find_full"),
    objective="valid_loss",
)

if __name__ == "__main__":
    main(STAGE)
