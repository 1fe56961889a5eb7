"""A stage that is killed at any moment resumes, and its folder has the same bytes as after an undisturbed run."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.params import to_yaml
from tests.conftest import PROJECT, Run
from tests.reliability.faults import hashes

pytestmark = pytest.mark.xdist_group("recipe")


def start(checkout: Path, *, checkpoint_s: float) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "DVC_STAGE": "full_train", "PYTHONPATH": str(PROJECT)}
    environment["UNFREEZE_CHECKPOINT_S"] = str(checkpoint_s)
    environment.pop("DVC_ROOT", None)
    return subprocess.Popen([sys.executable, "-m", "stages.full_train"], cwd=checkout, env=environment)


@pytest.mark.slow
def test_a_stage_killed_in_training_resumes_and_ends_in_the_same_bytes(recipe: Run, tmp_path: Path) -> None:
    shutil.copytree(recipe.artifacts, tmp_path / "artifacts")
    (tmp_path / "params.yaml").write_text(to_yaml(recipe.params))
    folder = tmp_path / "artifacts" / "full_train"
    shutil.rmtree(folder)

    process = start(tmp_path, checkpoint_s=0)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".unfreeze/scratch/full_train-*/checkpoint.pt")):
        assert time.monotonic() < deadline
        assert process.poll() is None, "the stage ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not folder.exists()

    assert start(tmp_path, checkpoint_s=30).wait() == 0
    assert hashes(folder) == hashes(recipe.artifacts / "full_train")
