"""Several processes that compute one stage come to the result of one, whatever ends any of them."""

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.harness import team
from pipeline.harness.execute import StageFolders, execute
from pipeline.harness.published import read_record
from pipeline.harness.stage import Stage
from pipeline.harness.team import num_processes
from pipeline.model.tensors import read_tensors
from pipeline.params import to_yaml
from pipeline.settings import Runtime, SettingsError
from stages.registry import ALL
from tests.conftest import PROJECT, Run, put
from tests.reliability.faults import hashes

pytestmark = pytest.mark.xdist_group("recipe")
SHARED = [stage for stage in ALL if stage.is_shared]


def run(recipe: Run, stage: Stage[object], root: Path, runtime: Runtime, **changed: object) -> Path:
    """Run one stage of the recipe again, below `root`; returns its folder."""
    params = recipe.params
    for key, value in changed.items():
        params = put(params, key.replace("__", "."), value)
    folders = StageFolders({name: recipe.folder(name) for name in stage.upstream}, root / stage.name, root / "state")
    execute(stage, params, runtime, folders)
    return root / stage.name


def results(folder: Path) -> dict[str, str]:
    """The digest of each file, but for the record, which says how many processes there were."""
    return {name: digest for name, digest in hashes(folder).items() if name != "stage.json"}


def of_name(name: str) -> Stage[object]:
    return next(stage for stage in ALL if stage.name == name)


def test_the_record_says_how_many_and_results_are_those_of_one(recipe: Run, runtime: Runtime, tmp_path: Path) -> None:
    """Two ranks with one part of each batch each: bit for bit what one process makes of the same parts."""
    stage, parts = of_name("full_train"), {"data__micro_batch_size": 4, "full_train__num_cycles": 1}
    alone = run(recipe, stage, tmp_path / "alone", runtime, **parts)
    together = run(recipe, stage, tmp_path / "together", replace(runtime, processes=2), **parts)
    assert [read_record(f)["environment"]["processes"] for f in (alone, together)] == [1, 2]
    assert results(together) == results(alone)


@pytest.mark.slow
@pytest.mark.parametrize("stage", SHARED, ids=lambda stage: stage.name)
@pytest.mark.parametrize("processes", [2, 3])
def test_every_shared_stage_agrees_with_one_process(
    recipe: Run, runtime: Runtime, tmp_path: Path, stage: Stage[object], processes: int
) -> None:
    """Batches of 8 are cut into 8, 4 + 4, or 3 + 3 + 2: sums differ in their last digits, dropout and views do not."""
    alone, together = (run(recipe, stage, tmp_path / str(n), replace(runtime, processes=n)) for n in (1, processes))
    assert set(hashes(together)) == set(hashes(alone))
    for file in alone.rglob("*.safetensors"):
        ours, theirs = read_tensors(together / file.relative_to(alone)), read_tensors(file)
        for name, tensor in theirs.items():
            torch.testing.assert_close(ours[name], tensor, atol=1e-4, rtol=1e-4, msg=f"{file.name}: {name}")
    if (alone / "predictions.csv").exists():
        assert (together / "predictions.csv").read_text() == (alone / "predictions.csv").read_text()


def test_batch_norms_that_are_trained_are_refused(recipe: Run, runtime: Runtime, tmp_path: Path) -> None:
    shutil.copytree(recipe.artifacts, tmp_path / "artifacts")
    stage = of_name("unfreeze")
    changed = Run(tmp_path / "artifacts", put(recipe.params, "unfreeze.batch_norm", "train"))
    shutil.rmtree(changed.folder("unfreeze"))
    run(changed, stage, tmp_path / "artifacts", runtime)
    with pytest.raises(SettingsError, match=r"runtime\.processes=1 or unfreeze\.batch_norm=frozen"):
        run(changed, of_name("lr_find_full"), tmp_path / "again", replace(runtime, processes=2))


