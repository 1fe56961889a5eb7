"""Sends the points of a running stage from its growing journal, in a separate process.

No stage imports MLflow, and a server that is slow or down never stops training. Points that are not sent, because the
server was unavailable or this process was killed, are delivered by `publish_row` from the published journal.
"""

import os
import select
import sys
import time
from contextlib import closing
from typing import TextIO

from filelock import Timeout

from pipeline.processes import is_alive
from pipeline.tracking.content import Content, Points
from pipeline.tracking.publish import row_lock
from pipeline.tracking.spec import FollowSpec
from pipeline.tracking.store import Store, StoreUnavailableError, reachable

_INTERVAL_S = 2.0
_LONGEST_PAUSE_S = 60.0


def follow(spec: FollowSpec, *, stdin_fd: int = 0) -> None:
    """Send new points of the journal until stdin is closed or the process that writes the journal has ended."""
    sender, lock, ended = _Sender(spec), row_lock(spec), False
    with closing(_Journal(spec)) as journal:
        while not ended:
            ended = _wait(stdin_fd) or not is_alive(spec.parent_pid)
            try:
                if not lock.is_locked:
                    lock.acquire(timeout=0)
            except Timeout:  # the follower of the previous stage, or of an equal run elsewhere, has not ended
                continue
            sender.send(journal.read_new(), last=ended)


class _Journal:
    """Reads complete lines as they are written. It keeps the file open, so that publication may move it."""

    def __init__(self, spec: FollowSpec) -> None:
        self._spec = spec
        self._file: TextIO | None = None
        self._rest = ""

    def read_new(self) -> Points:
        if self._file is None and self._spec.journal.exists():
            self._file = self._spec.journal.open(encoding="utf-8")
        *lines, self._rest = (self._rest + (self._file.read() if self._file else "")).split("\n")
        content = Content()
        content.add_journal(self._spec.stage, lines)
        return content.points

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class _Sender:
    """Sends points to the open row, and retries less and less often while the store is unavailable."""

    def __init__(self, spec: FollowSpec) -> None:
        self._spec = spec
        self._unsent: Points = {}
        self._store: Store | None = None
        self._run_id = ""
        self._pause_s = 0.0
        self._retry_at = 0.0

    def send(self, points: Points, *, last: bool) -> None:
        self._unsent |= points
        if not self._unsent or (self._pause_s and (last or time.monotonic() < self._retry_at)):
            return
        try:
            with reachable(self._spec.tracking_uri):
                self._send_unsent()
        except StoreUnavailableError as error:
            self._back_off(error)

    def _send_unsent(self) -> None:
        if self._store is None:
            store = Store(self._spec)
            self._run_id = store.open_row(self._spec, owner_pid=self._spec.parent_pid)
            for at in store.read_points(self._run_id, prefix=f"{self._spec.stage}/"):
                self._unsent.pop(at, None)
            self._store = store
        self._store.log_points(self._run_id, self._unsent)
        self._unsent, self._pause_s = {}, 0.0

    def _back_off(self, error: StoreUnavailableError) -> None:
        if not self._pause_s:
            print(f"tracking: {error}; live updates stopped, `publish` sends the rest", file=sys.stderr)
        self._store = None  # a batch that failed may have arrived: read again what the row has
        self._pause_s = min(_LONGEST_PAUSE_S, 2 * self._pause_s or _INTERVAL_S)
        self._retry_at = time.monotonic() + self._pause_s


def _wait(stdin_fd: int) -> bool:
    """Wait one interval. Return True at once when stdin is closed."""
    readable, _, _ = select.select([stdin_fd], [], [], _INTERVAL_S)
    return bool(readable) and not os.read(stdin_fd, 4096)
