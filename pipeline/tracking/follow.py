"""Sends the points of a running stage from its growing journal, in a separate process.

No stage imports MLflow, and a server that is slow or down never stops training. Points that are not sent, because the
server was unavailable or this process was killed, are delivered by `publish_row` from the published journal.

The stage says on the follower's standard input how it ended: DONE, FAILED or KILLED. If it says nothing, it was killed.
Unless it is done, its row ends with it.
"""

import os
import select
import sys
import time
from contextlib import closing, suppress
from typing import TextIO

from filelock import Timeout

from pipeline.printable import printable
from pipeline.processes import is_alive, named_is_alive
from pipeline.tracking.content import Content, Points, curves_of
from pipeline.tracking.open_rows import LOCK_TIMEOUT_S, end_open, is_open, note_open, row_lock
from pipeline.tracking.spec import FollowSpec
from pipeline.tracking.store import Store, StoreUnavailableError, reachable

DONE = "DONE"

_INTERVAL_S = 2.0
_LONGEST_PAUSE_S = 60.0


def follow(spec: FollowSpec, *, stdin_fd: int = 0) -> None:
    """Send new points of the journal until stdin is closed or the process that writes the journal has ended.

    Then end the row, unless the stage is done and the process that starts the stages lives.
    """
    sender, lock, stage = _Sender(spec), row_lock(spec), _Stage(spec, stdin_fd)
    with closing(_Journal(spec)) as journal:
        while not stage.ended:
            stage.wait()
            try:
                if not lock.is_locked:
                    lock.acquire(timeout=LOCK_TIMEOUT_S if stage.ended and stage.status != DONE else 0)
            except Timeout:  # the follower of the previous stage, or of an equal run elsewhere, has not ended
                continue
            sender.send(journal.read_new(), last=stage.ended)
        if stage.status != DONE and lock.is_locked:
            sender.end(stage.status)


class _Stage:
    """The stage that is followed: whether it has ended, and how."""

    def __init__(self, spec: FollowSpec, stdin_fd: int) -> None:
        self.ended = False
        self._spec = spec
        self._stdin = stdin_fd
        self._said = b""

    @property
    def status(self) -> str:
        """How it ended, if it has."""
        said = self._said.decode() or "KILLED"
        return "KILLED" if said == DONE and not named_is_alive(self._spec.owner) else said

    def wait(self) -> None:
        """Wait one interval, or until the stage ends."""
        self._listen(_INTERVAL_S)
        if not self.ended and not is_alive(self._spec.parent_pid):
            self._listen(0.1)  # what it said last
            self.ended = True

    def _listen(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.ended and (left := until - time.monotonic()) > 0:
            if select.select([self._stdin], [], [], left)[0]:
                new = os.read(self._stdin, 4096)
                self._said += new
                self.ended = not new


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

    def end(self, status: str) -> None:
        """End the row, if there is one, unless the store is unavailable: then the next run ends it."""
        if is_open(self._spec) and not self._pause_s:
            with suppress(StoreUnavailableError):
                end_open(self._spec, status=status)

    def _send_unsent(self) -> None:
        if self._store is None:
            store = Store(self._spec)
            self._run_id = store.open_row(self._spec, owner=self._spec.owner)
            note_open(self._spec)
            for at in store.read_points(self._run_id, prefix=curves_of(self._spec.stage)):
                self._unsent.pop(at, None)
            self._store = store
        self._store.log_points(self._run_id, self._unsent)
        self._unsent, self._pause_s = {}, 0.0

    def _back_off(self, error: StoreUnavailableError) -> None:
        if not self._pause_s:
            print(printable(f"tracking: {error}; live updates stopped, `publish` sends the rest"), file=sys.stderr)
        self._store = None  # a batch that failed may have arrived: read again what the row has
        self._pause_s = min(_LONGEST_PAUSE_S, 2 * self._pause_s or _INTERVAL_S)
        self._retry_at = time.monotonic() + self._pause_s
