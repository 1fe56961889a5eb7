"""All that ingest needs to know about an image file, found by reading it once."""

from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

from pipeline.data.decode import DecodeError, decode, hash_pixels
from pipeline.data.image_file import digest_image_file

THUMB_PX = 32
COLOUR_PX = 8
THUMB_BYTES = THUMB_PX * THUMB_PX + 2 * COLOUR_PX * COLOUR_PX + 1
_DETAILED_PX = 3 * THUMB_PX
_MIN_PX = 8
_MAX_RATIO = 10


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found out about a file, so that later steps need not open it again."""

    problem: str = ""
    """Why it cannot be used. Empty for a good image; only then are the other fields filled."""
    file_sha256: str = ""
    sha256: str = ""
    """Of the decoded pixels."""
    width: int = 0
    height: int = 0
    conversions: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    phash: bytes = b""
    """Perceptual hash, 64 bits: the signs of the image's low frequencies."""
    thumb: bytes = b""
    """What the image looks like when it is shrunk: gray [32, 32], then blue and red difference [8, 8] each, then
    whether it is detailed: 1 if each pixel is the mean of three by three or more."""


def look_at(path: Path, *, background: str) -> Facts:
    """Decode and hash a file. A file that cannot be used raises no error: the reason is in `Facts.problem`."""
    try:
        decoded = decode(path, background=background)
        file_sha256 = digest_image_file(path)
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
        thumb=shrink(image),
    )


def shrink(image: Image.Image) -> bytes:
    """Return `Facts.thumb` of an image, from its YCbCr planes; colour has a quarter of the resolution."""
    small = image.resize((THUMB_PX, THUMB_PX), Image.Resampling.BOX).convert("YCbCr")
    gray, blue, red = small.split()
    planes = b"".join(x.tobytes() for x in (gray, *(c.reduce(THUMB_PX // COLOUR_PX) for c in (blue, red))))
    return planes + bytes([min(image.size) >= _DETAILED_PX])


def _doubts(image: Image.Image) -> list[str]:
    """What makes a readable image suspicious."""
    short, long = sorted(image.size)
    doubts = [f"only {image.width} x {image.height} pixels"] if short < _MIN_PX else []
    doubts += [f"{long / short:.0f} times as long as wide"] if long > _MAX_RATIO * short else []
    if all(low == high for low, high in image.getextrema()):  # type: ignore[misc]
        doubts.append("one colour only")
    return doubts
