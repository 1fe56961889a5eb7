"""The processes that compute one stage: the stage's own is the first of them, and starts the others.

`python -m stages.full_train` is one command whatever `runtime.processes` is. Its process keeps all that a stage has to
do with: locks, journal, progress, publication. What the others do is in `pipeline.harness.helper`.
"""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import get_start_method, set_start_method
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from pipeline.console import complain
from pipeline.harness.helper import Job, connect, disconnect, help_once, is_connected, is_joined, num_local, tell
from pipeline.harness.stage import Stage
from pipeline.settings import Runtime, SettingsError
from pipeline.stopping import shielded

if TYPE_CHECKING:  # stages that need no torch load this module too
    from multiprocessing.context import SpawnProcess

GRACE_S = 10.0
"""How long the first process may take to notice that a helper is gone, which it does when it next waits for it."""

ENDING_S = 2.0
"""How long a helper takes to end once its connection is closed."""

_LOST = ("closed by peer", "reset by peer")


class LostHelperError(OSError):
    """A process of several was ended from outside; the message names it, and how."""


def num_processes(stage: Stage[Any], runtime: Runtime) -> int:
    """How many processes compute `stage`. Raises SettingsError where this machine cannot have as many."""
    if not stage.is_shared:
        return 1
    if is_joined():
        return int(os.environ["WORLD_SIZE"])
    if runtime.processes == 1:
        return 1
    import torch

    from pipeline.model.compute import choose_device

    device, gpus = choose_device(runtime), torch.cuda.device_count()
    if runtime.processes == "auto":
        return gpus if device.type == "cuda" and device.index is None else 1
    setting = f"runtime.processes={runtime.processes}"
    if device.type == "cuda" and (device.index is not None or runtime.processes > gpus):
        raise SettingsError(
            f"{setting} needs as many GPUs: this machine has {gpus}, and runtime.device={runtime.device}. Set "
            "runtime.processes=auto and runtime.device=cuda"
        )
    if device.type not in ("cuda", "cpu"):
        raise SettingsError(f"{setting} is for CPUs and CUDA, not for {device.type}: set runtime.processes=1")
    return runtime.processes


@contextmanager
def helped(
    stage: Stage[Any],
    params: Mapping[str, Any],
    runtime: Runtime,
    inputs: Mapping[str, Path],
    scratch: Path,
    processes: int,
) -> Iterator[None]:
    """Run the block, which runs the stage, as the first of several processes.

    Raises what a helper raised, or LostHelperError, where the block fails because one has ended.
    """
    if processes == 1:
        yield
        return
    from pipeline.model import ranks

    with _joined() if is_joined() else _started(stage.name, processes) as team:
        tell(Job(stage.module, dict(params), runtime, dict(inputs), scratch))
        try:
            with ranks.entered(processes, 0, on_this_machine=num_local()):
                yield
        except RuntimeError as error:
            if (cause := team.cause(error)) is None:
                raise
            raise cause from error


# Processes that this one starts.


class _Team:
    """The helpers of this process."""

    def __init__(self, stage: str, processes: "list[SpawnProcess]", connections: list[Connection]) -> None:
        self._stage, self._processes, self._connections = stage, processes, connections
        self._is_over = False

    def watch(self) -> None:
        """End this process if it waits for a helper that is gone and does not notice: a GPU may wait for ever."""
        Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        left = {process.sentinel for process in self._processes}
        while left and not self._is_over:
            left.difference_update(wait(left))
            time.sleep(GRACE_S)
            if not self._is_over and (cause := self.cause()) is not None:
                complain(self._stage, str(cause))
                os._exit(1)

    def cause(self, _: Exception | None = None) -> Exception | None:
        """Why a helper has ended; None if all are well."""
        wait([process.sentinel for process in self._processes], timeout=ENDING_S)
        for number, (process, connection) in enumerate(zip(self._processes, self._connections, strict=True), start=1):
            with suppress(EOFError, OSError):
                if connection.poll():
                    error: Exception = connection.recv()
                    return error
            if process.exitcode:
                how = signal.Signals(-process.exitcode).name if process.exitcode < 0 else f"status {process.exitcode}"
                return LostHelperError(
                    f"process {number + 1} of {len(self._processes) + 1} (pid {process.pid}) was ended by {how}"
                    f"{', often for want of memory' if how == 'SIGKILL' else ''}; the others were stopped. Type the "
                    "same command again: it goes on from the last checkpoint"
                )
        return None

    def end(self) -> None:
        """End all helpers, at once: they keep nothing."""
        self._is_over = True
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()


@contextmanager
def _spawning() -> Iterator[None]:
    """In the block, `spawn` is the default too: a new process is told of the default, and knows nothing of joblib's."""
    before = get_start_method(allow_none=True)
    set_start_method("spawn", force=True)
    try:
        yield
    finally:
        set_start_method(before, force=True)


@contextmanager
def _started(stage: str, count: int) -> Iterator[_Team]:
    """Start `count` - 1 helpers, and connect to them."""
    from torch.multiprocessing import get_context

    spawn, meeting = get_context("spawn"), Path(tempfile.mkdtemp(prefix="unfreeze-"))
    processes, connections = [], []
    for number in range(1, count):
        mine, theirs = spawn.Pipe(duplex=False)
        process = spawn.Process(target=help_once, args=(number, count, meeting / "store", theirs))
        with shielded(), _spawning():
            process.start()
        theirs.close()
        processes.append(process)
        connections.append(mine)
    team = _Team(stage, processes, connections)
    team.watch()
    try:
        connect(f"file://{meeting / 'store'}", number=0, count=count)
        yield team
    finally:
        team.end()
        disconnect()
        shutil.rmtree(meeting, ignore_errors=True)


# Processes that something else has started.


class _Joined:
    """Helpers that torchrun watches."""

    def cause(self, error: Exception) -> Exception | None:
        """What to say of an error of torch that another process has ended; None for any other error."""
        if not any(sign in str(error) for sign in _LOST):
            return None
        return LostHelperError(
            "another process of this run has ended: its message is above. Type the same command again: it goes on from "
            "the last checkpoint"
        )


@contextmanager
def _joined() -> Iterator[_Joined]:
    if not is_connected():
        connect("env://", number=0, count=int(os.environ["WORLD_SIZE"]))
    yield _Joined()


def dismiss() -> None:
    """Let the processes that help this one end."""
    if is_joined():
        with _joined():
            tell(None)
        disconnect()
