"""Damaged files through the decoder: valid files of eight formats, with bits flipped, cut short, or spliced together.

`python -m benchmarks.mutations [--count 20000] [--seed 0]` decodes them in processes that are killed by an image
that takes more than 5 seconds, and that cannot use more than 1 GB. Prints the outcomes, and fails if any process died.
"""

import argparse
import io
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.data.decode import DecodeError, decode

TIME_LIMIT_S = 5.0
MEMORY_BYTES = 2**30
KINDS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 85},
    "PNG": {},
    "WEBP": {"quality": 80},
    "GIF": {"save_all": True},
    "BMP": {},
    "TIFF": {"compression": "tiff_lzw"},
    "AVIF": {"quality": 60},
    "JPEG2000": {},
}


def main() -> None:
    """Run all mutations, in several processes, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--part", type=int, nargs=2, help="used by the processes that this one starts")
    arguments = parser.parse_args()
    if arguments.part:
        decode_part(*arguments.part, seed=arguments.seed)
        return
    began, edges = time.monotonic(), np.linspace(0, arguments.count, arguments.workers + 1, dtype=int).tolist()
    with ThreadPoolExecutor(arguments.workers) as pool:
        parts = list(pool.map(lambda a, b: watch_part(a, b, arguments.seed), edges[:-1], edges[1:]))
    outcomes = sum((counts for counts, _ in parts), Counter())
    for name, count in outcomes.most_common():
        print(f"{count:>7}  {name}")
    print(f"{arguments.count} files in {time.monotonic() - began:.0f} s, {max(mb for _, mb in parts):.0f} MB at most")
    sys.exit(1 if any(name.startswith("died") for name in outcomes) else 0)


def watch_part(start: int, end: int, seed: int) -> tuple[Counter[str], float]:
    """Outcomes of mutations `start` to `end`, and the peak memory in MB; continues after one that kills its process."""
    outcomes: Counter[str] = Counter()
    peak_mb = 0.0
    while start < end:
        command = [sys.executable, "-m", "benchmarks.mutations", "--seed", str(seed), "--part", str(start), str(end)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [line.split("\t") for line in done.stdout.splitlines()]
        outcomes.update(line[0] for line in lines)
        peak_mb = max([peak_mb, *(float(line[1]) for line in lines)])
        start += len(lines)
        if start < end:
            outcomes[f"died with {done.returncode} at mutation {start}: {done.stderr[-200:]}"] += 1
            start += 1
    return outcomes, peak_mb


def decode_part(start: int, end: int, *, seed: int) -> None:
    """Decode mutations one by one; a line for each."""
    sources = valid_files()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x"
        for i in range(start, end):
            kind, content = mutate(sources, np.random.default_rng((seed, i)))
            file.write_bytes(content)
            signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT_S)  # its signal ends the process, even in C
            try:
                decode(file, background="white")
                outcome = "decoded"
            except DecodeError as error:
                outcome = "memory" if "memory" in str(error) else "rejected"
            signal.setitimer(signal.ITIMER_REAL, 0)
            peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{kind} {outcome}\t{peak_mb:.0f}", flush=True)


def valid_files() -> list[tuple[str, bytes]]:
    """Pictures of several modes and sizes in each format."""
    files = []
    for kind, how in KINDS.items():
        for i, (mode, size) in enumerate((("RGB", (64, 48)), ("L", (33, 70)), ("RGB", (200, 150)))):
            coarse = np.random.default_rng(i).integers(0, 255, (8, 9, 3), dtype=np.uint8)
            picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)
            exif = Image.Exif()
            exif[0x0112] = 6
            frames: dict[str, Any] = {"append_images": [picture.rotate(90)]} if kind == "GIF" else {"exif": exif}
            buffer = io.BytesIO()
            picture.save(buffer, kind, **how, **(frames if kind in ("GIF", "JPEG", "PNG", "WEBP") else {}))
            files.append((kind, buffer.getvalue()))
    return files


def mutate(sources: list[tuple[str, bytes]], generator: np.random.Generator) -> tuple[str, bytes]:
    """One valid file, damaged in one to three ways; half of the flips hit the first 200 bytes, where sizes are."""
    kind, content = sources[generator.integers(len(sources))]
    data = bytearray(content)
    for _ in range(generator.integers(1, 4)):
        match generator.choice(["flip", "byte", "cut", "splice"], p=[0.4, 0.3, 0.1, 0.2]):
            case "flip" | "byte" as how:
                for _ in range(generator.integers(1, 9)):
                    reach = min(200, len(data)) if generator.random() < 0.5 else len(data)
                    at = generator.integers(reach)
                    data[at] = data[at] ^ (1 << generator.integers(8)) if how == "flip" else generator.integers(256)
            case "cut":
                del data[generator.integers(1, len(data)) :]
            case _:
                other = sources[generator.integers(len(sources))][1]
                start, size = generator.integers(len(other)), generator.integers(1, 400)
                at = generator.integers(len(data))
                data[at : at + generator.integers(size)] = other[start : start + size]
        if not data:
            break
    return kind, bytes(data)


if __name__ == "__main__":
    main()
