"""One writer per folder: an OS lock that the writing process holds, and that a kill releases."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.files import read_json, write_json
from pipeline.stopping import raise_if_requested

_PATIENCE_S = 0.5
"""How long a signal may go unnoticed."""


@contextmanager
def hold_lock(path: Path, *, identity: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock `<path>.lock` while the block runs; `<path>.json` names the holder.

    Waits where another process does the work of the same `identity`. Raises BlockingIOError, which names the other
    process, where it does other work, and Stopped.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, owner_file = FileLock(f"{path}.lock"), path.with_name(f"{path.name}.json")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        owner = _read_owner(owner_file)
        held = f"process {owner.get('pid', '?')} is still running this stage"
        if owner.get("identity") not in (None, identity):
            raise BlockingIOError(
                f"{held} with other settings or code (started by an earlier run): wait for it or stop it with "
                f"`kill {owner['pid']}`, then run again"
            ) from None
        say(f"{held}: waiting for it (to stop it: kill {owner.get('pid', '?')})")
        _wait_for(lock)
    try:
        write_json(owner_file, {"pid": os.getpid(), "identity": identity})
        yield
    finally:
        lock.release()


def _wait_for(lock: FileLock) -> None:
    while True:
        raise_if_requested()
        with suppress(Timeout):
            lock.acquire(timeout=_PATIENCE_S)
            return


def _read_owner(file: Path) -> dict[str, Any]:
    for _ in range(20):  # the owner writes its name just after it took the lock
        try:
            owner: dict[str, Any] = read_json(file)
        except (FileNotFoundError, ValueError):
            time.sleep(0.05)
        else:
            return owner
    return {}
