"""From which code, with which settings and when a run was made: what a report says that no folder holds."""

import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.comparison.memory import date_of, remember, run_before
from pipeline.comparison.runs import Run
from pipeline.files import read_json
from pipeline.harness.quoting import typed
from pipeline.params import flatten, load_params
from pipeline.paths import ARTIFACTS, HELD, PARAMS
from pipeline.report.facts import Facts
from pipeline.timings import read_timings

CODE = ("conf", "pipeline", "stages", "pyproject.toml", "constraints.txt")
"""What a commit has to hold for a run to be repeatable. Generated files and images stand beside it."""


def gather_facts(folders: Mapping[str, Path], state: Path) -> Facts:
    """Gather the circumstances of the run in these folders of stages, and remember it in `state` for the next one."""
    params, made = load_params(PARAMS) if PARAMS.exists() else {}, time.time()
    run = Run("this run", ARTIFACTS, flatten(params), dict(folders), state)
    before = run_before(run)
    remember(run, params, made)
    changed = read_json(HELD)["overrides"] if HELD.exists() else {}
    commit, is_dirty = read_commit(Path.cwd())
    return Facts(
        date=date_of(made),
        commit=commit,
        is_dirty=is_dirty,
        seconds=_seconds(run),
        changed=[f"{key}={value}" for key, value in changed.items()],
        reproduce=_reproduce(commit, changed),
        predict=[f"unfreeze predict {ARTIFACTS}/tta_evaluate/model photo.jpg"],
        before=before,
    )


def read_commit(checkout: Path) -> tuple[str, bool]:
    """The first digits of the commit, and whether the code differs from it; an empty text without git."""
    with suppress(OSError, subprocess.SubprocessError):  # the project may be a copy without git
        commit = _git(checkout, "rev-parse", "--short=10", "HEAD")
        return commit, bool(_git(checkout, "status", "--porcelain", "--", *CODE))
    return "", False


def _reproduce(commit: str, changed: Mapping[str, Any]) -> list[str]:
    checkout = [f"git checkout {commit}"] if commit else []
    return [*checkout, f"dvc exp run {typed(changed, flag='-S')}" if changed else "dvc repro"]


def _seconds(run: Run) -> dict[str, float]:
    known = {name: read_timings(run.state, run.json(name, "stage.json")["digest"]) for name in run.stages}
    return {name: timings["seconds"] for name, timings in known.items() if "seconds" in timings}


def _git(checkout: Path, *arguments: str) -> str:
    command = ["git", "-C", str(checkout), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
