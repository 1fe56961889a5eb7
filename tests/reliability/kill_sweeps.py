"""Sweeps and searches that are killed at random: `python -m tests.reliability.kill_sweeps --rounds 10`, ten minutes.

In each round a sweep of nine jobs, or a search of twenty trials, is started, its whole group of processes is killed
(SIGKILL) at a random moment, up to three times, and the same command is started again until it ends. It has survived
if its tables, and the folders of all its jobs, then have the bytes that they have without a kill.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "UNFREEZE_TRACKING": "false", "UNFREEZE_THREADS": "1"}

from pipeline.harness.compose import compose
from pipeline.harness.dag import run_stages
from stages.registry import ALL
from tests.conftest import PROJECT, Run, write_pictures
from tests.reliability.conftest import SMALL
from tests.reliability.faults import hashes
from tests.reliability.sweeps import make_checkout, start_sweep, table

NINE = ("full_train.num_cycles=1", "full_train.cycle_len=1,2,3", "full_train.lr=0.0001,0.001,9999")
"""Six jobs that are done, and three whose loss becomes NaN."""
TWENTY = (
    "hydra/sweeper=search", "hydra.sweeper.n_trials=20", "hydra.sweeper.n_startup_trials=4",
    "full_train.num_cycles=interval(1,2)", "full_train.lr=tag(log,interval(1e-4,1e+2))",
)  # fmt: skip
KINDS: Mapping[str, Sequence[str]] = {"sweep": NINE, "joblib": (*NINE, "launch=joblib"), "search": TWENTY}
KILLS = 3
END_S = 600


class Rounds:
    """A sweep that ends without a kill, and then again and again with kills."""

    def __init__(self, checkout: Path, kind: str) -> None:
        self.checkout, self.words = checkout, KINDS[kind]
        self.whole = checkout / f"{kind}-whole"
        began = time.monotonic()
        self.said = start_sweep(checkout, self.whole.name, *self.words).communicate(timeout=END_S)[0]
        self.seconds = time.monotonic() - began
        self.expected = state(self.whole)

    def run(self, seed: int) -> list[float]:
        """Kill the sweep at random moments; returns when, in seconds. Raises AssertionError if it ends otherwise."""
        generator, folder = random.Random(seed), self.checkout / f"{self.whole.name}-{seed}"
        kills: list[float] = []
        while not kills:
            shutil.rmtree(folder, ignore_errors=True)
            kills = [*self._kill(folder.name, generator)]
        said = start_sweep(self.checkout, folder.name, *self.words).communicate(timeout=END_S)[0]
        found = state(folder)
        differing = sorted(key for key in self.expected | found if self.expected.get(key) != found.get(key))
        assert not differing, f"killed after {kills} s, these differ: {differing}\n{said}"
        shutil.rmtree(folder)
        return kills

    def _kill(self, name: str, generator: random.Random) -> Iterator[float]:
        """Start the sweep and kill it, a few times; yields after how many seconds. It ends early where it has ended."""
        for _ in range(generator.randint(1, KILLS)):
            began, moment = time.monotonic(), generator.uniform(0, self.seconds)
            process = start_sweep(self.checkout, name, *self.words)
            try:
                process.communicate(timeout=moment)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate(timeout=60)
                yield round(moment, 1)
            else:
                self.seconds = min(self.seconds, time.monotonic() - began)
                return


def state(sweep: Path) -> dict[str, object]:
    """What a sweep has left, without what a clock has measured."""
    left: dict[str, object] = {"summary.csv": table(sweep)}
    if (sweep / "trials.csv").exists():
        left["trials.csv"] = (sweep / "trials.csv").read_text()
    return left | {f"{job.name}/full_train": hashes(job / "full_train") for job in sweep.iterdir() if is_done(job)}


def is_done(job: Path) -> bool:
    return (job / "full_train").exists()


def main() -> None:
    """Run the rounds of each kind, and print when each was killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[*KINDS])
    arguments = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        pictures = write_pictures(Path(name) / "pictures")
        params = compose([*SMALL, f"data.root={pictures}"], conf=PROJECT / "conf")
        make_checkout(Run(run_stages(ALL, params, Path(name) / "small"), params), Path(name) / "checkout")
        for kind in arguments.kinds:
            rounds = Rounds(Path(name) / "checkout", kind)
            print(f"{kind}: {rounds.seconds:.0f} s without a kill", flush=True)
            for seed in range(arguments.rounds):
                try:
                    print(f"  round {seed}: the same after kills at {rounds.run(seed)} s", flush=True)
                except AssertionError as error:
                    failed += 1
                    print(f"  round {seed}: FAILED: {error}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
