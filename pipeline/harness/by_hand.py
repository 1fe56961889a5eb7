"""Stages run by hand, as Hydra apps on `conf/`: `python -m stages.full_train -m full_train.cycle_len=1,2`.

Each job writes into a folder of its own under `runs/` and reads the upstream artifacts in place, so it refuses an
override of a setting that those were made with.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.console import complain, say
from pipeline.harness.compose import is_sweep, run_app
from pipeline.harness.delivery import publish_now
from pipeline.harness.stage import Places, Stage, execute, read_published, read_record
from pipeline.params import flatten, to_yaml
from pipeline.paths import state_dir
from pipeline.settings import SettingsError, read_settings, with_environment

ARTIFACTS = Path("artifacts")


def main(stages: Sequence[Stage], *, name: str | None = None) -> None:
    """Run `stages` one after the other in one job, or in each job of a sweep."""
    name = name or stages[-1].name

    def job(params: dict[str, Any], folder: Path, overrides: list[str]) -> float | None:
        return run_job(stages, params, folder, overrides, name=name)

    try:
        sys.exit(0 if run_app(job, name=name) else 1)
    except KeyboardInterrupt:
        complain(name, "stopped; the same command goes on from here")
        sys.exit(130)


def run_job(
    stages: Sequence[Stage], params: dict[str, Any], folder: Path, overrides: Sequence[str], *, name: str
) -> float | None:
    """Run `stages` on `params` into `folder`; write the job's row; return the objective."""
    runtime = with_environment(read_settings(params, source="settings").runtime)
    folders = upstream_folders(stages, ARTIFACTS)
    check_upstream(params, folders)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(to_yaml(params), encoding="utf-8")
    objective = None
    for stage in stages:
        metrics = execute(stage, params, runtime, Places(folders, folder / stage.name, state_dir()))
        folders[stage.name] = folder / stage.name
        objective = _pick(metrics, stage.objective) if stage.objective else objective
    say(name, f"{', '.join(overrides) or 'no overrides'}: {folder}" + _objective_text(stages, objective))
    if runtime.tracking:
        made = {n: f for n, f in folders.items() if (f / "stage.json").exists()}
        tags = {"job": str(folder), "overrides": ", ".join(overrides)}
        if is_sweep():
            tags["sweep"] = str(folder.parent)
        publish_now(params=params, folders=made, runtime=runtime, tags=tags)
    return objective


def upstream_folders(stages: Sequence[Stage], artifacts: Path) -> dict[str, Path]:
    """The artifact folders that `stages` need from outside, and all that these were made from."""
    own = {s.name for s in stages}
    waiting = sorted({name.partition("/")[0] for s in stages for name in s.inputs} - own)
    folders: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        if name in folders:
            continue
        folders[name] = artifacts / name
        if name != "config":
            waiting += [n.partition("/")[0] for n in read_record(artifacts / name)["inputs"]]
    return folders


def check_upstream(params: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
    """Raise SettingsError if `params` contradict a setting that one of `folders` was made with."""
    flat = flatten(dict(params))
    for name, folder in folders.items():
        made_with = read_record(folder)["settings"] if name != "config" else read_published(folder / "views.json")
        for key, value in made_with.items():
            if flat.get(key) != value:
                raise SettingsError(
                    f"{key}={flat.get(key)} contradicts {folder}, which was made with {value}: leave {key} alone here, "
                    f"or make everything anew with `python -m pipeline {key}={flat.get(key)}`"
                )


def _pick(metrics: Mapping[str, Any], dotted: str) -> float:
    value: Any = metrics
    for part in dotted.split("."):
        value = value[part]
    return float(value)


def _objective_text(stages: Sequence[Stage], objective: float | None) -> str:
    names = [s.objective for s in stages if s.objective]
    return f"  {names[-1]}={objective:.4f}" if names and objective is not None else ""
