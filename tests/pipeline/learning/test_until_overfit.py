"""Training until over-fitting, on data where it must happen and on data where it must not."""

from pathlib import Path

import torch
from torch import nn

from pipeline.journal import Journal
from pipeline.learning.loop import Learner, ParameterGroup, Plan, TrainingRun, fit
from pipeline.learning.overfitting import judge
from pipeline.learning.sources import TensorBatches
from pipeline.workspace import Workspace

PLAN = Plan(8, 5, 1, 0.1, 16, 0.9, 0.0, until_overfit=True, schedule="sgdr")


def data(count: int, seed: int, *, wrong: float) -> TensorBatches:
    """Two classes that a line divides; a share `wrong` of the labels is drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 20, generator=generator)
    targets = (inputs[:, 0] > 0).long()
    lost = torch.rand(count, generator=generator) < wrong
    return TensorBatches(inputs, torch.where(lost, torch.randint(2, (count,), generator=generator), targets))


def run(folder: Path, model: nn.Sequential, *, images: int, wrong: float) -> TrainingRun:
    sources = data(images, 1, wrong=wrong), data(400, 2, wrong=wrong)

    def set_mode() -> None:
        model.train()

    group = ParameterGroup("head", list(model.parameters()), 1.0)
    cpu = torch.device("cpu")
    made = Learner(model, cpu, "fp32", 64, [group], sources[0], sources[0], sources[1], set_mode)
    workspace = Workspace("full_train", 0, folder, folder, Journal(folder / "journal.jsonl"), 1e9)
    finished = fit(made, PLAN, workspace)
    workspace.journal.close()
    return finished


def test_few_images_with_labels_partly_at_random_are_over_fitted(tmp_path: Path) -> None:
    torch.manual_seed(0)
    able_to_memorise = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))
    finished = run(tmp_path, able_to_memorise, images=60, wrong=0.4)
    verdict = judge(finished.ends)
    assert verdict.overfitting_since_cycle is not None
    assert verdict.best_cycle < verdict.overfitting_since_cycle
    assert len(finished.ends) - 1 < 8  # it stopped early


def test_many_images_with_correct_labels_are_not(tmp_path: Path) -> None:
    torch.manual_seed(0)
    finished = run(tmp_path, nn.Sequential(nn.Linear(20, 2)), images=1000, wrong=0.0)
    verdict = judge(finished.ends)
    assert verdict.overfitting_since_cycle is None
    assert len(finished.ends) - 1 == 8
    assert verdict.best_cycle == 8
