"""Two runs at once on the same cores, beside one alone: `python -m benchmarks.neighbours [-S key=value ...]`.

Each run is `dvc repro` in a fresh clone of the last commit. With cores to share and no time lost on each other, two
take twice as long as one. Threads that spin while they wait would make it many times that.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.paths import PROJECT

GOAL = 2.3


def main() -> None:
    """Run one, then two at once, and print the ratio of their times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-S", "--set", action="append", default=[], help="a setting, as for `dvc exp run`")
    arguments = parser.parse_args()
    seconds = {}
    for count in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            clones = [clone(Path(folder) / str(i)) for i in range(count)]
            began = time.monotonic()
            runs = [start(place, arguments.set) for place in clones]
            statuses = [run.wait() for run in runs]
            if any(statuses):
                sys.exit(f"runs ended with {statuses}")
            seconds[count] = time.monotonic() - began
        print(f"{count} at once: {seconds[count]:.1f} s", flush=True)
    print(f"two take {seconds[2] / seconds[1]:.2f} times one (goal: at most {GOAL}); load before: {os.getloadavg()[0]}")


def clone(place: Path) -> Path:
    """A fresh clone of the last commit."""
    subprocess.run(["git", "clone", "-q", str(PROJECT), str(place)], check=True)
    return place


def start(place: Path, settings: list[str]) -> subprocess.Popen[bytes]:
    """Start a whole run in a clone, by its own code."""
    command = (
        ["dvc", "exp", "run", *(part for each in settings for part in ("-S", each))] if settings else ["dvc", "repro"]
    )
    return subprocess.Popen(command, cwd=place, env=os.environ | {"PYTHONPATH": str(place)}, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
