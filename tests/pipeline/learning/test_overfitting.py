"""The stopping rule, on curves whose verdict is known."""

import pytest

from pipeline.learning.checkpoint import CycleEnd
from pipeline.learning.overfitting import has_stopped_improving, judge


def ends(*losses: tuple[float, float]) -> list[CycleEnd]:
    return [CycleEnd(i, i, 5 * i, train, valid, 0.9) for i, (train, valid) in enumerate(losses)]


START = (0.8, 0.9)


@pytest.mark.parametrize(
    ("losses", "best", "since", "said"),
    [
        ([START, (0.5, 0.6), (0.3, 0.5), (0.1, 0.7)], 2, 3, "Over-fitting began in cycle 3; this is kept"),
        ([START, (0.5, 0.6), (0.3, 0.5), (0.2, 0.4)], 3, None, "No over-fitting after 3 of 3 cycles"),
        ([START, (0.5, 0.6), (0.8, 0.9)], 1, None, "Cycle 2 ended no better"),
        ([START, (0.5, 0.6)], 1, None, "No over-fitting after 1 of 3 cycles"),
        ([START, (0.5, 0.6), (0.4, 0.6)], 1, None, "without over-fitting; this is kept"),
        ([START, (0.5, 1.0), (0.4, 0.95)], 0, 1, "began in cycle 1; this is kept"),
        ([START, (1.5, 1.9)], 0, None, "ended no better on validation images, without over-fitting; this is kept"),
    ],
)
def test_verdict(losses: list[tuple[float, float]], best: int, since: int | None, said: str) -> None:
    verdict = judge(ends(*losses), kept="this", num_cycles=3, stage="full_train")
    assert (verdict.best_cycle, verdict.overfitting_since_cycle) == (best, since)
    assert said in verdict.sentence


def test_training_goes_on_while_the_loss_falls() -> None:
    assert not has_stopped_improving(ends(START, (1, 1.0)))  # worse than before training: only a restart's cost
    assert not has_stopped_improving(ends(START, (1, 1.0), (1, 0.9)))
    assert has_stopped_improving(ends(START, (1, 1.0), (1, 0.9), (1, 0.95)))
