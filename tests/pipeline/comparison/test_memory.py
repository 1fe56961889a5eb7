"""The next run is compared with the last one, though its folders are gone."""

from pathlib import Path

import pytest

from pipeline.comparison.memory import KEPT, date_of, remember, run_before
from pipeline.comparison.runs import Run, read_run
from tests.pipeline.comparison.conftest import write_job


def _run(checkout: Path, name: str, wrong: list[int], **settings: object) -> Run:
    return read_run(write_job(checkout, name, test_wrong=wrong, settings=settings))


def test_a_run_is_compared_with_the_one_before(checkout: Path) -> None:
    first = _run(checkout, "a", [0, 1, 2, 3])
    assert run_before(first) is None
    remember(first, {"seed": 0, "full_train": {"lr": 0.1, "cycle_len": 1}}, 1000.0)
    assert run_before(first) is None

    second = _run(checkout, "b", [0, 9], **{"full_train.lr": 0.2})
    for folder in first.stages.values():
        for file in folder.iterdir():
            file.unlink()
    before = run_before(second)
    assert before is not None
    assert (before.accuracy, before.num_images) == (0.9, 40)
    assert before.change == pytest.approx(0.05)
    assert before.p == 0.625
    assert before.changed == ["full_train.lr: 0.1 -> 0.2"]


def test_the_same_run_again_is_compared_with_the_same_one(checkout: Path) -> None:
    runs = [_run(checkout, name, [i]) for i, name in enumerate("abc")]
    for i, run in enumerate(runs):
        remember(run, {"seed": i}, 1000.0 + i)
    assert run_before(runs[0]) is None
    assert [before.date for run in runs[1:] if (before := run_before(run))] == [date_of(1000.0), date_of(1001.0)]


def test_only_the_last_runs_are_kept(checkout: Path) -> None:
    for i in range(KEPT + 3):
        remember(_run(checkout, str(i), [0]), {}, 1000.0 + i)
    assert len(list((checkout / ".unfreeze" / "runs").iterdir())) == KEPT
