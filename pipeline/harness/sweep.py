"""A sweep that can be killed: what its jobs have left in their folders says which of them still have to run.

The folder of a sweep follows from what was asked for, so the same command finds it again. Each job has a folder in it,
named by its number. A job that is done, from the same inputs and code, does not run again; one that was killed goes on.
Results are read from the folders alone: a launcher that fails takes no other job with it.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.console import complain, say
from pipeline.files import digest, read_json, write_json
from pipeline.harness.job_record import DONE, FAILED, PRUNED, await_job, read_job, repeat_job, settings_of
from pipeline.harness.lock import hold_lock
from pipeline.harness.published import check_folder, published_below
from pipeline.paths import state_dir
from pipeline.report.text import counted
from pipeline.settings import SettingsError
from pipeline.stopping import interrupting

Jobs = Mapping[int, Sequence[str]]
"""The overrides of each job, by its number."""
Launch = Callable[[Sequence[Sequence[str]], int], object]
"""Runs jobs with these overrides, numbered from the second argument on, and returns when all have ended."""

SWEEP = "sweep.json"
"""What a sweep's folder says of itself: what was asked for."""
STUDY = "study.jsonl"
"""Optuna's journal, in the folder of a search."""
_IN_VAIN = 2
"""Failures of a launcher, one after the other, by which no job ended. One may have hit jobs that had no part in it:
joblib ends all jobs where the system kills one."""
_LOOK_S = 0.5
"""How often the jobs of other processes are looked at."""


@dataclass(frozen=True)
class Sweep:
    """The jobs below one folder."""

    folder: Path
    name: str
    """Of the program, as shown before its lines."""
    program: str
    """What is typed behind `python -m`."""
    asked: str
    """The digest of what was asked for."""
    made_from: str | None
    """The digest of the inputs and the code of every job; None where only the jobs can tell."""
    launch: Launch
    is_elsewhere: bool
    """Whether the launcher runs jobs in other processes, which may have another terminal, or none."""

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Keep others out of the folder while the block runs. Raises SettingsError if it holds another sweep."""
        lock = state_dir() / "locks" / f"sweep-{digest(str(self.folder.resolve()))[:20]}"
        with hold_lock(lock, identity=self.asked, say=lambda text: say(self.name, text)):
            note = self.folder / SWEEP
            if note.exists() and read_json(note)["asked"] != self.asked:
                raise SettingsError(f"{self.folder} holds another sweep: name another folder as hydra.sweep.dir")
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(note, {"asked": self.asked})
            yield

    def run(self, jobs: Jobs) -> None:
        """Run those of `jobs` that are not done, and return when all have ended, well or not.

        Where the launcher fails, what it has not come to is launched again, until that was in vain `_IN_VAIN` times.
        """
        left = {number: list(overrides) for number, overrides in jobs.items() if not self._is_done(number, overrides)}
        if len(left) < len(jobs):
            say(self.name, f"{len(jobs) - len(left)} of {counted(len(jobs), 'job')} done already, in {self.folder}")
        for number, overrides in left.items():
            await_job(self.folder / str(number), program=self.program, overrides=overrides, made_from=self.made_from)
        in_vain = 0
        while left:
            # A launcher counts jobs on from one number, and there are gaps: their folders are named.
            numbered = [[*overrides, f"hydra.sweep.subdir={number}"] for number, overrides in left.items()]
            try:
                with interrupting() if self.is_elsewhere else nullcontext(), self._showing_failures(left):
                    self.launch(numbered, min(left))
                return
            except Exception as error:  # of the launcher: what jobs raise is in their folders
                complain(self.name, f"the launcher failed ({type(error).__name__}: {_first_line(error)})")
            before, left = left, {n: overrides for n, overrides in left.items() if not self._has_ended(n)}
            in_vain = in_vain + 1 if len(left) == len(before) else 0
            if in_vain == _IN_VAIN:
                return
            if left:
                say(self.name, f"{counted(len(left), 'job')} did not end: launched again")

    def job(self, number: int) -> dict[str, Any] | None:
        """What a job says of itself; None where it was never asked for."""
        return read_job(self.folder / str(number))

    def _is_done(self, number: int, overrides: Sequence[str]) -> bool:
        record, folder = self.job(number), self.folder / str(number)
        if record is None or record["status"] not in (DONE, PRUNED):
            return False
        if settings_of(record["overrides"]) != settings_of(overrides):
            return False
        if self.made_from is None or record.get("made_from") != self.made_from:
            return False
        try:
            for made in published_below(folder):
                check_folder(made, state=state_dir())
        except (OSError, ValueError):
            return False
        return True

    def _has_ended(self, number: int) -> bool:
        record = self.job(number)
        return record is not None and record["status"] in (DONE, FAILED, PRUNED)

    @contextmanager
    def _showing_failures(self, jobs: Jobs) -> Iterator[None]:
        """Show each failure when it happens, also of a job whose lines nobody sees."""
        if not self.is_elsewhere:
            yield
            return
        ended, shown = threading.Event(), set[int]()

        def look() -> None:
            for number in jobs.keys() - shown:
                record = self.job(number)
                if record is not None and record["status"] == FAILED:
                    shown.add(number)
                    complain(self.name, failure(number, record))

        def watch() -> None:
            while not ended.wait(_LOOK_S):
                look()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
            look()


def failure(number: int | str, record: Mapping[str, Any]) -> str:
    """Say in one line that a job failed, why, and what repeats it."""
    return f"job {number} failed: {record['error']}; `{repeat_job(record)}` repeats it"


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
