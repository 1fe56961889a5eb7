"""Each kind of training against recorded losses: a change that should not alter numbers must not.

They are equal to the last bit for one version of torch and one processor; elsewhere to five digits, which a change of
the computation does not keep. After an intended change: `python -m tests.pipeline.learning.test_golden` records them.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.journal import Journal, read_points
from pipeline.learning.activation_learners import head_group
from pipeline.learning.loop import Learner, ParameterGroup, Plan, fit
from pipeline.learning.sources import TensorBatches
from pipeline.model.compute import processor
from pipeline.model.head import Head
from pipeline.workspace import Workspace

GOLDEN = Path(__file__).with_name("golden_losses.json")
PLAN = Plan(2, 1, 2, 0.05, 6, 0.9, 1e-4, until_overfit=False, schedule="sgdr")


class Tiny(nn.Module):
    """A backbone with convolution and batch norm, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        self.head = Head(32, 3, dropout=0.2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.backbone(images))
        return logits


def images(count: int, seed: int) -> TensorBatches:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(count, 3, 8, 8, generator=generator)
    return TensorBatches(pixels, (pixels.mean((1, 2, 3)) * 40).long().clamp(-1, 1) + 1)


def learner(stage: str) -> Learner:
    torch.manual_seed(0)
    model = Tiny()
    data, valid = images(31, 1), images(12, 2)
    trained: nn.Module = model
    groups = [head_group(model.head)]
    if stage == "head_train":
        trained = model.head
        with torch.no_grad():
            model.eval()
            data, valid = (TensorBatches(model.backbone(d.inputs), d.targets) for d in (data, valid))
    if stage == "full_train":
        groups.insert(0, ParameterGroup("backbone", list(model.backbone.parameters()), 1 / 3))
    model.backbone.requires_grad_(stage == "full_train")

    def set_mode() -> None:
        model.train()
        model.backbone.train(stage == "full_train")

    return Learner(
        model=trained,
        groups=groups,
        train=data,
        train_plain=data,
        valid=valid,
        set_mode=set_mode,
        device=torch.device("cpu"),
        precision="fp32",
        micro_batch_size=6,
    )


def losses(stage: str) -> dict[str, list[float]]:
    """All losses of a training, by name."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        workspace = Workspace(stage, 7, scratch, scratch, Journal(scratch / "journal.jsonl"), 1e9)
        fit(learner(stage), PLAN, workspace)
        workspace.journal.close()
        points = read_points(scratch / "journal.jsonl").values()
    return {name: [p[name] for p in points if name in p] for name in ("train_loss", "train_plain_loss", "valid_loss")}


def environment() -> dict[str, str]:
    return {"torch": torch.__version__, "processor": processor()}


@pytest.mark.parametrize("stage", ["head_train", "head_train_augmented", "full_train"])
def test_losses_equal_the_recorded_ones(stage: str) -> None:
    golden: dict[str, Any] = json.loads(GOLDEN.read_text())
    recorded = golden["losses"][stage]
    if golden["environment"] != environment():
        recorded = {name: pytest.approx(values, rel=1e-5) for name, values in recorded.items()}
    assert losses(stage) == recorded


if __name__ == "__main__":
    stages = ("head_train", "head_train_augmented", "full_train")
    recorded = {"environment": environment(), "losses": {stage: losses(stage) for stage in stages}}
    GOLDEN.write_text(json.dumps(recorded, indent=1) + "\n")
