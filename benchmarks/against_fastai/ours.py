"""Our run, as a user starts it: a fresh clone of the commit, in a warm environment, with settings typed to DVC."""

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.against_fastai.environment import variables
from benchmarks.against_fastai.load import Watched, run_watched
from benchmarks.against_fastai.work import Work
from pipeline.files import read_json
from pipeline.timings import read_timings
from stages import STAGES

PROJECT = Path(__file__).resolve().parents[2]


def clone_commit(target: Path) -> str:
    """Clone the commit that is checked out into `target`, which is emptied first; returns its digest."""
    shutil.rmtree(target, ignore_errors=True)
    identity = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost"]  # DVC commits experiments
    subprocess.run(["git", "clone", "--quiet", *identity, str(PROJECT), str(target)], check=True)
    return _git("rev-parse", "HEAD", cwd=target)


def uncommitted() -> bool:
    """Whether the working tree differs from its commit: then what is measured is not what is in it."""
    return bool(_git("status", "--porcelain", "--untracked-files=no", cwd=PROJECT))


def run_ours(work: Work, clone: Path, log: Path) -> tuple[Watched, dict[str, Any]]:
    """Run the recipe in a fresh clone; returns what it took and what it says of itself."""
    commit = clone_commit(clone)
    command = ["dvc", "exp", "run", *(part for setting in work.settings for part in ("-S", setting))]
    watched = run_watched(command, cwd=clone, env=variables(clone), log=log)
    return watched, {"commit": commit, "command": shlex.join(command).replace(f"{PROJECT}/", ""), **read_results(clone)}


def read_results(project: Path) -> dict[str, Any]:
    """Seconds by stage, images, accuracies and the environment, from the folders of a finished run."""
    artifacts = project / "artifacts"
    records = {stage: read_json(artifacts / stage / "stage.json") for stage in STAGES}
    timings = {s: read_timings(project / ".unfreeze", record["digest"]) for s, record in records.items()}
    scores = read_json(artifacts / "tta_evaluate" / "metrics.json")["test"]
    return {
        "seconds": {stage: timing["seconds"] for stage, timing in timings.items()},
        "images": read_json(artifacts / "ingest" / "metrics.json")["images"],
        "epochs": read_json(artifacts / "full_train" / "metrics.json")["epochs"],
        "accuracy": scores["plain"]["accuracy"],
        "accuracy_tta": scores["tta"]["accuracy"],
        "environment": records["full_train"]["environment"],
    }


def _git(*arguments: str, cwd: Path) -> str:
    return subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True, text=True).stdout.strip()
