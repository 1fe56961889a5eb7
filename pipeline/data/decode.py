"""The one decoder: a file to an upright RGB image, the same in training, evaluation and prediction.

It also says what the file is: what was converted on the way, and why a file that cannot be used is rejected.
"""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

BICUBIC = Image.Resampling.BICUBIC


@dataclass(frozen=True)
class Framing:
    """How an image of any shape is brought to the network's size."""

    image_size: int
    """Pixels."""
    fit: str
    """`zoom`, `pad` or `squish`."""
    background: str
    margin: float = 0.0
    """Share of `image_size` left free at each side."""


class DecodeError(ValueError):
    """A file that is no readable image."""


@dataclass(frozen=True)
class Decoded:
    """An upright RGB image, and what had to be done to get it."""

    image: Image.Image
    conversions: tuple[str, ...]


def decode(path: Path, *, background: str) -> Decoded:
    """Read an image whole: turn it upright, put alpha over `background`, scale 16 bits to 8, take the first frame.

    Raises DecodeError with the reason.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
            with Image.open(path) as file:
                done = [f"first of {frames} frames"] if (frames := getattr(file, "n_frames", 1)) > 1 else []
                file.load()
                orientation = file.getexif().get(0x0112, 1)
                image: Image.Image = ImageOps.exif_transpose(file) if orientation in range(2, 9) else file.copy()
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as e:
        raise DecodeError(_reason(path, e)) from e
    if orientation in range(2, 9):
        done.append(f"turned upright (EXIF orientation {orientation})")
    if image.mode != "RGB":
        done += [f"{image.mode} to RGB"] if image.mode != "L" else []  # gray stays what it was
        image = _to_rgb(image, background)
    return Decoded(image, tuple(done))


def fit_image(image: Image.Image, framing: Framing) -> Image.Image:
    """Bring an image to [image_size, image_size], as `framing` says."""
    margin = round(framing.margin * framing.image_size)
    size = (framing.image_size - 2 * margin,) * 2
    fill = ImageColor.getrgb(framing.background)
    if framing.fit == "squish":
        fitted = image.resize(size, BICUBIC)
    elif framing.fit == "pad":
        fitted = ImageOps.pad(image, size, BICUBIC, color=fill)
    else:
        fitted = ImageOps.fit(image, size, BICUBIC)
    return ImageOps.expand(fitted, margin, fill) if margin else fitted


def hash_pixels(image: Image.Image) -> str:
    """The SHA-256 of an image's size and pixels."""
    digest = hashlib.sha256(f"{image.mode} {image.width} {image.height} ".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def _to_rgb(image: Image.Image, background: str) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _scale_to_8_bits(image).convert("RGB")
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        rgba = image.convert("RGBA")
        under = Image.new("RGBA", rgba.size, (*ImageColor.getrgb(background)[:3], 255))
        return Image.alpha_composite(under, rgba).convert("RGB")
    return image.convert("RGB")


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    """16-bit gray by its full range; 32-bit by its own, for it has no agreed one. Never clipped."""
    pixels = np.asarray(image, dtype=np.float64)
    if image.mode.startswith("I;16") or (image.mode == "I" and pixels.min() >= 0 and pixels.max() <= 65535):
        scaled = pixels / 257.0
    else:
        low, high = float(pixels.min()), float(pixels.max())
        scaled = (pixels - low) * (255.0 / (high - low)) if high > low else np.zeros_like(pixels)
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "empty file" if path.stat().st_size == 0 else "not an image"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "too many pixels"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    return f"damaged: {error}" if str(error) else f"damaged: {type(error).__name__}"
