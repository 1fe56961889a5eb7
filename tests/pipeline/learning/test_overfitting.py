"""The stopping rule, on curves whose verdict is known."""

import pytest

from pipeline.learning.checkpoint import CycleEnd
from pipeline.learning.overfitting import has_stopped_improving, judge


def ends(*losses: tuple[float, float]) -> list[CycleEnd]:
    return [CycleEnd(i, i + 1, i, train, valid, 0.9) for i, (train, valid) in enumerate(losses)]


@pytest.mark.parametrize(
    ("losses", "kept", "since", "said"),
    [
        ([(0.5, 0.6), (0.3, 0.5), (0.1, 0.7)], 1, 2, "Over-fitting began in cycle 3; cycle 2 is kept"),
        ([(0.5, 0.6), (0.3, 0.5), (0.2, 0.4)], 2, None, "No over-fitting after 3 of 3 cycles"),
        ([(0.5, 0.6), (0.8, 0.9)], 0, None, "worse on training and validation images alike"),
        ([(0.5, 0.6)], 0, None, "No over-fitting after 1 of 3 cycles"),
        ([(0.5, 0.6), (0.4, 0.6)], 0, None, "no gain"),
    ],
)
def test_verdict(losses: list[tuple[float, float]], kept: int, since: int | None, said: str) -> None:
    verdict = judge(ends(*losses), num_cycles=3)
    assert (verdict.kept_cycle, verdict.overfitting_since_cycle) == (kept, since)
    assert said in verdict.sentence


def test_training_goes_on_while_the_loss_falls() -> None:
    assert not has_stopped_improving(ends((1, 1.0)))
    assert not has_stopped_improving(ends((1, 1.0), (1, 0.9)))
    assert has_stopped_improving(ends((1, 1.0), (1, 0.9), (1, 0.95)))
