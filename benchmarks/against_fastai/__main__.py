"""The whole recipe beside fastai's, on the same work and machine, and beside the limit of our own model.

`make bench`, or `python -m benchmarks.against_fastai [--pairs 3] [--photos DIR --photos-weights FILE]`. Ours and
fastai take turns. On a loaded machine it says what it saw and exits with 1, without a verdict. Otherwise it prints a
table for each work, and replaces that work in `benchmarks/results.json`.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.against_fastai.environment import make_fastai, variables
from benchmarks.against_fastai.load import Watched, others_now, refusals, run_watched
from benchmarks.against_fastai.ours import PROJECT, run_ours, uncommitted
from benchmarks.against_fastai.table import Row, format_table, rows_of
from benchmarks.against_fastai.work import Work, digits, photos
from pipeline.files import read_json, write_json
from pipeline.model.compute import num_cores

CACHE = PROJECT / ".bench"
"""fastai's environment, the digits, the clone that runs, and the logs."""
RESULTS = PROJECT / "benchmarks" / "results.json"
RECIPE = Path(__file__).with_name("fastai_recipe.py")


class LoadedMachineError(RuntimeError):
    """Others used the machine while it was measured."""


@dataclass(frozen=True)
class Bench:
    """How the works are compared."""

    pairs: int
    fastai_python: Path
    frozen_bn: bool
    """Whether fastai's frozen batch norms stay as they are. It is not its default, but less work, and our rule."""
    concludes: bool
    """Whether a loaded machine ends it."""

    def check(self, what: str, watched: Watched) -> None:
        """Print what a run took and what else happened. Raises LoadedMachineError if that was too much."""
        print(
            f"{what}: {watched.wall_s:.1f} s, CPU {watched.cpu_s:.1f} s; others {watched.others_before:.1%} before, "
            f"{watched.others_during:.1%} during; load average {watched.load_before:.2f} before",
            flush=True,
        )
        others = [(f"before {what}", watched.others_before), (f"during {what}", watched.others_during)]
        self.refuse(refusals(load=0.0, others=others, cores=num_cores()))

    def refuse(self, reasons: list[str]) -> None:
        """Raise LoadedMachineError if there are reasons and this run is to conclude something."""
        if reasons and self.concludes:
            raise LoadedMachineError("\n".join(reasons))


def main() -> int:
    """Compare, print and write; returns the exit status."""
    arguments = _arguments()
    pairs = 1 if arguments.quick else arguments.pairs
    bench = Bench(pairs, arguments.fastai_python, arguments.frozen_bn, concludes=not arguments.quick)
    try:
        load, others = os.getloadavg()[0], others_now()
        print(f"{num_cores()} cores; load average {load:.2f}, others {others:.1%}", flush=True)
        bench.refuse(refusals(load=load, others=[("before the first run", others)], cores=num_cores()))
        CACHE.mkdir(exist_ok=True)
        bench = dataclasses.replace(bench, fastai_python=arguments.fastai_python or make_fastai(CACHE / "fastai"))
        for work in _works(arguments):
            result, rows = compare(work, bench)
            print(f"\n{format_table(work.name, rows)}\n", flush=True)
            if bench.concludes:
                write_json(RESULTS, {**(read_json(RESULTS) if RESULTS.exists() else {}), work.name: result})
    except LoadedMachineError as loaded:
        print(f"No verdict: the machine was not quiet.\n{loaded}", file=sys.stderr)
        return 1
    print(f"written to {RESULTS.relative_to(PROJECT)}" if bench.concludes else "--quick: no verdict, nothing written")
    return 0


