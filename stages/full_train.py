"""Step 8: train everything, in cycles that grow, until over-fitting.

Reads the unfrozen model, its plan, the finder's rate, which is only reported where `unfreeze.lrs` gives the rates, and
the activations of step 1, which with the head tell the state before the first step where the image size is theirs.
Writes `model.safetensors` and `model.json` (the kept model, as `full_train.snapshots` says),
`snapshots/cycle-<k>.safetensors` (unless that is `none`), `cycles.json`, `schedule.csv`, and `verdict.json`: whether it
over-fitted, whether the data is like what the backbone was pretrained on, layer group by layer group, and how sharp the
loss is at each cycle's end. Decides which cycles are kept.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.files import read_json, write_json
from pipeline.harness.stage import Input, Metrics, Stage, StageContext
from pipeline.harness.start import main
from pipeline.learning.balance import balance_classes
from pipeline.learning.batch_size import epoch_sizes
from pipeline.learning.checkpoint import CycleEnd, load_snapshot
from pipeline.learning.image_learners import open_images, whole_model, with_known_start
from pipeline.learning.sharpness import trace_sharpness
from pipeline.learning.similarity import compare_first_cycle
from pipeline.learning.snapshots import build_kept_model
from pipeline.learning.training import make_plan, run_training
from pipeline.model.card import load_card
from pipeline.model.classifier import save_model
from pipeline.model.tensors import save_tensors
from pipeline.settings import FullTrain, ImageBatchSettings


@dataclass(frozen=True)
class Reads:
    seed: int
    full_train: FullTrain
    data: ImageBatchSettings


def run(context: StageContext[Reads]) -> Metrics:
    """Train, keep the best cycles, and judge the run."""
    settings, train = context.settings, context.settings.full_train
    image_sizes = epoch_sizes(train, settings.data.image_size)
    images = open_images(
        context.input("ingest"),
        context.input("augment_config"),
        context.runtime,
        image_sizes=image_sizes,
        normalisation=load_card(context.input("unfreeze")).normalisation,
        seed=(settings.seed, "full_train"),
    )
    learner = whole_model(
        context.input("unfreeze"), images, context.runtime, micro_batch_size=settings.data.micro_batch_size
    )
    learner = with_known_start(learner, context.input("precompute"), images)
    learner = balance_classes(learner, settings.data.balance)
    plan = make_plan(
        train,
        batch_size=settings.data.batch_size,
        num_samples=learner.train.num_samples,
        lr_folder=context.input("lr_find_full"),
        until_overfit=train.until_overfit,
    )
    found_lr, lrs = plan.lr, read_json(context.input("unfreeze") / "plan.json")["lrs"]
    if lrs is not None:
        plan = dataclasses.replace(plan, lr=lrs[-1], is_lr_found=False, lr_setting="the last rate of unfreeze.lrs")
    outcome = run_training(learner, plan, context.workspace, snapshots=train.snapshots)
    kept, ends = outcome.kept, outcome.run.ends
    card = dataclasses.replace(load_card(context.input("unfreeze")), image_size=image_sizes[-1])
    save_model(build_kept_model(learner, kept, outcome.scratch), card, context.out)
    if train.snapshots != "none":
        _save_snapshots(ends, outcome.scratch, context.out / "snapshots")

    sharpness = trace_sharpness(learner, outcome.run, dataclasses.replace(context.workspace, scratch=outcome.scratch))
    first_cycle = compare_first_cycle(learner, outcome.scratch, seed=settings.seed)
    write_json(
        context.out / "verdict.json",
        {
            "overfitting": dataclasses.asdict(outcome.verdict),
            "snapshots": dataclasses.asdict(kept),
            "similarity": dataclasses.asdict(first_cycle),
            "sharpness": [dataclasses.asdict(s) for s in sharpness],
            "rates": None if lrs is None else {"given": lrs, "found_lr": found_lr},
        },
    )
    return outcome.metrics | {"loss_change_in_first_cycle": first_cycle.change}


def _save_snapshots(ends: Sequence[CycleEnd], scratch: Path, folder: Path) -> None:
    folder.mkdir()
    for end in ends[1:]:
        save_tensors(load_snapshot(scratch, end.cycle), folder / f"cycle-{end.cycle}.safetensors")


STAGE = Stage(
    name="full_train",
    run=run,
    reads=Reads,
    is_shared=True,
    inputs=tuple(map(Input, ("ingest", "augment_config", "precompute", "unfreeze", "lr_find_full"))),
    objective="valid_loss",
)

if __name__ == "__main__":
    main(STAGE)
