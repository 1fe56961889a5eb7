"""What is to be known of one image file, found by reading it once."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

from pipeline.data.decode import DecodeError, decode, hash_pixels

THUMB_PX = 16
_MIN_PX = 8
_MAX_RATIO = 10


@dataclass(frozen=True, slots=True)
class Facts:
    """All that later steps ask of a file, without opening it again."""

    problem: str = ""
    """Why it cannot be used; empty for a good image, and then the rest is known."""
    file_sha256: str = ""
    sha256: str = ""
    """Of the decoded pixels."""
    width: int = 0
    height: int = 0
    conversions: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    phash: bytes = b""
    """64 bits: what the image looks like, by the signs of its low frequencies."""
    thumb: bytes = b""
    """Gray pixels [16, 16]."""


def look_at(path: Path, *, background: str) -> Facts:
    """Decode and hash a file; whatever is wrong with it is an answer, not an error."""
    try:
        decoded = decode(path, background=background)
        with path.open("rb") as file:
            file_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except (DecodeError, OSError) as error:
        return Facts(problem=str(error))
    image = decoded.image
    gray = image.convert("L")
    return Facts(
        file_sha256=file_sha256,
        sha256=hash_pixels(image),
        width=image.width,
        height=image.height,
        conversions=decoded.conversions,
        flags=(*decoded.flags, *_doubts(image)),
        phash=np.packbits(imagehash.phash(gray).hash).tobytes(),
        thumb=gray.resize((THUMB_PX, THUMB_PX), Image.Resampling.BOX).tobytes(),
    )


def _doubts(image: Image.Image) -> list[str]:
    """What makes an image suspicious, though it can be read."""
    short, long = sorted(image.size)
    doubts = [f"only {image.width} x {image.height} pixels"] if short < _MIN_PX else []
    doubts += [f"{long / short:.0f} times as long as wide"] if long > _MAX_RATIO * short else []
    if all(low == high for low, high in image.getextrema()):  # type: ignore[misc]
        doubts.append("one colour only")
    return doubts
