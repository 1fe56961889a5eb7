"""Starting stages, under DVC on `params.yaml` or by hand as a Hydra app, and telling people while they run."""

import os
import sys
import traceback
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.console import complain, progress_bar, say
from pipeline.files import FULL, DiskFullError, write_text
from pipeline.harness.drawing import draw_once
from pipeline.harness.execute import Audience, StageFolders, execute
from pipeline.harness.fingerprints import recall_code
from pipeline.harness.helper import help_if_joined
from pipeline.harness.live import Follow, live_row
from pipeline.harness.stage import Stage
from pipeline.harness.state_folder import check_state
from pipeline.harness.stop import describe_shortage, leave, obeying
from pipeline.harness.team import dismiss
from pipeline.params import load_params
from pipeline.paths import ARTIFACTS, PARAMS, state_dir
from pipeline.report.lines import summary
from pipeline.settings import Runtime, read_settings, with_environment
from pipeline.shortage import is_shortage
from pipeline.stopping import raise_if_requested


def main(*stages: Stage[Any], name: str | None = None) -> None:
    """Run what a stage module is: one stage under DVC; by hand a Hydra app named `name` that runs all `stages`."""
    help_if_joined()
    if "DVC_STAGE" in os.environ:
        (stage,) = stages
        status = run_under_dvc(stage)
        dismiss()
        leave(status)
    from pipeline.harness.by_hand import run_by_hand  # Hydra takes a third of a second to import

    status = run_by_hand(stages, name=name or stages[-1].name, audience=AUDIENCE)
    dismiss()
    sys.exit(status)


def run_under_dvc(stage: Stage[Any]) -> int:
    """Run `stage` on `params.yaml` into `artifacts/`; returns the exit status, and prints what went wrong."""
    if len(sys.argv) > 1:
        complain(stage.name, f"overrides are not read under DVC: {sys.argv[1:]}; use `dvc exp run -S key=value`")
        return 1
    return obeying(stage.name, lambda: _run(stage))


def _run(stage: Stage[Any]) -> int:
    params: dict[str, Any] = {}
    try:
        check_state(state_dir())
        recall_code(state_dir())
        params = load_params(PARAMS)
        runtime = with_environment(read_settings(params, source=str(PARAMS)).runtime)
        folders = StageFolders({n: ARTIFACTS / n for n in stage.upstream}, ARTIFACTS / stage.name, state_dir())
        with _follow(stage, params, runtime) as follow:
            raise_if_requested()
            execute(stage, params, runtime, folders, replace(AUDIENCE, follow=follow))
    except (ValueError, OSError) as error:
        complain(stage.name, f"{describe(error)}\n{'':<23}({_keep_traceback(stage)})")
        return 1
    except (MemoryError, RuntimeError) as error:
        if not is_shortage(error):
            raise
        complain(stage.name, f"{describe_shortage(error, params)}\n{'':<23}({_keep_traceback(stage)})")
        return 1
    return 0


def _follow(stage: Stage[Any], params: Mapping[str, Any], runtime: Runtime) -> AbstractContextManager[Follow]:
    if not runtime.tracking:
        return nullcontext(AUDIENCE.follow)
    return live_row(stage.name, params, runtime)


def report_stage(stage: str, folders: Mapping[str, Path], timings: Mapping[str, float]) -> None:
    """Print what a stage found, and draw its pictures into `report/<stage>/` beside its folder.

    Pictures are no result: where they cannot be drawn, a line says so, and the stage is done all the same.
    """
    try:
        for line in summary(stage, folders, timings):
            say(stage, line)
        draw_once(stage, folders, folders[stage].parent / "report" / stage, state=state_dir(), draw=_draw)
    except Exception as error:
        say(stage, f"its pictures could not be drawn ({type(error).__name__}: {error}); `dvc repro report` tries again")


def _draw(stage: str, folders: Mapping[str, Path], out: Path) -> None:
    from pipeline.report.pictures import draw_stage  # here, because most stages are drawn without loading it

    draw_stage(stage, folders, out)


AUDIENCE = Audience(say=say, progress=progress_bar, report=report_stage)
"""A person at a terminal."""


def describe(error: Exception) -> str:
    """What went wrong, and, on a full disk, how to go on."""
    if isinstance(error, OSError) and error.errno in FULL:
        return str(DiskFullError(Path(error.filename or state_dir()), needed=1))
    return str(error)


def _keep_traceback(stage: Stage[Any]) -> str:
    """Keep the traceback; says where it is, or why it is nowhere."""
    file = state_dir() / "errors" / f"{stage.name}.txt"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, traceback.format_exc())
    except OSError as error:  # the same disk is full, or read-only
        return f"no traceback is kept: {error.strerror or 'no space left'}"
    return f"traceback: {file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file}"
