"""The one decoder: from a file to an upright sRGB image, the same in training, evaluation and prediction.

It also reports what was converted, what is doubtful about a file, and why a file cannot be used.
"""

import ctypes
import errno
import hashlib
import logging
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

from pipeline.data.colour import Notes, to_rgb
from pipeline.data.deep import is_deep_colour, scale_deep_colour
from pipeline.data.formats import DEEP_PLANAR, RAW, identify, is_deep_planar, is_raw, nodata_of, num_bands
from pipeline.data.heif import is_heif, open_heif
from pipeline.data.image_file import NoImageFileError, open_image_file

MAX_PIXELS = 89_478_485
"""Larger images are rejected: decoding takes up to 9 bytes per pixel, and a file of a few KB can claim any size.

A JPEG may be larger: it is decoded at half its size, which needs no more memory. A progressive JPEG may not, because
all its coefficients must be in memory at once.
"""
MAX_JPEG_PIXELS = 134_217_728
"""Larger JPEGs are rejected too, since not all progressive ones are marked: 6 bytes per pixel are then below 1 GB."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""Formats that are read, beside HEIC; JPEG includes MPO. Others of Pillow's run programs or accept any file."""
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "HEIF": (".heic", ".heif", ".heics", ".heifs", ".hif"),
}
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow and libtiff write to standard error, from every process. What matters of it is in the ledger.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())
with suppress(OSError, AttributeError):  # a Pillow without libtiff
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Framing:
    """How an image of any shape is brought to the network's size."""

    image_size: int
    """Height and width in pixels."""
    fit: str
    """`zoom`, `pad` or `squish`."""
    background: str
    """Colour of padding and margin, and behind transparent pixels, by CSS name or #rrggbb."""
    margin: float = 0.0
    """Share of `image_size` that is left free at each side; if negative, that is cut off."""
    interpolation: str = "bilinear"
    """The filter that reduces images: `bilinear`, `bicubic`, or another by Pillow's name."""

    @property
    def margin_px(self) -> int:
        return round(self.margin * self.image_size)

    @property
    def inner_px(self) -> int:
        """Side of the square that the image itself fills, before a negative margin is cut off."""
        return self.image_size - 2 * self.margin_px


class DecodeError(ValueError):
    """A file cannot be decoded as an image. The message is the reason for the ledger."""


@dataclass(frozen=True)
class DecodedImage:
    """An upright RGB image, how it was converted, and what is doubtful about it."""

    image: Image.Image
    conversions: tuple[str, ...]
    flags: tuple[str, ...]


Held = dict[int | tuple[int, int] | None, DecodedImage]
"""What was decoded of one file, over one background: by `at_least_px`, and by the size that the decoder gave."""


def decode(path: Path, *, background: str, at_least_px: int | None = None, held: Held | None = None) -> DecodedImage:
    """Read an image: upright, 8-bit sRGB, transparent pixels over `background`, the first frame if there are several.

    With `at_least_px` a JPEG may be decoded at a half, a quarter or an eighth of its size, as long as its short side
    keeps that many pixels. One with more than `MAX_PIXELS` always is. What is in `held` is not decoded again, and what
    is decoded is added to it. Raises DecodeError with the reason if the file cannot be decoded.
    """
    held = {} if held is None else held
    if at_least_px not in held:
        held[at_least_px] = _decode(path, background, at_least_px, held)
    return held[at_least_px]


def _decode(path: Path, background: str, at_least_px: int | None, held: Held) -> DecodedImage:
    notes = Notes()
    try:
        with open_image_file(path) as content, _open(content, path) as file:
            _check_header(file, path, notes)
            _reduce(file, at_least_px)
            if (size := file.size) in held:
                return held[size]
            deep = is_deep_colour(file)
            file.load()
            if deep:
                scale_deep_colour(file, path, notes)
            image = to_rgb(_turn_upright(file, notes), background, notes, nodata=nodata_of(_tags(file)))
    except DecodeError:
        raise
    except Exception as error:  # for damaged files Pillow raises IndexError, struct.error, OverflowError, ...
        raise DecodeError(_reason(path, error)) from error
    held[size] = DecodedImage(image, tuple(notes.conversions), tuple(notes.flags))
    return held[size]


def decode_framed(path: Path, framing: Framing, held: Held | None = None) -> Image.Image:
    """Read the plain view of a file, `image_size` pixels square: what the model sees when nothing is augmented."""
    image = decode(path, background=framing.background, at_least_px=framing.inner_px, held=held).image
    return fit_image(image, framing)


def fit_image(image: Image.Image, framing: Framing) -> Image.Image:
    """Bring an image to `image_size` pixels square."""
    inner = fit_inner(image, framing)
    return add_margin(inner, framing) if framing.margin_px >= 0 else ImageOps.crop(inner, -framing.margin_px)


