"""Jobs in Slurm's queue, as submitit sees them.

submitit asks Slurm's accounting (`sacct`) how a job is, which many clusters do not have: there it waits forever for a
job that was cancelled or killed. The queue itself (`squeue`) is everywhere, and what has left it has ended.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

_LOOK_S = 60
"""How long it takes at most until a job is looked at again: the administrators of clusters ask for no more."""


class QueueWatcher(SlurmInfoWatcher):
    """Looks for jobs in the queue. Most that end are not noticed here, but by the file that they leave."""

    def __init__(self) -> None:
        super().__init__(delay_s=_LOOK_S)

    def _make_command(self) -> list[str] | None:
        if self._registered <= self._finished:
            return None
        return ["squeue", f"--user={os.getuid()}", "--array", "--noheader", "--format=%F|%K|%T"]

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        """Return the state of each job: as `squeue` says it, or GONE if it lists it no more."""
        text = string.decode() if isinstance(string, bytes) else string
        rows = [line.strip().split("|") for line in text.splitlines() if line]
        states = {job if task == "N/A" else f"{job}_{task}": state for job, task, state in rows}
        return {job: {"State": states.get(job, "GONE")} for job in self._registered}

    def wait(self) -> None:
        """Return when the queue has none of the jobs."""
        while self._registered > self._finished:
            time.sleep(1)
            self.update_if_long_enough("standard")


@contextmanager
def watching_queue() -> Iterator[None]:
    """Let submitit look into the queue while the block submits jobs and waits for them.

    submitit raises at the first job that was killed; then the others are waited for, so that none is submitted twice.
    """
    SlurmJob.watcher = watcher = QueueWatcher()
    try:
        yield
    except Exception:
        watcher.wait()
        raise
