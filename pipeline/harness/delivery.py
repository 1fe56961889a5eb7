"""Starts the delivery to MLflow: what a row consists of, and which process sends it."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.console import note
from pipeline.files import file_digest, read_json
from pipeline.harness.base import read_record
from pipeline.params import flatten, load_params
from pipeline.paths import CONF, PARAMS, from_checkout, state_dir
from pipeline.processes import starter
from pipeline.report.headline import details, headline
from pipeline.report.row import data_label, describe, image_counts, job_name, num_parameters, run_name
from pipeline.settings import Runtime, read_settings, with_environment
from pipeline.timings import read_span, read_timings, span_of_run
from pipeline.tracking.bounded import SENT, run_bounded
from pipeline.tracking.publish import publish_bounded, published_here
from pipeline.tracking.spec import Dataset, FollowSpec, RowSpec, store_uri
from pipeline.tracking.summary import SummarySpec

Params = Mapping[str, Any]
Folders = Mapping[str, Path]


@dataclass(frozen=True)
class Occasion:
    """Why a row is written: a run of the pipeline, or a job by hand."""

    changed: Sequence[str] = ()
    """What was typed, or is held: `full_train.lr=0.01`, ..."""
    since: float | None = None
    """When the run or job began, in seconds since 1970."""
    job: str | None = None
    """The folder of a job by hand."""
    sweep: str | None = None
    """The folder of its sweep, if it is one of several."""

    @property
    def tags(self) -> dict[str, str]:
        """As tags of the row."""
        tags = {"changed": ", ".join(self.changed) or "nothing", "job": self.job, "sweep": self.sweep}
        return {name: tag for name, tag in tags.items() if tag is not None}


def row_spec(*, params: Params, folders: Folders, runtime: Runtime, drawn: Path | None, occasion: Occasion) -> RowSpec:
    """Describe the row of a pipeline state or of a job.

    `params` are the settings, nested. `folders` are the published folders by stage, in the order of the stages.
    `drawn` is the folder of the report and the pictures (`report.html`, `<stage>/<picture>.png`), None where there is
    none.
    """
    state, root = state_dir(), from_checkout(".").resolve()
    digests = {stage: read_json(folder / "stage.json")["digest"] for stage, folder in folders.items()}
    timings = {stage: read_timings(state, digest) for stage, digest in digests.items()}
    spans = (read_span(state, digest) for digest in digests.values())
    span = span_of_run((s for s in spans if s is not None), since=occasion.since)
    scores = headline(folders, timings)
    name = run_name if occasion.job is None else job_name
    return RowSpec(
        params={name: value for name, value in params.items() if name != "publish"},  # it changes no result
        experiment=runtime.experiment,
        tracking_uri=store_uri(root, runtime.tracking_uri),
        state_dir=state,
        root=Path.cwd(),
        folders={name: folder.resolve() for name, folder in folders.items()},
        drawn=None if drawn is None else drawn.resolve(),
        name=name(params, occasion.changed, scores),
        scores=scores | details(folders),
        dataset=_dataset(params, folders),
        description=describe(params, folders, occasion.changed, scores),
        started=occasion.since if span is None else span.started,
        ended=None if span is None else span.ended,
        changed=[change.partition("=")[0] for change in occasion.changed],
        tags=occasion.tags | _experiment_tag() | _facts(params, folders),
    )


def run_occasion(since: float | None) -> Occasion:
    """Return the occasion of a run of the pipeline, with what an experiment changed against `conf/`."""
    held = _by_experiment(read_record().overrides)
    return Occasion([f"{key}={'null' if value is None else value}" for key, value in held.items()], since)


def _by_experiment(held: dict[str, Any]) -> dict[str, Any]:
    """Write what a saved set of changes says as its name: `experiment=quick` instead of its four settings."""
    for file in sorted((CONF / "experiment").glob("*.yaml")):
        saved = {key: value for key, value in flatten(load_params(file)).items() if key != "defaults"}
        if saved and saved.items() <= held.items():
            rest = {key: value for key, value in held.items() if key not in saved}
            names = [rest.pop("experiment"), file.stem] if "experiment" in rest else [file.stem]
            held = {"experiment": "+".join(names), **rest}
    return held


def publish_now(*, params: Params, folders: Folders, runtime: Runtime, drawn: Path | None, occasion: Occasion) -> None:
    """Publish a row, with the arguments of `row_spec`, from a separate process, so that no job imports MLflow."""
    spec = row_spec(params=params, folders=folders, runtime=runtime, drawn=drawn, occasion=occasion)
    if published_here(spec) is None:
        publish_bounded(spec, [*TRACKING, "publish"], wait_s=runtime.tracking_s)


def follow_spec(*, stage: str, runtime: Runtime, journal: Path, since: float | None) -> FollowSpec:
    """Describe the row of the run that `stage` is part of, while it runs under DVC.

    The process that started this one owns the row.
    """
    row = row_spec(params=load_params(PARAMS), folders={}, runtime=runtime, drawn=None, occasion=run_occasion(since))
    return FollowSpec(**vars(row), stage=stage, journal=journal, parent_pid=os.getpid(), owner=starter())


TRACKING = (sys.executable, "-m", "pipeline.tracking")
"""The program that talks to MLflow, in a process of its own."""


def _experiment_tag() -> dict[str, str]:
    """Name the DVC experiment that is running, if any."""
    name = os.environ.get("DVC_EXP_NAME")
    return {"dvc_exp_name": name} if name else {}


def _facts(params: Params, folders: Folders) -> dict[str, str]:
    """Return what is the same for many rows, as tags: constants are no metrics."""
    facts = {"data": data_label(params), "arch": params["model"]["arch"], **image_counts(folders)}
    parameters = num_parameters(folders)
    return {name: str(fact) for name, fact in facts.items()} | ({"parameters": str(parameters)} if parameters else {})


def _dataset(params: Params, folders: Folders) -> Dataset | None:
    if "ingest" not in folders:
        return None
    data = params["data"]
    source = read_json(folders["ingest"] / "source.json")["root"] or data["dataset"] or data["name"]
    digest = file_digest(folders["ingest"] / "manifest.jsonl")[:12]
    return Dataset(name=data_label(params), digest=digest, source=str(source), counts=image_counts(folders))


def publish_summary(*, params: Params, files: Sequence[Path], best: Mapping[str, str], sweep: str) -> None:
    """Send a sweep's summary to the row of its best job, which is found by the tags `best`."""
    runtime = with_environment(read_settings(dict(params), source="settings").runtime)
    if not runtime.tracking:
        return
    row = row_spec(params=params, folders={}, runtime=runtime, drawn=None, occasion=Occasion())
    row = replace(row, tags={"best_of": sweep})
    spec = SummarySpec(**vars(row), row=dict(best), files=[path.resolve() for path in files])
    if SENT not in run_bounded([*TRACKING, "summary"], spec, wait_s=runtime.tracking_s):
        note(f"tracking: {spec.tracking_uri}: the summary was not sent in time; it stays in {spec.files[0].parent}")
