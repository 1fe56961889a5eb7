"""What a job of a sweep writes about itself, so that jobs that failed or were stopped are known, whatever ran them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.comparison.runs import JOB
from pipeline.files import write_json


@contextmanager
def job_record(folder: Path, *, program: str, overrides: Sequence[str]) -> Iterator[None]:
    """Keep in `job.json` what the job is while the block runs, and afterwards how it ended."""
    folder.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"program": program, "overrides": list(overrides), "status": "started", "error": None}
    write_json(folder / JOB, record)
    try:
        yield
    except Exception as error:
        write_json(folder / JOB, record | {"status": "failed", "error": str(error)})
        raise
    write_json(folder / JOB, record | {"status": "done"})
