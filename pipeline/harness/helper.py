"""A process that helps another to compute a stage: how it finds the first one, and what it does for it.

A helper runs the stage's own code on its share, in silence, and writes nothing that counts; see
`pipeline.model.ranks`. It ignores signals, and is told of a stop. It ends with the process that started it, however
that ends.

Where `RANK` is set (by torchrun, also on several nodes), the processes are there already: they find each other as torch
does, and those after the first help with each stage that the first one computes. All must see the same files.
"""

import os
import shutil
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

from pipeline.harness.stage import Stage, StageContext, select
from pipeline.journal import Journal
from pipeline.settings import Runtime, read_settings
from pipeline.stopping import SIGNALS, Stopped
from pipeline.workspace import no_bar, say_nothing


@dataclass(frozen=True)
class Job:
    """What a helper must know to run a stage."""

    stage: str
    params: dict[str, Any]
    runtime: Runtime
    inputs: dict[str, Path]
    scratch: Path


def help_once(number: int, count: int, store: Path, errors: Connection) -> None:
    """Be helper `number` of the process that started this one, for one stage; ends the process."""
    _ignore_signals()
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        connect(f"file://{store}", number=number, count=count)
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


def help_if_joined() -> None:
    """Help the first process with its stages until it ends, and end; return at once in the first process."""
    if not is_joined() or os.environ["RANK"] == "0":
        return
    _ignore_signals()
    number = int(os.environ["RANK"])
    try:
        connect("env://", number=number, count=int(os.environ["WORLD_SIZE"]))
        while _do_job(number, int(os.environ.get("LOCAL_RANK", number))):
            pass
    except Exception:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def is_joined() -> bool:
    """Whether something else, like torchrun, has started several processes of this program."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def tell(job: Job | None) -> None:
    """Give all helpers a job; None lets them end."""
    import torch.distributed as dist

    dist.broadcast_object_list([job], src=0)


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
    together = ranks.entered(dist.get_world_size(), number, on_this_machine=num_local())
    with suppress(ranks.HelpedError, Stopped), together:
        stage.run(context)
    journal.close()
    return True


def of_process(runtime: Runtime, number: int) -> Runtime:
    """`runtime` for one of several processes, number `number` on its machine: each has a GPU of its own."""
    from pipeline.model.compute import choose_device

    device = choose_device(runtime)
    return replace(runtime, device=f"cuda:{number}") if device.type == "cuda" else runtime


def num_local() -> int:
    """How many of the processes share this machine."""
    import torch.distributed as dist

    return int(os.environ.get("LOCAL_WORLD_SIZE", dist.get_world_size()))


def _ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def connect(address: str, *, number: int, count: int) -> None:
    """Find the other processes: on this machine by a file, else as `RANK` and its companions say."""
    import torch
    import torch.distributed as dist

    from pipeline.model.ranks import PATIENCE

    if address.startswith("file:") and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, init_method=address, rank=number, world_size=count, timeout=PATIENCE)


def is_connected() -> bool:
    """Whether the other processes were found."""
    import torch.distributed as dist

    return dist.is_initialized()


def disconnect() -> None:
    """Leave the other processes."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
