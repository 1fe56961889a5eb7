"""Steps 5 and 6: unfreeze, and give each layer group its own rate, lower for earlier ones.

Reads the backbone and the head of step 4. Writes the whole model (`model.safetensors`, `model.json`) and `plan.json`:
the layer groups, their sizes, their rates as multiples of the head's (and the rates themselves, where
`unfreeze.lrs` gives them), the cycle from which each is trained, how batch norm is treated, and the optimizer. Trains
nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.files import write_json
from pipeline.harness.stage import Input, Metrics, Stage, StageContext
from pipeline.harness.start import main
from pipeline.learning.optimizers import choose_optimizer
from pipeline.model.batch_norm import batch_norms
from pipeline.model.card import load_card
from pipeline.model.classifier import assemble, save_model
from pipeline.model.layer_groups import split_layer_groups
from pipeline.settings import OptimizerChoice, Unfreeze


@dataclass(frozen=True)
class FullTrainReads:
    optimizer: OptimizerChoice


@dataclass(frozen=True)
class Reads:
    unfreeze: Unfreeze
    full_train: FullTrainReads


def run(context: StageContext[Reads]) -> Metrics:
    """Assemble the model and plan its rates."""
    settings, optimizer = context.settings.unfreeze, context.settings.full_train.optimizer
    card = load_card(context.input("precompute"))
    model = assemble(context.input("precompute"), context.input("head_train_augmented"))
    save_model(model, card, context.out)
    groups = split_layer_groups(model, settings.num_groups)
    factors = lr_factors(len(groups), ratio=settings.lr_ratio, lrs=settings.lrs)
    plan = {
        "groups": [
            {
                "name": group.name,
                "modules": [name.removeprefix("backbone.network.") for name in group.modules],
                "num_parameters": group.num_parameters,
                "num_batch_norms": sum(len(batch_norms(m)) for m in group.modules.values()),
                "lr_factor": factor,
                "first_cycle": first_cycle(i, len(groups), settings.schedule),
            }
            for i, (group, factor) in enumerate(zip(groups, factors, strict=True))
        ],
        "lr_ratio": settings.lr_ratio,
        "lrs": settings.lrs,
        "schedule": settings.schedule,
        "batch_norm": settings.batch_norm,
        "optimizer": choose_optimizer(optimizer, card.arch),
        "optimizer_setting": optimizer,
    }
    write_json(context.out / "plan.json", plan)
    return {"num_parameters": {g.name: g.num_parameters for g in groups}}


def lr_factors(num_groups: int, *, ratio: float | None, lrs: Sequence[float] | None) -> list[float]:
    """The rate of each layer group as a multiple of the head's, from `unfreeze.lr_ratio` or from `unfreeze.lrs`."""
    if lrs is not None:
        return [lr / lrs[-1] for lr in lrs]
    assert ratio is not None  # the settings are checked: one of both is given
    return [ratio ** -(num_groups - 1 - i) for i in range(num_groups)]


def first_cycle(group: int, num_groups: int, schedule: str) -> int:
    """The cycle (from 1) of `full_train` that unfreezes a group: gradually as in Howard & Ruder 2018, arXiv:1801.06146.

    Only the head was trained before, so the first cycle also unfreezes the group below it.
    """
    return max(1, num_groups - 1 - group) if schedule == "gradual" else 1


STAGE = Stage(
    name="unfreeze",
    run=run,
    reads=Reads,
    inputs=(Input("precompute"), Input("head_train_augmented")),
)

if __name__ == "__main__":
    main(STAGE)
