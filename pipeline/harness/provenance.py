"""From which code, with which settings and when a run was made: what a report says that no folder holds."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.comparison.memory import date_of, remember, run_before
from pipeline.comparison.runs import Run
from pipeline.harness.base import read_record
from pipeline.harness.quoting import typed
from pipeline.params import flatten, load_params
from pipeline.paths import ARTIFACTS, PARAMS
from pipeline.report.facts import Facts
from pipeline.tracking.origin import read_commit

SHOWN_DIGITS = 10
"""Of a commit."""


def gather_facts(folders: Mapping[str, Path], state: Path) -> Facts:
    """Gather the circumstances of the run in these folders of stages, and remember it in `state` for the next one."""
    params, made = load_params(PARAMS) if PARAMS.exists() else {}, time.time()
    run = Run("this run", ARTIFACTS, flatten(params), dict(folders), state)
    before = run_before(run)
    remember(run, params, made)
    changed = read_record().overrides
    found = read_commit(Path.cwd())
    commit = "" if found is None else found.sha[:SHOWN_DIGITS]
    return Facts(
        date=date_of(made),
        commit=commit,
        is_dirty=found is not None and found.is_dirty,
        seconds=run.seconds_by_stage(run.stages),
        changed=[f"{key}={value}" for key, value in changed.items()],
        reproduce=_reproduce(commit, changed),
        predict=[f"unfreeze predict {ARTIFACTS}/tta_evaluate/model photo.jpg"],
        before=before,
    )


def _reproduce(commit: str, changed: Mapping[str, Any]) -> list[str]:
    checkout = [f"git checkout {commit}"] if commit else []
    return [*checkout, f"dvc exp run {typed(changed, flag='-S')}" if changed else "dvc repro"]
