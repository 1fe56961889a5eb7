"""The harness: declared reads, whole-or-nothing folders, identity, locks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import pipeline.harness.stage as harness
from pipeline.harness.stage import Metrics, Places, Stage, StageContext, UndeclaredReadError, execute
from pipeline.settings import Runtime
from tests.conftest import PROJECT, Compose


def stage(run: Any, **changes: Any) -> Stage:
    declared: dict[str, Any] = {"name": "ingest", "settings": ("seed", "data.name"), "inputs": (), "uses_torch": False}
    return Stage(run=run, **(declared | changes))


def places(tmp_path: Path, **inputs: Path) -> Places:
    return Places(inputs, tmp_path / "artifacts" / "ingest", tmp_path / ".unfreeze")


def write_seed(context: StageContext) -> Metrics:
    (context.out / "seed.txt").write_text(str(context.settings.seed))
    context.journal.points(0, value=float(context.settings.seed))
    return {"seed": context.settings.seed}


def test_a_finished_stage_leaves_its_folder_and_no_scratch(
    tmp_path: Path, compose_conf: Compose, runtime: Runtime
) -> None:
    metrics = execute(stage(write_seed), compose_conf("seed=7"), runtime, places(tmp_path))
    folder = tmp_path / "artifacts" / "ingest"
    assert metrics == {"seed": 7} == json.loads((folder / "metrics.json").read_text())
    assert {p.name for p in folder.iterdir()} == {
        "seed.txt",
        "metrics.json",
        "journal.jsonl",
        "history.csv",
        "stage.json",
    }
    assert json.loads((folder / "stage.json").read_text())["settings"] == {"seed": 7, "data.name": "digits"}
    assert not list((tmp_path / ".unfreeze" / "scratch").iterdir())


def test_what_the_clock_said_is_kept_beside_the_folder_and_not_in_it(
    tmp_path: Path, compose_conf: Compose, runtime: Runtime
) -> None:
    def measured(context: StageContext) -> Metrics:
        context.timings["ms_per_image"] = 4.25
        return {}

    execute(stage(measured), compose_conf(), runtime, places(tmp_path))
    digest = json.loads((tmp_path / "artifacts" / "ingest" / "stage.json").read_text())["digest"]
    timings = json.loads((tmp_path / ".unfreeze" / "timings" / f"{digest}.json").read_text())
    assert timings["ms_per_image"] == 4.25
    assert timings.keys() == {"seconds", "ms_per_image"}
    assert all("4.25" not in p.read_text() for p in (tmp_path / "artifacts" / "ingest").iterdir())


def test_a_failing_stage_leaves_the_old_folder_alone(tmp_path: Path, compose_conf: Compose, runtime: Runtime) -> None:
    execute(stage(write_seed), compose_conf(), runtime, places(tmp_path))

    def fail(context: StageContext) -> Metrics:
        (context.out / "seed.txt").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        execute(stage(fail), compose_conf("seed=1"), runtime, places(tmp_path))
    assert (tmp_path / "artifacts" / "ingest" / "seed.txt").read_text() == "0"


@pytest.mark.parametrize(
    "read",
    [
        lambda c: c.settings.model,
        lambda c: c.settings.data.root,
        lambda c: c.settings.full_train.lr,
        lambda c: c.input("precompute"),
    ],
)
def test_reading_what_is_not_declared_raises(
    tmp_path: Path, compose_conf: Compose, runtime: Runtime, read: Any
) -> None:
    def run(context: StageContext) -> Metrics:
        assert context.settings.data.name == "digits"
        read(context)
        return {}

    with pytest.raises(UndeclaredReadError, match="ingest reads"):
        execute(stage(run), compose_conf(), runtime, places(tmp_path))


def test_scratch_survives_a_failure_and_serves_the_same_identity_only(
    tmp_path: Path, compose_conf: Compose, runtime: Runtime
) -> None:
    found: list[bool] = []

    def run(context: StageContext) -> Metrics:
        found.append((context.scratch / "progress").exists())
        (context.scratch / "progress").touch()
        if len(found) < 4:
            raise ValueError("killed")
        return {}

    for seed in (0, 0, 1, 0):
        try:
            execute(stage(run), compose_conf(f"seed={seed}"), runtime, places(tmp_path))
        except ValueError:
            continue
    assert found == [False, True, False, True]


def test_identity_holds_settings_inputs_and_code(
    tmp_path: Path, compose_conf: Compose, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()

    def run(context: StageContext) -> Metrics:
        seen.add(context.scratch.name)
        return {}

    def go(digest: str, *overrides: str) -> int:
        upstream = tmp_path / "up"
        upstream.mkdir(exist_ok=True)
        (upstream / "stage.json").write_text(json.dumps({"digest": digest}))
        execute(stage(run, inputs=("up",)), compose_conf(*overrides), runtime, places(tmp_path, up=upstream))
        return len(seen)

    assert go("a") == 1
    assert go("a", "full_train.cycle_mult=3") == 1  # not declared
    assert go("a", "seed=1") == 2
    assert go("b") == 3
    monkeypatch.setattr(harness, "code_digest", lambda _: "other code")
    assert go("a") == 4


def test_a_missing_input_says_how_to_make_it(tmp_path: Path, compose_conf: Compose, runtime: Runtime) -> None:
    with pytest.raises(FileNotFoundError, match="dvc repro precompute"):
        execute(
            stage(write_seed, inputs=("precompute",)),
            compose_conf(),
            runtime,
            places(tmp_path, precompute=tmp_path / "artifacts" / "precompute"),
        )


HOLD = """
import sys, time
from pathlib import Path
from pipeline.harness.compose import compose
from pipeline.settings import read_settings
from pipeline.harness.stage import Places, Stage, execute

def run(context):
    Path(sys.argv[1], "running").touch()
    time.sleep(float(sys.argv[2]))
    (context.out / "by").write_text("first")
    return {"by": 1}

params = compose()
stage = Stage(name="ingest", run=run, settings=("seed", "data.name"), uses_torch=False)
root = Path(sys.argv[1])
places = Places({}, root / "artifacts" / "ingest", root / ".unfreeze")
execute(stage, params, read_settings(params, source="").runtime, places)
"""


def hold_lock(tmp_path: Path, seconds: float) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path), str(seconds)], cwd=PROJECT)
    deadline = time.monotonic() + 30
    while not (tmp_path / "running").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def never(context: StageContext) -> Metrics:
    raise AssertionError(f"ran beside another process: {context.stage.name}")


def test_the_same_work_by_another_process_is_waited_for_and_taken(
    tmp_path: Path, compose_conf: Compose, runtime: Runtime, capfd: pytest.CaptureFixture[str]
) -> None:
    orphan = hold_lock(tmp_path, 1.0)
    metrics = execute(stage(never), compose_conf(), runtime, places(tmp_path))
    assert orphan.wait() == 0
    assert metrics == {"by": 1}
    assert f"process {orphan.pid} is still running this stage: waiting" in capfd.readouterr().err


def test_other_work_by_another_process_is_refused_by_name(
    tmp_path: Path, compose_conf: Compose, runtime: Runtime
) -> None:
    orphan = hold_lock(tmp_path, 30.0)
    with pytest.raises(BlockingIOError, match=f"kill {orphan.pid}"):
        execute(stage(never), compose_conf("seed=1"), runtime, places(tmp_path))
    os.kill(orphan.pid, signal.SIGKILL)
    orphan.wait()
    metrics = execute(stage(write_seed), compose_conf("seed=1"), runtime, places(tmp_path))
    assert metrics == {"seed": 1}
