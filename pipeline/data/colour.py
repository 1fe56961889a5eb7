"""Convert any pixel format to 8-bit sRGB: deep gray is scaled, profiles are applied, alpha shows a background."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageColor

_STRIP_ROWS = 256
"""Rows that are scaled at once, so that little memory is needed beside the image itself."""


@dataclass
class Notes:
    """How an image was converted, and what is doubtful about it."""

    conversions: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)


def to_rgb(image: Image.Image, background: str, notes: Notes) -> Image.Image:
    """Convert an image to RGB as a viewer with colour management shows it over `background`; add to `notes`."""
    profile = image.info.get("icc_profile")
    if image.mode not in ("RGB", "L"):  # gray is not worth a note
        notes.conversions.append(f"{image.mode} to RGB")
    image = _to_eight_bits(image, notes)
    if profile:
        image = _to_srgb(image, profile, notes)
    if image.mode == "RGBA":
        shown = Image.new("RGB", image.size, ImageColor.getrgb(background)[:3])
        shown.paste(image, mask=image.getchannel("A"))
        return shown
    return image.convert("RGB")


def _to_eight_bits(image: Image.Image, notes: Notes) -> Image.Image:
    """Convert to L, RGB, RGBA or CMYK: profiles can be applied to these."""
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        return _scale_to_eight_bits(image, notes)
    if mode in ("LA", "La", "PA", "RGBa") or (mode != "RGBA" and "transparency" in image.info):
        notes.conversions += ["transparent colour"] if mode in ("L", "RGB") else []
        return image.convert("RGBA")
    if mode in ("L", "RGB", "RGBA", "CMYK"):
        return image
    return image.convert("L" if mode == "1" else "RGB")


def _scale_to_eight_bits(image: Image.Image, notes: Notes) -> Image.Image:
    """Scale 16-bit gray by its full range, and 32-bit gray, which has no standard range, by the image's own."""
    low, high = 0.0, 65535.0
    if not image.mode.startswith("I;16"):
        low, high = _finite_range(image)
        if image.mode == "I" and low >= 0 and high <= 65535:
            low, high = 0.0, 65535.0
        else:
            notes.conversions.append(f"scaled from its own range, {low:g} to {high:g}")
    scaled = np.zeros((image.height, image.width), np.uint8)
    for top, strip in _strips(image):
        share = (np.nan_to_num(strip, nan=low, posinf=high, neginf=low) - low) / max(high - low, 1e-300)
        scaled[top : top + len(strip)] = np.rint(share * 255)
    return Image.fromarray(scaled)


def _finite_range(image: Image.Image) -> tuple[float, float]:
    ends = [(s[np.isfinite(s)].min(), s[np.isfinite(s)].max()) for _, s in _strips(image) if np.isfinite(s).any()]
    return (float(min(a for a, _ in ends)), float(max(b for _, b in ends))) if ends else (0.0, 0.0)


def _strips(image: Image.Image) -> Iterator[tuple[int, NDArray[np.float64]]]:
    for top in range(0, image.height, _STRIP_ROWS):
        box = (0, top, image.width, min(top + _STRIP_ROWS, image.height))
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
