"""SGD or AdamW: which fine-tunes a small network better, by family of architecture?

`python -m benchmarks.optimizers [--seeds 0 1 2 3 4]` trains a small ConvNeXt, vision transformer and ResNet (0.3 to 0.7
million parameters) on the digits 0 to 4, and fine-tunes all layers on 100 images of the digits 5 to 9, with both
optimizers at five rates each. The rate is chosen by the loss on 200 valid images; the scores are of the other images.
The networks are far smaller than the paper's, and so is what they were pretrained on.
"""

import argparse
import copy
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import t as student
from sklearn.datasets import load_digits
from torch import Tensor, nn

from pipeline.journal import Journal
from pipeline.learning.loop import Learner, ParameterGroup, Plan, fit
from pipeline.learning.sources import TensorBatches, in_order
from pipeline.model.compute import evaluate
from pipeline.settings import OptimizerName
from pipeline.vision import models
from pipeline.workspace import Workspace

SIZE = 32
NUM_TRAIN, NUM_VALID = 100, 200
RATES: dict[OptimizerName, tuple[float, ...]] = {
    "sgd": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    "adamw": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
}
PRETRAINING = Plan(1, 6, 1, 2e-3, 32, 0.9, 0.01, until_overfit=False, schedule="one_cycle")
FINE_TUNING = Plan(1, 6, 1, 0.0, 10, 0.9, 0.0, until_overfit=False, schedule="sgdr")


@dataclass(frozen=True)
class Result:
    """One training: its rate, and its loss on valid and on unseen images."""

    lr: float
    valid_loss: float
    loss: float
    accuracy: float


def build(family: str) -> nn.Sequential:
    """A small network of `family`: its body, and a head for five classes."""
    torch.manual_seed(0)
    width = 96
    match family:
        case "convnext":
            blocks = [(24, 48, 1), (48, 96, 1), (96, None, 2)]
            setting = [models.convnext.CNBlockConfig(*block) for block in blocks]
            body = models.ConvNeXt(setting)
            body.classifier[2] = nn.Identity()
        case "vit":
            body = models.VisionTransformer(SIZE, 4, num_layers=4, num_heads=4, hidden_dim=width, mlp_dim=2 * width)
            body.heads = nn.Identity()
        case _:
            body = models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1])
            body.layer4, body.fc, width = nn.Identity(), nn.Identity(), 256
    return nn.Sequential(body, nn.Linear(width, 5))


def digits(low: int) -> TensorBatches:
    """The five digits from `low` on, at SIZE pixels."""
    data = load_digits()
    chosen = (data.target >= low) & (data.target < low + 5)
    images = torch.tensor(data.images[chosen] / 16 - 0.5, dtype=torch.float32)[:, None].expand(-1, 3, -1, -1)
    resized: Tensor = F.interpolate(images, size=SIZE, mode="bilinear")
    return TensorBatches(resized, torch.tensor(data.target[chosen] - low))


def part(data: TensorBatches, indices: Tensor) -> TensorBatches:
    return TensorBatches(data.inputs[indices], data.targets[indices])


def train(
    model: nn.Sequential, plan: Plan, optimizer: OptimizerName, data: TensorBatches, *, freeze_norms: bool
) -> Learner:
    """Train `model` in place; earlier layers learn at a third of the head's rate."""
    body, head = model
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]

    def set_mode() -> None:
        model.train()
        for norm in norms if freeze_norms else []:
            norm.eval().requires_grad_(False)

    few = part(data, torch.arange(1))  # `fit` measures valid and train; the scores are measured apart
    learner = Learner(
        model=model,
        groups=[ParameterGroup("body", [*body.parameters()], 1 / 3), ParameterGroup("head", [*head.parameters()], 1.0)],
        train=data,
        train_plain=few,
        valid=few,
        set_mode=set_mode,
        device=torch.device("cpu"),
        precision="fp32",
        micro_batch_size=100,
        optimizer=optimizer,
    )
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        journal = Journal(scratch / "journal.jsonl")
        fit(learner, plan, Workspace("full_train", 0, scratch, scratch, journal, 1e9))
        journal.close()
    return learner


def fine_tune(start: nn.Sequential, data: TensorBatches, optimizer: OptimizerName, lr: float, *, seed: int) -> Result:
    """Fine-tune a copy of `start` on the split that `seed` decides."""
    order = torch.randperm(len(data.targets), generator=torch.Generator().manual_seed(seed))
    splits = torch.split(order, [NUM_TRAIN, NUM_VALID, len(order) - NUM_TRAIN - NUM_VALID])
    shown, valid, unseen = (part(data, indices) for indices in splits)
    model = copy.deepcopy(start)
    torch.manual_seed(seed)
    head = model[1]
    assert isinstance(head, nn.Linear)
    model[1] = nn.Linear(head.in_features, 5)
    try:
        learner = train(model, replace(FINE_TUNING, lr=lr), optimizer, shown, freeze_norms=True)
    except ValueError:  # diverged
        return Result(lr, np.inf, np.inf, 0.0)
    (valid_loss, _), scores = (evaluate(learner, in_order(source, 100)) for source in (valid, unseen))
    return Result(lr, valid_loss, *scores)


def main() -> None:
    """Print a row per family and optimizer, and the paired difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--families", nargs="+", default=["convnext", "vit", "resnet"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for family in arguments.families:
        start = build(family)
        train(start, PRETRAINING, "adamw", digits(0), freeze_norms=False)
        chosen: dict[OptimizerName, list[Result]] = {"sgd": [], "adamw": []}
        for seed in arguments.seeds:
            for name, rates in RATES.items():
                results = [fine_tune(start, digits(5), name, lr, seed=seed) for lr in rates]
                chosen[name].append(min(results, key=lambda result: result.valid_loss))
        for name, kept in chosen.items():
            loss, accuracy = np.mean([r.loss for r in kept]), np.mean([r.accuracy for r in kept])
            lrs = ", ".join(f"{r.lr:g}" for r in kept)
            print(f"{family:<9} {name:<6} loss {loss:.4f}, accuracy {accuracy:.4f}, rates {lrs}", flush=True)
        for what in ("loss", "accuracy"):
            paired = [getattr(a, what) - getattr(s, what) for a, s in zip(chosen["adamw"], chosen["sgd"], strict=True)]
            half = student.ppf(0.975, len(paired) - 1) * np.std(paired, ddof=1) / len(paired) ** 0.5
            mean = np.mean(paired)
            print(f"{family:<9} adamw - sgd: {what} {mean:+.4f} (95 % {mean - half:+.4f} to {mean + half:+.4f})")


if __name__ == "__main__":
    main()
