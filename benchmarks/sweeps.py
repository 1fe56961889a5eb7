"""What a sweep costs, on the digits with one thread: `python -m benchmarks.sweeps [PART ...]`.

`grid`: nine cycle settings as one sweep of `stages.tail`, and as nine whole runs, each in a fresh clone. CPU seconds.
`overhead`: what a job costs beyond its two stages, with and without a row in MLflow: a sweep of nine jobs less one of
one job, less what the same stages take where nothing else is done. CPU seconds.
`joblib`: the sweep of `grid` one job after the other, and two at a time. Seconds on the clock: the machine should be
quiet, and what others do is printed.

What is committed is measured. `--one-run` takes nine times the run with the settings of conf/ instead of nine runs: its
7 epochs are about as many as the 7.3 that the nine settings have on average.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.against_fastai.environment import variables
from benchmarks.against_fastai.load import Watched, run_watched
from benchmarks.against_fastai.ours import clone_commit, uncommitted

CYCLES, LENGTHS = (1, 2, 3), (1, 2, 3)
GRID = (f"full_train.num_cycles={','.join(map(str, CYCLES))}", f"full_train.cycle_len={','.join(map(str, LENGTHS))}")
SHORT = ("full_train.num_cycles=1", "full_train.cycle_len=1")
RATES = tuple(f"{0.001 * (i + 1):.3f}" for i in range(9))


@dataclass(frozen=True)
class Place:
    """Where the programs run, and where their output goes."""

    root: Path
    all_runs: bool

    @cached_property
    def first(self) -> Watched:
        """The whole recipe once, whose results the sweeps read."""
        clone_commit(self.clone)
        return self.run("dvc", "exp", "run")

    @property
    def clone(self) -> Path:
        return self.root / "clone"

    def run(self, *command: str, cwd: Path | None = None, tracking: bool = True) -> Watched:
        cwd = cwd or self.clone
        env = variables(cwd) | {"OMP_NUM_THREADS": "1", "UNFREEZE_THREADS": "1", "UNFREEZE_TRACKING": str(tracking)}
        return run_watched(command, cwd=cwd, env=env, log=self.root / "log.txt")

    def sweep(self, *words: str, tracking: bool = True) -> Watched:
        """Run a sweep of the tail anew."""
        folder = f"hydra.sweep.dir=sweep-{len(list(self.clone.glob('sweep-*')))}"
        return self.run(sys.executable, "-m", "stages.tail", "-m", *words, folder, tracking=tracking)


def grid(place: Place) -> None:
    """Compare the nine settings as a sweep and as whole runs."""
    settings = [(f"full_train.num_cycles={n}", f"full_train.cycle_len={k}") for n, k in product(CYCLES, LENGTHS)]
    sweep = place.sweep(*GRID).cpu_s
    whole = [_run_whole(place, words) for words in settings] if place.all_runs else [place.first.cpu_s] * len(settings)
    print(
        f"grid: nine whole runs {sum(whole):.0f} CPU s, as a sweep {sweep:.0f}: {sum(whole) / sweep:.2f} times as much"
    )
    print(f"  whole runs {', '.join(f'{cpu:.0f}' for cpu in whole)}, a job {sweep / len(settings):.1f} on average")


def _run_whole(place: Place, words: Sequence[str]) -> float:
    target = place.root / "whole"
    clone_commit(target)
    return place.run("dvc", "exp", "run", *(part for word in words for part in ("-S", word)), cwd=target).cpu_s


def overhead(place: Place) -> None:
    """Take the slope over the number of jobs, of sweeps and of the bare stages."""
    bare = _slope(lambda rates: place.run(sys.executable, "-m", "benchmarks.sweeps", "--bare", *rates).cpu_s)
    for tracking in (False, True):
        job = _slope(partial(_sweep_rates, place, tracking))
        print(f"overhead, tracking={tracking}: {job - bare:.2f} CPU s for each job beside {bare:.2f} for its stages")


def _sweep_rates(place: Place, tracking: bool, rates: Sequence[str]) -> float:
    return place.sweep(*SHORT, f"full_train.lr={','.join(rates)}", tracking=tracking).cpu_s


def _slope(cpu_s: Callable[[Sequence[str]], float]) -> float:
    return (cpu_s(RATES) - cpu_s(RATES[:1])) / (len(RATES) - 1)


def run_bare(rates: Sequence[str]) -> None:
    """Run the two stages for each rate, and nothing else, on what the clone holds."""
    from pipeline.harness.execute import StageFolders, execute
    from pipeline.harness.stage import Stage
    from pipeline.params import load_params
    from pipeline.settings import read_settings, with_environment
    from stages.full_train import STAGE as FULL_TRAIN
    from stages.tta_evaluate import STAGE as TTA_EVALUATE

    stages: tuple[Stage[Any], ...] = (FULL_TRAIN, TTA_EVALUATE)
    params = load_params(Path("params.yaml"))
    for rate in rates:
        params["full_train"] |= {"num_cycles": 1, "cycle_len": 1, "lr": float(rate)}
        runtime = with_environment(read_settings(params, source="params.yaml").runtime)
        with tempfile.TemporaryDirectory(dir=Path()) as out:
            folders = {name: Path("artifacts") / name for stage in stages for name in stage.upstream}
            for stage in stages:
                execute(stage, params, runtime, StageFolders(folders, Path(out) / stage.name, Path(".unfreeze")))
                folders[stage.name] = Path(out) / stage.name


def joblib(place: Place) -> None:
    """Compare one job after the other and two at a time, in turns."""
    for _ in range(2):
        apart, beside = place.sweep(*GRID), place.sweep(*GRID, "launch=joblib", "hydra.launcher.n_jobs=2")
        print(
            f"joblib: in turn {apart.wall_s:.0f} s, two at a time {beside.wall_s:.0f} s: "
            f"{apart.wall_s / beside.wall_s:.2f} times as fast; CPU {apart.cpu_s:.0f} and {beside.cpu_s:.0f} s; "
            f"load {apart.load_before:.2f}, others used {apart.others_during:.0%} and {beside.others_during:.0%}"
        )


PARTS = {"grid": grid, "overhead": overhead, "joblib": joblib}


def main() -> None:
    """Run the recipe once in a fresh clone, then the parts in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--one-run", action="store_true", help="of whole runs, for `grid`")
    parser.add_argument("--bare", action="store_true", help="used by the processes that this one starts")
    arguments = parser.parse_args()
    if arguments.bare:
        run_bare(arguments.parts)
        return
    if unknown := set(arguments.parts) - PARTS.keys():
        parser.error(f"no such part: {', '.join(unknown)}")
    if uncommitted():
        print("the working tree differs from its commit, which is what is measured")
    print(f"load average {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="sweeps-") as root:
        place = Place(Path(root), not arguments.one_run)
        print(f"a whole run: {place.first.cpu_s:.1f} CPU s, {place.first.wall_s:.1f} s on the clock", flush=True)
        for part in arguments.parts or PARTS:
            PARTS[part](place)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
