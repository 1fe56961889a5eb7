"""Sharpness against a brute-force Hessian, and that measuring changes nothing."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from pipeline.learning import sharpness
from pipeline.learning.sharpness import (
    Sharpness,
    hessian_images,
    leading_eigenvalue,
    measure_sharpness,
    plan_sharpness,
    random_lines,
)
from pipeline.model.compute import Computation
from pipeline.vision import models


def tiny() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    return model, torch.randn(12, 3, dtype=torch.float64), torch.arange(12) % 3


def test_the_leading_eigenvalue_is_that_of_the_whole_hessian() -> None:
    model, inputs, targets = tiny()
    names, parameters = zip(*model.named_parameters(), strict=True)
    shapes = [p.shape for p in parameters]

    def loss_of(flat: torch.Tensor) -> torch.Tensor:
        parts = torch.split(flat, [s.numel() for s in shapes])
        weights = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return F.cross_entropy(functional_call(model, weights, (inputs,)), targets)

    flat = torch.cat([p.detach().flatten() for p in parameters])
    hessian = torch.autograd.functional.hessian(loss_of, flat)  # type: ignore[no-untyped-call]
    eigenvalues = torch.linalg.eigvalsh(hessian)
    expected = eigenvalues[eigenvalues.abs().argmax()].item()
    loss = F.cross_entropy(model(inputs), targets)
    noise = [torch.randn_like(p) for p in parameters]
    assert leading_eigenvalue(loss, list(parameters), noise, iterations=200) == pytest.approx(expected, rel=1e-6)


def test_the_leading_eigenvalue_is_found_where_the_gradient_is_zero() -> None:
    weights = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    loss = (weights**2 * torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64)).sum()
    noise = [torch.ones(3, dtype=torch.float64)]
    assert leading_eigenvalue(loss, [weights], noise, iterations=100) == pytest.approx(-4.0)


def test_the_rise_is_the_mean_over_both_ends_of_two_lines() -> None:
    torch.manual_seed(1)
    model, inputs, targets = tiny()
    made = Computation(model, torch.device("cpu"), "fp32", 8)
    rise = measure_sharpness(made, (inputs, targets), random_lines(model, seed=0)).rise
    losses = []
    for line in random_lines(model, seed=0):
        for sign in (1, -1):
            moved = copy.deepcopy(model)
            with torch.no_grad():
                for parameter, noise in zip(moved.parameters(), line, strict=True):
                    parameter.add_(noise * parameter.norm() / noise.norm(), alpha=sign * 0.05)
                losses.append(F.cross_entropy(moved(inputs), targets).item())
    assert rise == pytest.approx(
        sum(losses) / 4 - F.cross_entropy(model(inputs), targets).item(), rel=1e-5
    )  # noise is float32


def test_measuring_changes_nothing_and_gives_the_same_twice() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    model[1].eval()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    made = Computation(model, torch.device("cpu"), "fp32", 8)
    images = (torch.randn(10, 3), torch.arange(10) % 3)
    first = measure_sharpness(made, images, random_lines(model, seed=3))
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert measure_sharpness(made, images, random_lines(model, seed=3)) == first


def test_a_sharper_minimum_measures_sharper() -> None:
    inputs, targets = torch.randn(30, 4), torch.arange(30) % 2
    flat, sharp = nn.Linear(4, 2), nn.Linear(4, 2)
    with torch.no_grad():
        for model, scale in ((flat, 0.1), (sharp, 3.0)):
            model.weight.copy_(scale * torch.tensor([[1.0, -1, 1, -1], [-1, 1, -1, 1]]))
            model.bias.zero_()
    rises = [
        measure_sharpness(
            Computation(m, torch.device("cpu"), "fp32", 8), (inputs, targets), random_lines(m, seed=0)
        ).rise
        for m in (flat, sharp)
    ]
    assert rises[1] > rises[0]


@pytest.mark.parametrize(("size", "count"), [(32, 16), (128, 16), (224, 5), (512, 4)])
def test_the_hessian_uses_fewer_images_if_they_are_large(size: int, count: int) -> None:
    assert hessian_images(torch.zeros(16, 1, 1, 1).expand(16, 3, size, size)) == count


def test_the_rise_uses_all_images_and_the_eigenvalue_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs, targets = tiny()
    made = Computation(model, torch.device("cpu"), "fp32", 8)
    whole, part = (measure_sharpness(made, (inputs[:n], targets[:n]), random_lines(model, seed=0)) for n in (12, 5))
    monkeypatch.setattr(sharpness, "HESSIAN_VALUES", 15)  # 5 of the 12
    bounded = measure_sharpness(made, (inputs, targets), random_lines(model, seed=0))
    assert bounded == Sharpness(whole.rise, part.hessian_top)
    assert whole.hessian_top != part.hessian_top


def test_without_the_hessian_the_rise_is_the_same() -> None:
    model, *images = tiny()
    made, lines = Computation(model, torch.device("cpu"), "fp32", 8), random_lines(model, seed=0)
    whole, rise = (measure_sharpness(made, (images[0], images[1]), lines, hessian=each) for each in (True, False))
    assert rise == Sharpness(whole.rise, None)


@pytest.mark.parametrize("images_seen", [100, 3234, 10_000, 39_999, 40_000, 10**6])
def test_sharpness_takes_its_share_of_the_training_at_most(images_seen: int) -> None:
    plan = plan_sharpness(images_seen, 4)
    assert plan.cycles == ([0, 1, 2, 3] if images_seen >= 10_000 else [0, 3])
    assert plan.hessian == (images_seen >= 40_000)
    cost = len(plan.cycles) * (50 * plan.num_images / 16 + 150 * plan.hessian)
    assert cost <= 0.02 * images_seen or plan.num_images == 4


def test_networks_with_attention_have_a_hessian_too() -> None:
    """The fast kernels of attention cannot be differentiated twice."""
    torch.manual_seed(0)
    model = models.VisionTransformer(16, 8, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8, num_classes=3)
    nn.init.normal_(model.heads.head.weight)  # torchvision's is zero: nothing below it would matter
    made = Computation(model, torch.device("cpu"), "fp32", 8)
    images = torch.randn(6, 3, 16, 16), torch.arange(6) % 3
    assert measure_sharpness(made, images, random_lines(model, seed=0)).hessian_top != 0
