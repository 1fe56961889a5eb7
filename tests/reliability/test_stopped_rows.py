"""The MLflow row of a run that is stopped does not stay RUNNING: real stages, a real store, real signals."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.params import to_yaml
from tests.conftest import PROJECT, Run

pytestmark = pytest.mark.xdist_group("recipe")


@pytest.fixture(scope="module")
def checkout(recipe: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working copy whose next stage, `full_train`, takes long."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(recipe.artifacts, folder / "artifacts")
    shutil.rmtree(folder / "artifacts" / "full_train")
    training = recipe.params["full_train"] | {"cycle_len": 200, "until_overfit": False}
    (folder / "params.yaml").write_text(to_yaml(recipe.params | {"full_train": training}))
    return folder


def start(checkout: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "DVC_STAGE": "full_train", "PYTHONPATH": str(PROJECT)}
    environment |= {"UNFREEZE_TRACKING": "true", "UNFREEZE_LIVE_S": "0", "UNFREEZE_WORKERS": "1"}
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "stages.full_train"]
    return subprocess.Popen(command, cwd=checkout, env=environment, stderr=subprocess.PIPE, start_new_session=True)


def statuses(checkout: Path) -> list[str]:
    store = checkout / "mlflow.db"
    if not store.exists():
        return []
    with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as connection:
        return [status for (status,) in connection.execute("SELECT status FROM runs")]


def noted_as_open(checkout: Path) -> int:
    return len(list((checkout / ".unfreeze" / "open").glob("*.json")))


def wait_for(checkout: Path, expected: list[str], *, noted: int) -> None:
    """Wait for the rows' status, and for the notes of open rows, which follow it."""
    deadline = time.monotonic() + 120
    while (statuses(checkout), noted_as_open(checkout)) != (expected, noted):
        assert time.monotonic() < deadline, (statuses(checkout), noted_as_open(checkout))
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stage_that_is_stopped_ends_its_row(checkout: Path, number: signal.Signals) -> None:
    process = start(checkout)
    wait_for(checkout, ["RUNNING"], noted=1)  # the second time, the row of the first is continued
    if number == signal.SIGKILL:
        process.kill()
        process.communicate()
    else:
        os.killpg(process.pid, number)  # as a terminal does: the readers of images and the follower get it too
        error = process.communicate(timeout=30)[1].decode()
        assert process.returncode == 128 + number
        assert "Traceback" not in error
        assert re.search(r"stopped; `dvc repro` goes on from step \d+ of \d+$", error, re.MULTILINE), error
    wait_for(checkout, ["KILLED"], noted=0)
