"""The stopping rule, on curves whose verdict is known."""

import pytest

from pipeline.learning.checkpoint import CycleEnd
from pipeline.learning.overfitting import has_stopped_improving, judge


def ends(*losses: tuple[float, float]) -> list[CycleEnd]:
    return [CycleEnd(i, i, 5 * i, train, valid, 0.9) for i, (train, valid) in enumerate(losses)]


START = (0.8, 0.9)


@pytest.mark.parametrize(
    ("losses", "best", "since"),
    [
        ([START, (0.5, 0.6), (0.3, 0.5), (0.1, 0.7)], 2, 3),
        ([START, (0.5, 0.6), (0.3, 0.5), (0.2, 0.4)], 3, None),
        ([START, (0.5, 0.6), (0.8, 0.9)], 1, None),
        ([START, (0.5, 0.6)], 1, None),
        ([START, (0.5, 0.6), (0.4, 0.6)], 1, None),
        ([START, (0.5, 1.0), (0.4, 0.95)], 0, 1),
        ([START, (1.5, 1.9)], 0, None),
    ],
)
def test_verdict(losses: list[tuple[float, float]], best: int, since: int | None) -> None:
    verdict = judge(ends(*losses))
    assert (verdict.best_cycle, verdict.overfitting_since_cycle) == (best, since)


def test_training_goes_on_while_the_loss_falls() -> None:
    assert not has_stopped_improving(ends(START, (1, 1.0)))  # worse than before training: only a restart's cost
    assert not has_stopped_improving(ends(START, (1, 1.0), (1, 0.9)))
    assert has_stopped_improving(ends(START, (1, 1.0), (1, 0.9), (1, 0.95)))