def fit_inner(image: Image.Image, framing: Framing) -> Image.Image:
    """Bring an image to `inner_px` pixels square: `fit_image` without the margin."""
    size = (framing.inner_px, framing.inner_px)
    scales = (framing.inner_px / image.width, framing.inner_px / image.height)
    if framing.fit == "squish":
        return image.resize(size, filter_for(max(scales), framing))
    if framing.fit == "pad":
        return ImageOps.pad(image, size, filter_for(min(scales), framing), color=ImageColor.getrgb(framing.background))
    return ImageOps.fit(image, size, filter_for(max(scales), framing))


def filter_for(scale: float, framing: Framing) -> Image.Resampling:
    """The filter to scale an image by `scale`: bicubic to enlarge it, that of `framing` to reduce it, antialiased.

    Torchvision trained and measured most of its weights with bilinear, which is also faster. Bicubic is smoother.
    """
    return Image.Resampling.BICUBIC if scale > 1 else Image.Resampling[framing.interpolation.upper()]


def add_margin(inner: Image.Image, framing: Framing) -> Image.Image:
    """Add the margin around an image, if it is positive."""
    if framing.margin_px <= 0:
        return inner
    return ImageOps.expand(inner, framing.margin_px, ImageColor.getrgb(framing.background))


def hash_pixels(image: Image.Image) -> str:
    """SHA-256 of an image's mode, size and pixels."""
    digest = hashlib.sha256(f"{image.mode} {image.width} {image.height} ".encode())
    for top in range(0, image.height, 256):
        digest.update(image.crop((0, top, image.width, min(top + 256, image.height))).tobytes())
    return digest.hexdigest()


def _open(content: BinaryIO, path: Path) -> Image.Image:
    try:
        return Image.open(content, formats=FORMATS)
    except UnidentifiedImageError:
        if not is_heif(path):
            raise
        return open_heif(content)


def _check_header(file: Image.Image, path: Path, notes: Notes) -> None:
    """Check the image's size and format before anything is decoded."""
    suffix, kind, pixels = path.suffix.lower(), file.format or "", file.width * file.height
    if kind == "TIFF" and (is_raw(path, _tags(file)) or is_deep_planar(_tags(file))):
        what = RAW if is_raw(path, _tags(file)) else DEEP_PLANAR
        raise DecodeError(f"not an image that is read but {what}")
    if pixels > MAX_PIXELS:
        if kind not in ("JPEG", "MPO") or "progressive" in file.info or pixels > MAX_JPEG_PIXELS:
            raise DecodeError(_too_large(pixels))
        notes.conversions.append(f"read at half its size because it has {pixels / 1e6:.0f} million pixels")
    if suffix in {s for of_kind in SUFFIXES.values() for s in of_kind} and suffix not in SUFFIXES[kind]:
        notes.flags.append(f"named {suffix}, but {kind}")
    if (bands := num_bands(_tags(file))) > (shown := len(file.getbands())):
        notes.conversions.append(f"the first {shown} of {bands} bands")
    if getattr(file, "is_animated", False):
        notes.conversions.append("the first of several frames")


def _tags(file: Image.Image) -> Mapping[int, object]:
    """The tags of a TIFF file; none of others."""
    tags: Mapping[int, object] = getattr(file, "tag_v2", {})
    return tags


def _reduce(file: Image.Image, at_least_px: int | None) -> None:
    """Let the JPEG decoder reduce the image, as far as the caller allows or memory requires."""
    if file.width * file.height > MAX_PIXELS:
        half = min(file.size) // 2
        at_least_px = half if at_least_px is None else min(at_least_px, half)
    if at_least_px is not None:
        file.draft(None, (at_least_px, at_least_px))


def _turn_upright(file: Image.Image, notes: Notes) -> Image.Image:
    try:
        orientation = file.getexif().get(_ORIENTATION, 1)
    except Exception:
        notes.flags.append("its EXIF data is damaged and ignored")
        return file
    if orientation not in _UPRIGHT:
        return file
    notes.conversions.append(f"turned upright (EXIF orientation {orientation})")
    return file.transpose(_UPRIGHT[orientation])


def _too_large(pixels: int) -> str:
    return f"{pixels / 1e6:.0f} million pixels, more than {MAX_PIXELS / 1e6:.0f}: scale it down"


def _reason(path: Path, error: Exception) -> str:
    match error:
        case NoImageFileError():
            return str(error)
        case UnidentifiedImageError():
            return identify(path)
        case ModuleNotFoundError(name="pi_heif"):
            return "HEIC: `pip install pi-heif` to read it, or convert it to JPEG"
        case Image.DecompressionBombError():
            return _too_large(2 * MAX_PIXELS).replace(":", " by far:")
        case PermissionError():
            return "no permission to read it"
        case FileNotFoundError():
            return "a link to nowhere" if path.is_symlink() else "no such file"
        case MemoryError():
            return "not enough memory to decode it"
        case OSError(errno=errno.ELOOP):
            return "a link to itself"
        case OSError(errno=int(), strerror=str(text)):
            return f"cannot be read: {text}"
    return f"damaged: {str(error).strip() or type(error).__name__}"
