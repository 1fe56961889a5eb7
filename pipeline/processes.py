"""Other processes: whether they are alive, which one this program works for, and how many share its cores."""

import os
import socket
from pathlib import Path

_works_for: str | None = None
_sharing = 1
"""How many jobs of a sweep share the cores with this process, itself included."""


def starter() -> str:
    """The name of the process that started this program, under DVC that of DVC; see `process_name`."""
    return _works_for or process_name(os.getppid())


def work_for(name: str) -> None:
    """Take another process than the parent for the one that started this program: in a fork of a warm process."""
    global _works_for
    _works_for = name


def parent_of(pid: int) -> int:
    """The process that started another; 0 where the system does not tell."""
    return int(next(iter(_status(pid)[1:]), 0))


def command_of(pid: int) -> list[str]:
    """What a process was started with, word by word; empty where the system does not tell."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return words.decode(errors="replace").removesuffix("\0").split("\0")


def share_cores(jobs: int) -> None:
    """Note that `jobs` processes like this one share the cores.

    Below 0 it counts from the number of cores, as joblib does it: -1 is one job for each core.
    """
    global _sharing
    _sharing = jobs if jobs > 0 else max(1, (os.cpu_count() or 1) + 1 + jobs)


def sharing_cores() -> int:
    """How many processes share the cores with this one, itself included."""
    return _sharing


def is_alive(pid: int) -> bool:
    """Whether a process of this machine runs. One that has ended and waits for its parent to notice does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, as another user
        return True
    return _status(pid)[:1] != ["Z"]


def process_name(pid: int) -> str:
    """Name a process of this machine so that neither another machine nor a later process has the same name."""
    return f"{socket.gethostname()}:{pid}:{_started(pid)}"


def named_is_alive(name: str) -> bool:
    """Whether a process runs, from what `process_name` gave. Whether one of another machine does is not known: True."""
    host, _, rest = name.partition(":")
    pid, _, started = rest.partition(":")
    if host != socket.gethostname() or not pid.isdecimal():
        return True
    return is_alive(int(pid)) and started in ("", _started(int(pid)))


def _started(pid: int) -> str:
    """The clock tick at which a process began; empty where the system does not tell."""
    return next(iter(_status(pid)[19:]), "")


def _status(pid: int) -> list[str]:
    """The fields of Linux's `/proc/<pid>/stat` behind the name; empty on other systems."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return status.rpartition(")")[2].split()
