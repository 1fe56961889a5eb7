"""HEIC photos, as phones write them, through a plugin that is imported only when the first one is met."""

from pathlib import Path
from typing import BinaryIO

from PIL import Image

from pipeline.data.image_file import open_image_file

_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
"""Kinds of HEIF: ISO/IEC 23008-12. AVIF has brands of its own, and Pillow reads it."""


def brands(start: bytes) -> tuple[bytes, ...]:
    """The kinds, the main one first, that the first bytes of a file say that it is; none if it is of another family.

    HEIC, AVIF, MOV and MP4 are of one family: ISO/IEC 14496-12.
    """
    if start[4:8] != b"ftyp":
        return ()
    end = min(int.from_bytes(start[:4], "big"), len(start))
    return (start[8:12], *(start[at : at + 4] for at in range(16, end - 3, 4)))


def is_heif(path: Path) -> bool:
    """Whether a file begins as HEIF does, and not as AVIF, which may call itself HEIF too."""
    with open_image_file(path) as file:
        found = brands(file.read(512))
    return not {b"avif", b"avis"} & {*found} and not {*_BRANDS}.isdisjoint(found)


def open_heif(file: BinaryIO) -> Image.Image:
    """Open a HEIF file. Its first picture is already upright and 8-bit when it is loaded.

    Raises ModuleNotFoundError if the plugin is not installed, and what Pillow raises for damaged files.
    """
    import pi_heif

    pi_heif.register_heif_opener()
    return Image.open(file, formats=("HEIF",))
