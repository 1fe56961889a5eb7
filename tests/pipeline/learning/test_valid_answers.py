"""The answers of the kept model on valid are those of the model, whatever it is made of."""

import csv
from contextlib import closing
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.files import read_json
from pipeline.journal import Journal, read_points
from pipeline.learning.loop import Learner, ParameterGroup, Plan
from pipeline.learning.snapshots import build_kept_model
from pipeline.learning.sources import TensorBatches
from pipeline.learning.training import run_training
from pipeline.model.head import Head
from pipeline.settings import Snapshots
from pipeline.workspace import Workspace

PLAN = Plan(
    num_cycles=3, cycle_len=1, cycle_mult=1, lr=0.5, batch_size=8, momentum=0.9, weight_decay=0.0, until_overfit=False,
    schedule="sgdr",
)  # fmt: skip


def _learner() -> Learner:
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(48) % 3
    inputs = F.one_hot(targets, 3).float() + 1.2 * torch.randn(48, 3, generator=generator)
    train, valid = TensorBatches(inputs[:24], targets[:24]), TensorBatches(inputs[24:], targets[24:])
    torch.manual_seed(0)
    model = Head(3, 3, dropout=0.0)
    return Learner(
        model=model,
        device=torch.device("cpu"),
        precision="fp32",
        micro_batch_size=8,
        groups=[ParameterGroup("head", list(model.parameters()), 1.0)],
        train=train,
        train_plain=train,
        valid=valid,
        set_mode=lambda: None,
    )


def _trained(tmp_path: Path, snapshots: Snapshots) -> tuple[nn.Module, Learner, list[dict[str, str]], Workspace]:
    for name in ("out", "scratch"):
        (tmp_path / name).mkdir()
    learner = _learner()
    with closing(Journal(tmp_path / "journal")) as journal:
        workspace = Workspace("head_train", 0, tmp_path / "out", tmp_path / "scratch", journal, 99.0)
        outcome = run_training(learner, PLAN, workspace, snapshots=snapshots)
    with (tmp_path / "out" / "valid.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return build_kept_model(learner, outcome.kept, tmp_path / "scratch"), learner, rows, workspace


@pytest.mark.parametrize("snapshots", ["none", "best", "cautious", "average", "ensemble"])
def test_answers_are_those_of_the_kept_model(snapshots: Snapshots, tmp_path: Path) -> None:
    model, learner, rows, _ = _trained(tmp_path, snapshots)
    assert isinstance(learner.valid, TensorBatches)
    with torch.no_grad():
        logits = model.eval()(learner.valid.inputs).double()
    targets = learner.valid.targets
    assert [int(row["target"]) for row in rows] == targets.tolist()
    assert [int(row["predicted"]) for row in rows] == logits.argmax(1).tolist()
    losses = torch.tensor([float(row["loss"]) for row in rows], dtype=torch.float64)
    torch.testing.assert_close(losses, F.cross_entropy(logits, targets, reduction="none"), rtol=1e-5, atol=1e-6)


def test_the_gain_is_the_fall_of_the_loss_since_before(tmp_path: Path) -> None:
    _, _, rows, _ = _trained(tmp_path, "best")
    cycles = read_json(tmp_path / "out" / "cycles.json")
    fall = sum(float(row["loss_before"]) - float(row["loss"]) for row in rows) / len(rows)
    assert cycles["gain"]["loss"]["mean"] == pytest.approx(fall)
    assert cycles["ends"][0]["valid_loss"] - cycles["kept"]["valid_loss"] == pytest.approx(fall, rel=1e-6)
    assert cycles["gain"]["loss"]["low"] < fall < cycles["gain"]["loss"]["high"]


def test_curves_hold_the_epochs_that_were_trained_and_nothing_chosen_later(tmp_path: Path) -> None:
    _, _, _, workspace = _trained(tmp_path, "average")
    points = read_points(workspace.journal.path)
    measured = [step for step, values in points.items() if "valid_loss" in values]
    assert measured == [-1, 2, 5, 8]  # before the first step, and after each of three epochs of three steps
