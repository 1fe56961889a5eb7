"""Convert any pixel format to 8-bit sRGB: deep gray is scaled, profiles are applied, alpha shows a background."""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageColor

_STRIP_ROWS = 256
"""Rows that are scaled at once, so that little memory is needed beside the image itself."""
_BITS = (8, 10, 12, 14, 16)
_VOID = (-9999.0, -32768.0, -2147483648.0)
"""What maps of heights and temperatures hold where there is no data, if their file does not say it."""
_HUGE = 1e30
"""Larger values stand for no data too: -3.4e38 is the lowest of 32 bits."""


@dataclass
class Notes:
    """How an image was converted, and what is doubtful about it."""

    conversions: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)


def to_rgb(image: Image.Image, background: str, notes: Notes, *, nodata: float | None = None) -> Image.Image:
    """Convert an image to RGB as a viewer with colour management shows it over `background`; add to `notes`.

    `nodata` is the value of deep gray that stands for no data, if the file names one.
    """
    profile = image.info.get("icc_profile")
    if image.mode not in ("RGB", "L"):  # gray is not worth a note
        notes.conversions.append(f"{image.mode} to RGB")
    image = _to_eight_bits(image, notes, nodata)
    if profile:
        image = _to_srgb(image, profile, notes)
    if image.mode == "RGBA":
        shown = Image.new("RGB", image.size, ImageColor.getrgb(background)[:3])
        shown.paste(image, mask=image.getchannel("A"))
        return shown
    return image.convert("RGB")


def _to_eight_bits(image: Image.Image, notes: Notes, nodata: float | None) -> Image.Image:
    """Convert to L, RGB, RGBA or CMYK: profiles can be applied to these."""
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        return _scale_to_eight_bits(image, notes, nodata)
    if mode in ("LA", "La", "PA", "RGBa") or (mode != "RGBA" and "transparency" in image.info):
        notes.conversions += ["transparent colour"] if mode in ("L", "RGB") else []
        return image.convert("RGBA")
    if mode in ("L", "RGB", "RGBA", "CMYK"):
        return image
    return image.convert("L" if mode == "1" else "RGB")


def _scale_to_eight_bits(image: Image.Image, notes: Notes, nodata: float | None) -> Image.Image:
    """Scale deep gray by a rule that looks at this image alone, so that training and prediction see the same.

    Values from 0 to 65535 fill the fewest bits, of 8, 10, 12, 14 and 16, that hold the highest: cameras and scanners
    with 12 bits write 16. Others have no standard range, and get the image's own. What stands for no data is left out
    of the range and black.
    """
    low, high, num_void = _value_range(image, nodata)
    if image.mode != "F" and low >= 0 and high <= 65535:
        bits = bits_for(high)
        low, high = 0.0, 2.0**bits - 1
        notes.conversions += [f"{bits}-bit values, scaled"] if bits < 16 else []
    else:
        notes.conversions.append(f"scaled from its own range, {low:g} to {high:g}")
    notes.conversions += [f"{num_void} pixels without data are black"] if num_void else []
    scaled = np.zeros((image.height, image.width), np.uint8)
    for top, strip in _strips(image):
        values = np.where(_is_void(strip, nodata), low, np.clip(strip, low, high))
        scaled[top : top + len(strip)] = np.rint((values - low) / max(high - low, 1e-300) * 255)
    return Image.fromarray(scaled)


def bits_for(highest: float) -> int:
    """The fewest bits, of those that cameras have, that hold this value."""
    return next(bits for bits in _BITS if highest < 2**bits)


def _value_range(image: Image.Image, nodata: float | None) -> tuple[float, float, int]:
    """The lowest and the highest value that stand for something, and the number of those that do not."""
    low, high, num_void = math.inf, -math.inf, 0
    for _, strip in _strips(image):
        void = _is_void(strip, nodata)
        num_void += int(void.sum())
        shown = strip[~void & np.isfinite(strip)]
        low, high = min(low, shown.min(initial=math.inf)), max(high, shown.max(initial=-math.inf))
    return (float(low), float(high), num_void) if low <= high else (0.0, 0.0, num_void)


def _is_void(values: NDArray[np.float64], nodata: float | None) -> NDArray[np.bool_]:
    void = np.isnan(values) | np.isin(values, _VOID) | (values < -_HUGE) | ((values > _HUGE) & np.isfinite(values))
    return void if nodata is None else void | (values == nodata)


def _strips(image: Image.Image) -> Iterator[tuple[int, NDArray[np.float64]]]:
    for top in range(0, image.height, _STRIP_ROWS):
        box = (0, top, image.width, min(top + _STRIP_ROWS, image.height))
        with np.errstate(invalid="ignore"):  # a signalling NaN
            yield top, np.asarray(image.crop(box), dtype=np.float64)


def _to_srgb(image: Image.Image, profile: bytes, notes: Notes) -> Image.Image:
    """Apply the embedded profile. One that cannot be used is ignored, with a flag."""
    try:
        name, transform = _transform(profile, image.mode)
        if transform is None:
            return image
        image = transform.apply(image)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        notes.flags.append("its colour profile is damaged or does not fit, and is ignored")
        return image
    notes.conversions.append(f"colour profile {name!r} to sRGB")
    return image


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """The profile's name, and the transform from it to sRGB; None if it is sRGB already."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    name = (source.profile.profile_description or "unnamed").strip()
    if name.lower().startswith("srgb"):
        return name, None
    wanted = mode if mode == "RGBA" else "RGB"
    return name, ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, wanted)
