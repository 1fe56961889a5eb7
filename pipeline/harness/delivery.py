"""How a run is told to MLflow, from outside: what is sent, and by which process."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.params import load_params
from pipeline.paths import from_checkout, state_dir
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
"""What the table of runs shows first."""


def row_spec(
    *, params: Mapping[str, Any], folders: Mapping[str, Path], runtime: Runtime, tags: Mapping[str, str]
) -> RowSpec:
    """The row of a pipeline state, or of a job."""
    root = from_checkout(".").resolve()
    return RowSpec(
        params=dict(params),
        experiment=runtime.experiment,
        tracking_uri=runtime.tracking_uri or store_uri(root),
        state_dir=state_dir(),
        root=Path.cwd(),
        folders={name: folder.resolve() for name, folder in folders.items()},
        tags=dict(tags),
        columns=COLUMNS,
    )


def experiment_tags() -> dict[str, str]:
    """The name that DVC gave to the experiment that is running, if one is."""
    name = os.environ.get("DVC_EXP_NAME")
    return {"dvc_exp_name": name} if name else {}


def publish_now(
    *, params: Mapping[str, Any], folders: Mapping[str, Path], runtime: Runtime, tags: Mapping[str, str]
) -> None:
    """Write a row from a process of its own, so that no job imports MLflow."""
    spec = row_spec(params=params, folders=folders, runtime=runtime, tags=tags)
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
        spec.write(Path(file.name))
    subprocess.run([sys.executable, "-m", "pipeline.tracking", "publish", "--spec", file.name], check=True)
    Path(file.name).unlink()


def start_follower(*, stage: str, runtime: Runtime, state: Path, journal: Path) -> "subprocess.Popen[bytes]":
    """Start the process that shows a running stage live; closing its standard input ends it."""
    row = row_spec(params=load_params(Path("params.yaml")), folders={}, runtime=runtime, tags=experiment_tags())
    spec = FollowSpec(**vars(row), stage=stage, journal=journal, parent_pid=os.getpid())
    file = state / "followers" / f"{stage}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    spec.write(file)
    command = [sys.executable, "-m", "pipeline.tracking", "follow", "--spec", str(file)]
    return subprocess.Popen(command, stdin=subprocess.PIPE)