def test_more_gpus_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch, runtime: Runtime) -> None:
    monkeypatch.setattr("pipeline.model.compute.choose_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    stage = of_name("full_train")
    assert num_processes(stage, replace(runtime, processes="auto")) == 2
    assert num_processes(of_name("head_train"), replace(runtime, processes="auto")) == 1
    with pytest.raises(SettingsError, match="this machine has 2"):
        num_processes(stage, replace(runtime, processes=3))


def test_helpers_start_where_others_have_set_another_default() -> None:
    """joblib's workers have one of their own, which a new process does not know."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("forkserver", force=True)
    try:
        with team._spawning():
            assert multiprocessing.get_start_method() == "spawn"
        assert multiprocessing.get_start_method() == "forkserver"
    finally:
        multiprocessing.set_start_method(before, force=True)


def start(checkout: Path, *, processes: int, checkpoint_s: float = 0) -> "subprocess.Popen[str]":
    environment = {**os.environ, "DVC_STAGE": "full_train", "PYTHONPATH": str(PROJECT)}
    environment |= {"UNFREEZE_CHECKPOINT_S": str(checkpoint_s), "UNFREEZE_PROCESSES": str(processes)}
    environment.pop("DVC_ROOT", None)
    command = [sys.executable, "-m", "stages.full_train"]
    return subprocess.Popen(command, cwd=checkout, env=environment, stderr=subprocess.PIPE, text=True)


def helpers_of(pid: int) -> list[int]:
    """The processes that a stage has started to help it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]


def wait_for_training(checkout: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 60
    while not list(checkout.glob(".unfreeze/scratch/full_train-*/checkpoint.pt")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.02)


def ended(pids: list[int]) -> bool:
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def checkout(recipe: Run, tmp_path: Path) -> Path:
    shutil.copytree(recipe.artifacts, tmp_path / "artifacts")
    shutil.rmtree(tmp_path / "artifacts" / "full_train")
    params = put(recipe.params, "data.micro_batch_size", 4)
    (tmp_path / "params.yaml").write_text(to_yaml(params))
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
@pytest.mark.parametrize(
    ("killed", "number", "status", "said"),
    [
        ("helper", signal.SIGKILL, 1, r"process 2 of 2 \(pid \d+\) was ended by SIGKILL.*the same command again"),
        ("first", signal.SIGKILL, -signal.SIGKILL, ""),
        ("first", signal.SIGTERM, 143, "goes on from step"),
        ("first", signal.SIGINT, 130, "goes on from step"),
    ],
)
def test_what_ends_one_ends_all_and_any_number_goes_on(
    recipe: Run, runtime: Runtime, checkout: Path, killed: str, number: int, status: int, said: str
) -> None:
    process = start(checkout, processes=2)
    wait_for_training(checkout, process)
    helpers = helpers_of(process.pid)
    assert len(helpers) == 1
    os.kill(helpers[0] if killed == "helper" else process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert ended(helpers)
    assert re.search(said, errors.replace("\n", " "))
    assert "Traceback" not in errors
    assert not (checkout / "artifacts" / "full_train").exists()

    again = start(checkout, processes=1)
    _, errors = again.communicate()
    assert again.returncode == 0, errors
    folder = checkout / "artifacts" / "full_train"
    assert read_record(folder)["environment"]["processes"] == [2, 1]
    unbroken = run(recipe, of_name("full_train"), checkout / "unbroken", runtime, data__micro_batch_size=4)
    assert results(folder) == results(unbroken)


@pytest.mark.slow
def test_it_joins_processes_that_torchrun_has_started(recipe: Run, runtime: Runtime, checkout: Path) -> None:
    environment = {**os.environ, "DVC_STAGE": "full_train", "PYTHONPATH": str(PROJECT)}
    environment.pop("DVC_ROOT", None)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone"]
    for _ in range(2):  # the second time nothing is left to do
        subprocess.run([*torchrun, "-m", "stages.full_train"], cwd=checkout, env=environment, check=True, timeout=120)
    folder = checkout / "artifacts" / "full_train"
    assert read_record(folder)["environment"]["processes"] == 2
    alone = run(recipe, of_name("full_train"), checkout / "alone", runtime, data__micro_batch_size=4)
    assert results(folder) == results(alone)