def compare(work: Work, bench: Bench) -> tuple[dict[str, Any], list[Row]]:
    """Run the pairs and the limit; returns the work's entry in the results, and its rows."""
    clone, pairs = CACHE / "clone", []
    for number in range(bench.pairs):
        pair: dict[str, Any] = {"import_torch_s": time_import_torch()}
        for side in ("ours", "fastai") if number % 2 == 0 else ("fastai", "ours"):
            log = CACHE / f"{work.name}-{side}-{number + 1}.log"
            if side == "ours":
                watched, facts = run_ours(work, clone, log)
            else:
                watched, facts = run_fastai(work, bench, log)
            bench.check(f"{work.name}, pair {number + 1}, {side}", watched)
            pair[side] = {**dataclasses.asdict(watched), **facts}
        pairs.append(pair)
    watched, limit = run_limit(clone, CACHE / f"{work.name}-limit.log")
    bench.check(f"{work.name}, limit", watched)
    rows = rows_of(pairs, limit, goal=work.goal)
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "uncommitted_changes": uncommitted(),
        "work": {**dataclasses.asdict(work), "data": Path(work.data).name, "weights": Path(work.weights).name},
        "fastai_frozen_bn": bench.frozen_bn,
        "rows": [{**dataclasses.asdict(row), "met": row.is_met} for row in rows],
        "limit": {**limit, **dataclasses.asdict(watched)},
        "pairs": pairs,
    }
    return result, rows


def run_fastai(work: Work, bench: Bench, log: Path) -> tuple[Watched, dict[str, Any]]:
    """Run fastai's side; returns what it took and what it says of itself."""
    given = json.dumps({**dataclasses.asdict(work), "frozen_bn": bench.frozen_bn})
    command = [str(bench.fastai_python), "-P", str(RECIPE), given]
    return run_watched(command, cwd=CACHE, env=variables(), log=log), _answer(log)


def run_limit(project: Path, log: Path) -> tuple[Watched, dict[str, Any]]:
    """Measure the limit of the model that a finished run in `project` made."""
    command = [sys.executable, "-m", "benchmarks.against_fastai.limit", str(project)]
    return run_watched(command, cwd=PROJECT, env=variables(PROJECT), log=log), _answer(log)


def time_import_torch() -> float:
    """The median time of three processes that import torch and end, in seconds."""
    times = []
    for _ in range(3):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "import torch"], check=True, env=variables(PROJECT))
        times.append(time.monotonic() - began)
    return statistics.median(times)


def machine() -> dict[str, Any]:
    """The processor, its instruction sets, and its cores."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return {
        "processor": known.get("model name", platform.machine()),
        "instruction_sets": sorted(set(known.get("flags", "").split())),
        "cores": num_cores(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _answer(log: Path) -> dict[str, Any]:
    """The JSON object that a program printed last."""
    found: dict[str, Any] = json.loads(next(x for x in reversed(log.read_text().splitlines()) if x.startswith("{")))
    return found


def _works(arguments: argparse.Namespace) -> Iterator[Work]:
    """The works that were asked for; with `--quick`, of one epoch per stage, and few digits."""
    works = []
    if not arguments.no_digits:
        folder = CACHE / ("digits-quick" if arguments.quick else "digits")
        works.append(digits(folder, share=0.2 if arguments.quick else 1.0))
    if arguments.photos:
        works.append(photos(arguments.photos, arguments.photos_weights))
    for work in works:
        quick = dataclasses.replace(work, head_epochs=1, augmented_cycles=1, full_cycles=1, finder_steps=20)
        yield quick if arguments.quick else work


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument(
        "--photos", type=Path, help="a folder with train/, valid/ and test/, a folder per class in each"
    )
    parser.add_argument("--photos-weights", type=Path, help="safetensors of torchvision's squeezenet1_1")
    parser.add_argument("--no-digits", action="store_true", help="only the photos")
    parser.add_argument("--fastai-python", type=Path, help="an environment with fastai, instead of making one")
    parser.add_argument("--frozen-bn", action="store_true", help="fastai's frozen batch norms stay frozen: less work")
    parser.add_argument("--quick", action="store_true", help="one pair of few images and epochs: no verdict")
    arguments = parser.parse_args()
    if bool(arguments.photos) != bool(arguments.photos_weights):
        parser.error("--photos and --photos-weights belong together")
    if arguments.no_digits and not arguments.photos:
        parser.error("--no-digits leaves nothing to measure without --photos")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
