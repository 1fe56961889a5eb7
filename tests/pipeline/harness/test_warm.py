"""The warm process: what it runs is what the command would have run, and ends as that would have ended."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.files import read_json
from pipeline.harness.warm import LIGHT
from pipeline.params import to_yaml
from pipeline.processes import is_alive
from stages import STAGES
from stages.registry import ALL
from tests.conftest import PROJECT, Run
from tests.reliability.faults import hashes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each stage is a process of its own")

DVC = """
import os, subprocess, sys
for stage in sys.argv[1:]:
    command = [sys.executable, "-m", f"stages.{stage}"]
    if "THROUGH_A_SHELL" in os.environ:
        command = ["/bin/sh", "-c", f"python -m stages.{stage}"]
    process = subprocess.Popen(command, env={**os.environ, "DVC_STAGE": stage})
    print("command", process.pid, flush=True)
    print("status", process.wait(), flush=True)
"""
"""What starts stages, as DVC does: through a shell, which becomes the command (bash), or waits for it (dash)."""

FIRST_ACT = """
import sys
from pipeline.harness.warm import hand_over
from pipeline.stopping import listen
if sys.argv[:1] == ["-m"]:
    listen()
    hand_over()
"""
TELL = """
import os, sys
from pipeline.processes import starter
print("stage", os.getpid(), os.getppid(), starter().split(":")[1], os.environ["DVC_STAGE"], sys.argv[1:], flush=True)
"""
WAIT = """
import time
from pipeline.harness.stop import leave, obeying
from pipeline.stopping import raise_if_requested
def wait():
    print("ready", flush=True)
    while True:
        raise_if_requested()
        time.sleep(0.02)
leave(obeying("ingest", wait))
"""


class Dvc:
    """A process that starts stages, one after the other, and what they and it print."""

    def __init__(self, folder: Path, *stages: str) -> None:
        environment = {**os.environ, "DVC_ROOT": str(folder), "PYTHONPATH": str(folder)}
        environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment.pop("COVERAGE_PROCESS_START", None)
        command = [sys.executable, "-c", DVC, *stages]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)

    def read(self, what: str) -> list[str]:
        """The words behind `what` in the next line that begins with it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.split()[0] == what:
                return line.split()[1:]
        raise AssertionError(f"{what} was never printed: {self.errors()}")

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Dvc]]:
    """Start stages whose code is given, `ingest` and then `report`, in a copy of the library."""
    shutil.copytree(PROJECT / "pipeline", tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "__init__.py").write_text(FIRST_ACT)
    for empty in ("torch/__init__", "torch/_inductor/__init__", "torch/_inductor/config", "pipeline/vision"):
        file = tmp_path / f"{empty}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text("")  # these stages need no torch, which takes seconds to import
    started = []

    def run(*codes: str, names: tuple[str, ...] = ("ingest", "report")) -> Dvc:
        used = names[: len(codes)]
        for name, code in zip(used, codes, strict=True):
            program = textwrap.indent(code, "    ")
            (tmp_path / "stages" / f"{name}.py").write_text(f"if __name__ == '__main__':\n{program}")
        started.append(Dvc(tmp_path, *used))
        return started[-1]

    yield run
    for dvc in started:
        dvc.process.kill()
        dvc.process.communicate()


