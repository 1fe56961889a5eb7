"""The plan of sweeps: what is saved where images are few, and where none need be saved."""

from dataclasses import replace

import pytest

from pipeline.learning.lr_sweep import SweepPlan, plan_sweeps
from tests.pipeline.learning.test_lr_find import SETTINGS


@pytest.mark.parametrize("max_samples", [64, 100, 122, 300, 552, 2500, 10_000, 100_000])
@pytest.mark.parametrize("batch_size", [1, 4, 32, 256])
def test_all_sweeps_together_use_no_more_than_they_may(max_samples: int, batch_size: int) -> None:
    plan = plan_sweeps(SETTINGS, batch_size=batch_size, max_samples=max_samples)
    assert plan.repeats * plan.num_steps * plan.measured <= max_samples
    assert plan.batch_size == min(plan.measured, batch_size)


def test_few_images_give_one_short_sweep_of_small_steps() -> None:
    assert plan_sweeps(SETTINGS, batch_size=32, max_samples=122) == SweepPlan(1e-4, 10.0, 17, 1, 7, 7)
    assert plan_sweeps(SETTINGS, batch_size=32, max_samples=10) == SweepPlan(1e-4, 10.0, 16, 1, 4, 4)


def test_more_images_give_more_repeats_then_larger_steps_then_more_of_them() -> None:
    assert plan_sweeps(SETTINGS, batch_size=32, max_samples=552) == SweepPlan(1e-4, 10.0, 16, 3, 11, 11)
    assert plan_sweeps(SETTINGS, batch_size=32, max_samples=3000) == SweepPlan(1e-4, 10.0, 31, 3, 32, 32)
    whole = SweepPlan(1e-4, 10.0, 60, 3, 32, 32)
    assert plan_sweeps(SETTINGS, batch_size=32, max_samples=100_000) == whole
    assert plan_sweeps(SETTINGS, batch_size=4, max_samples=None) == replace(whole, batch_size=4)


def test_a_small_batch_is_measured_on_more_images() -> None:
    plan = plan_sweeps(SETTINGS, batch_size=2, max_samples=100_000)
    assert (plan.batch_size, plan.measured) == (2, 8)
