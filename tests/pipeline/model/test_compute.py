"""How many cores a process may use."""

import os

import pytest

from pipeline import processes
from pipeline.model.compute import num_cores
from pipeline.processes import share_cores


@pytest.mark.parametrize(
    ("slurm", "jobs", "expected"),
    [(None, 1, 8), ("3", 1, 3), ("16", 1, 8), (None, 2, 4), ("6", 4, 1), (None, -1, 1), (None, -7, 4), (None, 99, 1)],
)
def test_cores_are_those_that_slurm_gives_divided_among_jobs(
    monkeypatch: pytest.MonkeyPatch, slurm: str | None, jobs: int, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(processes, "_sharing", 1)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    if slurm is not None:
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", slurm)
    share_cores(jobs)
    assert num_cores() == expected
