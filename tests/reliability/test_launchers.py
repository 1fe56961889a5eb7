"""Sweeps by real launchers, in real processes: a worker is killed, and the table is that of jobs in turn."""

import os
import signal
import time
from collections.abc import Iterator
from importlib.util import find_spec
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


IS_RAY_HERE = find_spec("hydra_plugins.hydra_ray_launcher") is not None


def workers(parent: int, name: str) -> Iterator[int]:
    """The processes below one, at any depth, that are called so."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            ppid = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_text()
        except OSError:
            continue
        if ppid == parent:
            yield from [int(entry.name)] if name in command else workers(int(entry.name), name)


def kill_a_worker(sweep: int, folder: Path, command: str) -> None:
    """Kill one of the processes of a sweep with `command` in theirs, once a job has begun."""
    deadline = time.monotonic() + 120
    while not started(folder):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(max(workers(sweep, command)), signal.SIGKILL)


def test_launchers_and_a_killed_worker_end_in_the_same_table(checkout: Path) -> None:
    said = start_sweep(checkout, "plain", *GRID).communicate(timeout=300)[0]
    assert said.count("repeats it") == 2, said
    expected = table(checkout / "plain")
    assert len(expected) == 2, said

    process = start_sweep(checkout, "joblib", *GRID, "launch=joblib")
    kill_a_worker(process.pid, checkout / "joblib", "popen_loky")
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


@pytest.mark.skipif(not IS_RAY_HERE, reason="needs hydra-ray-launcher, which docs/scale.md says how to install")
def test_ray_ends_in_the_same_table_after_a_worker_was_killed(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    start_sweep(checkout, "plain", *GRID).communicate(timeout=300)
    process = start_sweep(checkout, "ray", *GRID, "launch=ray")
    kill_a_worker(process.pid, checkout / "ray", "ray::_run_job")
    said = process.communicate(timeout=300)[0]
    assert table(checkout / "ray") == table(checkout / "plain"), said
    assert said.count("To repeat it:") == 2
