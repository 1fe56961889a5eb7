"""Sweeps by real launchers, in real processes: a worker is killed, and the table is that of jobs in turn."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.files import read_json
from tests.conftest import Run
from tests.reliability.sweeps import make_checkout, start_sweep, started, table

pytestmark = pytest.mark.slow
GRID = ("full_train.num_cycles=1", "full_train.cycle_len=1,2", "full_train.lr=0.0001,9999")
"""Two jobs that are done, and two whose loss becomes NaN."""


@pytest.fixture
def checkout(small: Run, tmp_path: Path) -> Path:
    make_checkout(small, tmp_path)
    return tmp_path


def workers(parent: int) -> Iterator[int]:
    """The processes that a sweep has started to run jobs."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            ppid = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_text()
        except OSError:
            continue
        if ppid == parent and "popen_loky" in command:
            yield int(entry.name)


def test_launchers_and_a_killed_worker_end_in_the_same_table(checkout: Path) -> None:
    said = start_sweep(checkout, "plain", *GRID).communicate(timeout=300)[0]
    assert said.count("repeats it") == 2, said
    expected = table(checkout / "plain")
    assert len(expected) == 2, said

    process = start_sweep(checkout, "joblib", *GRID, "launch=joblib")
    deadline = time.monotonic() + 120
    while not started(checkout / "joblib"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(max(workers(process.pid)), signal.SIGKILL)
    said = process.communicate(timeout=300)[0]
    assert "the launcher failed (TerminatedWorkerError" in said
    assert table(checkout / "joblib") == expected, said
    assert process.returncode == 1
    assert said.count("To repeat it:") == 2

    said = start_sweep(checkout, "submitit", *GRID, "launch=submitit_local").communicate(timeout=300)[0]
    assert table(checkout / "submitit") == expected, said
    assert said.count("repeats it") == 2, "its lines are in files, so the sweep says it"
    assert [read_json(checkout / "submitit" / str(i) / "job.json")["status"] for i in range(4)] == [
        "done", "failed", "done", "failed",
    ]  # fmt: skip
