"""Steps 5 and 6: unfreeze, and give each earlier layer group a lower rate than the next.

Reads the backbone and the head of step 4. Writes the whole model (`model.safetensors`, `model.json`) and `plan.json`:
the layer groups, their sizes, their rates as multiples of the head's, the cycle from which each is trained, and how
batch norm is treated. Trains nothing.
"""

from dataclasses import dataclass

from pipeline.files import write_json
from pipeline.harness.stage import Input, Metrics, Stage, StageContext
from pipeline.harness.start import main
from pipeline.model.batch_norm import batch_norms
from pipeline.model.card import load_card
from pipeline.model.classifier import assemble, save_model
from pipeline.model.layer_groups import split_layer_groups
from pipeline.settings import Unfreeze


@dataclass(frozen=True)
class Reads:
    unfreeze: Unfreeze


def run(context: StageContext[Reads]) -> Metrics:
    """Assemble the model and plan its rates."""
    settings = context.settings.unfreeze
    model = assemble(context.input("precompute"), context.input("head_train_augmented"))
    save_model(model, load_card(context.input("precompute")), context.out)
    groups = split_layer_groups(model, settings.num_groups)
    factors = [settings.lr_ratio ** -(len(groups) - 1 - i) for i in range(len(groups))]
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
        "schedule": settings.schedule,
        "batch_norm": settings.batch_norm,
    }
    write_json(context.out / "plan.json", plan)
    return {"num_parameters": {g.name: g.num_parameters for g in groups}}


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
