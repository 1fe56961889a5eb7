"""Faults on purpose: a stage in a process of its own is killed, or its disk fails, at the k-th step on the disk."""

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.harness.execute import StageFolders, execute
from pipeline.settings import read_settings, with_environment
from stages.registry import ALL

STAGES = {stage.name: stage for stage in ALL if stage.name != "report"}  # the report computes nothing

NO_ROOM = errno.ENOSPC
BROKEN = errno.EIO


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and when."""

    at: int
    """The step on the disk, from 1."""
    error: int | None = None
    """The error that this step and all after it end with; None kills the process before it."""


@dataclass(frozen=True)
class Ended:
    """How the process ended."""

    status: int
    """As of `multiprocessing`: 0, 1 for an error that a person is told, -9 for a kill, 70 for any other error."""
    steps: int
    """Steps on the disk; 0 if it was killed."""
    said: str


class Lab:
    """Runs one stage again and again, from the same upstream folders, in processes that are forked in milliseconds."""

    def __init__(self, stage: str, artifacts: Path, params: Mapping[str, Any], folder: Path) -> None:
        self.stage = STAGES[stage]
        self.expected = hashes(artifacts / stage)
        self.folder = folder
        self._params = dict(params)
        for upstream in ("config", *self.stage.upstream):
            if not (folder / "artifacts" / upstream).exists():
                shutil.copytree(artifacts / upstream, folder / "artifacts" / upstream)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__])

    @property
    def target(self) -> Path:
        return self.folder / "artifacts" / self.stage.name

    @property
    def state(self) -> Path:
        return self.folder / ".unfreeze"

    def clear(self) -> None:
        """Forget all that was made."""
        shutil.rmtree(self.target, ignore_errors=True)
        shutil.rmtree(self.state, ignore_errors=True)

    def run(self, fault: Fault | None = None, *, timeout_s: float = 120) -> Ended:
        """Run the stage; one that does not end in time is stuck, which raises TimeoutError."""
        told = self.folder / "told.json"
        told.unlink(missing_ok=True)
        process = self._context.Process(target=_run, args=(self.stage.name, self._params, self.folder, fault, told))
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"{self.stage.name} with {fault} is stuck")
        said = json.loads(told.read_text()) if told.exists() else {"steps": 0, "said": ""}
        return Ended(process.exitcode, **said)

    def is_right(self) -> bool:
        """Whether the stage's folder is, byte for byte, that of an undisturbed run, and nothing is left over."""
        beside = [p.name for p in self.target.parent.glob(".*")]
        return hashes(self.target) == self.expected and not beside and not list((self.state / "scratch").iterdir())


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder`."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def spread(count: int, of: int) -> list[int]:
    """`count` numbers from 1 to `of`, evenly spread, the last one included."""
    return sorted({max(1, round(of * (i + 1) / count)) for i in range(count)})


def _run(stage: str, params: Mapping[str, Any], folder: Path, fault: Fault | None, told: Path) -> None:
    os.environ |= {"UNFREEZE_TRACKING": "false", "UNFREEZE_THREADS": "1", "UNFREEZE_CHECKPOINT_S": "0"}
    os.chdir(folder)
    steps = _Steps(fault)
    files.before_step = steps
    said = folder / "said.txt"
    with said.open("w") as file, redirect_stderr(file):
        status = status_of(lambda: _execute(stage, params))
    files.before_step = lambda *_: None
    told.write_text(json.dumps({"steps": steps.count, "said": said.read_text()}))
    os._exit(status)


def _execute(name: str, params: Mapping[str, Any]) -> None:
    stage, artifacts = STAGES[name], Path("artifacts").resolve()
    runtime = with_environment(read_settings(dict(params), source="params").runtime)
    inputs = {upstream: artifacts / upstream for upstream in stage.upstream}
    execute(stage, params, runtime, StageFolders(inputs, artifacts / name, Path(".unfreeze").resolve()))


def status_of(do: Callable[[], object]) -> int:
    """Do it; returns the status as in `Ended`, and prints what went wrong."""
    try:
        do()
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except BaseException as error:
        with suppress(Exception):
            print(repr(error), file=sys.stderr)
        return 70
    return 0


class _Steps:
    """Counts steps on the disk; at the fault's, the process is killed, or this step and those after it fail."""

    def __init__(self, fault: Fault | None) -> None:
        self.count = 0
        self._fault = fault

    def __call__(self, step: str, path: Path) -> None:
        self.count += 1
        fault = self._fault
        if fault is None or self.count < fault.at:
            return
        if fault.error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        elif step != "remove":  # a full disk lets one remove
            raise OSError(fault.error, os.strerror(fault.error), str(path))
