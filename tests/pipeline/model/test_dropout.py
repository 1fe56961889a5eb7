"""Dropout by place: the noise of torch and torchvision, however a batch is cut."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.model.dropout import Dropout, StochasticRows, place_dropout, placed
from pipeline.vision import StochasticDepth, models

INPUTS = {"dropout": torch.randn(10, 7), "rows": torch.randn(10, 3, 2, 2)}
OURS = {"dropout": Dropout(0.3), "rows": StochasticRows(0.3)}
THEIRS = {"dropout": nn.Dropout(0.3), "rows": StochasticDepth(0.3, "row")}


def drop(module: nn.Module, inputs: Tensor) -> Tensor:
    torch.manual_seed(3)
    output: Tensor = module(inputs)
    return output


@pytest.mark.parametrize("kind", OURS)
def test_a_whole_batch_gets_the_noise_of_the_library(kind: str) -> None:
    assert torch.equal(drop(OURS[kind], INPUTS[kind]), drop(THEIRS[kind], INPUTS[kind]))
    assert torch.equal(OURS[kind].eval()(INPUTS[kind]), INPUTS[kind])
    OURS[kind].train()


@pytest.mark.parametrize("kind", OURS)
def test_parts_get_the_rows_of_the_whole(kind: str) -> None:
    inputs, whole = INPUTS[kind], drop(OURS[kind], INPUTS[kind])
    parts = []
    for first, last in ((0, 4), (4, 9), (9, 10)):
        with placed(first, 10):
            parts.append(drop(OURS[kind], inputs[first:last]))
    assert torch.equal(torch.cat(parts), whole)
    assert 0 < (whole == 0).float().mean() < 1


def test_every_kind_in_a_network_is_replaced() -> None:
    network = models.efficientnet_b0(weights=None)
    state = list(network.state_dict())
    place_dropout(network)
    kinds = [type(module) for module in network.modules()]
    assert not {nn.Dropout, StochasticDepth} & set(kinds)
    assert {Dropout, StochasticRows} <= set(kinds)
    assert list(network.state_dict()) == state