def ends(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


def test_only_the_stages_that_training_follows_start_it() -> None:
    light = {stage.name for stage in ALL if not stage.uses_torch}
    assert set(LIGHT) == light | {"config", "scores", "publish"}
    assert not {"config", "scores", "publish"} & set(STAGES)


@pytest.mark.parametrize("through_a_shell", [False, True])
def test_stages_are_forked_from_one_process_that_ends_with_dvc(
    start: Callable[..., Dvc], through_a_shell: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if through_a_shell:
        monkeypatch.setenv("THROUGH_A_SHELL", "yes")
    dvc = start(TELL, TELL)
    stages = [dvc.read("stage"), dvc.read("stage")]
    (first, warm, owner, *told), (second, *other, name, arguments) = stages
    assert [warm, owner] == other
    assert owner == str(dvc.process.pid)
    assert len({first, second, warm, owner}) == 4
    assert (told, name, arguments) == (["ingest", "[]"], "report", "[]")
    assert dvc.process.wait() == 0
    assert ends(int(warm))


def test_a_light_stage_alone_starts_none(start: Callable[..., Dvc]) -> None:
    dvc = start(TELL, names=("report",))
    (command,) = dvc.read("command")
    assert dvc.read("stage")[:2] == [command, str(dvc.process.pid)]


def test_a_changed_source_ends_it_and_the_next_stage_gets_a_new_one(start: Callable[..., Dvc], tmp_path: Path) -> None:
    changes = TELL + f"\nfrom pathlib import Path\nPath({str(tmp_path / 'pipeline/printable.py')!r}).touch()\n"
    dvc = start(changes, TELL, names=("ingest", "full_train"))
    first, second = dvc.read("stage"), dvc.read("stage")
    assert first[1] != second[1]
    assert first[2] == second[2] == str(dvc.process.pid) != second[1]
    assert dvc.process.wait() == 0


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("raise SystemExit(3)", "3", ""),
        ("raise ValueError('a bug')", "1", "ValueError: a bug"),
        ("import os; os.kill(os.getpid(), 9)", "-9", ""),
        ("import os; os.kill(os.getpid(), 14)", "-14", ""),
        ("import os; os.kill(os.getppid(), 9); import time; time.sleep(0.5)", "1", "was lost"),
    ],
)
def test_the_command_ends_as_the_stage_does(start: Callable[..., Dvc], code: str, status: str, said: str) -> None:
    dvc = start(code)
    assert dvc.read("status") == [status]
    assert said in dvc.errors()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_command_reaches_the_stage(start: Callable[..., Dvc], number: int) -> None:
    dvc = start(WAIT)
    (command,) = dvc.read("command")
    dvc.read("ready")
    os.kill(int(command), number)
    assert dvc.read("status") == [str(128 + number)]
    assert "stopped; `dvc repro` goes on from here" in dvc.errors()


def test_a_killed_command_takes_the_stage_with_it(start: Callable[..., Dvc]) -> None:
    dvc = start(TELL + WAIT)
    (command,) = dvc.read("command")
    stage = int(dvc.read("stage")[0])
    dvc.read("ready")
    os.kill(int(command), signal.SIGKILL)
    assert dvc.read("status") == ["-9"]
    assert ends(stage)


def test_a_stage_stops_when_dvc_is_gone(start: Callable[..., Dvc]) -> None:
    dvc = start(TELL + WAIT)
    stage, warm = map(int, dvc.read("stage")[:2])
    dvc.read("ready")
    dvc.process.kill()
    assert ends(warm)
    assert ends(stage)
    assert "stopped; `dvc repro` goes on from here" in dvc.errors()


@pytest.mark.slow
@pytest.mark.xdist_group("recipe")
def test_stages_leave_the_same_bytes(recipe: Run, tmp_path: Path) -> None:
    shutil.copytree(recipe.artifacts, tmp_path / "artifacts")
    (tmp_path / "params.yaml").write_text(to_yaml(recipe.params))
    stages = ("head_train_augmented", "unfreeze")
    for name in stages:
        shutil.rmtree(tmp_path / "artifacts" / name)
    environment = {**os.environ, "DVC_ROOT": str(tmp_path), "PYTHONPATH": str(PROJECT)}
    dvc = [sys.executable, "-c", DVC, *stages]
    said = subprocess.run(dvc, cwd=tmp_path, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    commands = {int(line.split()[1]) for line in said.splitlines() if line.startswith("command")}
    ran = {read_json(owner)["pid"] for owner in tmp_path.glob(".unfreeze/locks/folder-????????????????????.json")}
    assert len(commands) == len(ran) == 2
    assert not commands & ran, "they ran in processes of their own"
    for name in stages:
        assert hashes(tmp_path / "artifacts" / name) == hashes(recipe.artifacts / name)
