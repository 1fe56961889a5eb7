"""Sharpness against a brute-force Hessian, and that measuring changes nothing."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from pipeline.learning.loop import Computation
from pipeline.learning.sharpness import leading_eigenvalue, measure_sharpness


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
    generator = torch.Generator().manual_seed(0)
    assert leading_eigenvalue(loss, list(parameters), generator, iterations=200) == pytest.approx(expected, rel=1e-6)


def test_measuring_leaves_the_model_as_it_was_and_gives_the_same_twice() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    model[1].eval()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    made = Computation(model, torch.device("cpu"), "fp32", 8)
    images = (torch.randn(10, 3), torch.arange(10) % 3)
    first = measure_sharpness(made, images, seed=3)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert measure_sharpness(made, images, seed=3) == first


def test_a_sharper_minimum_measures_sharper() -> None:
    inputs, targets = torch.randn(30, 4), torch.arange(30) % 2
    flat, sharp = nn.Linear(4, 2), nn.Linear(4, 2)
    with torch.no_grad():
        for model, scale in ((flat, 0.1), (sharp, 3.0)):
            model.weight.copy_(scale * torch.tensor([[1.0, -1, 1, -1], [-1, 1, -1, 1]]))
            model.bias.zero_()
    rises = [
        measure_sharpness(Computation(m, torch.device("cpu"), "fp32", 8), (inputs, targets), seed=0).rise
        for m in (flat, sharp)
    ]
    assert rises[1] > rises[0]
