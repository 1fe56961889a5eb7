"""What grows with the number of images: time per image and peak memory of every stage.

`python -m benchmarks.growth [--counts 1000 10000 50000] [--until full_train] [--out growth.png] [overrides ...]` makes
PNG files of 32x32 in ten classes, and runs the stages on them with a small network, one epoch for each training. Each
stage is a process of its own, whose memory is that of it and of all processes that it starts, without what they share
counted twice, looked at ten times a second. A table goes to the console, and a picture into `--out`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from stages import STAGES

CLASSES, SIZE_PX = 10, 32
OVERRIDES = (
    "data=folder", f"data.image_size={SIZE_PX}", "model.arch=squeezenet1_1", "model.weights=none", "augment=symbols",
    "head_train_augmented.num_cycles=1", "full_train.num_cycles=1", "full_train.cycle_len=1",
)  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What a stage took."""

    seconds: float
    mb: float
    """Of memory, at most."""


Costs = Mapping[str, Cost]


def main() -> None:
    """Run the stages for each count, print the table, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 50_000])
    parser.add_argument("--until", choices=STAGES, default=STAGES[-1], help="the last stage to run")
    parser.add_argument("--out", type=Path, default=Path("growth.png"))
    parser.add_argument("--stage", help="used by the processes that this one starts")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    os.environ["UNFREEZE_TRACKING"] = "false"
    if arguments.stage:
        execute_stage(arguments.stage, *arguments.overrides)
        return
    if len(arguments.counts) < 2:
        parser.error("--counts needs two or more")
    names, found = STAGES[: STAGES.index(arguments.until) + 1], {}
    for count in arguments.counts:
        with tempfile.TemporaryDirectory() as root:
            make_images(Path(root) / "images", count)
            found[count] = {name: run_stage(name, Path(root), arguments.overrides) for name in names}
        print(
            f"{count} images: " + json.dumps({n: [round(c.seconds, 1), round(c.mb)] for n, c in found[count].items()})
        )
    show(names, found)
    draw(names, found, arguments.out)


def execute_stage(name: str, root: str, *overrides: str) -> None:
    """Run a stage in this process. Ingest's processes import this module again, and must not load all of it."""
    from pipeline.harness.compose import compose
    from pipeline.harness.dag import run_stages
    from stages.registry import ALL

    run_stages(ALL, compose([*OVERRIDES, f"data.root={root}/images", *overrides]), Path(root), only=[name])


def make_images(root: Path, count: int) -> None:
    """Write pictures of a colour for each class, with coarse noise; all are different."""
    generator = np.random.default_rng(0)
    for label in range(CLASSES):
        (root / f"class {label}").mkdir(parents=True)
    for i in range(count):
        coarse = generator.integers(0, 200, (6, 6, 3), dtype=np.uint8) + np.uint8(5 * (i % CLASSES))
        picture = Image.fromarray(coarse).resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC)
        picture.save(root / f"class {i % CLASSES}" / f"{i:06d}.png")


def run_stage(name: str, root: Path, overrides: Sequence[str]) -> Cost:
    """Run a stage in a process of its own, and watch its memory."""
    command = [sys.executable, "-m", "benchmarks.growth", "--stage", name, str(root), *overrides]
    began, peak = time.monotonic(), 0
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            peak = max(peak, _memory(process.pid))
            time.sleep(0.1)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Cost(time.monotonic() - began, peak / 2**10)


def _memory(pid: int) -> int:
    """KiB of a process and all below it, from Linux; what several share is divided among them."""
    total = 0
    with suppress(OSError):  # it has ended
        process = Path(f"/proc/{pid}")
        for children in process.glob("task/*/children"):
            total += sum(_memory(int(child)) for child in children.read_text().split())
        rows = (process / "smaps_rollup").read_text().splitlines()
        total += sum(int(row.split()[1]) for row in rows if row.startswith("Pss:"))
    return total


def show(names: Sequence[str], found: Mapping[int, Costs]) -> None:
    """Print ms per image (with start-up) and MB; with ratios of the last two counts."""
    counts = list(found)
    print(f"{'stage':20}" + "".join(f"{count:>10} ms   MB" for count in counts) + "      last two: time  memory")
    for name in names:
        costs = [found[count][name] for count in counts]
        line = "".join(f"{1000 * c.seconds / n:10.2f} {c.mb:6.0f}" for n, c in zip(counts, costs, strict=True))
        before, last = costs[-2:]
        ratios = [last.seconds / counts[-1] / (before.seconds / counts[-2]), last.mb / before.mb]
        print(f"{name:20}{line}{ratios[0]:21.2f}{ratios[1]:8.2f}")


def draw(names: Sequence[str], found: Mapping[int, Costs], out: Path) -> None:
    """A line per stage, on logarithmic axes: time per image, and memory."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    counts = list(found)
    figure, (times, memory) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    for i, name in enumerate(names):
        style = {"marker": "o", "label": name, "color": f"C{i % 10}", "linestyle": "-" if i < 10 else "--"}
        times.loglog(counts, [1000 * found[n][name].seconds / n for n in counts], **style)
        memory.loglog(counts, [found[n][name].mb for n in counts], **style)
    times.set(xlabel="images", ylabel="ms per image, with start-up")
    memory.set(xlabel="images", ylabel="peak memory, MB")
    memory.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    main()
