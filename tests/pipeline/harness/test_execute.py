"""The harness: declared reads, whole-or-nothing folders, identity, locks."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import pipeline.harness.execute as harness
from pipeline.console import say
from pipeline.harness.execute import Audience, StageFolders, execute
from pipeline.harness.published import complete_record, write_record
from pipeline.harness.stage import Input, Metrics, Stage, StageContext, UndeclaredReadError, dotted_keys, select
from pipeline.settings import Runtime, Settings, read_settings
from pipeline.timings import read_timings
from tests.conftest import PROJECT, Compose


@dataclass(frozen=True)
class DataReads:
    name: str


@dataclass(frozen=True)
class Reads:
    seed: int
    data: DataReads


Context = StageContext[Reads]


def stage(run: Any, *inputs: Input) -> Stage[Reads]:
    return Stage(name="ingest", run=run, reads=Reads, inputs=inputs, uses_torch=False)


def folders(tmp_path: Path, **inputs: Path) -> StageFolders:
    return StageFolders(inputs, tmp_path / "artifacts" / "ingest", tmp_path / ".unfreeze")


def write_seed(context: Context) -> Metrics:
    (context.out / "seed.txt").write_text(str(context.settings.seed))
    context.journal.points(0, value=float(context.settings.seed))
    return {"seed": context.settings.seed}


def test_a_finished_stage_leaves_its_folder_and_no_scratch(
    tmp_path: Path, compose_conf: Compose, runtime: Runtime
) -> None:
    metrics = execute(stage(write_seed), compose_conf("seed=7"), runtime, folders(tmp_path))
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
    def measured(context: Context) -> Metrics:
        context.timings["ms_per_image"] = 4.25
        return {}

    execute(stage(measured), compose_conf(), runtime, folders(tmp_path))
    digest = json.loads((tmp_path / "artifacts" / "ingest" / "stage.json").read_text())["digest"]
    timings = read_timings(tmp_path / ".unfreeze", digest)
    assert timings["ms_per_image"] == 4.25
    assert timings.keys() == {"seconds", "ms_per_image"}
    assert all("4.25" not in p.read_text() for p in (tmp_path / "artifacts" / "ingest").iterdir())


def test_a_failing_stage_leaves_the_old_folder_alone(tmp_path: Path, compose_conf: Compose, runtime: Runtime) -> None:
    execute(stage(write_seed), compose_conf(), runtime, folders(tmp_path))

    def fail(context: Context) -> Metrics:
        (context.out / "seed.txt").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        execute(stage(fail), compose_conf("seed=1"), runtime, folders(tmp_path))
    assert (tmp_path / "artifacts" / "ingest" / "seed.txt").read_text() == "0"


@pytest.mark.parametrize(
    ("read", "error", "said"),
    [
        (lambda c: c.settings.model, AttributeError, "no attribute 'model'"),
        (lambda c: c.settings.data.root, AttributeError, "no attribute 'root'"),
        (lambda c: c.settings.full_train.lr, AttributeError, "no attribute 'full_train'"),
        (lambda c: c.input("precompute"), UndeclaredReadError, "ingest reads precompute, but declares nothing"),
    ],
)
def test_reading_what_is_not_declared_raises(
    tmp_path: Path, compose_conf: Compose, runtime: Runtime, read: Any, error: type[Exception], said: str
) -> None:
    def run(context: Context) -> Metrics:
        assert context.settings.data.name == "digits"
        read(context)
        return {}

    with pytest.raises(error, match=said):
        execute(stage(run), compose_conf(), runtime, folders(tmp_path))


def test_scratch_survives_a_failure_and_serves_the_same_identity_only(
    tmp_path: Path, compose_conf: Compose, runtime: Runtime
) -> None:
    found: list[bool] = []

    def run(context: Context) -> Metrics:
        found.append((context.scratch / "progress").exists())
        (context.scratch / "progress").touch()
        if len(found) < 4:
            raise ValueError("killed")
        return {}

    for seed in (0, 0, 1, 0):
        try:
            execute(stage(run), compose_conf(f"seed={seed}"), runtime, folders(tmp_path))
        except ValueError:
            continue
    assert found == [False, True, False, True]


def test_identity_holds_settings_inputs_and_code(
    tmp_path: Path, compose_conf: Compose, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()

    def run(context: Context) -> Metrics:
        seen.add(context.scratch.name)
        return {}

    def go(result: str, *overrides: str) -> int:
        upstream = tmp_path / "up"
        upstream.mkdir(exist_ok=True)
        (upstream / "result").write_text(result)
        write_record(upstream, complete_record(upstream, {}))
        execute(stage(run, Input("up")), compose_conf(*overrides), runtime, folders(tmp_path, up=upstream))
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
            stage(write_seed, Input("precompute")),
            compose_conf(),
            runtime,
            folders(tmp_path, precompute=tmp_path / "artifacts" / "precompute"),
        )


HOLD = """
import sys, time
from pathlib import Path
from dataclasses import dataclass
from pipeline.harness.compose import compose
from pipeline.harness.execute import StageFolders, execute
from pipeline.harness.stage import Stage
from pipeline.settings import read_settings

