"""A finished run, read from its folder: a job below `runs/`, an `artifacts` folder, or a whole checkout.

Everything is read when it is asked for, and nothing is computed again.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.files import read_json
from pipeline.params import flatten, load_params
from pipeline.paths import ARTIFACTS, PARAMS, STATE
from pipeline.report.scores import TRAINING
from pipeline.timings import read_timings

JOB = "job.json"
"""What a job of a sweep writes about itself: its program, its overrides, and how it ended."""


@dataclass(frozen=True)
class Run:
    """One run. `stages` are the folders that it made itself, by stage."""

    name: str
    folder: Path
    settings: dict[str, Any]
    """Flat; empty where they are not known."""
    stages: dict[str, Path]
    state: Path
    """`.unfreeze/` of the checkout."""

    @property
    def trained(self) -> str | None:
        """Its last training stage; None if it trained nothing."""
        return next((stage for stage in TRAINING if stage in self.stages), None)

    def json(self, stage: str, file: str = "metrics.json") -> Any:
        """Read a JSON file of a stage; None where it is not there."""
        path = self.stages[stage] / file if stage in self.stages else None
        return read_json(path) if path is not None and path.exists() else None

    @cached_property
    def objective(self) -> tuple[str, float] | None:
        """What a sweep minimises: its name, `<stage>/<metric>`, and its value; None where this is no job of a sweep."""
        file = self.folder / JOB
        found = read_json(file).get("objective") if file.exists() else None
        return None if found is None else (found["name"], found["value"])

    @cached_property
    def choices(self) -> dict[str, str]:
        """The groups of settings that the job of a sweep chose by name: `augment=side_on`."""
        file = self.folder / JOB
        typed = [word.partition("=") for word in read_json(file)["overrides"]] if file.exists() else []
        sections = {key.partition(".")[0] for key in self.settings if "." in key}
        return {group: choice for group, _, choice in typed if group in sections}

    @cached_property
    def ingest(self) -> Path | None:
        """The folder with the list of its images: its own, or the one in the checkout that it was made from."""
        if "ingest" in self.stages:
            return self.stages["ingest"]
        wanted = self._upstream_digests()
        for parent in self.folder.resolve().parents:
            record = parent / ARTIFACTS / "ingest" / "stage.json"
            if record.exists() and read_json(record)["digest"] == wanted.get("ingest"):
                return record.parent
        return None

    @cached_property
    def images(self) -> tuple[str, str] | None:
        """What tells whether two runs saw the same images: an upstream stage, and the digest of its folder."""
        found = self._upstream_digests()
        return next(((name, found[name]) for name in ("ingest", "precompute") if name in found), None)

    def seconds(self, stages: Iterable[str]) -> float | None:
        """What these of its own stages took together; None where that is not known."""
        known = self.seconds_by_stage(stages)
        return sum(known.values()) if known else None

    def seconds_by_stage(self, stages: Iterable[str]) -> dict[str, float]:
        """What each of these of its own stages took; those that it is not known of are left out."""
        known = {name: read_timings(self.state, self.json(name, "stage.json")["digest"]) for name in stages}
        return {name: timings["seconds"] for name, timings in known.items() if "seconds" in timings}

    def _upstream_digests(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in self.stages:
            record = self.json(name, "stage.json")
            found |= {x["stage"]: x["digest"] for x in record["inputs"] if x["file"] is None}
            found[name] = record["digest"]
        return found


def read_run(folder: Path, *, name: str | None = None) -> Run:
    """Read the run in `folder`. Raises ValueError that says which folders are runs."""
    made, params = folder, folder / PARAMS
    if (folder / ARTIFACTS).is_dir():
        made = folder / ARTIFACTS
    elif not params.exists():
        params = folder.resolve().parent / PARAMS
    stages = {record.parent.name: record.parent for record in sorted(made.glob("*/stage.json"))}
    if not stages:
        raise ValueError(
            f"{folder} is no run: name a job's folder (runs/full_train/.../0), an artifacts folder, or a checkout"
        )
    settings = flatten(load_params(params)) if params.exists() else {}
    return Run(
        name or ("working copy" if folder == Path() else str(folder)), folder, settings, stages, _state_of(folder)
    )


def expand(folders: Sequence[Path]) -> Iterator[Path]:
    """Yield the folders, in place of a sweep's folder those of its jobs that trained something, in order."""
    for folder in folders:
        jobs = [job for job in jobs_of(folder) if any(job.glob("*/stage.json"))]
        yield from jobs or [folder]


def jobs_of(sweep: Path) -> list[Path]:
    """The folders of a sweep's jobs, in order of their numbers."""
    jobs = [file.parent for file in sweep.glob(f"*/{JOB}")]
    return sorted(jobs, key=lambda job: (not job.name.isdigit(), int(job.name) if job.name.isdigit() else 0, job.name))


def _state_of(folder: Path) -> Path:
    inside = folder.resolve()
    return next((p / STATE for p in (inside, *inside.parents) if (p / STATE).is_dir()), inside / STATE)
