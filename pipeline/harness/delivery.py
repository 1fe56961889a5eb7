"""Starts the delivery to MLflow: what a row consists of, and which process sends it."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.params import load_params
from pipeline.paths import PARAMS, from_checkout, state_dir
from pipeline.report.lines import remarks
from pipeline.settings import Runtime
from pipeline.tracking.spec import FollowSpec, RowSpec, store_uri

COLUMNS = [
    "attributes.`Duration`",
    "metrics.`tta_evaluate/test/tta/accuracy`",
    "metrics.`tta_evaluate/test/plain/accuracy`",
    "metrics.`tta_evaluate/test/tta_gain/accuracy/mean`",
    "metrics.`tta_evaluate/valid/plain/log_loss`",
    "metrics.`lr_find_head/lr`",
    "metrics.`lr_find_full/lr`",
    "params.`data.name`",
    "params.`model.arch`",
    "params.`model.weights`",
    "params.`full_train.cycle_len`",
    "params.`full_train.cycle_mult`",
    "tags.`overrides`",
]
"""The columns that the table of runs shows."""


def row_spec(
    *,
    params: Mapping[str, Any],
    folders: Mapping[str, Path],
    runtime: Runtime,
    tags: Mapping[str, str],
    drawn: Path | None,
) -> RowSpec:
    """Describe the row of a pipeline state or of a job.

    `params` are the settings, nested. `folders` are the published folders by stage, in the order of the stages.
    `drawn` is the folder of the report and the pictures (`report.html`, `<stage>/<picture>.png`), None where there is
    none. Warnings and verdicts of the stages become the row's description.
    """
    root = from_checkout(".").resolve()
    return RowSpec(
        params={name: value for name, value in params.items() if name != "publish"},  # it changes no result
        experiment=runtime.experiment,
        tracking_uri=runtime.tracking_uri or store_uri(root),
        state_dir=state_dir(),
        root=Path.cwd(),
        folders={name: folder.resolve() for name, folder in folders.items()},
        drawn=None if drawn is None else drawn.resolve(),
        notes=[f"**{stage}**: {text}" for stage in folders for text in remarks(stage, folders)],
        tags=dict(tags),
        columns=COLUMNS,
    )


def experiment_tags() -> dict[str, str]:
    """Return the name of the DVC experiment that is running, if any, as a tag."""
    name = os.environ.get("DVC_EXP_NAME")
    return {"dvc_exp_name": name} if name else {}


def publish_now(
    *,
    params: Mapping[str, Any],
    folders: Mapping[str, Path],
    runtime: Runtime,
    tags: Mapping[str, str],
    drawn: Path | None,
) -> None:
    """Publish a row, with the arguments of `row_spec`, from a separate process, so that no job imports MLflow."""
    spec = row_spec(params=params, folders=folders, runtime=runtime, tags=tags, drawn=drawn)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "row.json"
        spec.write(file)
        subprocess.run([sys.executable, "-m", "pipeline.tracking", "publish", "--spec", str(file)], check=True)


def start_follower(*, stage: str, runtime: Runtime, state: Path, journal: Path) -> "subprocess.Popen[bytes]":
    """Start the process that sends a running stage's points to MLflow. It ends when its standard input is closed."""
    row = row_spec(params=load_params(PARAMS), folders={}, runtime=runtime, tags=experiment_tags(), drawn=None)
    spec = FollowSpec(**vars(row), stage=stage, journal=journal, parent_pid=os.getpid())
    file = state / "followers" / f"{stage}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    spec.write(file)
    command = [sys.executable, "-m", "pipeline.tracking", "follow", "--spec", str(file)]
    return subprocess.Popen(command, stdin=subprocess.PIPE)
