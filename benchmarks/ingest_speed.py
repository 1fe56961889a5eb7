"""Ingest of many small images: images per second, memory, and what another run costs.

`python -m benchmarks.ingest_speed [--counts 10000 100000]` makes JPEG files of 64x64 in ten classes, and for each count
prints the first run, one without changes (settings and the state of all files are checked, and the stage is not run)
and one with one more image (only that one is read), each in a process of its own, with its peak memory.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.harness.compose import compose
from pipeline.harness.execute import StageFolders, execute
from pipeline.harness.fingerprints import write_fingerprints
from pipeline.settings import read_settings, with_environment
from stages.ingest import STAGE

CLASSES = 10


def main() -> None:
    """Time the runs for each count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--run", nargs=2, help="used by the processes that this one starts")
    arguments = parser.parse_args()
    os.environ["UNFREEZE_TRACKING"] = "false"
    if arguments.run:
        print(json.dumps(ingest_once(*map(Path, arguments.run))))
        return
    for count in arguments.counts:
        with tempfile.TemporaryDirectory() as folder:
            make_images(Path(folder) / "images", count)
            first, same = (run(Path(folder)) for _ in range(2))
            make_images(Path(folder) / "images", 1, seed=1)
            more = run(Path(folder))
        print(
            f"{count} images: {count / first['s']:.0f} per second ({first['s']:.1f} s, {first['mb']:.0f} MB, workers "
            f"{first['worker_mb']:.0f} MB); again without changes "
            f"{same['s']:.2f} s, {first['s'] / same['s']:.0f} times faster; with another image {more['s']:.2f} s, "
            f"{first['s'] / more['s']:.0f} times faster, {more['mb']:.0f} MB",
            flush=True,
        )


def make_images(root: Path, count: int, *, seed: int = 0) -> None:
    """Write images of coarse noise, all different."""
    generator = np.random.default_rng(seed)
    for label in range(CLASSES):
        (root / f"class {label}").mkdir(parents=True, exist_ok=True)
    for i in range(count):
        coarse = Image.fromarray(generator.integers(0, 255, (6, 6, 3), dtype=np.uint8))
        coarse.resize((64, 64), Image.Resampling.BICUBIC).save(root / f"class {i % CLASSES}" / f"{seed}-{i:06d}.jpg")


def run(folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.ingest_speed", "--run", str(folder / "images"), str(folder)]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def ingest_once(images: Path, folder: Path) -> dict[str, float]:
    """The stage as DVC runs it, with all its pictures and files."""
    os.environ["DVC_ROOT"] = str(folder)  # its state, the cache of facts among it, lies there
    params = compose(["data=folder", f"data.root={images}"])
    settings = read_settings(params, source="params")
    began = time.monotonic()
    write_fingerprints(settings, folder / "artifacts" / "config", ())
    inputs = {"config": folder / "artifacts" / "config"}
    folders = StageFolders(inputs, folder / "artifacts" / "ingest", folder / ".unfreeze")
    execute(STAGE, params, with_environment(settings.runtime), folders)
    seconds = time.monotonic() - began
    mb, worker_mb = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {"s": seconds, "mb": mb, "worker_mb": worker_mb}


if __name__ == "__main__":
    main()
