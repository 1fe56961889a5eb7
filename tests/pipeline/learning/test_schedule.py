"""SGDR against its formula, and against nothing of ours."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.learning.schedule import Cycles, build_sgdr, epoch_batches, num_batches


def rates(cycles: Cycles, lrs: tuple[float, ...]) -> list[list[float]]:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs]
    optimizer = torch.optim.SGD(groups)
    scheduler = build_sgdr(optimizer, cycles)
    out = []
    for _ in range(cycles.num_steps):
        out.append([g["lr"] for g in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return out


@pytest.mark.parametrize("steps_per_epoch", [1, 3, 17])
@pytest.mark.parametrize(("num_cycles", "cycle_len", "cycle_mult"), [(3, 1, 1), (3, 1, 2), (4, 2, 3), (1, 5, 2)])
def test_rates_follow_the_formula(num_cycles: int, cycle_len: int, cycle_mult: int, steps_per_epoch: int) -> None:
    cycles = Cycles(num_cycles, cycle_len, cycle_mult, steps_per_epoch)
    expected = []
    for k in range(num_cycles):  # Loshchilov & Hutter 2016, equation 5, with a floor of zero
        length = cycle_len * cycle_mult**k * steps_per_epoch
        expected += [0.5 * (1 + math.cos(math.pi * t / length)) for t in range(length)]
    got = rates(cycles, (0.1, 0.3))
    assert len(got) == len(expected)
    assert [g[0] for g in got] == pytest.approx([0.1 * e for e in expected], abs=1e-12)
    assert [g[1] for g in got] == pytest.approx([0.3 * e for e in expected], abs=1e-12)


def test_the_recipes_cycles_are_seven_epochs() -> None:
    cycles = Cycles(3, 1, 2, 10)
    assert (cycles.epochs, cycles.num_epochs, cycles.ends) == ([1, 2, 4], 7, [1, 3, 7])


@given(count=st.integers(1, 300), batch_size=st.integers(1, 100))
def test_batches_hold_every_sample_once_and_are_even(count: int, batch_size: int) -> None:
    batches = epoch_batches(list(range(count)), batch_size)
    sizes = [len(b) for b in batches]
    assert [i for b in batches for i in b] == list(range(count))
    assert len(batches) == num_batches(count, batch_size) == math.ceil(count / batch_size)
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