@dataclass(frozen=True)
class DataReads:
    name: str

@dataclass(frozen=True)
class Reads:
    seed: int
    data: DataReads

def run(context):
    Path(sys.argv[1], "running").touch()
    time.sleep(float(sys.argv[2]))
    (context.out / "by").write_text("first")
    return {"by": 1}

params = compose()
stage = Stage(name="ingest", run=run, reads=Reads, uses_torch=False)
root = Path(sys.argv[1])
folders = StageFolders({}, root / "artifacts" / "ingest", root / ".unfreeze")
execute(stage, params, read_settings(params, source="").runtime, folders)
"""


def hold_lock(tmp_path: Path, seconds: float) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path), str(seconds)], cwd=PROJECT)
    deadline = time.monotonic() + 30
    while not (tmp_path / "running").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def never(context: Context) -> Metrics:
    raise AssertionError(f"ran beside another process: {context.stage.name}")


def test_the_same_work_by_another_process_is_waited_for_and_taken(
    tmp_path: Path, compose_conf: Compose, runtime: Runtime, capfd: pytest.CaptureFixture[str]
) -> None:
    orphan = hold_lock(tmp_path, 1.0)
    metrics = execute(stage(never), compose_conf(), runtime, folders(tmp_path), Audience(say=say))
    assert orphan.wait() == 0
    assert metrics == {"by": 1}
    assert f"process {orphan.pid} is still running this stage: waiting" in capfd.readouterr().err


def test_other_work_by_another_process_is_refused_by_name(
    tmp_path: Path, compose_conf: Compose, runtime: Runtime
) -> None:
    orphan = hold_lock(tmp_path, 30.0)
    with pytest.raises(BlockingIOError, match=f"kill {orphan.pid}"):
        execute(stage(never), compose_conf("seed=1"), runtime, folders(tmp_path))
    os.kill(orphan.pid, signal.SIGKILL)
    orphan.wait()
    metrics = execute(stage(write_seed), compose_conf("seed=1"), runtime, folders(tmp_path))
    assert metrics == {"seed": 1}


def test_a_stage_gets_the_part_of_the_settings_that_it_declares(compose_conf: Compose) -> None:
    settings = read_settings(compose_conf("seed=7"), source="x")
    assert select(Reads, settings) == Reads(7, DataReads("digits"))
    assert list(dotted_keys(Reads)) == ["seed", "data.name"]
    whole = select(Settings, settings)
    assert whole == settings
    assert "data.split.valid" in dotted_keys(Settings)


def test_the_audience_hears_of_a_stage_and_changes_nothing(
    tmp_path: Path, compose_conf: Compose, runtime: Runtime
) -> None:
    heard: list[Any] = []

    def speak(context: Context) -> Metrics:
        context.say("half way")
        context.timings["ms"] = 2.0
        return write_seed(context)

    def report(name: str, found: Any, timings: Any) -> None:
        assert (found[name] / "stage.json").exists()
        heard.append((name, timings["ms"]))

    execute(
        stage(speak),
        compose_conf(),
        runtime,
        folders(tmp_path / "shown"),
        Audience(say=lambda *x: heard.append(x), report=report),
    )
    execute(stage(speak), compose_conf(), runtime, folders(tmp_path / "hidden"))
    assert heard[:2] == [("ingest", "half way"), ("ingest", 2.0)]
    assert heard[2][1].startswith("done in")
    shown, hidden = (
        (tmp_path / name / "artifacts" / "ingest" / "stage.json").read_bytes() for name in ("shown", "hidden")
    )
    assert shown == hidden
