"""Other processes: whether they are alive, and how many share this machine's cores."""

import os
import socket
from pathlib import Path

JOBS = "UNFREEZE_JOBS"
"""The environment variable that says how many jobs of a sweep share the cores."""


def share_cores(jobs: int) -> None:
    """Let this process and those that it starts use its part of the cores that `jobs` processes share.

    Below 0, `jobs` counts from the number of cores, as joblib does it: -1 is one job for each core.
    """
    if jobs < 0:
        jobs = max(1, (os.cpu_count() or 1) + 1 + jobs)
    os.environ[JOBS] = str(jobs)


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
