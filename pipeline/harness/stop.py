"""A run that is asked to stop: what is said, and how the wish reaches the next stage of the same `dvc repro`."""

import atexit
import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from pipeline.console import say
from pipeline.kept import read_kept, write_kept
from pipeline.params import flatten
from pipeline.paths import state_dir
from pipeline.processes import starter
from pipeline.stopping import Stopped, ask, listen, requested


def obeying(name: str, run: Callable[[], int]) -> int:
    """Run one program of the pipeline, which may be asked to stop; returns the exit status, 130 or 143 where it was.

    A program that ends all the same leaves the wish to the next that the same `dvc repro` starts, which ignores Ctrl-C
    while it waits: what is done stays done.
    """
    listen()
    try:
        _take_note()
        status = run()
    except Stopped as stopped:
        say(name, how_to_go_on(stopped))
        return stopped.status
    _leave_note()
    return status


def leave(status: int) -> NoReturn:
    """End this process as `sys.exit` does, but without taking apart what was imported: for torch that takes 0.4 s."""
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(status)


def how_to_go_on(stopped: Stopped) -> str:
    """Say that the run was stopped, and what to type to go on."""
    command = "`dvc repro`" if "DVC_STAGE" in os.environ and "DVC_EXP_NAME" not in os.environ else "the same command"
    if stopped.kept is None:
        return f"stopped; {command} goes on from here"
    return f"stopped; {command} goes on from {stopped.kept}"


def _leave_note() -> None:
    """If this program was asked to stop and has ended before it could, leave that to the next one under this DVC.

    DVC ignores Ctrl-C while it waits for a stage.
    """
    number = requested()
    if number is not None and "DVC_STAGE" in os.environ:
        write_kept(_note(), {"parent": starter(), "signal": number})


def _take_note() -> None:
    """Obey what the program before this one was asked for, if the same DVC has started both."""
    note = read_kept(_note())
    if note is None:
        return
    if note["parent"] == starter():
        ask(note["signal"])
    _note().unlink(missing_ok=True)


def describe_shortage(error: BaseException, params: Mapping[str, Any]) -> str:
    """Say that memory ran out, and which settings need less of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    flat = flatten(dict(params))
    names = ("data.micro_batch_size", "data.image_size")
    now = " and ".join(name + (f" (now {flat[name]})" if name in flat else "") for name in names)
    found = f" ({lines[-1]})" if lines else ""
    return f"memory ran out{found}: lower {now}, or UNFREEZE_WORKERS, and type the same command again"


def _note() -> Path:
    return state_dir() / "stop.json"
