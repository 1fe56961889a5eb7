"""What a job of a sweep is and how it ended, in its folder, so that this is known whatever ran it and whatever died."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.comparison.runs import JOB
from pipeline.files import read_json, write_json

WAITING, STARTED, FAILED, PRUNED, DONE = "waiting", "started", "failed", "pruned", "done"
"""The states of a job. One that stays `started` was killed."""


class PrunedError(Exception):
    """A job of a search that is not worth going on with; the message says why."""


def await_job(folder: Path, *, program: str, overrides: Sequence[str], made_from: str | None) -> None:
    """Note in `job.json` that a job will run, on inputs and code that `made_from` is the digest of."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / JOB, _record(program, overrides, WAITING) | {"made_from": made_from})


@contextmanager
def job_record(folder: Path, *, program: str, overrides: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Keep in `job.json` how far the job is while the block runs, and afterwards how it ended.

    Gives the record: the block puts its `objective` in, a name and a value, which is kept when the job is done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = _record(program, overrides, STARTED) | {"made_from": (read_job(folder) or {}).get("made_from")}
    write_json(folder / JOB, record)
    try:
        yield record
    except PrunedError as pruned:
        write_json(folder / JOB, record | {"status": PRUNED, "error": str(pruned)})
        raise
    except Exception as error:
        write_json(folder / JOB, record | {"status": FAILED, "error": str(error) or type(error).__name__})
        raise
    write_json(folder / JOB, record | {"status": DONE})


def read_job(folder: Path) -> dict[str, Any] | None:
    """The record of the job in `folder`; None where there is none that can be read."""
    try:
        record: dict[str, Any] = read_json(folder / JOB)
    except (OSError, ValueError):
        return None
    return record


def settings_of(overrides: Sequence[str]) -> list[str]:
    """The overrides without those that only say where and how a job runs."""
    return [o for o in overrides if not o.lstrip("+~").startswith(("hydra.", "hydra/", "launch=", "runtime."))]


def repeat_job(record: Mapping[str, Any]) -> str:
    """The command that runs a job again, alone."""
    words = " ".join(map(shlex.quote, record["overrides"]))
    return f"python -m {record['program']} {words}".rstrip()


def _record(program: str, overrides: Sequence[str], status: str) -> dict[str, Any]:
    return {"program": program, "overrides": list(overrides), "status": status, "error": None, "objective": None}
