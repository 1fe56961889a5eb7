"""The row of a run under DVC while it is open: since when, followed by whom, and ended where the run stops."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.harness.delivery import TRACKING, follow_spec
from pipeline.kept import read_kept, write_kept
from pipeline.paths import state_dir
from pipeline.settings import Runtime
from pipeline.stopping import shielded
from pipeline.tracking.follow import DONE
from pipeline.tracking.open_rows import is_open, orphans
from pipeline.tracking.spec import FollowSpec, settings_digest

Follow = Callable[[str, Path], AbstractContextManager[Callable[[], None]]]


class RunClock:
    """When the run with these settings began: until its row is written, also over kills."""

    def __init__(self, params: Mapping[str, Any], runtime: Runtime) -> None:
        self._file = state_dir() / "begun" / f"{settings_digest(params, experiment=runtime.experiment)}.json"

    def start(self) -> None:
        """Note the time, unless a run that was stopped goes on."""
        if self.since is None:
            write_kept(self._file, time.time())

    @property
    def since(self) -> float | None:
        """When it began, in seconds since 1970; None if that is not known."""
        since: float | None = read_kept(self._file)
        return since

    def stop(self) -> None:
        """Forget the time: a later run with these settings is another one."""
        self._file.unlink(missing_ok=True)


@contextmanager
def live_row(stage: str, params: Mapping[str, Any], runtime: Runtime) -> Iterator[Follow]:
    """Give what shows a stage in MLflow while it runs; where an error leaves the block, the row ends with it."""
    row = _LiveRow(stage, params, runtime)
    try:
        yield row.follow
    except KeyboardInterrupt:
        row.end("KILLED")
        raise
    except BaseException:
        row.end("FAILED")
        row.clock.stop()
        raise
    row.end(DONE)


class _LiveRow:
    """The row of a run, as seen by one of its stages."""

    def __init__(self, stage: str, params: Mapping[str, Any], runtime: Runtime) -> None:
        self.clock = RunClock(params, runtime)
        self._stage = stage
        self._runtime = runtime
        self._follower: subprocess.Popen[bytes] | None = None

    @contextmanager
    def follow(self, _stage: str, journal: Path) -> Iterator[Callable[[], None]]:
        """Show the stage once it has run for `runtime.live_s`; give what each new line of its journal calls.

        The journal is sent by a process of its own, so that a slow server cannot hold up training.
        """
        due = time.monotonic() + self._runtime.live_s

        def wake() -> None:
            if self._follower is None and time.monotonic() >= due:
                command = [*TRACKING, "follow", "--spec", self._write(self._spec(journal))]
                with shielded():  # what stops the stage must not stop the follower, which ends its row
                    self._follower = subprocess.Popen(command, stdin=subprocess.PIPE)

        yield wake

    def end(self, status: str) -> None:
        """Tell the follower how the stage ended. Where there is none, end the row that an earlier stage opened."""
        follower = self._follower
        if follower is not None and follower.poll() is None and follower.stdin is not None:
            with suppress(BrokenPipeError):
                follower.stdin.write(status.encode())
                follower.stdin.close()
        elif status != DONE and is_open(spec := self._spec(Path())):
            _start("end", "--status", status, "--spec", self._write(spec))

    def _spec(self, journal: Path) -> FollowSpec:
        return follow_spec(stage=self._stage, runtime=self._runtime, journal=journal, since=self.clock.since)

    def _write(self, spec: FollowSpec) -> str:
        # Two runs at once share the state folder; the follower removes its own file.
        file = spec.state_dir / "followers" / f"{self._stage}-{os.getpid()}.json"
        spec.write(file)
        return str(file)


def end_orphans() -> None:
    """Start to end the rows that a kill left open, if there are any."""
    if next(orphans(state_dir()), None) is not None:
        _start("orphans", "--state", str(state_dir()))


def _start(*arguments: str) -> None:
    """Start a process that nobody waits for."""
    nowhere = subprocess.DEVNULL
    subprocess.Popen([*TRACKING, *arguments], stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True)
