"""Stages run by hand, as Hydra apps on what is held: `python -m stages.full_train -m full_train.cycle_len=1,2`.

Each job writes into a folder of its own below `runs/` and reads the upstream artifacts in place, so it refuses an
override of a setting that those were made with.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.console import say
from pipeline.files import digest, write_text
from pipeline.harness.checked import read_checked
from pipeline.harness.compose import is_sweep, run_app
from pipeline.harness.delivery import Occasion, publish_now, publish_summary
from pipeline.harness.ending import show_ending
from pipeline.harness.execute import Audience, StageFolders, execute
from pipeline.harness.fingerprints import code_digest, write_model_fingerprints
from pipeline.harness.live import end_orphans
from pipeline.harness.pruning import pruning
from pipeline.harness.published import read_published, read_record
from pipeline.harness.quoting import typed
from pipeline.harness.stage import Stage
from pipeline.harness.state_folder import check_state
from pipeline.harness.stop import describe_shortage, how_to_go_on
from pipeline.params import flatten, load_params, to_yaml
from pipeline.paths import ARTIFACTS, PARAMS, state_dir
from pipeline.report.scores import TRAINING
from pipeline.settings import SettingsError, with_environment
from pipeline.shortage import is_shortage
from pipeline.stopping import Stopped, listen, raise_if_requested
from pipeline.tracking.spec import store_uri


def run_by_hand(stages: Sequence[Stage[Any]], *, name: str, audience: Audience) -> int:
    """Run `stages` one after the other in one job, or in each job of a sweep; returns the exit status."""

    def job(params: dict[str, Any], folder: Path, overrides: list[str]) -> float | None:
        try:
            return run_job(stages, params, folder, overrides, name=name, audience=audience)
        except (MemoryError, RuntimeError) as error:
            if not is_shortage(error):
                raise
            raise OSError(describe_shortage(error, params)) from error

    def end(sweep: Path) -> bool:
        from pipeline.harness.sweep_end import end_sweep  # scipy and scikit-learn take a second to import

        ended = end_sweep(sweep)
        if ended.best is not None:
            params = load_params(ended.best / PARAMS.name)
            publish_summary(params=params, files=ended.files, best={"job": _shown(ended.best)}, sweep=_shown(sweep))
        return ended.is_well

    listen()
    end_orphans()
    try:
        is_well = run_app(
            job,
            name=name,
            program=f"stages.{name}",
            made_from=partial(made_from, stages),
            objective=objective_of(stages),
            end_sweep=end,
        )
        return 0 if is_well else 1
    except Stopped as stopped:
        say(name, how_to_go_on(stopped))
        return stopped.status


def made_from(stages: Sequence[Stage[Any]]) -> str | None:
    """The digest of what each job that runs `stages` reads beside its settings: upstream folders, and code.

    None where that follows from the settings of the job. Raises FileNotFoundError or ValueError that says how to make
    what is missing.
    """
    if any("config" in stage.upstream for stage in stages):
        return None
    upstream = {n: read_record(f)["digest"] for n, f in upstream_folders(stages, ARTIFACTS).items() if n != "config"}
    code = {stage.name: code_digest(stage.module) for stage in stages}
    return digest({"upstream": upstream, "code": code, "torch": version("torch")})


def run_job(
    stages: Sequence[Stage[Any]],
    params: dict[str, Any],
    folder: Path,
    overrides: Sequence[str],
    *,
    name: str,
    audience: Audience = Audience(),  # noqa: B008 (frozen)
) -> float | None:
    """Run `stages` on `params` into `folder`; write the job's row; return the objective."""
    check_state(state_dir(), say=partial(say, name))
    began, settings = time.time(), read_checked(params, source="settings")
    runtime, folders = with_environment(settings.runtime), upstream_folders(stages, ARTIFACTS)
    store_uri(Path(), runtime.tracking_uri)  # refused now, not after training
    fingerprinted = any("config" in stage.upstream for stage in stages)  # then of this job's settings
    check_upstream(params, {n: f for n, f in folders.items() if not (fingerprinted and n == "config")})
    folder.mkdir(parents=True, exist_ok=True)
    if fingerprinted:
        folders["config"] = folder / "config"
        write_model_fingerprints(settings, folders["config"])
    write_text(folder / PARAMS.name, to_yaml(params))
    trained = [stage.name for stage in stages if stage.name in TRAINING]
    if trained:
        cycles = getattr(settings, trained[-1]).num_cycles or 1
        audience = replace(audience, follow=pruning(folder, audience.follow, stage=trained[-1], num_cycles=cycles))
    objective = None
    for stage in stages:
        raise_if_requested()
        metrics = execute(stage, params, runtime, StageFolders(folders, folder / stage.name, state_dir()), audience)
        folders[stage.name] = folder / stage.name
        objective = _pick(metrics, stage.objective) if stage.objective else objective
    say(name, f"{', '.join(overrides) or 'no overrides'}: {folder}" + _objective_text(stages, objective))
    if stages[-1].name == "tta_evaluate":
        shown = {name: Path(_shown(made)) for name, made in folders.items()}
        show_ending(shown, report=Path(_shown(folder)) / "report")
    if runtime.tracking:
        made = {n: f for n, f in folders.items() if (f / "stage.json").exists()}
        sweep = _shown(folder.parent) if is_sweep() else None
        occasion = Occasion(overrides, began, job=_shown(folder), sweep=sweep)
        publish_now(params=params, folders=made, drawn=folder / "report", runtime=runtime, occasion=occasion)
    return objective


def upstream_folders(stages: Sequence[Stage[Any]], artifacts: Path) -> dict[str, Path]:
    """The artifact folders that `stages` need from outside, and all that these were made from."""
    waiting = sorted({name for s in stages for name in s.upstream} - {s.name for s in stages})
    folders: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        if name in folders:
            continue
        folders[name] = artifacts / name
        if name != "config":
            waiting += [read["stage"] for read in read_record(artifacts / name)["inputs"]]
    return folders


def check_upstream(params: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
    """Raise SettingsError if `params` contradict a setting that one of `folders` was made with."""
    flat = flatten(dict(params))
    for name, folder in folders.items():
        made_with = read_record(folder)["settings"] if name != "config" else read_published(folder / "views.json")
        for key, value in made_with.items():
            if flat.get(key) != value:
                there, here = typed({key: value}), typed({key: flat.get(key)})
                raise SettingsError(
                    f"{here} contradicts {folder}, which was made with {there}. Type `{there}` to use that folder, or "
                    f"run everything again: `dvc exp run -S {here}`, or `dvc repro` if it is in conf/"
                )


def _shown(folder: Path) -> str:
    """The folder as seen from the checkout, where it lies below it."""
    path = folder.resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _pick(metrics: Mapping[str, Any], dotted: str) -> float:
    value: Any = metrics
    for part in dotted.split("."):
        value = value[part]
    return float(value)


def _objective_text(stages: Sequence[Stage[Any]], objective: float | None) -> str:
    name = objective_of(stages)
    return f"  {name.partition('/')[2]}={objective:.4f}" if name is not None and objective is not None else ""


def objective_of(stages: Sequence[Stage[Any]]) -> str | None:
    """What a sweep minimises, as `<stage>/<metric>`: the last objective that one of these stages has."""
    return next((f"{stage.name}/{stage.objective}" for stage in reversed(stages) if stage.objective), None)
