"""Sweeps by real launchers, in real processes: a worker is killed, and the table is that of jobs in turn."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipeline.files import read_json
from pipeline.harness.base import nest
from pipeline.params import flatten
from tests.conftest import PROJECT, Run

pytestmark = pytest.mark.slow
GRID = ("full_train.num_cycles=1", "full_train.cycle_len=1,2", "full_train.lr=0.0001,9999")
"""Two jobs that are done, and two whose loss becomes NaN."""


@pytest.fixture
def checkout(small: Run, tmp_path: Path) -> Path:
    """A checkout whose settings in conf/ are those of a small run that is done."""
    shutil.copytree(PROJECT / "conf", tmp_path / "conf")
    shutil.copytree(PROJECT / "hydra_plugins", tmp_path / "hydra_plugins")
    shutil.copytree(small.artifacts, tmp_path / "artifacts")
    tiny = "# @package _global_\n" + yaml.safe_dump(nest(flatten(small.params)))
    (tmp_path / "conf" / "experiment" / "tiny.yaml").write_text(tiny)
    return tmp_path


def sweep(checkout: Path, name: str, *words: str) -> "subprocess.Popen[str]":
    """Start a sweep into the folder `name`."""
    return subprocess.Popen(
        [sys.executable, "-m", "stages.full_train", "-m", "experiment=tiny", *GRID, *words, f"hydra.sweep.dir={name}"],
        cwd=checkout, env=os.environ | {"PYTHONPATH": str(PROJECT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip


def table(folder: Path) -> list[list[str]]:
    """The sweep's table without what a clock has measured."""
    with (folder / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [[value for key, value in row.items() if key not in ("seconds", "folder")] for row in rows]


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
    said = sweep(checkout, "plain").communicate(timeout=300)[0]
    assert said.count("repeats it") == 2, said
    expected = table(checkout / "plain")
    assert len(expected) == 2, said

    process = sweep(checkout, "joblib", "launch=joblib")
    deadline = time.monotonic() + 120
    while not [f for f in (checkout / "joblib").glob("*/job.json") if read_json(f)["status"] == "started"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(max(workers(process.pid)), signal.SIGKILL)
    said = process.communicate(timeout=300)[0]
    assert "the launcher failed (TerminatedWorkerError" in said
    assert table(checkout / "joblib") == expected, said
    assert process.returncode == 1
    assert said.count("To repeat it:") == 2

    said = sweep(checkout, "submitit", "launch=submitit_local").communicate(timeout=300)[0]
    assert table(checkout / "submitit") == expected, said
    assert said.count("repeats it") == 2, "its lines are in files, so the sweep says it"
    assert [read_json(checkout / "submitit" / str(i) / "job.json")["status"] for i in range(4)] == [
        "done", "failed", "done", "failed",
    ]  # fmt: skip
