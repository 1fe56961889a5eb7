"""Near copies: how many of each kind are found, and how many different images are mistaken for copies.

`python -m benchmarks.near_copies [--photos FOLDER]` changes images in known ways: tiles of scikit-learn's two photos,
some of its digits, and up to 300 photos below FOLDER. It prints the share found per change, and the pairs of different
images taken for copies, by the present thresholds of `pipeline/data/duplicates.py` and by others.
"""

import argparse
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance
from sklearn.datasets import load_digits, load_sample_images

from pipeline.data import duplicates
from pipeline.data.decode import DecodeError, decode
from pipeline.data.facts import Facts, look_at

PHOTOS = 300
DIGITS = 500
TILE_PX = 160
Change = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True)
class Thresholds:
    """When two images count as near copies; see `pipeline/data/duplicates.py`."""

    bits: int
    correlation: float
    difference: float


PRESENT = Thresholds(duplicates._MAX_BITS, duplicates._MIN_CORRELATION, duplicates._MAX_DIFFERENCE)
TRIED = [
    PRESENT,
    *(Thresholds(bits, PRESENT.correlation, PRESENT.difference) for bits in (4, 8, 10)),
    *(Thresholds(PRESENT.bits, correlation, PRESENT.difference) for correlation in (0.97, 0.98, 0.995)),
    *(Thresholds(PRESENT.bits, PRESENT.correlation, difference) for difference in (8.0, 16.0, 64.0)),
    Thresholds(4, 0.995, 8.0),
    Thresholds(8, 0.98, 32.0),
    Thresholds(10, 0.97, 32.0),
]


@dataclass(frozen=True)
class Distances:
    """How far apart the images of pairs are, [N] each."""

    bits: NDArray[np.int64]
    correlation: NDArray[np.float64]
    difference: NDArray[np.float64]

    def within(self, thresholds: Thresholds) -> NDArray[np.bool_]:
        return np.asarray(
            (self.bits <= thresholds.bits)
            & (self.correlation >= thresholds.correlation)
            & (self.difference <= thresholds.difference)
        )


def main() -> None:
    """Print a table per set of images: a line per change, a column per set of thresholds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path)
    folder = parser.parse_args().photos
    sets = {"tiles": tiles(), "digits": digits()}
    if folder:
        sets["photos"] = photos(folder)
    print("thresholds: " + ", ".join(f"{i}={t.bits}/{t.correlation}/{t.difference:g}" for i, t in enumerate(TRIED)))
    for name, images in sets.items():
        originals = [look(image) for image in images]
        print(f"\n{name}: {len(images)} images")
        print(f"{'found, percent':<22}" + "".join(f"{i:>7}" for i in range(len(TRIED))))
        for change, apply in CHANGES.items():
            distances = measure(originals, [look(apply(image)) for image in images])
            print(f"{change:<22}" + "".join(f"{100 * distances.within(t).mean():7.1f}" for t in TRIED), flush=True)
        first, second = np.triu_indices(len(originals), 1)
        distances = measure([originals[i] for i in first], [originals[i] for i in second])
        print(f"{'mistaken, pairs':<22}" + "".join(f"{distances.within(t).sum():7d}" for t in TRIED), flush=True)


def tiles() -> list[Image.Image]:
    return [
        Image.fromarray(photo[top : top + TILE_PX, left : left + TILE_PX])
        for photo in load_sample_images().images
        for top in range(0, photo.shape[0] - TILE_PX + 1, TILE_PX)
        for left in range(0, photo.shape[1] - TILE_PX + 1, TILE_PX)
    ]


def digits() -> list[Image.Image]:
    return [Image.fromarray(np.rint(x * (255 / 16)).astype(np.uint8)) for x in load_digits().images[:DIGITS]]


def photos(folder: Path) -> list[Image.Image]:
    """An even selection, at 512 pixels at most, as in most data sets."""
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    found = []
    for file in files[:: max(1, len(files) // PHOTOS)][:PHOTOS]:
        try:
            image = decode(file, background="white").image
        except DecodeError:
            continue
        image.thumbnail((512, 512))
        found.append(image)
    return found


def look(image: Image.Image) -> Facts:
    """What ingest records of an image."""
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        image.save(file, "PNG", compress_level=1)
        file.flush()
        return look_at(Path(file.name), background="white")


def measure(a: list[Facts], b: list[Facts]) -> Distances:
    """Image by image."""
    hashes = [np.frombuffer(b"".join(f.phash for f in x), ">u8").astype(np.uint64) for x in (a, b)]
    thumbs = [np.frombuffer(b"".join(f.thumb for f in x), np.uint8).reshape(len(x), -1).astype(float) for x in (a, b)]
    difference = np.abs(thumbs[0] - thumbs[1]).mean(axis=1)
    x, y = (t - t.mean(axis=1, keepdims=True) for t in thumbs)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    correlation = (x * y).sum(axis=1) / np.maximum(norms, 1e-9)
    return Distances(np.bitwise_count(hashes[0] ^ hashes[1]).astype(np.int64), correlation, difference)


def as_jpeg(quality: int) -> Change:
    def change(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return change


def resized(scale: float, *, back: bool) -> Change:
    def change(image: Image.Image) -> Image.Image:
        small = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        return small.resize(image.size, Image.Resampling.BICUBIC) if back else small

    return change


def cropped(share: float) -> Change:
    """Without `share` of each side's length, half of it at each end."""

    def change(image: Image.Image) -> Image.Image:
        x, y = (max(1, round(side * share / 2)) for side in image.size)
        return image.crop((x, y, image.width - x, image.height - y))

    return change


def with_text(image: Image.Image) -> Image.Image:
    """A line at the lower edge, as cameras and sites write it."""
    changed = image.copy()
    ImageDraw.Draw(changed).text((4, image.height - 14), "photo 2024", fill=255 if image.mode == "L" else "white")
    return changed


CHANGES: dict[str, Change] = {
    **{f"jpeg {q}": as_jpeg(q) for q in (95, 75, 50, 30)},
    **{f"resize {s} and back": resized(s, back=True) for s in (0.9, 0.7, 0.5)},
    "resize 0.5": resized(0.5, back=False),
    "brightness 0.95": lambda image: ImageEnhance.Brightness(image).enhance(0.95),
    "brightness 1.1": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "brightness 1.25": lambda image: ImageEnhance.Brightness(image).enhance(1.25),
    "contrast 0.9": lambda image: ImageEnhance.Contrast(image).enhance(0.9),
    "contrast 1.2": lambda image: ImageEnhance.Contrast(image).enhance(1.2),
    "gray": lambda image: image.convert("L"),
    "text": with_text,
    **{f"crop {s:.0%}": cropped(s) for s in (0.02, 0.05, 0.1)},
    "flip (another image)": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}

if __name__ == "__main__":
    main()
