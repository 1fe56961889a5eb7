"""The decoder beside plain Pillow: photos to the network's size, as a ratio of times.

`python -m benchmarks.decode_speed [--count 2000] [--size 500 400] [--image-size 224]`; the two take turns in small
portions, so that both run under the same load.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data.decode import Framing, decode_framed


def main() -> None:
    """Make the photos, decode them both ways, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--size", type=int, nargs=2, default=[500, 400])
    parser.add_argument("--image-size", type=int, default=224)
    arguments = parser.parse_args()
    framing = Framing(arguments.image_size, "squish", "white")

    def plain(file: Path) -> Image.Image:
        return Image.open(file).convert("RGB").resize((arguments.image_size,) * 2, Image.Resampling.BILINEAR)

    def ours(file: Path) -> Image.Image:
        return decode_framed(file, framing)

    seconds = [0.0, 0.0]
    with tempfile.TemporaryDirectory() as folder:
        files = make_photos(Path(folder), min(arguments.count, 200), arguments.size)
        for start in range(0, arguments.count, 50):
            portion = [files[i % len(files)] for i in range(start, min(start + 50, arguments.count))]
            for k, read in enumerate((plain, ours)):
                began = time.perf_counter()
                for file in portion:
                    read(file)
                seconds[k] += time.perf_counter() - began
    rates = [arguments.count / s for s in seconds]
    print(
        f"{arguments.count} JPEG of {arguments.size[0]}x{arguments.size[1]} to {arguments.image_size}: plain "
        f"{rates[0]:.0f} per second, ours {rates[1]:.0f}; ours takes {seconds[1] / seconds[0]:.2f} of the time"
    )


def make_photos(folder: Path, count: int, size: list[int]) -> list[Path]:
    """Smooth pictures with some noise, about as hard to decode as photos."""
    files = []
    for i in range(count):
        generator = np.random.default_rng(i)
        coarse = Image.fromarray(generator.integers(0, 255, (25, 30, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((size[0], size[1]), Image.Resampling.BICUBIC)).astype(float)
        noisy = (smooth + generator.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8)
        files.append(folder / f"{i}.jpg")
        Image.fromarray(noisy).save(files[-1], quality=90)
    return files


if __name__ == "__main__":
    main()
