"""Near copies: how many of each kind are found, and how many different images are mistaken for copies.

`python -m benchmarks.near_copies [--photos FOLDER]` changes images in known ways: tiles of scikit-learn's two photos,
some of its digits, and up to 300 photos below FOLDER. It prints the share found per change, and the pairs of different
images taken for copies, by several values of `data.near_copy_similarity`.
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
from pipeline.data.likeness import similarity

PHOTOS = 300
DIGITS = 500
TILE_PX = 160
Change = Callable[[Image.Image], Image.Image]


TRIED = (0.4, 0.5, 0.6, 0.7, 0.8)
"""Values of `data.near_copy_similarity`."""


@dataclass(frozen=True)
class Measured:
    """How near the images of pairs are, [N] each."""

    bits: NDArray[np.int64]
    similarity: NDArray[np.float32]

    def within(self, at_least: float) -> NDArray[np.bool_]:
        return np.asarray((self.bits <= duplicates._MAX_BITS) & (self.similarity >= at_least))


def main() -> None:
    """Print a table per set of images: a line per change, a column per set of thresholds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path)
    folder = parser.parse_args().photos
    sets = {"tiles": tiles(), "digits": digits()}
    if folder:
        sets["photos"] = photos(folder)
    for name, images in sets.items():
        originals = [look(image) for image in images]
        print(f"\n{name}: {len(images)} images")
        print(f"{'found, percent':<22}" + "".join(f"{t:>7}" for t in TRIED))
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


def measure(a: list[Facts], b: list[Facts]) -> Measured:
    """Image by image."""
    hashes = [np.frombuffer(b"".join(f.phash for f in x), ">u8").astype(np.uint64) for x in (a, b)]
    bits = np.bitwise_count(hashes[0] ^ hashes[1]).astype(np.int64)
    near = np.flatnonzero(bits <= duplicates._MAX_BITS)
    alike = np.full(len(a), -1, np.float32)
    for start in range(0, len(near), 512):
        some = near[start : start + 512]
        thumbs = (np.stack([np.frombuffer(x[i].thumb, np.uint8) for i in some]) for x in (a, b))
        alike[some] = similarity(*thumbs)
    return Measured(bits, alike)


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
