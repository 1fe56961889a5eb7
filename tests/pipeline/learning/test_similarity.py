"""The similarity verdict on losses whose answer is known; CKA against its formula and its invariances."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.journal import Journal
from pipeline.learning import loop
from pipeline.learning.loop import Learner, ParameterGroup, Plan
from pipeline.learning.similarity import (
    compare_first_cycle,
    compare_groups,
    compare_losses,
    linear_cka,
    record_groups,
)
from pipeline.learning.sources import TensorBatches
from pipeline.model.backbone import Backbone
from pipeline.model.classifier import Classifier
from pipeline.model.head import Head
from pipeline.model.layer_groups import LayerGroup
from pipeline.workspace import Workspace

NOISE = np.random.default_rng(0).gamma(0.5, 0.2, 300)


def test_a_negligible_change_never_counts_however_certain() -> None:
    before = np.full(50, 0.5)
    verdicts = [compare_losses(before, before - fall, seed=0) for fall in (0.009, 0.011)]
    assert all(v.interval[1] < 0 for v in verdicts)
    assert [v.similar for v in verdicts] == [True, False]


def test_a_rise_counts_only_beyond_the_scatter_of_repeated_evaluations() -> None:
    generator = np.random.default_rng(0)
    before = generator.gamma(0.5, 2.0, 200)
    spread = np.quantile([generator.gamma(0.5, 2.0, 200).mean() for _ in range(4000)], [0.025, 0.975]) - 1.0
    verdicts = [compare_losses(before, before + share * spread[1], seed=0) for share in (0.6, 1.4)]
    assert [v.similar for v in verdicts] == [True, False]
    assert all(v.interval[0] > 0 for v in verdicts)
    assert verdicts[0].noise == pytest.approx(tuple(spread), rel=0.3)


@pytest.mark.parametrize(
    ("shift", "similar", "outcome"),
    [(0.0, True, "similar"), (-0.05, False, "different"), (0.05, False, "worse")],
)
def test_the_verdict_follows_the_change(shift: float, similar: bool, outcome: str) -> None:
    luck = np.random.default_rng(1).normal(0, 0.05, 300)
    after = NOISE + shift + luck - luck.mean()
    verdict = compare_losses(NOISE, after, seed=0)
    assert verdict.similar == similar
    assert verdict.outcome == outcome
    assert verdict.change == pytest.approx(after.mean() - NOISE.mean())
    assert verdict.interval[0] < verdict.change < verdict.interval[1]


def test_cka_is_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(20, 5, generator=generator), torch.randn(20, 7, generator=generator)
    a, b = x.double().numpy(), y.double().numpy()
    a, b = a - a.mean(0), b - b.mean(0)
    expected = np.linalg.norm(b.T @ a) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    assert linear_cka(x, y) == pytest.approx(expected)


def test_cka_ignores_rotation_scale_and_shift_but_not_more() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 6, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q
    assert linear_cka(x, 3 * x @ rotation + 5) == pytest.approx(1.0)
    stretched = x * torch.tensor([9.0, 1, 1, 1, 1, 1])
    assert linear_cka(x, stretched) < 0.95
    assert linear_cka(x, stretched) == pytest.approx(linear_cka(stretched, x))


def test_only_the_group_that_changed_has_moved() -> None:
    torch.manual_seed(0)
    last = nn.Linear(4 * 36, 2)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), last)
    groups = [
        LayerGroup(name, {name: module}, {f"{name}.{n}": p for n, p in module.named_parameters()})
        for name, module in (("early", model[0]), ("head", model[2]))
    ]
    images = torch.randn(10, 3, 8, 8)
    before = record_groups(model, groups, images)
    with torch.no_grad():
        last.weight.add_(torch.randn_like(last.weight))
    early, head = compare_groups(groups, before, record_groups(model, groups, images))
    assert early.weights == 0.0
    assert early.features_cka == pytest.approx(1.0)
    changed = torch.cat([p.flatten() for p in last.parameters()]) - before[1].weights
    assert head.weights == pytest.approx((changed.norm() / before[1].weights.norm()).item())
    assert head.features_cka < 0.99


def images_of(templates: torch.Tensor, count: int, *, seed: int) -> TensorBatches:
    """Noisy images [count, 3, 8, 8], each of one of the templates [4, 3, 8, 8], which is its class."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % len(templates)
    return TensorBatches(templates[targets] + torch.randn(count, 3, 8, 8, generator=generator), targets)


def fit(model: nn.Module, data: tuple[TensorBatches, TensorBatches], *, epochs: int, scratch: Path) -> Learner:
    """Train what needs a gradient for one cycle."""
    scratch.mkdir()
    layers = [list(part.parameters()) for part in model.children()]
    groups = [ParameterGroup(str(i), some, 1.0) for i, some in enumerate(layers) if some[0].requires_grad]
    cpu = torch.device("cpu")
    learner = Learner(model, cpu, "fp32", 256, groups, data[0], data[0], data[1], set_mode=lambda: None)
    workspace = Workspace("full_train", 0, scratch, scratch, Journal(scratch / "journal.jsonl"), 1e9)
    loop.fit(learner, Plan(1, epochs, 1, 0.05, 32, 0.9, 0.0, until_overfit=False, schedule="sgdr"), workspace)
    workspace.journal.close()
    return learner


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Backbone, torch.Tensor]:
    """A narrow network that was trained to tell four templates apart; and those with four others [2, 4, 3, 8, 8]."""
    torch.manual_seed(0)
    templates = 0.4 * torch.randn(2, 4, 3, 8, 8)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
    backbone = Backbone(network, arch="tiny", num_features=8, cut=("fc",))
    data = images_of(templates[0], 1024, seed=1), images_of(templates[0], 64, seed=2)
    fit(Classifier(backbone, Head(8, 4, dropout=0.0)), data, epochs=4, scratch=tmp_path_factory.mktemp("a") / "b")
    return backbone, templates


@pytest.mark.parametrize(("task", "similar"), [(0, True), (1, False)], ids=["like pretraining", "unlike it"])
def test_data_like_the_pretraining_data_is_told_from_other_data(
    task: int, similar: bool, pretrained: tuple[Backbone, torch.Tensor], tmp_path: Path
) -> None:
    backbone, templates = copy.deepcopy(pretrained[0]), pretrained[1]
    data = images_of(templates[task], 256, seed=3), images_of(templates[task], 256, seed=4)
    model = Classifier(backbone, Head(8, 4, dropout=0.0))
    backbone.requires_grad_(False)
    fit(model, data, epochs=16, scratch=tmp_path / "head")
    backbone.requires_grad_(True)
    learner = fit(model, data, epochs=2, scratch=tmp_path / "full")
    found = compare_first_cycle(learner, tmp_path / "full", seed=0)
    assert found.similar == similar
    assert found.similar or found.change < 0
    assert (found.groups[0].features_cka > 0.95) == similar
