"""The whole pipeline as a Hydra app: `python -m pipeline [-m] [overrides]`.

One job is one `dvc exp run`, so that DVC's cache serves what is unchanged; in a sweep (`-m`) each runs in a temporary
copy of the checkout. Any Hydra sweeper and launcher can drive it: a job returns the validation loss of `full_train`.
"""

import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.comparison.runs import JOB, jobs_of
from pipeline.console import say
from pipeline.files import read_json
from pipeline.harness.compose import is_sweep, run_app
from pipeline.harness.delivery import publish_summary
from pipeline.harness.job_record import DONE
from pipeline.harness.revisions import fetch_run, read_at
from pipeline.harness.stop import how_to_go_on
from pipeline.harness.sweep_end import end_sweep
from pipeline.params import load_params
from pipeline.paths import ARTIFACTS, PARAMS
from pipeline.stopping import Stopped, listen, raise_if_requested, requested

OBJECTIVE = (ARTIFACTS / "full_train" / "metrics.json", "valid_loss")


def main() -> None:
    """Run one experiment, or one per job of a sweep."""
    listen()
    try:
        sys.exit(
            0 if run_app(run_experiment, name="pipeline", objective="full_train/valid_loss", end_sweep=_end) else 1
        )
    except Stopped as stopped:
        say("pipeline", how_to_go_on(stopped))
        sys.exit(stopped.status)


def run_experiment(params: dict[str, Any], folder: Path, overrides: list[str]) -> float:
    """Run `dvc exp run` with these overrides; returns the objective. Raises ChildProcessError or Stopped."""
    raise_if_requested()
    del params  # composed and checked by Hydra here, and again by DVC from the same overrides
    check_git(Path())
    name = _experiment(folder) if is_sweep() else None
    if name and _exists(name):  # of this job, before a kill or on other code: DVC's cache has what is still the same
        subprocess.run([sys.executable, "-m", "dvc", "exp", "remove", name], check=True, stdout=subprocess.DEVNULL)
    command = [sys.executable, "-m", "dvc", "exp", "run", *(["--temp", "--name", name] if name else [])]
    for override in overrides:
        command += ["-S", override]
    if _wait_for(subprocess.Popen(command)):
        raise_if_requested()
        raise ChildProcessError(f"`{' '.join(command[2:])}` failed; its last lines say why")
    file, key = OBJECTIVE
    metrics = file.read_text(encoding="utf-8") if name is None else read_at(name, file)
    return float(json.loads(metrics)[key])


def _wait_for(process: "subprocess.Popen[bytes]") -> int:
    """Wait for DVC, and hand on what asks for a stop, except Ctrl-C, which the terminal sends to both; returns the
    exit status."""
    told = False
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=0.2)
        number = requested()
        if number not in (None, signal.SIGINT) and not told:
            process.send_signal(number)
            told = True


def _exists(name: str) -> bool:
    """Whether DVC has an experiment of this name."""
    command = ["git", "for-each-ref", "--format=%(refname)", "refs/exps"]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return name in {ref.rpartition("/")[2] for ref in found}


def _experiment(folder: Path) -> str:
    """The name of the DVC experiment that is a job of a sweep."""
    return f"sweep-{folder.parent.name}-{folder.name}".replace("_", "-")


def _end(sweep: Path) -> bool:
    for job in jobs_of(sweep):
        if read_json(job / JOB)["status"] == DONE:
            fetch_run(_experiment(job), job)
    ended = end_sweep(sweep)
    if ended.best is not None:
        params, row = load_params(ended.best / PARAMS), {"dvc_exp_name": _experiment(ended.best)}
        publish_summary(params=params, files=ended.files, best=row, sweep=str(sweep))
    return ended.is_well


def check_git(folder: Path) -> None:
    """Raise FileNotFoundError, with what to type, where `folder` is in no git repository, like a downloaded ZIP."""
    here = folder.resolve()
    if not any((at / ".git").exists() for at in (here, *here.parents)):
        raise FileNotFoundError(
            f"{here} is in no git repository, where DVC keeps experiments; type `git init && git add -A && git commit "
            "-m start`, or do without experiments: `dvc config --local core.no_scm true && dvc repro`"
        )


if __name__ == "__main__":
    main()
