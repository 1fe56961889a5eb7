"""The plan of sweeps: what is saved where images are few, and where none need be saved."""

from dataclasses import replace

import pytest

from pipeline.learning.lr_sweep import SweepPlan, plan_sweeps
from tests.pipeline.learning.test_lr_find import SETTINGS


@pytest.mark.parametrize("budget", [107, 134, 163, 400, 736, 3334, 14_000, 140_000])
@pytest.mark.parametrize("batch_size", [1, 4, 7, 32, 256])
def test_all_sweeps_together_cost_no_more_than_they_may(budget: int, batch_size: int) -> None:
    """In training, a sample costs three forward passes. In a sweep, the unchanged model's is added, and one for the
    loss where the step is made on fewer samples."""
    plan = plan_sweeps(SETTINGS, batch_size=batch_size, budget=budget)
    passes = 3 * plan.batch_size + plan.measured + (plan.measured if plan.measured > plan.batch_size else 0)
    assert plan.repeats * plan.num_steps * passes <= 3 * budget
    assert plan.batch_size == min(plan.measured, batch_size)


def test_few_images_give_one_short_sweep_of_small_steps() -> None:
    assert plan_sweeps(SETTINGS, batch_size=32, budget=163) == SweepPlan(1e-4, 10.0, 17, 1, 7, 7)
    assert plan_sweeps(SETTINGS, batch_size=32, budget=10) == SweepPlan(1e-4, 10.0, 16, 1, 4, 4)


def test_more_images_give_more_repeats_then_larger_steps_then_more_of_them() -> None:
    assert plan_sweeps(SETTINGS, batch_size=32, budget=736) == SweepPlan(1e-4, 10.0, 16, 3, 11, 11)
    assert plan_sweeps(SETTINGS, batch_size=32, budget=4000) == SweepPlan(1e-4, 10.0, 31, 3, 32, 32)
    whole = SweepPlan(1e-4, 10.0, 60, 3, 32, 32)
    assert plan_sweeps(SETTINGS, batch_size=32, budget=200_000) == whole
    assert plan_sweeps(SETTINGS, batch_size=4, budget=None) == replace(whole, batch_size=4)


def test_a_small_batch_is_measured_on_more_images() -> None:
    plan = plan_sweeps(SETTINGS, batch_size=2, budget=200_000)
    assert (plan.batch_size, plan.measured) == (2, 8)
