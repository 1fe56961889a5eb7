"""The processes that compute one stage: the stage's own is the first of them, and starts the others.

`python -m stages.full_train` is one command whatever `runtime.processes` is. Its process keeps all that a stage has to
do with: locks, journal, progress, publication. The others, the helpers, run the same stage in silence and write
nothing; see `pipeline.model.ranks`. They ignore signals, and are told of a stop. They end with the process that
started them, however that ends.

Where `RANK` is set (by torchrun, also on several nodes), the processes are there already: they find each other as torch
does, and those after the first help with each stage that the first one computes. All must see the same files.
"""

import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from pipeline.console import complain
from pipeline.harness.stage import Stage, StageContext, select
from pipeline.journal import Journal
from pipeline.settings import Runtime, SettingsError, read_settings
from pipeline.stopping import SIGNALS, Stopped, shielded
from pipeline.workspace import no_bar, say_nothing

if TYPE_CHECKING:  # stages that need no torch load this module too
    from multiprocessing.context import SpawnProcess

GRACE_S = 10.0
"""How long the first process may take to notice that a helper is gone, which it does when it next waits for it."""

ENDING_S = 2.0
"""How long a helper takes to end once its connection is closed."""


class LostHelperError(OSError):
    """A process of several was ended from outside; the message names it, and how."""


@dataclass(frozen=True)
class Job:
    """What a helper must know to run a stage."""

    stage: str
    params: dict[str, Any]
    runtime: Runtime
    inputs: dict[str, Path]
    scratch: Path


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


def is_joined() -> bool:
    """Whether something else, like torchrun, has started several processes of this program."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def of_process(runtime: Runtime, number: int) -> Runtime:
    """`runtime` for one of several processes, number `number` on its machine: each has a GPU of its own."""
    from pipeline.model.compute import choose_device

    device = choose_device(runtime)
    return replace(runtime, device=f"cuda:{number}") if device.type == "cuda" else runtime


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
        _tell(Job(stage.module, dict(params), runtime, dict(inputs), scratch))
        try:
            with ranks.entered(processes, 0, on_this_machine=_num_local()):
                yield
        except RuntimeError as error:
            if (cause := team.cause()) is None:
                raise
            raise cause from error


def _tell(job: Job | None) -> None:
    import torch.distributed as dist

    dist.broadcast_object_list([job], src=0)


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

    def cause(self) -> Exception | None:
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
def _started(stage: str, count: int) -> Iterator[_Team]:
    """Start `count` - 1 helpers, and connect to them."""
    from torch.multiprocessing import get_context

    spawn, meeting = get_context("spawn"), Path(tempfile.mkdtemp(prefix="unfreeze-"))
    processes, connections = [], []
    for number in range(1, count):
        mine, theirs = spawn.Pipe(duplex=False)
        process = spawn.Process(target=_help, args=(number, count, meeting / "store", theirs))
        with shielded():
            process.start()
        theirs.close()
        processes.append(process)
        connections.append(mine)
    team = _Team(stage, processes, connections)
    team.watch()
    try:
        _connect(f"file://{meeting / 'store'}", number=0, count=count)
        yield team
    finally:
        team.end()
        _disconnect()
        shutil.rmtree(meeting, ignore_errors=True)


def _help(number: int, count: int, store: Path, errors: Connection) -> None:
    """Be a helper for one stage."""
    _ignore_signals()
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        _connect(f"file://{store}", number=number, count=count)
        _do_job(number, number)
    except Exception as error:
        with suppress(Exception):  # an error that cannot be sent is shown by the first process as a status
            errors.send(error)
        os._exit(1)
    os._exit(0)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


# Processes that something else has started.


class _Joined:
    """Helpers that torchrun watches."""

    def cause(self) -> Exception | None:
        return LostHelperError(
            "another process of this run has ended: its message is above. Type the same command again: it goes on from "
            "the last checkpoint"
        )


@contextmanager
def _joined() -> Iterator[_Joined]:
    if not _is_connected():
        _connect("env://", number=0, count=int(os.environ["WORLD_SIZE"]))
    yield _Joined()


def help_if_joined() -> None:
    """Help the first process with its stages until it ends, and end; return at once in the first process."""
    if not is_joined() or os.environ["RANK"] == "0":
        return
    _ignore_signals()
    number = int(os.environ["RANK"])
    try:
        _connect("env://", number=number, count=int(os.environ["WORLD_SIZE"]))
        while _do_job(number, int(os.environ.get("LOCAL_RANK", number))):
            pass
    except Exception:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def dismiss() -> None:
    """Let the processes that help this one end."""
    if is_joined():
        with _joined():
            _tell(None)
        _disconnect()


# All helpers.


def _do_job(number: int, local: int) -> bool:
    """Wait for a job, and do it; returns whether there was one."""
    import torch.distributed as dist

    from pipeline.model import ranks
    from pipeline.model.compute import prepare

    told: list[Job | None] = [None]
    dist.broadcast_object_list(told, src=0)
    (job,) = told
    if job is None:
        return False
    stage: Stage[Any] = import_module(job.stage).STAGE
    runtime, folder = of_process(job.runtime, local), job.scratch / f"helper-{number}"
    prepare(runtime)
    shutil.rmtree(folder, ignore_errors=True)
    out = folder / "out"
    out.mkdir(parents=True)
    journal = Journal(folder / "journal.jsonl")
    settings = select(stage.reads, read_settings(job.params, source="settings"))
    context = StageContext(stage, settings, runtime, out, folder, journal, job.inputs, say_nothing, no_bar)
    together = ranks.entered(dist.get_world_size(), number, on_this_machine=_num_local())
    with suppress(ranks.HelpedError, Stopped), together:
        stage.run(context)
    journal.close()
    return True


def _num_local() -> int:
    """How many of the processes share this machine."""
    import torch.distributed as dist

    return int(os.environ.get("LOCAL_WORLD_SIZE", dist.get_world_size()))


def _ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _connect(address: str, *, number: int, count: int) -> None:
    """Find the other processes: on this machine by a file, else as `RANK` and its companions say."""
    import torch
    import torch.distributed as dist

    from pipeline.model.ranks import PATIENCE

    if address.startswith("file:") and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, init_method=address, rank=number, world_size=count, timeout=PATIENCE)


def _is_connected() -> bool:
    import torch.distributed as dist

    return dist.is_initialized()


def _disconnect() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
