"""The similarity verdict on losses whose answer is known; CKA against its formula and its invariances."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.evaluation.similarity import compare_groups, compare_losses, linear_cka, record_groups
from pipeline.model.layer_groups import LayerGroup

NOISE = np.random.default_rng(0).gamma(0.5, 0.2, 300)


def test_a_change_too_small_for_a_person_is_none_however_sure() -> None:
    before = np.full(50, 1e-4)
    verdict = compare_losses(before, before / 2, seed=0)
    assert verdict.interval[1] < 0
    assert verdict.similar


@pytest.mark.parametrize(
    ("shift", "similar", "said"),
    [(0.0, True, "very similar"), (-0.05, False, "differs"), (0.05, False, "made the loss worse")],
)
def test_the_verdict_follows_the_change(shift: float, similar: bool, said: str) -> None:
    luck = np.random.default_rng(1).normal(0, 0.05, 300)
    after = NOISE + shift + luck - luck.mean()
    verdict = compare_losses(NOISE, after, seed=0)
    assert verdict.similar == similar
    assert said in verdict.sentence
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
