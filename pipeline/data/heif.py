"""HEIC photos, as phones write them, through a plugin that is imported only when the first one is met."""

from pathlib import Path

from PIL import Image

_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
"""Kinds of HEIF: ISO/IEC 23008-12. AVIF has brands of its own, and Pillow reads it."""


def is_heif(path: Path) -> bool:
    """Whether a file begins as HEIF does."""
    with path.open("rb") as file:
        start = file.read(12)
    return start[4:8] == b"ftyp" and start[8:12] in _BRANDS


def open_heif(path: Path) -> Image.Image:
    """Open a HEIF file. Its first picture is already upright and 8-bit when it is loaded.

    Raises ModuleNotFoundError if the plugin is not installed, and what Pillow raises for damaged files.
    """
    import pi_heif

    pi_heif.register_heif_opener()
    return Image.open(path, formats=("HEIF",))
