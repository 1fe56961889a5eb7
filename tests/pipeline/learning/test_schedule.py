"""Schedules against their formulas, and against torch's schedulers, stepped as their documentation says."""

import math

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from pipeline.learning.schedule import Cycles, build_schedule, planned_rates
from pipeline.settings import Schedule


def rates(cycles: Cycles, lrs: tuple[float, ...], schedule: Schedule = "sgdr") -> list[list[float]]:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs]
    optimizer = torch.optim.SGD(groups)
    scheduler = build_schedule(schedule, optimizer, cycles)
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


def test_sgdr_is_torchs_warm_restarts_at_fractions_of_an_epoch() -> None:
    cycles = Cycles(3, 1, 2, 10)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = CosineAnnealingWarmRestarts(optimizer, T_0=1, T_mult=2)
    expected = []
    for epoch in range(7):  # the usage that torch documents: step(epoch + i / iters)
        for i in range(10):
            scheduler.step(epoch + i / 10)
            expected.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
    assert [r[0] for r in rates(cycles, (0.1,))] == pytest.approx(expected, abs=1e-12)


def test_constant_step_and_exponential_follow_their_formulas() -> None:
    cycles, steps = Cycles(3, 2, 1, 5), range(30)
    for schedule, expected in (
        ("constant", [0.1 for _ in steps]),
        ("step", [0.1 * 0.1 ** (t // 10) for t in steps]),
        ("exponential", [0.1 * 0.1 ** (t / 10) for t in steps]),
    ):
        got = rates(cycles, (0.1, 0.3), schedule)  # type: ignore[arg-type]
        assert [g[0] for g in got] == pytest.approx(expected, rel=1e-9), schedule
        assert [g[1] for g in got] == pytest.approx([3 * e for e in expected], rel=1e-9), schedule


def test_one_cycle_climbs_for_a_third_and_falls_to_nothing() -> None:
    got = [r[0] for r in rates(Cycles(1, 4, 1, 25), (0.1,), "one_cycle")]
    top, last = 29, 99  # 30 % of 100 steps
    up = [0.004 + (0.1 - 0.004) * (1 - math.cos(math.pi * t / top)) / 2 for t in range(top + 1)]
    low = 0.004 / 1e4
    down = [low + (0.1 - low) * (1 + math.cos(math.pi * (t - top) / (last - top))) / 2 for t in range(top + 1, 100)]
    assert got == pytest.approx(up + down, rel=1e-9)


@pytest.mark.parametrize("schedule", ["sgdr", "constant", "step", "exponential", "one_cycle"])
@pytest.mark.parametrize("cycles", [Cycles(1, 1, 1, 1), Cycles(1, 3, 1, 7)])
def test_the_plan_is_what_training_does(schedule: Schedule, cycles: Cycles) -> None:
    planned = planned_rates(schedule, cycles, [0.1, 0.3])
    assert planned.tolist() == rates(cycles, (0.1, 0.3), schedule)


def test_the_recipes_cycles_are_seven_epochs() -> None:
    cycles = Cycles(3, 1, 2, 10)
    assert (cycles.epochs, cycles.num_epochs, cycles.ends) == ([1, 2, 4], 7, [1, 3, 7])
