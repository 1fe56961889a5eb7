"""Several processes that train one model, beside one: `python -m benchmarks.processes [key=value ...]`.

The images that `full_train` learns per second, in turns, after `dvc repro`: each run trains for a few epochs and again
for more of them, and the difference holds no start. Augmentation, and the loss on valid after each epoch, are part of
it. Bits may differ, so runs never share a result.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

from pipeline.data.manifest import read_manifest
from pipeline.paths import ARTIFACTS

SHORT = 1
"""Epochs of the shorter run."""


def main() -> None:
    """Train in turns, and print images per second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", nargs="*", help="settings that both have, key=value")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3, help="how many more the longer run has")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    num_images = len(read_manifest(ARTIFACTS / "ingest").of("train"))
    print(f"load before: {os.getloadavg()[0]:.2f}, {num_images} images")
    found: dict[int, list[float]] = {1: [], arguments.processes: []}
    for _ in range(arguments.rounds):
        for processes, rates in found.items():
            short, long = (seconds(processes, n, arguments.settings) for n in (SHORT, SHORT + arguments.epochs))
            rates.append(num_images * arguments.epochs / (long - short))
            print(f"{processes} processes: {rates[-1]:.1f} images/s; {short:.1f} s for one epoch, start included")
    one, several = (statistics.median(rates) for rates in found.values())
    print(f"{arguments.processes} processes train {several / one:.2f} times as many images per second as one")


def seconds(processes: int, epochs: int, settings: list[str]) -> float:
    """How long `full_train` takes, run by hand into a folder that is then removed."""
    plan = ["full_train.num_cycles=1", f"full_train.cycle_len={epochs}", f"runtime.processes={processes}"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "stages.full_train", *plan, "runtime.tracking=false", *settings]
        began = time.monotonic()
        subprocess.run([*command, f"hydra.run.dir={folder}/job"], check=True, stderr=subprocess.DEVNULL)
        return time.monotonic() - began


if __name__ == "__main__":
    main()
