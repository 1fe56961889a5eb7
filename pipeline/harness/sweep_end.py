"""How a sweep ends: a table of its jobs, what it says, and what to type next.

Which jobs there were, and how they ended, is in what they wrote about themselves (`job_record`).
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.comparison.files import write_summary
from pipeline.comparison.runs import JOB, jobs_of, read_run
from pipeline.comparison.table import Row, Summary, summarise
from pipeline.comparison.texts import Failed, terminal_lines
from pipeline.console import show
from pipeline.files import read_json
from pipeline.harness.job_record import DONE, FAILED, PRUNED, STARTED, WAITING, repeat_job, settings_of
from pipeline.harness.quoting import typed
from pipeline.harness.sweep import STUDY
from pipeline.report.text import counted


@dataclass(frozen=True)
class Ended:
    """What a sweep has left."""

    files: list[Path]
    """Its summary."""
    best: Path | None
    """The folder of the best job."""
    is_well: bool
    """Whether every job is done."""


def end_sweep(folder: Path) -> Ended:
    """Show the table of a sweep's jobs, and write its summary into `folder`."""
    jobs = {job: read_json(job / JOB) for job in jobs_of(folder)}
    if not jobs:
        return Ended([], None, True)
    done = [read_run(job, name=job.name) for job, record in jobs.items() if record["status"] == DONE]
    summary, failed = summarise(done), [failed_job(job, record) for job, record in jobs.items() if _failed(record)]
    best = summary.rows[0].run.folder if summary.rows else None
    command = None if best is None else use_job(jobs[best])
    num_pruned = sum(record["status"] == PRUNED for record in jobs.values())
    heading = _heading(folder, summary, failed, num_pruned=num_pruned)
    show(["", heading, "", *terminal_lines(summary, use_winner=command, failed=failed)])
    files = write_summary(folder, summary, title=f"Sweep {folder}", use_winner=command, failed=failed)
    kinds = ",".join(file.suffix[1:] for file in files)
    show(["", f"Written: {folder}/summary.{{{kinds}}}", ""])
    is_well = not failed or (best is not None and (folder / STUDY).exists())  # a search goes on without what failed
    return Ended(files, best, is_well)


def use_job(record: Mapping[str, Any]) -> str:
    """The command that runs the whole pipeline with a job's overrides."""
    words = [f"-S {shlex.quote(override)}" for override in settings_of(record["overrides"])]
    return " ".join(["dvc exp run", *words])


def use_row(row: Row) -> str:
    """The command that runs the whole pipeline with the settings in which a run differs from the others."""
    return f"dvc exp run {typed(row.differing, flag='-S')}".rstrip()


def failed_job(job: Path, record: Mapping[str, Any]) -> Failed:
    """Say why a job did not end, and how to repeat it."""
    return Failed(job.name, _REASONS[record["status"]].format(record["error"]), repeat_job(record))


_REASONS = {FAILED: "failed: {}", STARTED: "was stopped before its end.", WAITING: "was not started."}


def _failed(record: Mapping[str, Any]) -> bool:
    return record["status"] not in (DONE, PRUNED)


def _heading(folder: Path, summary: Summary, failed: Sequence[Failed], *, num_pruned: int) -> str:
    jobs = len(summary.rows) + len(failed) + num_pruned
    lost = f", {num_pruned} pruned" if num_pruned else ""
    lost += f", {len(failed)} not finished" if failed else ""
    return f"Sweep of {counted(jobs, 'job')}{lost}: {folder}"
