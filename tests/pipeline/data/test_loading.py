"""Processes that read images for torch: not stopped by the terminal, without shared memory, and named when lost."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.data import loading
from pipeline.data.loading import load
from pipeline.shortage import ShortOfMemoryError
from pipeline.stopping import Stopped, ask, forget


class Numbers(Dataset[Tensor]):
    """`[i]` is i, after a signal to the process that reads it, if there is one for i."""

    def __init__(self, signals: dict[int, signal.Signals] | None = None) -> None:
        self.signals = signals or {}

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Tensor:
        if index in self.signals:
            os.kill(os.getpid(), self.signals[index])
        return torch.tensor(index)


def numbers(signals: dict[int, signal.Signals] | None = None, *, workers: int = 1) -> list[int]:
    batches = load(Numbers(signals), workers=workers, collate=torch.stack, batches=[[0, 1, 2], [7, 3], [5]])
    return [int(i) for batch in batches for i in batch]


@pytest.fixture(autouse=True)
def _forgetting() -> Iterator[None]:
    yield
    forget()


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order(workers: int) -> None:
    assert numbers(workers=workers) == [0, 1, 2, 7, 3, 5]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_the_terminal_sends_stops_no_reader(number: signal.Signals) -> None:
    assert numbers({7: number}) == [0, 1, 2, 7, 3, 5]


def test_a_reader_that_is_killed_is_an_error_that_names_the_setting() -> None:
    with pytest.raises(ShortOfMemoryError, match=r"a process that reads images was lost .*UNFREEZE_WORKERS=1"):
        numbers({7: signal.SIGKILL}, workers=2)


def test_a_reader_that_is_killed_because_the_run_is_to_stop_is_none() -> None:
    ask(signal.SIGTERM)
    with pytest.raises(Stopped):
        numbers({7: signal.SIGKILL}, workers=2)


def test_with_little_shared_memory_tensors_go_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    large = torch.arange(2**20)

    class Large(Numbers):
        def __getitem__(self, index: int) -> Tensor:
            return large + index

    def usage(path: Path) -> Usage:
        assert path == Path("/dev/shm")
        return Usage(64 * 2**20)

    def refuse(*_: Any) -> None:
        raise AssertionError("shared memory is used")

    monkeypatch.setattr(loading, "SHARED_MEMORY", Path("/dev/shm"))
    monkeypatch.setattr(shutil, "disk_usage", usage)
    monkeypatch.setattr("torch.multiprocessing.reductions.reduce_storage", refuse)
    got = [*load(Large(), workers=2, collate=torch.stack, batches=[[1], [4, 2]])]
    assert [
        torch.equal(a, b) for a, b in zip(got, ((large + 1)[None], torch.stack([large + 4, large + 2])), strict=True)
    ]
